"""Small integer graphs, drawn by hypothesis or built for one extreme each.

Structure is drawn; the arrays come from a random generator of a drawn seed, steered by a `Style`.
Everything built here keeps the contract of `graph.py`, up to its limits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
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
    Requantize,
    Residual,
    Tensor,
    ToFloat,
    inputs_of,
)

Array = NDArray[Any]
Pair = tuple[int, int]
Padding = tuple[int, int, int, int]
LARGEST = 2**31 - 1
NO_PADDING = (0, 0, 0, 0)


@dataclass(frozen=True)
class Style:
    """What the arrays of a layer look like; the fields name the choices of `Draft`."""

    weights: str = "any"
    bias: str = "small"
    multiplier: str = "usual"
    slope: str = "none"
    limits: str = "full"
    zero: str = "same"
    pad: str = "same"
    scales: str = "usual"


CHOICES = {
    "weights": ["any", "few", "lowest", "ends"],
    "bias": ["small", "zero", "extreme"],
    "multiplier": ["usual", "ties", "mixed", "tiny", "huge"],
    "slope": ["none", "usual", "wild"],
    "limits": ["full", "relu", "relu6", "each"],
    "zero": ["same", "each"],
    "pad": ["same", "each", "lowest"],
    "scales": ["usual", "ties", "each", "extreme"],
}


class Draft:
    """A graph under construction; every method appends nodes and returns a tensor's name."""

    def __init__(self, seed: int = 0, style: Style | None = None) -> None:
        self.random = np.random.default_rng(seed)
        self.style = style or Style()
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}

    def _emit(self, node: Node, shape: tuple[int, int, int], dtype: str = "int8") -> str:
        self.nodes.append(node)
        self.tensors[node.output] = Tensor(node.output, *shape, dtype)
        return node.output

    def _names(self, kind: str) -> tuple[str, str]:
        count = len(self.nodes)
        return f"{kind}{count}", f"t{count}"

    def shape(self, name: str) -> tuple[int, int, int]:
        """Height, width, channels."""
        tensor = self.tensors[name]
        return tensor.height, tensor.width, tensor.channels

    def image(
        self, height: int, width: int, *, bgr: bool = False, dtype: str = "int8",
        value: int | None = None,
    ) -> str:  # fmt: skip
        """The Input node; `value` makes every entry of its table the same."""
        name, output = self._names("image")
        table: Array = self.random.integers(-128, 128, (3, 256)).astype(np.int8)
        if value is not None:
            table = np.full((3, 256), value, np.int8)
        if dtype == "float32":
            table = self.random.normal(size=(3, 256)).astype(np.float32)
        order = (2, 1, 0) if bgr else (0, 1, 2)
        return self._emit(Input(name, output, table, order), (height, width, 3), dtype)

    def conv(
        self, x: str, outputs: int = 0, kernel: Pair = (1, 1), *, stride: Pair = (1, 1),
        padding: Padding = NO_PADDING, to_float: bool = False, skip: str | None = None,
    ) -> str:  # fmt: skip
        """A convolution; without `outputs` a depthwise one. `skip` is added by its epilogue."""
        name, output = self._names("conv")
        height, width, inputs = self.shape(x)
        depthwise = outputs == 0
        channels = outputs or inputs
        shape = (*kernel, inputs) if depthwise else (outputs, *kernel, inputs)
        weight = self._weights(shape)
        axes = (0, 1) if depthwise else (1, 2, 3)
        bias = self._bias(128 * np.abs(weight.astype(np.int64)).sum(axes))
        reach = np.abs(bias) + 40.0 * np.sqrt((weight.astype(float) ** 2).sum(axes)) + 1
        stage: Requantize | ToFloat
        stage = self._to_float(reach) if to_float else self._requantize(reach)
        node = Conv(
            name, x, output, weight, bias.astype(np.int32), depthwise, self._pad(inputs), stride,
            padding, stage, self._residual(channels) if skip else None, skip,
        )  # fmt: skip
        size = output_size((height, width), kernel, stride, padding)
        return self._emit(node, (*size, channels), "float32" if to_float else "int8")

    def constant(self, x: str, value: int) -> str:
        """A tensor of one value, by a table."""
        name, output = self._names("constant")
        shape = self.shape(x)
        table = np.full((shape[2], 256), value, np.int8)
        return self._emit(Lookup(name, x, output, table), shape)

    def change(self, **fields: Any) -> str:
        """Replace fields of the last node."""
        self.nodes[-1] = replace(self.nodes[-1], **fields)
        return self.nodes[-1].output

    def add(self, a: str, b: str) -> str:
        """A residual addition that stands alone."""
        name, output = self._names("add")
        shape = self.shape(a)
        return self._emit(Add(name, a, b, output, self._residual(shape[2])), shape)

    def lookup(self, x: str) -> str:
        """A table a channel."""
        name, output = self._names("lookup")
        shape = self.shape(x)
        table = self.random.integers(-128, 128, (shape[2], 256)).astype(np.int8)
        return self._emit(Lookup(name, x, output, table), shape)

    def dequantize(self, x: str) -> str:
        """To float32."""
        name, output = self._names("dequantize")
        shape = self.shape(x)
        scale = self._scale(shape[2])
        node = Dequantize(name, x, output, scale, self._zero(shape[2]))
        return self._emit(node, shape, "float32")

    def quantize(self, x: str) -> str:
        """To int8."""
        name, output = self._names("quantize")
        shape = self.shape(x)
        node = Quantize(name, x, output, self._scale(shape[2]), self._zero(shape[2]))
        return self._emit(node, shape)

    def float_conv(
        self, x: str, outputs: int = 0, kernel: Pair = (1, 1), *, stride: Pair = (1, 1),
        padding: Padding = NO_PADDING,
    ) -> str:  # fmt: skip
        """A float convolution; without `outputs` a depthwise one."""
        name, output = self._names("float")
        height, width, inputs = self.shape(x)
        channels = outputs or inputs
        shape = (outputs, *kernel, inputs) if outputs else (*kernel, inputs)
        weight = self.random.normal(size=shape).astype(np.float32)
        low, high = self._float_limits(channels)
        slope = self._slopes(channels)
        node = FloatConv(
            name, x, output, weight, self.random.normal(size=channels).astype(np.float32),
            outputs == 0, stride, padding, None if slope is None else slope.astype(np.float32),
            low, high,
        )  # fmt: skip
        size = output_size((height, width), kernel, stride, padding)
        return self._emit(node, (*size, channels), "float32")

    def float_add(self, a: str, b: str) -> str:
        """The sum of two float tensors."""
        name, output = self._names("float_add")
        return self._emit(FloatAdd(name, a, b, output), self.shape(a), "float32")

    def normalize(self, x: str, epsilon: float = 1e-12) -> str:
        """The embedding to unit length."""
        name, output = self._names("normalize")
        return self._emit(Normalize(name, x, output, epsilon), self.shape(x), "float32")

    def graph(self, output: str) -> IntegerGraph:
        """The finished graph."""
        first = self.tensors[self.nodes[0].output]
        return IntegerGraph(
            first.height, first.width, tuple(self.nodes), dict(self.tensors), output
        )

    def _weights(self, shape: tuple[int, ...]) -> Array:
        random, kind = self.random, self.style.weights
        if kind == "lowest":
            return np.full(shape, -128, np.int8)
        if kind == "ends":
            return random.choice(np.array([-128, -127, 0, 127], np.int8), shape)
        reach = 3 if kind == "few" else 128
        return random.integers(-reach, reach, shape).astype(np.int8)

    def _bias(self, products: Array) -> Array:
        """int64 [O]; "extreme" leaves no room beside `products`, the largest sum of products."""
        kind, count = self.style.bias, len(products)
        if kind == "zero":
            return np.zeros(count, np.int64)
        if kind == "extreme":
            return (LARGEST - products) * self.random.choice([-1, 1], count)
        return self.random.integers(-3000, 3000, count)

    def _multiplier(self, reach: Array) -> Array:
        """float32 [C]; "usual" spreads accumulators of the size `reach` over int8."""
        random, kind, count = self.random, self.style.multiplier, len(reach)
        usual = 100 / reach * random.uniform(0.5, 2, count)
        if kind == "ties":
            usual = 2.0 ** np.rint(np.log2(usual))
        elif kind == "mixed":
            usual = usual * random.choice([-1.0, 0.0, 1.0, 1e-3, 1e3], count)
        elif kind == "tiny":
            usual = random.choice([1e-45, 1e-38, 1e-12, 2.0**-31], count)
        elif kind == "huge":
            usual = random.choice([3e38, 1e20, 2.0**24, -(2.0**100)], count)
        return usual.astype(np.float32)

    def _slopes(self, count: int) -> Array | None:
        kind = self.style.slope
        if kind == "none":
            return None
        if kind == "usual":
            return self.random.uniform(0.05, 0.4, count)
        return self.random.choice([0.0, -0.5, 1.0, 1.75, -2.0], count)

    def _negative(self, multiplier: Array) -> Array | None:
        slopes = self._slopes(len(multiplier))
        if slopes is None:
            return None
        return np.clip(multiplier * slopes, -3e38, 3e38).astype(np.float32)

    def _requantize(self, reach: Array) -> Requantize:
        count = len(reach)
        multiplier, zero = self._multiplier(reach), self._zero(count)
        low, high = np.full(count, -128, np.int8), np.full(count, 127, np.int8)
        if self.style.limits in ("relu", "relu6"):
            low = zero
        if self.style.limits == "relu6":
            high = np.minimum(zero.astype(int) + 77, 127).astype(np.int8)
        if self.style.limits == "each":
            low, high = np.sort(self.random.integers(-128, 128, (2, count)), 0).astype(np.int8)
        return Requantize(multiplier, self._negative(multiplier), zero, low, high)

    def _to_float(self, reach: Array) -> ToFloat:
        multiplier = self._multiplier(reach)
        return ToFloat(multiplier, self._negative(multiplier), *self._float_limits(len(reach)))

    def _float_limits(self, count: int) -> tuple[Array, Array]:
        low, high = np.full(count, -np.inf), np.full(count, np.inf)
        if self.style.limits in ("relu", "relu6"):
            low = np.zeros(count)
        if self.style.limits == "relu6":
            high = np.full(count, 6.0)
        if self.style.limits == "each":
            low, high = np.sort(self.random.normal(0, 2, (2, count)), 0)
        return low.astype(np.float32), high.astype(np.float32)

    def _zero(self, count: int) -> Array:
        values = self.random.integers(-128, 128, count)
        return (values if self.style.zero == "each" else values[:1].repeat(count)).astype(np.int8)

    def _pad(self, count: int) -> Array:
        if self.style.pad == "lowest":
            return np.full(count, -128, np.int8)
        values = self.random.integers(-128, 128, count)
        return (values if self.style.pad == "each" else values[:1].repeat(count)).astype(np.int8)

    def _scale(self, count: int) -> Array:
        values = self.random.uniform(0.01, 0.1, count)
        if self.style.multiplier == "ties":
            values = 2.0 ** self.random.integers(-6, -2, count)
        if self.style.multiplier in ("tiny", "huge"):
            values = self.random.choice([1e-45, 1e-38, 1e-3, 1e30], count)
        return values.astype(np.float32)

    def _residual(self, count: int) -> Residual:
        """Scales whose sum with the offset stays, however closely, within 31 bits."""
        random, kind = self.random, self.style.scales
        width = count if kind == "each" else 1
        a, b = random.integers(-(2**14), 2**14, (2, width))
        offset = random.integers(-(2**20), 2**20, width)
        if kind == "ties":
            a, b, offset = np.array([[1], [2], [1]])
        if kind == "extreme":
            a = random.choice([-1, 1], 1) * random.integers(2**20, 2**23, 1)
            b = random.choice([-1, 1], 1) * (2**24 - 1 - np.abs(a))
            offset = random.choice([-1, 1], 1) * (LARGEST - 128 * (np.abs(a) + np.abs(b)))
        a, b, offset = (np.broadcast_to(v, count).astype(np.int32) for v in (a, b, offset))
        size = 50.0 * np.hypot(a, b) + np.abs(offset.astype(float)) + 1
        stage = self._requantize(size)
        if kind in ("usual", "extreme") and self.style.zero == "same":  # equal for all channels
            stage = replace(stage, multiplier=np.full_like(stage.multiplier, stage.multiplier[0]))
        return Residual(a, b, offset, stage)


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Padding) -> Pair:
    """Height and width of a convolution's result."""
    top, left, bottom, right = padding
    rows = (size[0] + top + bottom - kernel[0]) // stride[0] + 1
    return rows, (size[1] + left + right - kernel[1]) // stride[1] + 1


def images(graph: IntegerGraph, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random uint8 RGB images; the first two are black and white."""
    random = np.random.default_rng(seed)
    found = random.integers(0, 256, (count, graph.height, graph.width, 3), dtype=np.uint8)
    found[:2] = np.array([0, 255], np.uint8)[: min(count, 2), None, None, None]
    return found


def bits(array: Array) -> Array:
    """What tells 0 from -0."""
    return np.ascontiguousarray(array).view(np.uint32 if array.dtype == np.float32 else np.int8)


def assert_same(graph: IntegerGraph, found: dict[str, Array], wanted: dict[str, Array]) -> None:
    """The first tensor in the graph's order that differs makes the message."""
    for node in graph.nodes:
        name = node.output
        ours, theirs = np.asarray(wanted[name]), found[name]
        different = bits(ours) != bits(theirs)
        if not different.any():
            continue
        shapes = [graph.tensors[each] for each in inputs_of(node)]
        pytest.fail(
            f"{type(node).__name__} {node.name} of {shapes} to {graph.tensors[name]}: "
            f"{different.sum()} of {different.size} values differ, "
            f"{ours[different][:4]} became {theirs[different][:4]}"
        )


def styles() -> st.SearchStrategy[Style]:
    """Every combination."""
    return st.builds(Style, **{name: st.sampled_from(kinds) for name, kinds in CHOICES.items()})


CHANNELS = st.integers(1, 70) | st.sampled_from([8, 16, 32, 48, 64])
KERNELS = st.sampled_from([(3, 3), (1, 3), (3, 1), (2, 2), (1, 1), (5, 3), (7, 6)])
STRIDES = st.sampled_from([(1, 1), (2, 2), (1, 2), (2, 1)])
PADDINGS = st.sampled_from([(1, 1, 1, 1), NO_PADDING]) | st.tuples(*[st.integers(0, 2)] * 4)
SIZES = st.sampled_from([(7, 7), (7, 6), (6, 6), (8, 8), (14, 12), (5, 9), (3, 1)])
BLOCKS = ["pointwise", "dense", "depthwise", "fused", "add", "lookup", "island", "float_add"]


@st.composite
def windows(draw: st.DrawFn, size: Pair) -> dict[str, Any]:
    """Kernel, stride and padding that fit on an image."""
    kernel, stride, padding = draw(KERNELS), draw(STRIDES), draw(PADDINGS)
    if size[0] + padding[0] + padding[2] < kernel[0]:
        kernel = (1, kernel[1])
    if size[1] + padding[1] + padding[3] < kernel[1]:
        kernel = (kernel[0], 1)
    if stride[0] > kernel[0]:  # such a depthwise window is refused where it is padded
        stride = (1, stride[1])
    return {"kernel": kernel, "stride": stride, "padding": padding}


@st.composite
def graphs(draw: st.DrawFn) -> IntegerGraph:
    """Stem, up to four blocks, and a head down to one pixel."""
    draft = Draft(draw(st.integers(0, 2**32 - 1)), draw(styles()))
    x = draw(_stems(draft))
    alive = [x]
    for _ in range(draw(st.integers(0, 4))):
        draft.style = draw(styles())
        alive.append(draw(_blocks(draft, alive)))
    draft.style = draw(styles())
    return draft.graph(draw(_heads(draft, alive[-1])))


@st.composite
def _stems(draw: st.DrawFn, draft: Draft) -> str:
    size, bgr = draw(SIZES), draw(st.booleans())
    stride, padding = draw(STRIDES), draw(PADDINGS)
    if size[1] + padding[1] + padding[3] < 3:
        padding = (1, 1, 1, 1)
    dtype = draw(st.sampled_from(["int8", "int8", "int8", "float32"]))
    x = draft.image(*size, bgr=bgr, dtype=dtype)
    if dtype == "int8":
        return draft.conv(x, draw(CHANNELS), (3, 3), stride=stride, padding=padding)
    outputs = draw(CHANNELS)
    return draft.quantize(draft.float_conv(x, outputs, (3, 3), stride=stride, padding=padding))


@st.composite
def _blocks(draw: st.DrawFn, draft: Draft, alive: list[str]) -> str:
    x, kind = alive[-1], draw(st.sampled_from(BLOCKS))
    height, width, channels = draft.shape(x)
    same = [name for name in alive if draft.shape(name) == (height, width, channels)]
    other = draw(st.sampled_from(same))
    if kind == "pointwise":
        return draft.conv(x, draw(CHANNELS))
    if kind in ("dense", "depthwise"):
        outputs = draw(CHANNELS) if kind == "dense" else 0
        return draft.conv(x, outputs, **draw(windows((height, width))))
    if kind == "fused":
        if draw(st.booleans()):
            return draft.conv(x, channels, skip=other)
        return draft.conv(x, 0, (3, 3), padding=(1, 1, 1, 1), skip=other)
    if kind == "add":
        return draft.add(x, other)
    if kind == "lookup":
        return draft.lookup(x)
    y = draft.dequantize(x)
    if kind == "float_add":
        return draft.quantize(draft.float_add(y, draft.dequantize(other)))
    outputs = draw(st.sampled_from([0, 1, 16, 21]))
    return draft.quantize(draft.float_conv(y, outputs, **draw(windows((height, width)))))


@st.composite
def _heads(draw: st.DrawFn, draft: Draft, x: str) -> str:
    size = draft.shape(x)[:2]
    if size[0] * size[1] <= 64 and draw(st.booleans()):
        x, size = draft.conv(x, 0, size), (1, 1)
    ending = draw(st.sampled_from(["linear", "linear", "float", "normalized"]))
    if ending == "float":
        return draft.float_conv(draft.dequantize(x), draw(CHANNELS), size)
    if ending != "linear" and draft.style.multiplier == "huge":  # infinity has no direction
        draft.style = replace(draft.style, multiplier="usual")
    x = draft.conv(x, draw(CHANNELS), size, to_float=True)
    if ending == "linear":
        return x
    if draw(st.booleans()):
        x = draft.float_conv(x, draw(CHANNELS))
    return draft.normalize(x, draw(st.sampled_from([1e-12, 1.0])))
