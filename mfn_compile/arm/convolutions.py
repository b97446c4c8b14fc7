"""Quantized convolutions as kernel calls: one layer at once, or a block of them strip by strip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from mfn_compile.arm.calls import Array, Call, Constant, Place, padded, stored_channels
from mfn_compile.arm.graph import Conv, IntegerGraph
from mfn_compile.arm.kernels import depthwise, gemm, matrix, matrix_ending
from mfn_compile.arm.kernels.epilogue import Epilogue, constants_of, shape_of
from mfn_compile.arm.kernels.finishing import is_short
from mfn_compile.arm.kernels.settled import settled
from mfn_compile.arm.kernels.simple import Kept, Patches
from mfn_compile.arm.layouts import Part, parts_of, pixel_bytes
from mfn_compile.arm.schedules import Schedule, Schedules
from mfn_compile.arm.strips import Sweeps, pieces, schedule
from mfn_compile.errors import BadInputError

MAX_WINDOW = 64  # taps of a depthwise window, unrolled in its kernel
Operand = Place | Constant


@dataclass
class Pool:
    """Kernels, their schedules and constants that the layers of a program share."""

    kernels: dict[str, Callable[[], Any]] = field(default_factory=dict)
    schedules: dict[str, Schedule] = field(default_factory=dict)
    constants: list[Array] = field(default_factory=list)

    def constant(self, array: Array) -> Constant:
        """An operand that holds the array."""
        self.constants.append(np.ascontiguousarray(array))
        return Constant(len(self.constants) - 1)

    def kernel(self, name: str, build: Callable[[], Any]) -> str:
        """The symbol `name`, known from now on."""
        self.kernels.setdefault(name, build)
        return name


@dataclass(frozen=True)
class Rows:
    """Where pixels lie: a whole tensor, or as many rows of it as a buffer has, round and round.

    Attributes:
        buffer: name of the tensor or scratch buffer.
        round: pixels of the buffer.
        pixel: bytes.
    """

    buffer: str
    round: int
    pixel: int

    def at(self, pixel: int) -> Place:
        """Place of a pixel of the tensor."""
        return Place(self.buffer, pixel % self.round * self.pixel)


@dataclass(frozen=True, eq=False)
class Windowed:
    """A layer that makes whole rows from windows of its input.

    `front` and `behind` are its operands between input and result, and behind the result.
    """

    layer: str
    kind: str
    part: Part
    kernel: Patches | depthwise.Depthwise
    front: tuple[Operand, ...]
    behind: tuple[Place, ...] = ()
    once: bool = True  # every row of the input is read once, from top to bottom
    chosen: Schedule | None = None

    def calls(
        self, pool: Pool, made: Sequence[int], source: Rows, target: Rows
    ) -> list[list[Call]]:
        """Calls of every strip."""
        kernel, sweep = self.kernel, self.part.sweep
        rounds = (target.round,) if isinstance(kernel, Patches) else ()
        strips = [pieces(a, b, b, *rounds) if a < b else [] for a, b in pairwise((0, *made))]
        count = sum(map(len, strips))
        kept = (source.round // kernel.width, target.round // sweep.width)
        if count > 1 or kept != (kernel.height, sweep.rows):
            kernel = replace(kernel, strip=Kept(*kept, count))
        name = pool.kernel(kernel.name, _row_builder(kernel))
        if self.chosen is not None:
            pool.schedules[name] = self.chosen
        return [[self._call(name, *part, source, target) for part in strip] for strip in strips]

    def _call(self, name: str, begin: int, end: int, source: Rows, target: Rows) -> Call:
        out = target.at(begin if isinstance(self.kernel, Patches) else 0)
        operands = (source.at(0), *self.front, out, *self.behind)
        grain = self.part.sweep.grain
        span = (-(-begin // grain), -(-end // grain))
        return Call(name, operands, span, self.layer, self.kind)


@dataclass(frozen=True, eq=False)
class Multiplied:
    """A layer that is a matrix product, a pixel a row.

    `shape` has the rows of a tile; the layer's `m` and calls are set for each of its kernels.
    """

    layer: str
    kind: str
    part: Part
    shape: gemm.Gemm
    tile: gemm.Tile
    lookup: Schedules
    front: tuple[Operand, ...]
    skip: Rows | None
    behind: tuple[Place, ...] = ()
    once: bool = True

    def calls(
        self, pool: Pool, made: Sequence[int], source: Rows, target: Rows
    ) -> list[list[Call]]:
        """Calls of every strip: of full tiles, and of the rows that are left at the end."""
        grained, rounds = self.part.sweep.grained, (source.round, target.round)
        strips = [pieces(a, b, grained, *rounds) if a < b else [] for a, b in pairwise((0, *made))]
        parts = [part for strip in strips for part in strip]
        full = sum(end <= grained for _, end in parts)
        spare = self.part.sweep.pixels - grained
        kernels = {
            True: replace(self.shape, m=grained, calls=full),
            False: replace(self.shape, m=spare, rows=spare, fours=0),
        }
        return [
            [self._call(pool, kernels[end <= grained], begin, end, source, target)
             for begin, end in strip]
            for strip in strips
        ]  # fmt: skip

    def _call(
        self, pool: Pool, kernel: gemm.Gemm, begin: int, end: int, source: Rows, target: Rows
    ) -> Call:
        chosen = self.lookup.of(kernel.key)
        name = pool.kernel(kernel.name, lambda: gemm.build(kernel, self.tile, chosen.knobs))
        pool.schedules[name] = chosen
        skip = [] if self.skip is None else [self.skip.at(begin)]
        operands = (source.at(begin), *self.front, *skip, target.at(begin))
        span = (0, (end - begin) // kernel.rows)
        return Call(name, operands, span, self.layer, self.kind)


Stage = Windowed | Multiplied


@dataclass(frozen=True)
class Chain:
    """What a block of convolutions does.

    Attributes:
        calls: in order.
        scratch: bytes of buffers that are needed meanwhile.
        in_place: each pixel of the block's input is read before the result's same pixel is made.
    """

    calls: tuple[Call, ...]
    scratch: dict[str, int]
    in_place: bool


class Convolutions:
    """Makes the calls; kernels and constants go to `pool`."""

    def __init__(self, graph: IntegerGraph, schedules: Schedules, pool: Pool) -> None:
        self._graph, self._lookup, self._pool = graph, schedules, pool
        self._tile = gemm.TILES[schedules.isa]

    def chain(self, nodes: Sequence[Conv], rows: int) -> Chain:
        """A block: each of the `nodes` reads the one before it.

        Args:
            rows: of the last node's result that are made at a time.

        Raises:
            BadInputError: a layer has a shape that no kernel takes.
        """
        stages = [stage for node in nodes for stage in self._stages(node)]
        plan = schedule([stage.part.sweep for stage in stages], rows)
        buffers = [self._whole(nodes[0].input)]
        scratch: dict[str, int] = {}
        for stage, kept in zip(stages, plan.kept, strict=True):
            name = stage.part.result
            if stage is not stages[-1]:
                name = f"{name}%strip" if name in self._graph.tensors else name
                scratch[name] = kept * stage.part.sweep.width * stage.part.pixel
            for place in stage.behind:
                scratch[place.buffer] = stage.part.ring_bytes(len(plan.made[0]))
            buffers.append(Rows(name, kept * stage.part.sweep.width, stage.part.pixel))
        strips = [
            stage.calls(self._pool, made, source, target)
            for stage, made, (source, target) in zip(
                stages, plan.made, pairwise(buffers), strict=True
            )
        ]
        calls = tuple(
            call for strip in zip(*strips, strict=True) for part in strip for call in part
        )
        return Chain(calls, scratch, _in_place(stages, plan))

    def _whole(self, name: str) -> Rows:
        tensor = self._graph.tensors[name]
        return Rows(name, tensor.height * tensor.width, pixel_bytes(self._graph, name))

    def _stages(self, node: Conv) -> list[Stage]:
        node = settled(node)
        *patches, last = parts_of(self._graph, node, self._tile.rows)
        if node.depthwise:
            return [self._depthwise(node, last)]
        if patches:
            return [self._patches(node, patches[0]), self._product(node, last, patches[0].pixel)]
        return [self._product(node, last, pixel_bytes(self._graph, node.input))]

    def _epilogue(self, node: Conv) -> tuple[Epilogue, list[Constant]]:
        vectors = self._tile.isa is not None
        shape = shape_of(node, padded(len(node.bias)), vectors=vectors)
        constants = constants_of(node, shape)
        if self._tile.isa == "i8mm" and not node.depthwise and is_short(shape):
            constants |= {n: matrix.doubled(constants[n]) for n in matrix_ending.DOUBLED}
        return shape, [self._pool.constant(constants[name]) for name in shape.operands()]

    def _depthwise(self, node: Conv, part: Part) -> Windowed:
        _check_window(node)
        shape, constants = self._epilogue(node)
        tensor = self._graph.tensors[node.input]
        isa = self._tile.isa
        plain = depthwise.Depthwise(
            tensor.height,
            tensor.width,
            node.kernel,
            node.stride,
            node.padding,
            shape,
            groups=() if isa is None else depthwise.groups_of(node.weight),
        )
        chosen = self._lookup.of(plain.key)
        kernel = depthwise.scheduled(plain, chosen.knobs, dots=isa in ("dotprod", "i8mm"))
        if kernel.strips:
            part = part.in_strips(int(np.prod(kernel.ring)), 2 if kernel.paired else 1)
        weights = self._pool.constant(depthwise.pack(kernel, node.weight))
        missing = shape.channels - len(node.pad_value)
        pad = self._pool.constant(np.pad(node.pad_value, (0, missing)))
        skip = [Place(node.residual_input)] if node.residual_input else []
        return Windowed(
            node.name,
            "depthwise",
            part,
            kernel,
            front=(weights, pad, *constants, *skip),
            behind=(Place(f"{node.name}%ring"),),
            chosen=chosen,
            once=kernel.ringed,
        )

    def _patches(self, node: Conv, part: Part) -> Windowed:
        """The windows of a dense convolution as rows of a matrix."""
        tensor, out = self._graph.tensors[node.input], self._graph.tensors[node.output]
        kernel = Patches(
            tensor.height,
            tensor.width,
            stored_channels(self._graph, tensor),
            tensor.channels,
            node.kernel,
            node.stride,
            node.padding,
            (out.height, out.width),
        )
        pad = (self._pool.constant(node.pad_value),)
        return Windowed(node.name, "dense", part, kernel, pad, once=False)

    def _product(self, node: Conv, part: Part, depth: int) -> Multiplied:
        shape, constants = self._epilogue(node)
        outputs = node.weight.shape[0]
        flat = node.weight.reshape(outputs, -1)
        flat = np.pad(flat, ((0, shape.channels - outputs), (0, depth - flat.shape[1])))
        weights = self._pool.constant(self._tile.pack(flat))
        rows = self._tile.rows
        fours = gemm.fours_fit(flat) if self._tile.isa == "neon" and is_short(shape) else 0
        return Multiplied(
            node.name,
            "dense",
            part,
            gemm.Gemm(0, depth, rows, gemm.pairs_fit(flat), shape, fours=fours),
            self._tile,
            self._lookup,
            front=(weights, *constants),
            skip=self._whole(node.residual_input) if node.residual_input else None,
        )


def _in_place(stages: Sequence[Stage], plan: Sweeps) -> bool:
    first = stages[0]
    ahead = zip(plan.made[0], plan.made[-1], strict=True)
    return first.once and all(first.part.sweep.needs(mine) >= last for mine, last in ahead)


def _row_builder(kernel: Patches | depthwise.Depthwise) -> Callable[[], Any]:
    return kernel.build if isinstance(kernel, Patches) else lambda: depthwise.build(kernel)


def _check_window(node: Conv) -> None:
    height, width = node.kernel
    if height * width > MAX_WINDOW or (any(node.padding) and node.stride[0] > height):
        raise BadInputError(
            f"No depthwise kernel for a {height}x{width} window with stride {node.stride}",
            where=node.name,
            why=f"Windows have at most {MAX_WINDOW} taps, and strides do not skip padded rows",
            hint="Compile for an intel target",
        )
