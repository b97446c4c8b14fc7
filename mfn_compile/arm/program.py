"""From the integer graph to kernel calls: what is called, on which tensors, with which constants.

Activations lie in memory as [height, width, channels padded to 16], the input image alone has its
3 channels. A dense convolution that is no pointwise one becomes patches and a matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import singledispatchmethod
from typing import Any

import numpy as np

from mfn_compile.arm.blocks import blocks, strips_of
from mfn_compile.arm.calls import (
    IMAGE,
    Array,
    Call,
    Constant,
    Place,
    Program,
    Step,
    has_quantized_input,
    padded,
    stored_channels,
)
from mfn_compile.arm.convolutions import Convolutions, Pool
from mfn_compile.arm.graph import (
    Add,
    Conv,
    Dequantize,
    FloatAdd,
    FloatConv,
    Input,
    IntegerGraph,
    Lookup,
    Node,
    Normalize,
    Quantize,
    Tensor,
    inputs_of,
)
from mfn_compile.arm.kernels.epilogue import residual_constants, residual_width
from mfn_compile.arm.kernels.floating import FloatAddition, FloatConvolution, UnitLength
from mfn_compile.arm.kernels.simple import (
    Addition,
    InputTable,
    TableLookup,
    ToFloats,
    ToIntegers,
)
from mfn_compile.arm.schedules import Schedules
from mfn_compile.errors import BadInputError

__all__ = [
    "IMAGE",
    "Call",
    "Constant",
    "Place",
    "Program",
    "Step",
    "has_quantized_input",
    "make_program",
    "padded",
    "stored_channels",
]
UNFUSED: Mapping[str, int] = {}  # every layer by itself


def make_program(
    graph: IntegerGraph, schedules: Schedules, strips: Mapping[str, int] | None = None
) -> Program:
    """Choose kernels and pack the weights.

    Args:
        schedules: of the instruction set (a key of `gemm.TILES`) and the core.
        strips: how many rows of the result of a block (see `blocks`) are computed at a time, by
            the name of its first layer; 0, or a block that is not named, computes one layer after
            the other. None takes what was tuned, else what `default_rows` chooses.

    Raises:
        BadInputError: a layer has a shape that no kernel takes.
        ValueError: `strips` names no block of the graph, or fewer than 0 rows.
    """
    chosen = strips_of(graph, schedules) if strips is None else strips
    return _Builder(graph, schedules, chosen).program()


class _Builder:
    def __init__(
        self, graph: IntegerGraph, schedules: Schedules, strips: Mapping[str, int]
    ) -> None:
        self._graph, self._pool = graph, Pool()
        self._convolutions = Convolutions(graph, schedules, self._pool)
        self._fused = _fused(graph, strips)
        self._last_use = {name: i for i, node in enumerate(graph.nodes) for name in inputs_of(node)}

    def program(self) -> Program:
        for node in self._graph.nodes:
            _check_reader(node, self._image_tensor())
        steps = tuple(self._steps())
        names = [step.writes for step in steps]
        sizes = {name: self._rows(name) * self._stored(name) * self._width(name) for name in names}
        kernels, constants = self._pool.kernels, tuple(self._pool.constants)
        return Program(self._graph, steps, kernels, constants, sizes, self._pool.schedules)

    def _steps(self) -> Iterator[Step]:
        nodes = iter(self._graph.nodes)
        for node in nodes:
            if node.name in self._fused:
                block, rows = self._fused[node.name]
                yield self._chain(block, rows)
                for _ in block[1:]:
                    next(nodes)
            else:
                yield self._step(node)

    def _tensor(self, name: str) -> Tensor:
        return self._graph.tensors[name]

    def _stored(self, name: str) -> int:
        return stored_channels(self._graph, self._tensor(name))

    def _rows(self, name: str) -> int:
        tensor = self._tensor(name)
        return tensor.height * tensor.width

    def _width(self, name: str) -> int:
        return 4 if self._tensor(name).dtype == "float32" else 1

    def _step_of(self, node: Node, kind: str, kernel: Any, *operands: Place | Constant) -> Step:
        """One call that reads what the node reads; the result is its last operand."""
        name = self._pool.kernel(kernel.name, kernel.build)
        operands = (*operands, Place(node.output))
        call = Call(name, operands, (0, kernel.units), node.name, kind)
        return Step(node.name, kind, (call,), inputs_of(node), node.output)

    def _reusable(self, node: Any, name: str) -> str | None:
        """`name` where `node` is its last reader and it is as large as the result."""
        tensor, result = self._tensor(name), self._tensor(node.output)
        last = self._graph.nodes[self._last_use[name]] is node
        same = (tensor.height, tensor.width, tensor.channels, tensor.dtype) == (
            result.height,
            result.width,
            result.channels,
            result.dtype,
        )
        return name if last and same and name != self._image_tensor() else None

    def _image_tensor(self) -> str:
        first = self._graph.nodes[0]
        assert isinstance(first, Input)
        return first.output

    @singledispatchmethod
    def _step(self, node: Any) -> Step:
        raise TypeError(f"no kernel for {type(node).__name__}")

    @_step.register
    def _(self, node: Input) -> Step:
        tensor = self._tensor(node.output)
        kernel = InputTable(tensor.height * tensor.width, node.channels, tensor.dtype)
        table = self._pool.constant(node.table)
        return self._step_of(node, "other", kernel, Place(IMAGE), table)

    @_step.register
    def _(self, node: Conv) -> Step:
        return self._chain((node,), self._tensor(node.output).height)

    def _chain(self, nodes: Sequence[Conv], rows: int) -> Step:
        """Convolutions of which each reads the one before it."""
        chain = self._convolutions.chain(nodes, rows)
        first, last = nodes[0], nodes[-1]
        skip = last.residual_input
        replaces = None
        if skip and (skip != first.input or (chain.in_place and len(nodes) > 1)):
            replaces = self._reusable(last, skip)
        reads = tuple(dict.fromkeys((first.input, *((skip,) if skip else ()))))
        return Step(
            first.name if first is last else f"{first.name} to {last.name}",
            chain.calls[-1].kind,
            chain.calls,
            reads,
            last.output,
            chain.scratch,
            replaces,
        )

    @_step.register
    def _(self, node: Add) -> Step:
        channels = self._stored(node.output)
        width = residual_width(node.residual, channels)
        tables = residual_constants(node.residual, width)
        bent = node.residual.output.negative is not None
        kernel = Addition(self._rows(node.output), channels, width, bent)
        constants = [self._pool.constant(table) for table in tables]
        return self._step_of(node, "other", kernel, Place(node.a), Place(node.b), *constants)

    @_step.register
    def _(self, node: Lookup) -> Step:
        channels = self._stored(node.output)
        table = np.zeros((channels, 256), np.int8)
        table[: self._tensor(node.output).channels] = node.table
        kernel = TableLookup(self._rows(node.output), channels)
        return self._step_of(node, "other", kernel, Place(node.input), self._pool.constant(table))

    @_step.register
    def _(self, node: Dequantize) -> Step:
        kernel = ToFloats(self._rows(node.output), self._stored(node.output))
        rows = [node.zero_point.astype(np.float32), node.scale]
        parameters = self._parameters(node.output, rows)
        return self._step_of(node, "float", kernel, Place(node.input), parameters)

    @_step.register
    def _(self, node: Quantize) -> Step:
        kernel = ToIntegers(self._rows(node.output), self._stored(node.output))
        zero = node.zero_point.astype(np.float32)
        parameters = self._parameters(node.output, [node.scale, -128 - zero, 127 - zero, zero], 1)
        return self._step_of(node, "float", kernel, Place(node.input), parameters)

    @_step.register
    def _(self, node: FloatConv) -> Step:
        tensor, out = self._tensor(node.input), self._tensor(node.output)
        kernel = FloatConvolution(
            tensor.height,
            tensor.width,
            self._stored(node.input),
            self._stored(node.output),
            node.depthwise,
            node.kernel,
            node.stride,
            node.padding,
            (out.height, out.width),
        )
        slope = np.ones_like(node.bias) if node.slope is None else node.slope
        parameters = self._parameters(node.output, [node.bias, slope, node.low, node.high])
        weights = self._pool.constant(kernel.pack(node.weight))
        return self._step_of(node, "float", kernel, Place(node.input), weights, parameters)

    @_step.register
    def _(self, node: FloatAdd) -> Step:
        kernel = FloatAddition(self._rows(node.output), self._stored(node.output))
        return self._step_of(node, "float", kernel, Place(node.a), Place(node.b))

    @_step.register
    def _(self, node: Normalize) -> Step:
        kernel = UnitLength(self._tensor(node.output).channels, node.epsilon)
        return self._step_of(node, "float", kernel, Place(node.input))

    def _parameters(self, name: str, rows: list[Array], fill: float = 0) -> Constant:
        missing = self._stored(name) - self._tensor(name).channels
        table = np.stack([row.astype(np.float32) for row in rows])
        return self._pool.constant(np.pad(table, ((0, 0), (0, missing)), constant_values=fill))


def _check_reader(node: Node, image: str) -> None:
    """Only dense convolutions read the first tensor, whose 3 channels are not padded."""
    if image not in inputs_of(node) or (
        isinstance(node, Conv | FloatConv)
        and not node.depthwise
        and not (isinstance(node, Conv) and node.residual_input == image)
    ):
        return
    raise BadInputError(
        "The first layer is not a dense convolution",
        where=node.name,
        hint="Quantize a MobileFaceNet, or compile for an intel target",
    )


def _fused(
    graph: IntegerGraph, strips: Mapping[str, int]
) -> dict[str, tuple[tuple[Conv, ...], int]]:
    """Blocks to compute strip by strip, with their rows, by the name of the first layer."""
    known = {block[0].name: block for block in blocks(graph)}
    wrong = [name for name, rows in strips.items() if name not in known or rows < 0]
    if wrong:
        raise ValueError(f"no block of the network begins with {wrong[0]!r}, or its rows are < 0")
    return {name: (known[name], rows) for name, rows in strips.items() if rows}
