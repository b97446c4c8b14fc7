"""What the reader knows about a tensor of the ONNX graph while it walks over it.

A float tensor is not a buffer yet: it stays a promise (an accumulator, a table, a float sum) until
a quantizer or a float layer says in which form it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm.graph import Float32, Int8

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Extent:
    """Shape of an activation of one image; `flat` where ONNX sees [N, channels*height*width]."""

    height: int
    width: int
    channels: int
    flat: bool = False

    @property
    def point(self) -> bool:
        """Whether there is one pixel only."""
        return self.height == self.width == 1

    @property
    def dims(self) -> list[int]:
        """The ONNX shape of a batch of one."""
        if self.flat:
            return [1, self.channels * self.height * self.width]
        return [1, self.channels, self.height, self.width]


@dataclass(frozen=True, eq=False)
class Window:
    """Geometry of a convolution; padding is top, left, bottom, right."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    depthwise: bool


@dataclass(frozen=True, eq=False)
class Affine:
    """x * multiply / divide + add, float32 [C], one rounding each (1 and 0 change nothing)."""

    multiply: Float32
    divide: Float32
    add: Float32


@dataclass(frozen=True, eq=False)
class Slope:
    """x < 0 ? x * slope : x, float32 [C]."""

    slope: Float32


@dataclass(frozen=True, eq=False)
class Bounds:
    """min(max(x, low), high), float32 [C]."""

    low: Float32
    high: Float32


Step = Affine | Slope | Bounds


@dataclass(frozen=True, eq=False)
class Activation:
    """clip(prelu(x), low, high), float32 [C]."""

    slope: Float32 | None
    low: Float32
    high: Float32


@dataclass(frozen=True, eq=False)
class Constant:
    """An initializer or Constant node, as it is in the file."""

    array: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Scaled:
    """A dequantized constant: integers (zero points subtracted) times scale [1] or [n] on axis."""

    integers: Int64
    scale: Float32
    axis: int

    def floats(self) -> Float64:
        """The values, float64, in the constant's shape."""
        shape = [1] * self.integers.ndim
        if self.scale.size > 1:
            shape[self.axis] = -1
        scale = self.scale.astype(np.float64)
        return self.integers * (scale.reshape(shape) if shape else scale.reshape(()))


@dataclass(frozen=True, eq=False)
class Image:
    """The network's input as a float32 table [3, 256] over pixel values."""

    extent: Extent
    table: Float32


@dataclass(frozen=True, eq=False)
class Codes:
    """An int8 tensor of the integer graph; `unsigned` where ONNX stores value + 128."""

    extent: Extent
    tensor: str
    unsigned: bool


@dataclass(frozen=True, eq=False)
class Decoded:
    """A function of one int8 tensor, channel by channel: steps(scale * (code - zero)).

    table: float32 [C, 256], the function; scale float32 [C], zero int8 [C].
    """

    extent: Extent
    tensor: str
    scale: Float32
    zero: Int8
    table: Float32
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, eq=False)
class ConvSum:
    """An integer convolution not yet rounded: activation(unit * sum(integers) + bias).

    weight: int64 [O, I/group, KH, KW], may exceed int8 by a sign; unit, bias: float64 [O].
    """

    extent: Extent
    name: str
    tensor: str
    zero: Int8
    weight: Int64
    unit: Float64
    bias: Float64
    window: Window
    activation: Activation


@dataclass(frozen=True, eq=False)
class PairSum:
    """The sum of two dequantized tensors, then an activation."""

    extent: Extent
    name: str
    a: Decoded
    b: Decoded
    activation: Activation


@dataclass(frozen=True, eq=False)
class FloatSum:
    """A float convolution: weight float32 [O, I/group, KH, KW], bias float32 [O]."""

    extent: Extent
    name: str
    tensor: str
    weight: Float32
    bias: Float32
    window: Window
    activation: Activation


@dataclass(frozen=True, eq=False)
class FloatTensor:
    """A float32 tensor that exists."""

    extent: Extent
    tensor: str


Real = Image | Decoded | ConvSum | PairSum | FloatSum | FloatTensor
REALS = (Image, Decoded, ConvSum, PairSum, FloatSum, FloatTensor)


@dataclass(frozen=True, eq=False)
class Norm:
    """The L2 norm of `of` along its channels, not below epsilon."""

    of: Real
    epsilon: float


Value = Constant | Scaled | Codes | Norm | Real


def no_activation(channels: int) -> Activation:
    """The identity."""
    infinity = np.full(channels, np.inf, np.float32)
    return Activation(None, -infinity, infinity)
