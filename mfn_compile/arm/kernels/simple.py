"""Small kernels: input table, patches of a dense convolution, standalone additions and lookups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script import tirx as T
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder.tirx import prim_func as build_prim_func

from mfn_compile.arm.kernels.epilogue import added, quantized

LANES = 16
# A kernel's last two arguments: which of its units of work to do, from `begin` to before `end`.
SPAN = ("begin", "end")
Shapes = Mapping[str, tuple[tuple[int, ...], str]]


@contextmanager
def kernel(
    builder: IRBuilder, name: str, shapes: Shapes, *, noalias: bool = True
) -> Iterator[dict[str, Any]]:
    """An open function over buffers of the given shapes and dtypes, and the `span` of its work."""
    with builder, build_prim_func(s_tir=True):
        T.func_name(name)
        buffers = {n: T.arg(n, T.buffer(shape, dtype)) for n, (shape, dtype) in shapes.items()}
        buffers |= {n: T.arg(n, T.int32()) for n in SPAN}
        T.func_attr({"global_symbol": name, "tirx.noalias": noalias})
        with T.sblock("root"):
            T.reads()
            T.writes()
            yield buffers


@dataclass(frozen=True)
class Kept:
    """A windowed kernel's part in a block of layers that is computed strip by strip.

    Attributes:
        source: rows of the buffer that the input lies in: row y is in its row y % source.
        target: the same of the result.
        calls: how many calls compute the layer.
    """

    source: int
    target: int
    calls: int

    @property
    def tag(self) -> str:
        """Part of the kernel's name."""
        return f"_in{self.calls}_r{self.source}x{self.target}"


@dataclass(frozen=True)
class InputTable:
    """uint8 RGB [pixels, 3] to the first tensor [pixels, 3] by a table [3, 256]."""

    pixels: int
    channels: tuple[int, int, int]
    dtype: str

    @property
    def name(self) -> str:
        """Symbol of the kernel."""
        return f"input_{self.pixels}_{''.join(map(str, self.channels))}_{self.dtype}"

    @property
    def units(self) -> int:
        """Pixels."""
        return self.pixels

    def build(self) -> tirx.PrimFunc:
        """Operands: rgb, table, out."""
        shapes = {
            "rgb": ((self.pixels, 3), "uint8"),
            "table": ((3, 256), self.dtype),
            "out": ((self.pixels, 3), self.dtype),
        }
        builder = IRBuilder()
        with kernel(builder, self.name, shapes) as b, T.serial(b["begin"], b["end"]) as pixel:
            for channel, source in enumerate(self.channels):
                value = b["table"][channel, b["rgb"][pixel, source].astype("int32")]
                T.buffer_store(b["out"], value, [pixel, channel])
        return builder.get()


@dataclass(frozen=True)
class Patches:
    """Windows of an int8 tensor as matrix rows [rows of output, window * inputs, padded to 16].

    `stored` is the channel count in memory, `inputs` how many of them are read. With a `strip` the
    result is that of the call alone, its first row in front.
    """

    height: int
    width: int
    stored: int
    inputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    output: tuple[int, int]
    strip: Kept | None = None

    @property
    def depth(self) -> int:
        """Columns of the matrix."""
        return -(-self.kernel[0] * self.kernel[1] * self.inputs // LANES) * LANES

    @property
    def name(self) -> str:
        """Symbol of the kernel."""
        kernel, stride = "x".join(map(str, self.kernel)), "x".join(map(str, self.stride))
        shape = f"{self.height}x{self.width}x{self.inputs}of{self.stored}"
        strip = self.strip.tag if self.strip else ""
        return f"patches_{shape}_k{kernel}_s{stride}_p{'_'.join(map(str, self.padding))}{strip}"

    @property
    def units(self) -> int:
        """Rows of the result."""
        return self.output[0]

    def build(self) -> tirx.PrimFunc:
        """Operands: x, pad [inputs], out."""
        rows, columns = self.strip.target if self.strip else self.output[0], self.output[1]
        shapes = {
            "x": ((self.height, self.width, self.stored), "int8"),
            "pad": ((self.inputs,), "int8"),
            "out": ((rows, columns, self.depth), "int8"),
        }
        builder = IRBuilder()
        with (
            kernel(builder, self.name, shapes) as b,
            T.serial(b["begin"], b["end"]) as y,
        ):
            kept = y - b["begin"] if self.strip else y
            with T.serial(0, columns) as x:
                for ky in range(self.kernel[0]):
                    row = y * self.stride[0] + ky - self.padding[0]
                    with T.If(tirx.all(row >= 0, row < self.height)):
                        with T.Then():
                            self._window_row(b, kept, x, ky, row)
                        with T.Else():
                            self._outside(b, kept, x, ky, range(self.kernel[1]))
                used = self.kernel[0] * self.kernel[1] * self.inputs
                for spare in range(used, self.depth):
                    T.buffer_store(b["out"], T.int8(0), [kept, x, spare])
        return builder.get()

    def _window_row(self, b: dict[str, Any], y: Any, x: Any, ky: int, row: Any) -> None:
        for kx in range(self.kernel[1]):
            column = x * self.stride[1] + kx - self.padding[1]
            with T.If(tirx.all(column >= 0, column < self.width)):
                with T.Then(), T.serial(0, self.inputs) as c:
                    at = (ky * self.kernel[1] + kx) * self.inputs + c
                    T.buffer_store(b["out"], b["x"][row, column, c], [y, x, at])
                with T.Else():
                    self._outside(b, y, x, ky, range(kx, kx + 1))

    def _outside(self, b: dict[str, Any], y: Any, x: Any, ky: int, columns: range) -> None:
        for kx in columns:
            with T.serial(0, self.inputs) as c:
                at = (ky * self.kernel[1] + kx) * self.inputs + c
                T.buffer_store(b["out"], b["pad"][c], [y, x, at])


@dataclass(frozen=True)
class Addition:
    """A residual addition by itself; see `residual` and `residual_prelu` of `Epilogue`."""

    rows: int
    channels: int
    width: int
    prelu: bool = False

    @property
    def name(self) -> str:
        """Symbol of the kernel."""
        kind = ("add" if self.width == 1 else "addc") + ("_prelu" if self.prelu else "")
        return f"add_{self.rows}x{self.channels}_{kind}"

    @property
    def units(self) -> int:
        """Rows."""
        return self.rows

    def build(self) -> tirx.PrimFunc:
        """Operands: a, b, scales, limits, floats, out."""
        tensor = ((self.rows, self.channels), "int8")
        shapes = {
            "a": tensor,
            "b": tensor,
            "scales": ((3, self.width), "int32"),
            "limits": ((3, self.width), "int16"),
            "floats": ((1 + self.prelu, self.width), "float32"),
            "out": tensor,
        }
        builder = IRBuilder()
        with (
            kernel(builder, self.name, shapes, noalias=False) as b,
            each(b, self.channels) as (row, channel),
        ):
            at = channel if self.width > 1 else 0
            values = (b["a"][row, channel], b["b"][row, channel])
            value = added(b["scales"], b["limits"], b["floats"], at, *values)
            T.buffer_store(b["out"], value, [row, channel])
        return builder.get()


@dataclass(frozen=True)
class TableLookup:
    """out = table[channel, x + 128]; one table a channel."""

    rows: int
    channels: int

    @property
    def name(self) -> str:
        """Symbol of the kernel."""
        return f"lookup_{self.rows}x{self.channels}"

    @property
    def units(self) -> int:
        """Rows."""
        return self.rows

    def build(self) -> tirx.PrimFunc:
        """Operands: x, table [channels, 256], out."""
        tensor = ((self.rows, self.channels), "int8")
        shapes = {"x": tensor, "table": ((self.channels, 256), "int8"), "out": tensor}
        builder = IRBuilder()
        with (
            kernel(builder, self.name, shapes, noalias=False) as b,
            T.serial(b["begin"], b["end"]) as row,
            T.serial(0, self.channels) as channel,
        ):
            index = b["x"][row, channel].astype("int32") + 128
            T.buffer_store(b["out"], b["table"][channel, index], [row, channel])
        return builder.get()


@dataclass(frozen=True)
class ToFloats:
    """int8 to float32: (x - zero point) * scale."""

    rows: int
    channels: int

    @property
    def name(self) -> str:
        """Symbol of the kernel."""
        return f"dequantize_{self.rows}x{self.channels}"

    @property
    def units(self) -> int:
        """Rows."""
        return self.rows

    def build(self) -> tirx.PrimFunc:
        """Operands: x, parameters [2, channels] (zero point, scale), out."""
        shapes = {
            "x": ((self.rows, self.channels), "int8"),
            "parameters": ((2, self.channels), "float32"),
            "out": ((self.rows, self.channels), "float32"),
        }
        builder = IRBuilder()
        with (
            kernel(builder, self.name, shapes) as b,
            each(b, self.channels) as (row, channel),
        ):
            shifted = b["x"][row, channel].astype("float32") - b["parameters"][0, channel]
            T.buffer_store(b["out"], shifted * b["parameters"][1, channel], [row, channel])
        return builder.get()


@dataclass(frozen=True)
class ToIntegers:
    """float32 to int8: round half to even of x / scale, plus the zero point, saturated."""

    rows: int
    channels: int

    @property
    def name(self) -> str:
        """Symbol of the kernel."""
        return f"quantize_{self.rows}x{self.channels}"

    @property
    def units(self) -> int:
        """Rows."""
        return self.rows

    def build(self) -> tirx.PrimFunc:
        """Operands: x, parameters [4, channels] (scale, low, high, zero point), out."""
        shapes = {
            "x": ((self.rows, self.channels), "float32"),
            "parameters": ((4, self.channels), "float32"),
            "out": ((self.rows, self.channels), "int8"),
        }
        builder = IRBuilder()
        with (
            kernel(builder, self.name, shapes) as b,
            each(b, self.channels) as (row, channel),
        ):
            scale, low, high, zero = (b["parameters"][i, channel] for i in range(4))
            value = quantized(b["x"][row, channel] / scale, low, high, zero)
            T.buffer_store(b["out"], value.astype("int8"), [row, channel])
        return builder.get()


@contextmanager
def each(buffers: dict[str, Any], channels: int) -> Iterator[tuple[Any, Any]]:
    """Loops over [rows of the span, channels], vectorized by 16 channels."""
    with (
        T.serial(buffers["begin"], buffers["end"]) as row,
        T.serial(0, channels // LANES) as block,
        T.vectorized(0, LANES) as lane,
    ):
        yield row, block * LANES + lane
