"""From the integer graph to kernel calls: what is called, on which tensors, with which constants.

Activations lie in memory as [height, width, channels padded to 16], the input image alone has its
3 channels. A dense convolution that is no pointwise one becomes patches and a matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import singledispatchmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from mfn_compile.arm.kernels import depthwise, gemm
from mfn_compile.arm.kernels.epilogue import (
    Epilogue,
    constants_of,
    residual_constants,
    residual_width,
    shape_of,
)
from mfn_compile.arm.kernels.floating import FloatAddition, FloatConvolution, UnitLength
from mfn_compile.arm.kernels.knobs import Knobs
from mfn_compile.arm.kernels.settled import settled
from mfn_compile.arm.kernels.simple import (
    LANES,
    Addition,
    InputTable,
    Patches,
    TableLookup,
    ToFloats,
    ToIntegers,
)
from mfn_compile.arm.schedules import Schedule, Schedules
from mfn_compile.errors import BadInputError

IMAGE = "%image"  # the caller's uint8 RGB
MAX_WINDOW = 64  # taps of a depthwise window, unrolled in its kernel
Array = NDArray[Any]


@dataclass(frozen=True)
class Place:
    """An operand in memory: `offset` bytes into a tensor or scratch buffer of the workspace."""

    buffer: str
    offset: int = 0


@dataclass(frozen=True)
class Constant:
    """An operand in .rodata, by its index in `Program.constants`."""

    index: int


@dataclass(frozen=True)
class Call:
    """One call of a kernel, by its symbol, for the units of work in `span` (begin, end)."""

    kernel: str
    operands: tuple[Place | Constant, ...]
    span: tuple[int, int]


@dataclass(frozen=True)
class Step:
    """What one node of the graph does.

    Attributes:
        layer: name of the node.
        kind: "dense", "depthwise" (both int8), "float", or "other".
        calls: kernels in order.
        reads: tensors that must be alive.
        writes: the tensor that is made.
        scratch: buffers needed during the step only: name to bytes.
        replaces: a tensor whose place the result may take, because each of its values is read
            just before the value in its place is written, and nobody reads it later.
    """

    layer: str
    kind: str
    calls: tuple[Call, ...]
    reads: tuple[str, ...]
    writes: str
    scratch: Mapping[str, int] = field(default_factory=dict)
    replaces: str | None = None


@dataclass(frozen=True, eq=False)
class Program:
    """A network for one instruction set.

    Attributes:
        steps: in order; the first one normalizes the image.
        kernels: builders of TensorIR functions by symbol.
        constants: arrays of .rodata.
        sizes: bytes of every tensor in memory.
        schedules: of the kernels that have knobs, by symbol.
    """

    graph: IntegerGraph
    steps: tuple[Step, ...]
    kernels: Mapping[str, Callable[[], Any]]
    constants: tuple[Array, ...]
    sizes: Mapping[str, int]
    schedules: Mapping[str, Schedule] = field(default_factory=dict)

    def kinds(self) -> dict[str, str]:
        """Kind of every kernel by symbol, for the census."""
        return {call.kernel: step.kind for step in self.steps for call in step.calls}


def stored_channels(graph: IntegerGraph, tensor: Tensor) -> int:
    """Channels in memory."""
    first = graph.nodes[0]
    if isinstance(first, Input) and tensor.name == first.output:
        return tensor.channels
    return padded(tensor.channels)


def has_quantized_input(graph: IntegerGraph) -> bool:
    """The network's first tensor is int8; it is not where the first layer computes in float."""
    first = graph.nodes[0]
    return isinstance(first, Input) and graph.tensors[first.output].dtype == "int8"


def padded(channels: int) -> int:
    """Channels rounded up to full vectors."""
    return -(-channels // LANES) * LANES


def make_program(graph: IntegerGraph, schedules: Schedules) -> Program:
    """Choose kernels and pack the weights.

    Args:
        schedules: of the instruction set (a key of `gemm.TILES`) and the core.

    Raises:
        BadInputError: a layer has a shape that no kernel takes.
    """
    return _Builder(graph, schedules).program()


class _Builder:
    def __init__(self, graph: IntegerGraph, schedules: Schedules) -> None:
        self._graph, self._tile = graph, gemm.TILES[schedules.isa]
        self._lookup = schedules
        self._schedules: dict[str, Schedule] = {}
        self._kernels: dict[str, Callable[[], Any]] = {}
        self._constants: list[Array] = []
        self._last_use = {name: i for i, node in enumerate(graph.nodes) for name in inputs_of(node)}

    def program(self) -> Program:
        for node in self._graph.nodes:
            _check_reader(node, self._image_tensor())
        steps = tuple(self._step(node) for node in self._graph.nodes)
        sizes = {
            name: tensor.height * tensor.width * self._stored(name) * (_width(tensor))
            for name, tensor in self._graph.tensors.items()
        }
        return Program(
            self._graph, steps, self._kernels, tuple(self._constants), sizes, self._schedules
        )

    def _tensor(self, name: str) -> Tensor:
        return self._graph.tensors[name]

    def _stored(self, name: str) -> int:
        return stored_channels(self._graph, self._tensor(name))

    def _rows(self, name: str) -> int:
        tensor = self._tensor(name)
        return tensor.height * tensor.width

    def _constant(self, array: Array) -> Constant:
        self._constants.append(np.ascontiguousarray(array))
        return Constant(len(self._constants) - 1)

    def _call(self, kernel: Any, *operands: Place | Constant) -> Call:
        self._kernels.setdefault(kernel.name, kernel.build)
        return Call(kernel.name, operands, (0, kernel.units))

    def _reusable(self, node: Any, name: str) -> str | None:
        """`name` where `node` is its last reader and it is as large as the result."""
        tensor, result = self._tensor(name), self._tensor(node.output)
        last = self._graph.nodes[self._last_use[name]].name == node.name
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
        table = self._constant(node.table)
        call = self._call(kernel, Place(IMAGE), table, Place(node.output))
        return Step(node.name, "other", (call,), (), node.output)

    @_step.register
    def _(self, node: Conv) -> Step:
        node = settled(node)
        return self._depthwise(node) if node.depthwise else self._dense(node)

    def _epilogue(self, node: Conv) -> tuple[Epilogue, list[Place | Constant]]:
        vectors = self._tile.isa is not None
        shape = shape_of(node, self._stored(node.output), vectors=vectors)
        constants = constants_of(node, shape)
        return shape, [self._constant(constants[name]) for name in shape.operands()]

    def _depthwise(self, node: Conv) -> Step:
        shape, constants = self._epilogue(node)
        tensor = self._tensor(node.input)
        plain = depthwise.Depthwise(
            tensor.height,
            tensor.width,
            node.kernel,
            node.stride,
            node.padding,
            shape,
            groups=() if self._tile.isa is None else depthwise.groups_of(node.weight),
        )
        chosen = self._lookup.of(plain.key)
        kernel = depthwise.scheduled(plain, chosen.knobs, dots=self._lookup.isa == "dotprod")
        self._schedules[kernel.name] = chosen
        _check_window(node)
        weights = self._constant(depthwise.pack(kernel, node.weight))
        pad = self._constant(np.pad(node.pad_value, (0, shape.channels - len(node.pad_value))))
        ring = f"{node.name}%ring"
        skip = [Place(node.residual_input)] if node.residual_input else []
        self._kernels.setdefault(kernel.name, lambda: depthwise.build(kernel))
        operands = (Place(node.input), weights, pad, *constants, *skip)
        call = Call(kernel.name, (*operands, Place(node.output), Place(ring)), (0, kernel.units))
        scratch = {ring: int(np.prod(kernel.ring))}
        return self._conv_step(node, "depthwise", (call,), scratch)

    def _dense(self, node: Conv) -> Step:
        shape, constants = self._epilogue(node)
        source, depth, calls, scratch = self._matrix(node)
        outputs = node.weight.shape[0]
        flat = node.weight.reshape(outputs, -1)
        flat = np.pad(flat, ((0, shape.channels - outputs), (0, depth - flat.shape[1])))
        weights = self._constant(self._tile.pack(flat))
        paired = gemm.pairs_fit(flat)
        row_bytes = shape.channels * (4 if shape.to_float else 1)
        for start, count, rows in _segments(self._rows(node.output), self._tile.rows):
            kernel = gemm.Gemm(count, depth, rows, paired, shape)
            chosen = self._schedules[kernel.name] = self._lookup.of(kernel.key)
            self._kernels.setdefault(kernel.name, _gemm_builder(kernel, self._tile, chosen.knobs))
            skip = []
            if node.residual_input:
                skip = [Place(node.residual_input, start * shape.channels)]
            operands = (Place(source, start * depth), weights, *constants, *skip)
            operands = (*operands, Place(node.output, start * row_bytes))
            calls.append(Call(kernel.name, operands, (0, kernel.units)))
        return self._conv_step(node, "dense", tuple(calls), scratch)

    def _matrix(self, node: Conv) -> tuple[str, int, list[Call], dict[str, int]]:
        """The matrix that a dense convolution multiplies: the input itself or its patches."""
        tensor, out = self._tensor(node.input), self._tensor(node.output)
        stored = self._stored(node.input)
        pointwise = node.kernel == (1, 1) and node.stride == (1, 1) and not any(node.padding)
        if pointwise and stored % LANES == 0:
            return node.input, stored, [], {}
        kernel = Patches(
            tensor.height,
            tensor.width,
            stored,
            tensor.channels,
            node.kernel,
            node.stride,
            node.padding,
            (out.height, out.width),
        )
        name = f"{node.name}%patches"
        pad = self._constant(node.pad_value)
        call = self._call(kernel, Place(node.input), pad, Place(name))
        return name, kernel.depth, [call], {name: out.height * out.width * kernel.depth}

    def _conv_step(
        self, node: Conv, kind: str, calls: tuple[Call, ...], scratch: dict[str, int]
    ) -> Step:
        replaces = None
        if node.residual_input and node.residual_input != node.input:
            replaces = self._reusable(node, node.residual_input)
        return Step(node.name, kind, calls, inputs_of(node), node.output, scratch, replaces)

    @_step.register
    def _(self, node: Add) -> Step:
        channels = self._stored(node.output)
        width = residual_width(node.residual, channels)
        tables = residual_constants(node.residual, width)
        bent = node.residual.output.negative is not None
        kernel = Addition(self._rows(node.output), channels, width, bent)
        constants = [self._constant(table) for table in tables]
        call = self._call(kernel, Place(node.a), Place(node.b), *constants, Place(node.output))
        return self._elementwise(node, "other", call)

    @_step.register
    def _(self, node: Lookup) -> Step:
        channels = self._stored(node.output)
        table = np.zeros((channels, 256), np.int8)
        table[: self._tensor(node.output).channels] = node.table
        kernel = TableLookup(self._rows(node.output), channels)
        call = self._call(kernel, Place(node.input), self._constant(table), Place(node.output))
        return self._elementwise(node, "other", call)

    @_step.register
    def _(self, node: Dequantize) -> Step:
        kernel = ToFloats(self._rows(node.output), self._stored(node.output))
        rows = [node.zero_point.astype(np.float32), node.scale]
        parameters = self._parameters(node.output, rows)
        call = self._call(kernel, Place(node.input), parameters, Place(node.output))
        return self._elementwise(node, "float", call)

    @_step.register
    def _(self, node: Quantize) -> Step:
        kernel = ToIntegers(self._rows(node.output), self._stored(node.output))
        zero = node.zero_point.astype(np.float32)
        parameters = self._parameters(node.output, [node.scale, -128 - zero, 127 - zero, zero], 1)
        call = self._call(kernel, Place(node.input), parameters, Place(node.output))
        return self._elementwise(node, "float", call)

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
        weights = self._constant(kernel.pack(node.weight))
        call = self._call(kernel, Place(node.input), weights, parameters, Place(node.output))
        return self._elementwise(node, "float", call)

    @_step.register
    def _(self, node: FloatAdd) -> Step:
        kernel = FloatAddition(self._rows(node.output), self._stored(node.output))
        call = self._call(kernel, Place(node.a), Place(node.b), Place(node.output))
        return self._elementwise(node, "float", call)

    @_step.register
    def _(self, node: Normalize) -> Step:
        kernel = UnitLength(self._tensor(node.output).channels, node.epsilon)
        call = self._call(kernel, Place(node.input), Place(node.output))
        return self._elementwise(node, "float", call)

    def _parameters(self, name: str, rows: list[Array], fill: float = 0) -> Constant:
        missing = self._stored(name) - self._tensor(name).channels
        table = np.stack([row.astype(np.float32) for row in rows])
        return self._constant(np.pad(table, ((0, 0), (0, missing)), constant_values=fill))

    def _elementwise(self, node: Any, kind: str, call: Call) -> Step:
        return Step(node.name, kind, (call,), inputs_of(node), node.output)


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


def _gemm_builder(kernel: gemm.Gemm, tile: gemm.Tile, knobs: Knobs) -> Callable[[], Any]:
    return lambda: gemm.build(kernel, tile, knobs)


def _width(tensor: Tensor) -> int:
    return 4 if tensor.dtype == "float32" else 1


def _segments(rows: int, tile: int) -> list[tuple[int, int, int]]:
    """(start, count, tile height) of full tiles and of what is left."""
    full = rows // tile * tile
    parts = [(0, full, tile)] if full else []
    return [*parts, (full, rows - full, rows - full)] if rows > full else parts


def _check_window(node: Conv) -> None:
    height, width = node.kernel
    if height * width > MAX_WINDOW or (any(node.padding) and node.stride[0] > height):
        raise BadInputError(
            f"No depthwise kernel for a {height}x{width} window with stride {node.stride}",
            where=node.name,
            why=f"Windows have at most {MAX_WINDOW} taps, and strides do not skip padded rows",
            hint="Compile for an intel target",
        )
