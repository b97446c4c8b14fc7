"""The integer graph: what a QDQ network computes, in int8 tensors and int32 accumulators.

Activations are HWC and int8 (a uint8 tensor is stored with 128 subtracted from its values and its
zero points). Every array is per output channel unless said otherwise. All arithmetic is defined
here, bit for bit, and the oracle (`oracle.py`) and every kernel compute exactly that:

    accumulator  int32, exact (the reader proves that it cannot overflow)
    scaled       float32(accumulator) * multiplier, one rounding each, half to even
    quantized    int8 = clip(round_half_even(scaled) + zero_point, low, high)

float32(accumulator) is the IEEE conversion (exact below 2**24). There is no other float operation
outside of float islands, so no fused multiply-add can change a bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Tensor:
    """An activation of one image: [height, width, channels], int8 or float32."""

    name: str
    height: int
    width: int
    channels: int
    dtype: str = "int8"

    @property
    def bytes(self) -> int:
        """Size without padding."""
        return self.height * self.width * self.channels * (1 if self.dtype == "int8" else 4)


@dataclass(frozen=True, eq=False)
class Requantize:
    """int32 accumulator to int8; arrays [C].

    Attributes:
        multiplier: float32, finite; for accumulators >= 0, and for all where `negative` is None.
        negative: float32, for accumulators < 0 (PReLU: multiplier times slope).
        zero_point: int8 values added after rounding.
        low: int8, smallest result (ReLU raises it to the zero point).
        high: int8, largest result (ReLU6 lowers it).
    """

    multiplier: Float32
    negative: Float32 | None
    zero_point: Int8
    low: Int8
    high: Int8


@dataclass(frozen=True, eq=False)
class ToFloat:
    """int32 accumulator to float32: clip(float32(acc) * multiplier, low, high); arrays [C].

    `negative` as in `Requantize`; `low` and `high` are float32 and may be infinite.
    """

    multiplier: Float32
    negative: Float32 | None
    low: Float32
    high: Float32


@dataclass(frozen=True, eq=False)
class Residual:
    """A residual addition, of int8 `a` (the convolution's result, when fused) and int8 `b`.

    accumulator = a * scale_a + b * scale_b + offset, int32; `output` brings it to int8.
    scale_a, scale_b, offset: int32 [C]. The zero points of both inputs are in `offset`.
    """

    scale_a: Int32
    scale_b: Int32
    offset: Int32
    output: Requantize


@dataclass(frozen=True, eq=False)
class Input:
    """Input normalization: uint8 RGB [H, W, 3] to the network's first tensor.

    table: int8 (or float32 where the first layer is a float island) [3, 256], row c for the
    network's channel c. channels[c] is the RGB channel that the network's channel c reads.
    """

    name: str
    output: str
    table: NDArray[Any]
    channels: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Conv:
    """Quantized convolution with its epilogue.

    Attributes:
        weight: int8; dense [O, KH, KW, I], depthwise [KH, KW, C] (`depthwise` tells).
        bias: int32 [O]; the input's zero points are folded in: bias - sum(zero_point * weight).
        pad_value: int8 [I]: the input's zero points, read outside of the image.
        stride: vertical, horizontal.
        padding: top, left, bottom, right.
        output_stage: to int8, or to float32 (the embedding, or a float island behind it).
        residual: fused addition of the int8 tensor `residual_input` to the int8 result.
    """

    name: str
    input: str
    output: str
    weight: Int8
    bias: Int32
    depthwise: bool
    pad_value: Int8
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    output_stage: Requantize | ToFloat
    residual: Residual | None = None
    residual_input: str | None = None

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the window."""
        height, width = self.weight.shape[:2] if self.depthwise else self.weight.shape[1:3]
        return int(height), int(width)


@dataclass(frozen=True, eq=False)
class Add:
    """A residual addition that stands alone."""

    name: str
    a: str
    b: str
    output: str
    residual: Residual


@dataclass(frozen=True, eq=False)
class Lookup:
    """Any function of one int8 value a channel; table int8 [C, 256], index value + 128."""

    name: str
    input: str
    output: str
    table: Int8


@dataclass(frozen=True, eq=False)
class Dequantize:
    """int8 to float32 at the door of a float island: float32(value - zero_point) * scale; [C]."""

    name: str
    input: str
    output: str
    scale: Float32
    zero_point: Int8


@dataclass(frozen=True, eq=False)
class Quantize:
    """float32 to int8: clip(round_half_even(value / scale) + zero_point, -128, 127); [C]."""

    name: str
    input: str
    output: str
    scale: Float32
    zero_point: Int8


@dataclass(frozen=True, eq=False)
class FloatConv:
    """A convolution that the recipe keeps in float; float32 in and out.

    The sum starts with bias and takes products in the order of (kernel row, kernel column, input
    channel), each by a fused multiply-add; padding contributes nothing (its products are +0, which
    are added too). Then `value < 0 ? value * slope : value` where there is a slope, then the clip.

    weight: float32, shaped as in `Conv`. slope: float32 [O] or None. low, high: float32 [O].
    """

    name: str
    input: str
    output: str
    weight: Float32
    bias: Float32
    depthwise: bool
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    slope: Float32 | None
    low: Float32
    high: Float32

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the window."""
        height, width = self.weight.shape[:2] if self.depthwise else self.weight.shape[1:3]
        return int(height), int(width)


@dataclass(frozen=True, eq=False)
class FloatAdd:
    """The sum of two float32 tensors, one rounding."""

    name: str
    a: str
    b: str
    output: str


@dataclass(frozen=True, eq=False)
class Normalize:
    """L2 normalization of the float32 embedding [1, 1, D].

    The squares are summed in order, each by a fused multiply-add, starting with 0; the result is
    value / max(sqrt(sum), epsilon), IEEE operations in float32.
    """

    name: str
    input: str
    output: str
    epsilon: float


Node = Input | Conv | Add | Lookup | Dequantize | Quantize | FloatConv | FloatAdd | Normalize


@dataclass(frozen=True, eq=False)
class IntegerGraph:
    """A whole network, nodes in execution order; the first is an `Input`.

    Attributes:
        height, width: of the input image.
        tensors: every tensor by name, the input image left out.
        output: name of the embedding, float32 [1, 1, D].
    """

    height: int
    width: int
    nodes: tuple[Node, ...]
    tensors: dict[str, Tensor]
    output: str

    @property
    def embedding(self) -> int:
        """Width of the embedding."""
        return self.tensors[self.output].channels


def inputs_of(node: Node) -> tuple[str, ...]:
    """Names of the tensors that a node reads, the input image left out."""
    if isinstance(node, Input):
        return ()
    if isinstance(node, Add | FloatAdd):
        return (node.a, node.b)
    if isinstance(node, Conv) and node.residual_input is not None:
        return (node.input, node.residual_input)
    return (node.input,)
