"""Kernels of float islands and of the embedding: exact, in a fixed order of operations.

Every multiply-add is an explicit fused one, so that compilers and the oracle agree to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.script import tirx as T
from tvm.script.ir_builder import IRBuilder

from mfn_compile.arm.kernels.epilogue import clamp
from mfn_compile.arm.kernels.simple import each, kernel

BLOCK = 8  # output channels that are summed side by side


@dataclass(frozen=True)
class FloatConvolution:
    """float32 convolution; channels are those in memory."""

    height: int
    width: int
    inputs: int
    outputs: int
    depthwise: bool
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    output: tuple[int, int]

    @property
    def name(self) -> str:
        """Symbol of the kernel."""
        kind = "depthwise" if self.depthwise else "dense"
        kernel, stride = "x".join(map(str, self.kernel)), "x".join(map(str, self.stride))
        shape = f"{self.height}x{self.width}x{self.inputs}x{self.outputs}"
        pads = "_".join(map(str, self.padding))
        return f"float_{kind}_{shape}_k{kernel}_s{stride}_p{pads}"

    @property
    def depth(self) -> int:
        """Input channels that one output channel sums over."""
        return 1 if self.depthwise else self.inputs

    def pack(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """Dense [O, KH, KW, I] or depthwise [KH, KW, C] to [KH, KW, depth, outputs], padded."""
        packed = weight[:, :, None, :] if self.depthwise else weight.transpose(1, 2, 3, 0)
        missing = (self.depth - packed.shape[2], self.outputs - packed.shape[3])
        return np.pad(packed, ((0, 0), (0, 0), (0, missing[0]), (0, missing[1])))

    @property
    def units(self) -> int:
        """Rows of the result."""
        return self.output[0]

    def build(self) -> tirx.PrimFunc:
        """Operands: x, weights, parameters [4, outputs] (bias, slope, low, high), out."""
        rows, columns = self.output
        shapes = {
            "x": ((self.height, self.width, self.inputs), "float32"),
            "weights": ((*self.kernel, self.depth, self.outputs), "float32"),
            "parameters": ((4, self.outputs), "float32"),
            "out": ((rows, columns, self.outputs), "float32"),
        }
        builder = IRBuilder()
        with (
            kernel(builder, self.name, shapes) as b,
            T.serial(b["begin"], b["end"]) as y,
            T.serial(0, columns) as x,
            T.serial(0, self.outputs // BLOCK) as block,
        ):
            self._pixel(b, y, x, block)
        return builder.get()

    def _pixel(self, b: dict[str, Any], y: Any, x: Any, block: Any) -> None:
        """The output itself is the accumulator: noalias keeps it in a register."""
        parameters, out = b["parameters"], b["out"]
        with T.vectorized(0, BLOCK) as lane:
            channel = block * BLOCK + lane
            T.buffer_store(out, parameters[0, channel], [y, x, channel])
        with (
            T.serial(0, self.kernel[0]) as ky,
            T.serial(0, self.kernel[1]) as kx,
            T.serial(0, self.depth) as c,
            T.vectorized(0, BLOCK) as lane,
        ):
            channel = block * BLOCK + lane
            value = self._sample(b["x"], y, x, ky, kx, channel if self.depthwise else c)
            total = tirx.call_llvm_pure_intrin(
                "float32", "llvm.fma", value, b["weights"][ky, kx, c, channel], out[y, x, channel]
            )
            T.buffer_store(out, total, [y, x, channel])
        with T.vectorized(0, BLOCK) as lane:
            channel = block * BLOCK + lane
            total = out[y, x, channel]
            bent = tirx.Select(total < T.float32(0), total * parameters[1, channel], total)
            value = clamp(bent, parameters[2, channel], parameters[3, channel])
            T.buffer_store(out, value, [y, x, channel])

    def _sample(self, source: Any, y: Any, x: Any, ky: Any, kx: Any, channel: Any) -> Any:
        """The input value, or +0 outside of the image."""
        row = y * self.stride[0] + ky - self.padding[0]
        column = x * self.stride[1] + kx - self.padding[1]
        if not any(self.padding):
            return source[row, column, channel]
        inside = tirx.all(row >= 0, row < self.height, column >= 0, column < self.width)
        near_row = tirx.min(tirx.max(row, 0), self.height - 1)
        near_column = tirx.min(tirx.max(column, 0), self.width - 1)
        return tirx.Select(inside, source[near_row, near_column, channel], T.float32(0))


@dataclass(frozen=True)
class FloatAddition:
    """float32 a + b."""

    rows: int
    channels: int

    @property
    def name(self) -> str:
        """Symbol of the kernel."""
        return f"float_add_{self.rows}x{self.channels}"

    @property
    def units(self) -> int:
        """Rows."""
        return self.rows

    def build(self) -> tirx.PrimFunc:
        """Operands: a, b, out."""
        tensor = ((self.rows, self.channels), "float32")
        builder = IRBuilder()
        with (
            kernel(
                builder, self.name, {"a": tensor, "b": tensor, "out": tensor}, noalias=False
            ) as b,
            each(b, self.channels) as (row, channel),
        ):
            T.buffer_store(b["out"], b["a"][row, channel] + b["b"][row, channel], [row, channel])
        return builder.get()


@dataclass(frozen=True)
class UnitLength:
    """L2 normalization of [channels] float32, the sum of squares in order."""

    channels: int
    epsilon: float

    @property
    def name(self) -> str:
        """Symbol of the kernel."""
        return f"unit_length_{self.channels}_{np.float32(self.epsilon).view(np.uint32):x}"

    @property
    def units(self) -> int:
        """The norm is one sum."""
        return 1

    def build(self) -> tirx.PrimFunc:
        """Operands: x, out."""
        tensor = ((self.channels,), "float32")
        builder = IRBuilder()
        with kernel(builder, self.name, {"x": tensor, "out": tensor}) as b:
            x, out = b["x"], b["out"]
            T.buffer_store(out, T.float32(0), [0])
            with T.serial(0, self.channels) as i:
                total = tirx.call_llvm_pure_intrin("float32", "llvm.fma", x[i], x[i], out[0])
                T.buffer_store(out, total, [0])
            length = tirx.max(tirx.sqrt(out[0]), T.float32(self.epsilon))
            T.buffer_store(out, length, [0])
            with T.serial(0, self.channels - 1) as i:
                at = self.channels - 1 - i  # out[0] holds the length until the end
                T.buffer_store(out, x[at] / out[0], [at])
            T.buffer_store(out, x[0] / out[0], [0])
        return builder.get()
