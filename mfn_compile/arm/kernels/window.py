"""3x3 depthwise windows, as LLVM IR around one loop of AArch64 assembly.

A strip is some output columns of one or two rows, of 8 channels at a time. For `sdot` every input
column of a strip is rearranged once so that four rows of a channel are neighbours; with stride 1
the same four rows serve two output rows. Without it products of bytes are added in 16 bits. What
lies outside of the image is read from a row of padding, so no input is copied.

Registers: x0-x17 are pointers and the loop's count, x20-x27 carriers (see `straight.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm.kernels.epilogue import Epilogue
from mfn_compile.arm.kernels.finishing import CHANNELS, Finish, Pointers, prepare
from mfn_compile.arm.kernels.knobs import Loads
from mfn_compile.arm.kernels.straight import CARRIERS, Code

SIDE = 3  # of the window


@dataclass(frozen=True)
class Strip:
    """What one call computes.

    Attributes:
        height, width: of the input.
        out_height, out_width: of the output.
        stride: in both directions.
        top, left: padding, at most 1.
        columns: of the output, that are computed at once; it divides `out_width`.
        rows: of the output: 2 with `sdot` and stride 1 only.
        buffered: rows of the buffers of input and result; row y is in their row y % buffered.
        groups: without `sdot`, how many taps are added in 16 bits (see `depthwise.groups_of`).
    """

    height: int
    width: int
    out_height: int
    out_width: int
    stride: int
    top: int
    left: int
    columns: int
    rows: int
    loads: Loads
    epilogue: Epilogue
    buffered: tuple[int, int]
    groups: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Symbol of its function."""
        shape = f"{self.height}x{self.width}x{self.epilogue.channels}_s{self.stride}"
        place = f"p{self.top}_{self.left}_w{self.out_width}"
        form = f"{self.rows}x{self.columns}_{self.loads}_{self.epilogue.tag}"
        form += "".join(map(str, self.groups)) + "_r{}x{}".format(*self.buffered)
        return f"mfn_strip_{shape}_{place}_{form}"

    @property
    def inputs(self) -> tuple[int, int]:
        """Rows and columns of the input that it reads."""
        return self.rows + 2, (self.columns - 1) * self.stride + SIDE

    @property
    def ends_outside(self) -> bool:
        """Whether the last column that the last strip reads is padding."""
        return (self.out_width - 1) * self.stride + SIDE - self.left > self.width


def weights_shape(channels: int, *, dots: bool) -> tuple[int, ...]:
    """Packed weights: by tap; for `sdot` for the first and the second row, by column, channels
    times rows.
    """
    form = (2, SIDE, CHANNELS, 4) if dots else (SIDE, SIDE, CHANNELS)
    return channels // CHANNELS, *form


def pack_strips(weight: NDArray[np.int8], *, dots: bool) -> NDArray[np.int8]:
    """int8 [3, 3, C], C a multiple of 16, as `weights_shape` says."""
    if not dots:
        blocks = weight.reshape(SIDE, SIDE, -1, CHANNELS)
        return np.ascontiguousarray(blocks.transpose(2, 0, 1, 3))
    rows = [np.pad(weight, ((above, 1 - above), (0, 0), (0, 0))) for above in (0, 1)]
    both = np.stack(rows).reshape(2, 4, SIDE, -1, CHANNELS)
    return np.ascontiguousarray(both.transpose(3, 0, 2, 4, 1))


@dataclass(frozen=True)
class _Pointers:
    """Register names: each input row, its first and last column where those can be padding,
    the output's rows, and constants."""

    middle: tuple[str, ...]
    first: tuple[str, ...]
    last: tuple[str, ...]
    out: tuple[str, ...]
    weights: str
    bias: str
    multiplier: str
    shift: str
    count: str

    @property
    def names(self) -> list[str]:
        """All pointers in order, without the count."""
        constants = [self.weights, self.bias, self.multiplier, self.shift]
        found = [*self.middle, *self.first, *self.last, *self.out, *constants]
        return found


def _pointers(strip: Strip) -> _Pointers:
    names = iter([*(f"x{i}" for i in range(18)), "x28"])
    rows = strip.inputs[0]

    def take(count: int) -> tuple[str, ...]:
        return tuple(next(names) for _ in range(count))

    middle = take(rows)
    first = take(rows if strip.left else 0)
    last = take(rows if strip.ends_outside else 0)
    out = take(strip.rows)
    weights, bias, multiplier, shift, count = take(5)
    return _Pointers(middle, first, last, out, weights, bias, multiplier, shift, count)


@cache
def strip_ir(strip: Strip) -> str:
    """LLVM IR of `void name(x, padding, weights, bias, multiplier, shift, out, y, chunk)`.

    x: int8 [height, width, channels]. padding: int8, `inputs[1]` columns of it. weights: see
    `weights_shape`. bias: int32, multiplier: float32 [1 or 2, channels], shift: float32. out: int8
    [.., out_width, channels]. y: first row of the output; chunk: which of its strips.
    """
    at = _pointers(strip)
    body, where = _addresses(strip, at)
    names = [*at.names, at.count]
    places = [*(where[name] for name in at.names), str(strip.epilogue.channels // CHANNELS)]
    text = "\\0A".join(
        ["b 1f", "1:", *_loop(strip, at), f"subs {at.count}, {at.count}, 1", "b.ne 1b"]
    )
    kinds = ["ptr"] * len(at.names) + ["i64"]
    shape = "{ " + ", ".join(kinds) + " }"
    constraints = [f"={{{name}}}" for name in names] + [str(i) for i in range(len(names))]
    constraints += [f"~{{v{r}}}" for r in range(32)] + [f"~{{{name}}}" for name in CARRIERS]
    constraints += ["~{cc}", "~{memory}"]
    given = ", ".join(f"{kind} {place}" for kind, place in zip(kinds, places, strict=True))
    listed = ",".join(constraints)
    parameters = ", ".join(f"ptr %{n}" for n in ("x", "pad", "w", "bias", "mul", "shift", "out"))
    return "\n".join(
        [
            f"define linkonce_odr void @{strip.name}({parameters}, i32 %y, i32 %chunk) "
            "alwaysinline nounwind {",
            *body,
            f'  %r = call {shape} asm sideeffect "{text}", "{listed}"({given})',
            "  ret void",
            "}",
            "",
        ]
    )


def _addresses(strip: Strip, at: _Pointers) -> tuple[list[str], dict[str, str]]:
    """LLVM IR that computes the pointers, and the value of each."""
    channels, (rows, columns) = strip.epilogue.channels, strip.inputs
    step = strip.columns * strip.stride
    last = strip.out_width // strip.columns - 1
    body = [
        f"  %left = icmp eq i32 %chunk, 0\n  %right = icmp eq i32 %chunk, {last}",
        f"  %begin = mul i32 %chunk, {step}",
        f"  %line = mul i32 %y, {strip.stride}\n  %low = add i32 %line, {-strip.top}",
    ]
    where = {at.weights: "%w", at.bias: "%bias", at.multiplier: "%mul", at.shift: "%shift"}
    for r in range(rows):
        body += [
            f"  %row{r} = add i32 %low, {r}\n  %in{r} = icmp ult i32 %row{r}, {strip.height}",
            _wrapped(f"%in_buffer{r}", f"%row{r}", strip.buffered[0], strip.height),
            f"  %a{r} = mul i32 %in_buffer{r}, {strip.width}\n  %b{r} = add i32 %a{r}, %begin",
            f"  %c{r} = mul i32 %b{r}, {channels}\n  %d{r} = sext i32 %c{r} to i64",
            f"  %e{r} = getelementptr i8, ptr %x, i64 %d{r}",
            f"  %m{r} = select i1 %in{r}, ptr %e{r}, ptr %pad",
        ]
        where[at.middle[r]] = f"%m{r}"
        if at.first:
            body.append(_edge(f"f{r}", r, -channels, "left"))
            where[at.first[r]] = f"%f{r}"
        if at.last:
            body.append(_edge(f"l{r}", r, (columns - 1 - strip.left) * channels, "right"))
            where[at.last[r]] = f"%l{r}"
    for r, name in enumerate(at.out):
        body += [
            f"  %z{r} = add i32 %y, {r}",
            _wrapped(f"%y{r}", f"%z{r}", strip.buffered[1], strip.out_height),
            f"  %g{r} = mul i32 %y{r}, {strip.out_width}",
            f"  %h{r} = mul i32 %chunk, {strip.columns}\n  %i{r} = add i32 %g{r}, %h{r}",
            f"  %j{r} = mul i32 %i{r}, {channels}\n  %k{r} = sext i32 %j{r} to i64",
            f"  %o{r} = getelementptr i8, ptr %out, i64 %k{r}",
        ]
        where[name] = f"%o{r}"
    return body, where


def _wrapped(name: str, row: str, rows: int, height: int) -> str:
    """The row of a buffer that a row of a tensor is in."""
    return (
        f"  {name} = add i32 {row}, 0" if rows == height else f"  {name} = urem i32 {row}, {rows}"
    )


def _edge(name: str, row: int, distance: int, edge: str) -> str:
    """A column that is padding in the first or the last strip, and in rows of padding."""
    return (
        f"  %{name}a = getelementptr i8, ptr %e{row}, i64 {distance}\n"
        f"  %{name}b = select i1 %in{row}, ptr %{name}a, ptr %pad\n"
        f"  %{name} = select i1 %{edge}, ptr %pad, ptr %{name}b"
    )


def _loop(strip: Strip, at: _Pointers) -> list[str]:
    """The loop's body: 8 channels."""
    code = Code(strip.loads)
    (_products if strip.groups else _dots)(code, strip, at)
    for name in at.names:
        code.advance(name, _distance(strip, at, name))
    return code.program()


def _dots(code: Code, strip: Strip, at: _Pointers) -> None:
    """All outputs by `sdot`."""
    weights = [
        [[code.load(at.weights, 96 * row + 32 * kx + 16 * q) for q in (0, 1)] for kx in range(SIDE)]
        for row in range(strip.rows)
    ]
    finish = prepare(code, strip.epilogue, Pointers(at.shift, at.multiplier), keep=False)
    quads: list[list[int]] = []
    for column in range(strip.inputs[1]):
        quads.append(_quads(code, _column(code, strip, at, column)))
        first = column - SIDE + 1
        if first >= 0 and first % strip.stride == 0:
            window = quads[first : column + 1]
            _outputs(code, strip, at, finish, weights, window, first // strip.stride)


def _products(code: Code, strip: Strip, at: _Pointers) -> None:
    """All outputs of one row by products of bytes, added in 16 bits as far as they fit."""
    weights = [code.load(at.weights, CHANNELS * tap, CHANNELS) for tap in range(SIDE * SIDE)]
    bias = [code.load(at.bias, 16 * q) for q in (0, 1)]
    finish = prepare(code, strip.epilogue, Pointers(at.shift, at.multiplier), keep=False)
    columns: list[list[int]] = []
    for column in range(strip.inputs[1]):
        columns.append(_column(code, strip, at, column))
        first = column - SIDE + 1
        if first < 0 or first % strip.stride:
            continue
        taps = [columns[first + kx][ky] for ky in range(SIDE) for kx in range(SIDE)]
        sums, begin = bias, 0
        for length in strip.groups:
            here = range(begin, begin + length)
            part = code.make("smull {0}.8h, {1}.8b, {2}.8b", taps[begin], weights[begin])
            for tap in here[1:]:
                part = code.change("smlal {0}.8h, {1}.8b, {2}.8b", part, taps[tap], weights[tap])
            sums = [
                code.make("saddw {0}.4s, {1}.4s, {2}.4h", sums[0], part),
                code.make("saddw2 {0}.4s, {1}.4s, {2}.8h", sums[1], part),
            ]
            begin += length
        offset = first // strip.stride * strip.epilogue.channels
        code.store(finish.apply(code, sums), at.out[0], offset)


def _distance(strip: Strip, at: _Pointers, name: str) -> int:
    """Bytes of 8 channels."""
    if name == at.weights:
        return CHANNELS * SIDE * (SIDE if strip.groups else 2 * 4)
    return 4 * CHANNELS if name in (at.bias, at.multiplier, at.shift) else CHANNELS


def _column(code: Code, strip: Strip, at: _Pointers, column: int) -> list[int]:
    """Registers of 8 channels, one a row."""
    channels, pointers, offset = strip.epilogue.channels, at.middle, column - strip.left
    if column == 0 and at.first:
        pointers, offset = at.first, 0
    elif column == strip.inputs[1] - 1 and at.last:
        pointers, offset = at.last, 0
    return [code.load(pointer, offset * channels, 8) for pointer in pointers]


def _quads(code: Code, rows: Sequence[int]) -> list[int]:
    """Two registers of four channels times four rows; with three rows the last one twice."""
    pairs = [
        code.make("zip1 {0}.16b, {1}.16b, {2}.16b", a, b)
        for a, b in ((rows[0], rows[1]), (rows[2], rows[-1]))
    ]
    return [
        code.make(f"{zipped} {{0}}.8h, {{1}}.8h, {{2}}.8h", *pairs) for zipped in ("zip1", "zip2")
    ]


def _outputs(
    code: Code,
    strip: Strip,
    at: _Pointers,
    finish: Finish,
    weights: Sequence[Sequence[Sequence[int]]],
    window: Sequence[Sequence[int]],
    column: int,
) -> None:
    """One column of the output, all rows."""
    for row in range(strip.rows):
        sums = [code.load(at.bias, 16 * q) for q in (0, 1)]
        for kx in range(SIDE):
            sums = [
                code.change("sdot {0}.4s, {1}.16b, {2}.16b", total, quad, weight)
                for total, quad, weight in zip(sums, window[kx], weights[row][kx], strict=True)
            ]
        code.store(finish.apply(code, sums), at.out[row], column * strip.epilogue.channels)
