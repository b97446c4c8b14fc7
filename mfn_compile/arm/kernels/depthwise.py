"""Depthwise kernel: 3x3 with strides, and the global one; int8 NHWC, 16 channels at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.script import tirx as T
from tvm.script.ir_builder import IRBuilder

from mfn_compile.arm.kernels.depthwise_rows import products_row, quads_row
from mfn_compile.arm.kernels.epilogue import Epilogue, finish
from mfn_compile.arm.kernels.finishing import FARTHEST, is_short
from mfn_compile.arm.kernels.knobs import Key, Knobs, Loads
from mfn_compile.arm.kernels.simple import Kept
from mfn_compile.arm.kernels.simple import kernel as new_kernel
from mfn_compile.arm.kernels.window import Strip, pack_strips, strip_ir, weights_shape

LANES = 16
MOST_COLUMNS = 4  # at once, unrolled


@dataclass(frozen=True)
class Depthwise:
    """Input size, window, stride, padding (top, left, bottom, right) and epilogue.

    `groups` are the numbers of taps whose products AArch64 adds in 16 bits; empty elsewhere.
    `quads` is the number of output columns that are computed at once with `sdot`; 0 without.
    `strips` says that these are strips of `window.py`, whose instructions are ordered for `loads`;
    `groups` are empty where those use `sdot`.
    With a `strip` a ring lives on from call to call, so that each one reads new rows only.
    """

    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    epilogue: Epilogue
    groups: tuple[int, ...] = ()
    quads: int = 0
    strips: bool = False
    loads: Loads = "whole"
    strip: Kept | None = None

    @property
    def output(self) -> tuple[int, int]:
        """Height and width of the result."""
        top, left, bottom, right = self.padding
        rows = (self.height + top + bottom - self.kernel[0]) // self.stride[0] + 1
        return rows, (self.width + left + right - self.kernel[1]) // self.stride[1] + 1

    @property
    def name(self) -> str:
        """Symbol of the kernel."""
        strip = self.strip.tag if self.strip else ""
        return f"{self._shape}{strip}_{self._form}{self.epilogue.tag}"

    @property
    def key(self) -> Key:
        """What knobs are looked up by; how its products are added is not in it."""
        sizes = {"height": self.height, "width": self.width, "channels": self.epilogue.channels}
        window = "_".join(self._shape.split("_")[2:])
        attributes = {"window": window, "epilogue": self.epilogue.tag}
        return Key("depthwise", f"{self._shape}_{self.epilogue.tag}", sizes, attributes)

    @property
    def _shape(self) -> str:
        kernel, stride = "x".join(map(str, self.kernel)), "x".join(map(str, self.stride))
        pads = "_".join(map(str, self.padding))
        shape = f"{self.height}x{self.width}x{self.epilogue.channels}"
        return f"depthwise_{shape}_k{kernel}_s{stride}_p{pads}"

    @property
    def units(self) -> int:
        """Rows of the result, or pairs of them."""
        return -(-self.output[0] // 2) if self.paired else self.output[0]

    @property
    def paired(self) -> bool:
        """Whether strips have two rows: they share what they load."""
        return self.strips and self.stride == (1, 1) and not self.groups

    @property
    def _form(self) -> str:
        """How the products are added: the lengths of runs of groups."""
        runs = [f"{length}x{len(list(same))}" for length, same in groupby(self.groups)]
        form = f"g{'_'.join(runs)}_" if runs else ""
        if self.strips:
            return f"strips{self.quads}_{form}"
        return f"q{self.quads}_" if self.quads else form

    @property
    def ring(self) -> tuple[int, int, int]:
        """Shape of the scratch buffer: a window's padded input rows, or padding alone, int8."""
        if self.strips:
            return (1, (self.quads - 1) * self.stride[1] + 3, self.epilogue.channels)
        width = self.width + self.padding[1] + self.padding[3]
        return (self.kernel[0], width, self.epilogue.channels) if self.ringed else (1, 1, 16)

    @property
    def ringed(self) -> bool:
        """Whether rows go through the ring."""
        return not self.strips and (any(self.padding) or self.strip is not None)

    @property
    def buffered(self) -> tuple[int, int]:
        """Rows of the buffers of the input and the result."""
        whole = (self.height, self.output[0])
        return (self.strip.source, self.strip.target) if self.strip else whole


def _packed(kernel: Depthwise) -> tuple[tuple[int, ...], str]:
    channels = kernel.epilogue.channels
    if kernel.strips:
        return weights_shape(channels, dots=not kernel.groups), "int8"
    if kernel.quads:
        return (channels // LANES, kernel.kernel[1], 4, LANES), "int8"
    return (*kernel.kernel, channels), "int8" if kernel.groups else "int16"


def pack(kernel: Depthwise, weight: NDArray[np.int8]) -> NDArray[Any]:
    """int8 [KH, KW, C] as the kernel reads it.

    int16 [KH, KW, channels], widened here once for all; int8 where AArch64 multiplies bytes; for
    `sdot` int8 [channels / 16, KW, 4, 16], the last axis four channels of four rows.
    """
    missing = kernel.epilogue.channels - weight.shape[2]
    found = np.pad(weight, ((0, 0), (0, 0), (0, missing)))
    if kernel.strips:
        return pack_strips(found, dots=not kernel.groups)
    if kernel.quads:
        tall = np.pad(found, ((0, 4 - len(found)), (0, 0), (0, 0)))
        blocks = tall.reshape(4, tall.shape[1], -1, LANES).transpose(2, 1, 3, 0)
        return blocks.reshape(_packed(kernel)[0])
    return found if kernel.groups else found.astype(np.int16)


def _columns_of_strips(kernel: Depthwise, most: int) -> int:
    """How many of the output's columns are a strip: the largest divisor up to `most`, whose input
    columns are near enough.
    """
    columns = kernel.output[1]
    most = min(most, max(1, (FARTHEST // kernel.epilogue.channels - 3) // kernel.stride[1]))
    return max(count for count in range(1, most + 1) if columns % count == 0)


def _columns_of_quads(kernel: Depthwise) -> int:
    """How many output columns share what they load; 0 where `sdot` does not pay."""
    columns = kernel.output[1]
    if kernel.kernel != (3, 3):
        return 0
    best = max(count for count in range(1, MOST_COLUMNS + 1) if columns % count == 0)
    return best if best > 1 or columns == 1 else 0


def groups_of(weight: NDArray[np.int8]) -> tuple[int, ...]:
    """Lengths of runs of taps whose products with int8 values add up in int16 in every channel.

    Args:
        weight: int8 [KH, KW, C].
    """
    taps = np.abs(weight.astype(np.int32)).reshape(-1, weight.shape[2])
    found: list[int] = []
    begin = 0
    for end in range(1, len(taps) + 1):
        if end == len(taps) or (taps[begin : end + 1].sum(axis=0) * 128 >= 2**15).any():
            found.append(end - begin)
            begin = end
    return tuple(found)


def build(kernel: Depthwise) -> tirx.PrimFunc:
    """The kernel. Operands: x, weights, pad [C], the epilogue's constants, [skip], out, ring; its
    units are those of `Depthwise.units`.
    """
    builder = IRBuilder()
    noalias = not kernel.epilogue.residual
    with new_kernel(builder, kernel.name, _shapes(kernel), noalias=noalias) as buffers:
        if kernel.strips:
            _strips(kernel, buffers)
        elif kernel.ringed:
            _ring_rows(kernel, buffers)
        else:
            with T.serial(buffers["begin"], buffers["end"]) as y:
                _row(kernel, buffers, buffers["x"], y, lambda ky: y * kernel.stride[0] + ky)
    return builder.get()


def _shapes(kernel: Depthwise) -> dict[str, tuple[tuple[int, ...], str]]:
    channels, columns = kernel.epilogue.channels, kernel.output[1]
    source, rows = kernel.buffered
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "x": ((source, kernel.width, channels), "int8"),
        "weights": _packed(kernel),
        "pad": ((channels,), "int8"),
        **kernel.epilogue.operands(),
    }
    if kernel.epilogue.residual:
        shapes["skip"] = ((rows, columns, channels), "int8")
    dtype = "float32" if kernel.epilogue.to_float else "int8"
    shapes["out"] = ((rows, columns, channels), dtype)
    shapes["ring"] = (kernel.ring, "int8")
    return shapes


def scheduled(kernel: Depthwise, knobs: Knobs, *, dots: bool) -> Depthwise:
    """The kernel with its knobs.

    Args:
        kernel: without `quads` and `strips`; with `groups` on AArch64.
        dots: whether there is `sdot`.
    """
    if _has_strips(kernel):
        return replace(
            kernel,
            groups=() if dots else kernel.groups,
            quads=_columns_of_strips(kernel, knobs.strips),
            strips=True,
            loads=knobs.loads,
        )
    return replace(kernel, quads=_columns_of_quads(kernel) if dots and knobs.quads else 0)


def _has_strips(kernel: Depthwise) -> bool:
    """Whether `window.py` computes the layer."""
    shape, plain = kernel.epilogue, kernel.kernel == (3, 3) and max(kernel.padding) <= 1
    return plain and kernel.stride in ((1, 1), (2, 2)) and is_short(shape) and not shape.residual


def _strips(kernel: Depthwise, buffers: dict[str, Any]) -> None:
    """Strips of two rows, where the window moves by one row, and of one row."""
    rows, pad, ring = kernel.output[0], buffers["pad"], buffers["ring"]
    with (
        T.serial(0, kernel.ring[1]) as column,
        T.serial(0, kernel.epilogue.channels // LANES) as block,
    ):
        at = T.ramp(block * LANES, 1, LANES)
        T.buffer_store(ring, pad.vload([block * LANES], "int8x16"), [0, column, at])
    with T.serial(buffers["begin"], buffers["end"]) as unit:
        if not kernel.paired:
            _strip_row(kernel, buffers, unit, 1)
        elif rows % 2 == 0:
            _strip_row(kernel, buffers, 2 * unit, 2)
        else:
            with T.If(2 * unit + 1 < rows):
                with T.Then():
                    _strip_row(kernel, buffers, 2 * unit, 2)
                with T.Else():
                    _strip_row(kernel, buffers, 2 * unit, 1)


def _strip_row(kernel: Depthwise, buffers: dict[str, Any], y: Any, rows: int) -> None:
    strip = Strip(
        height=kernel.height,
        width=kernel.width,
        out_height=kernel.output[0],
        out_width=kernel.output[1],
        stride=kernel.stride[0],
        top=kernel.padding[0],
        left=kernel.padding[1],
        columns=kernel.quads,
        rows=rows,
        loads=kernel.loads,
        epilogue=kernel.epilogue,
        buffered=kernel.buffered,
        groups=kernel.groups,
    )
    read = [buffers[name].access_ptr("r") for name in ("x", "ring", "weights")]
    read += [buffers[name].access_ptr("r") for name in ("bias", "multiplier", "shift")]
    with (
        T.attr(T.int32(0), "pragma_import_llvm", strip_ir(strip)),
        T.serial(0, kernel.output[1] // kernel.quads) as chunk,
    ):
        out = buffers["out"].access_ptr("w")
        T.evaluate(T.call_extern("void", strip.name, *read, out, y, chunk))


def _ring_rows(kernel: Depthwise, buffers: dict[str, Any]) -> None:
    """Keep the window's input rows, padded, in a ring: every input row is copied once."""
    height, stride = kernel.kernel[0], kernel.stride[0]
    begin, rows = buffers["begin"], kernel.buffered[1]
    known = T.if_then_else(begin > 0, height - stride, 0) if kernel.strip else 0
    with T.serial(known, height - stride) as first:
        _load_row(kernel, buffers, begin * stride + first)
    with T.serial(buffers["begin"], buffers["end"]) as y:
        with T.serial(0, stride) as new:
            _load_row(kernel, buffers, y * stride + (height - stride) + new)
        target = T.bind(y % rows) if kernel.strip else y
        _row(kernel, buffers, buffers["ring"], target, lambda ky: (y * stride + ky) % height)


def _load_row(kernel: Depthwise, buffers: dict[str, Any], padded_row: Any) -> None:
    x, pad, ring = buffers["x"], buffers["pad"], buffers["ring"]
    top, left, _, right = kernel.padding
    slot, row = padded_row % kernel.kernel[0], padded_row - top

    def fill(start: int, count: int, value: Callable[[Any, Any], Any]) -> None:
        with (
            T.serial(0, count) as column,
            T.serial(0, kernel.epilogue.channels // LANES) as block,
            T.vectorized(0, LANES) as lane,
        ):
            channel = block * LANES + lane
            T.buffer_store(ring, value(column, channel), [slot, start + column, channel])

    if left:
        fill(0, left, lambda _, channel: pad[channel])
    if right:
        fill(left + kernel.width, right, lambda _, channel: pad[channel])
    kept = T.bind(row % kernel.buffered[0]) if kernel.strip else row
    with T.If(tirx.all(row >= 0, row < kernel.height)):
        with T.Then():
            fill(left, kernel.width, lambda column, channel: x[kept, column, channel])
        with T.Else():
            fill(left, kernel.width, lambda _, channel: pad[channel])


def _row(
    kernel: Depthwise,
    buffers: dict[str, Any],
    source: Any,
    y: Any,
    source_row: Callable[[int], Any],
) -> None:
    """One output row; channels outside, so that the window's weights stay in registers."""
    if kernel.quads:
        quads_row(kernel, buffers, source, y, source_row)
        return
    if kernel.groups:
        products_row(kernel, buffers, source, y, source_row)
        return
    weights, out = buffers["weights"], buffers["out"]
    with (
        T.serial(0, kernel.epilogue.channels // LANES) as block,
        T.serial(0, kernel.output[1]) as column,
        T.vectorized(0, LANES) as lane,
    ):
        channel = block * LANES + lane
        total = sum(
            source[source_row(ky), column * kernel.stride[1] + kx, channel].astype("int32")
            * weights[ky, kx, channel].astype("int32")
            for ky in range(kernel.kernel[0])
            for kx in range(kernel.kernel[1])
        )
        skip = buffers["skip"][y, column, channel] if kernel.epilogue.residual else None
        value = finish(kernel.epilogue, buffers, total, channel, skip)
        T.buffer_store(out, value, [y, column, channel])
