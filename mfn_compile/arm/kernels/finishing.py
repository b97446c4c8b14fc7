"""The epilogue as instructions of `straight.Code`: int32 sums of 8 channels to 8 bytes in memory.

It computes what `registers.to_bytes` computes, for the forms that `is_short` accepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mfn_compile.arm.kernels.epilogue import MAGIC_BITS, POSITIVE_BITS, Epilogue
from mfn_compile.arm.kernels.straight import Code

CHANNELS = 8  # of one call of `Finish.apply`
FARTHEST = 32760  # bytes from a pointer to what an instruction loads or stores
MOST = 4096  # channels whose rows of a tile and factors are not farther


def is_short(shape: Epilogue) -> bool:
    """Whether rounding and clipping are an addition and saturation."""
    form = shape.form
    if form is None or shape.channels > MOST or shape.to_float:
        return False
    if not (form.exact and form.narrow):
        return False
    if shape.residual:
        bent = shape.residual > 1 or shape.residual_prelu or form.sum_shifted or form.sum_bounded
        if bent or not form.byte_scales:
            return False
    return not (form.shifted or form.bounded)


@dataclass(frozen=True)
class Pointers:
    """Names of the registers that point to the constants of 8 channels, and to those of a sum.

    Attributes:
        shift: float32 that are subtracted or, in a `positive` form, added.
        multiplier: float32, the factors; those of negative sums a row of channels later.
        scales: int32 [3] of the addition: two scales and the offset.
        factor: float32, of the addition.
    """

    shift: str
    multiplier: str
    scales: str = ""
    factor: str = ""


@dataclass(frozen=True)
class Addition:
    """Registers of a fused addition's constants, the same for all channels."""

    scales: tuple[int, int]
    start: int  # the offset and MAGIC, as bits
    base: int  # MAGIC
    factor: int
    magic: int

    def apply(self, code: Code, value: int, skip: int) -> int:
        """8 bytes and 8 bytes of `skip` to 8 bytes."""
        total = code.make("smull {0}.8h, {1}.8b, {2}.8b", value, self.scales[0])
        total = code.change("smlal {0}.8h, {1}.8b, {2}.8b", total, skip, self.scales[1])
        wide = [
            code.make("saddw {0}.4s, {1}.4s, {2}.4h", self.start, total),
            code.make("saddw2 {0}.4s, {1}.4s, {2}.8h", self.start, total),
        ]
        exact = [code.make("fsub {0}.4s, {1}.4s, {2}.4s", part, self.base) for part in wide]
        scaled = [code.make("fmul {0}.4s, {1}.4s, {2}.4s", part, self.factor) for part in exact]
        return _rounded(code, scaled, self.magic)


@dataclass(frozen=True)
class Finish:
    """What is ready in registers: factors by sign and half, and what else is loaded once."""

    shape: Epilogue
    shift: str
    shifts: tuple[int, ...]
    factors: tuple[tuple[int, ...], ...]
    magic: int
    addition: Addition | None

    def apply(
        self,
        code: Code,
        sums: Sequence[int],
        skip: int | None = None,
        halves: tuple[int, int] = (0, 1),
    ) -> int:
        """8 bytes of two sums of four channels; of one sum, twice the same 4 bytes.

        Args:
            skip: 8 bytes that are added.
            halves: which of the 8 channels each of the sums has.
        """
        scaled = [
            self._scaled(code, total, half) for total, half in zip(sums, halves, strict=False)
        ]
        scaled = [scaled[0], scaled[-1]]
        value = _rounded(code, scaled, self.magic)
        if skip is None:
            return value
        assert self.addition is not None
        return self.addition.apply(code, value, skip)

    def _scaled(self, code: Code, total: int, half: int) -> int:
        assert self.shape.form is not None
        start = self.shifts[half] if self.shifts else code.load(self.shift, 16 * half)
        if self.shape.form.positive and not self.shifts:
            return code.change("fmla {0}.4s, {1}.4s, {2}.4s", start, total, self.factors[0][half])
        value = code.make("fsub {0}.4s, {1}.4s, {2}.4s", total, start)
        factor = self.factors[0][half]
        if self.shape.prelu:
            mask = code.make("cmlt {0}.4s, {1}.4s, 0", value)
            negative = self.factors[1][half]
            factor = code.change("bsl {0}.16b, {1}.16b, {2}.16b", mask, negative, factor)
        return code.make("fmul {0}.4s, {1}.4s, {2}.4s", value, factor)


def _rounded(code: Code, scaled: Sequence[int], magic: int) -> int:
    """Round half to even, add the zero point that is in `magic`, clip: 8 bytes."""
    whole = [code.make("fadd {0}.4s, {1}.4s, {2}.4s", part, magic) for part in scaled]
    words = code.make("uzp1 {0}.8h, {1}.8h, {2}.8h", *whole)
    return code.make("sqxtn {0}.8b, {1}.8h", words)


def prepare(
    code: Code, shape: Epilogue, at: Pointers, *, keep: bool, halves: Sequence[int] = (0, 1)
) -> Finish:
    """Load what stays in registers.

    Args:
        halves: of 8 channels, which there are.
        keep: also what is subtracted from the sums.
    """
    form = shape.form
    assert form is not None
    shifts: tuple[int, ...] = ()
    if form.positive and code.loads == "general":
        shifts = (code.constant(POSITIVE_BITS),) * 2  # dearer than to load what `fmla` adds
    elif keep and not form.positive:
        shifts = tuple(code.load(at.shift, 16 * half) for half in halves)
    factors = tuple(
        tuple(code.load(at.multiplier, 4 * shape.channels * row + 16 * half) for half in halves)
        for row in range(1 + shape.prelu)
    )
    magic = code.constant(MAGIC_BITS + form.shift)
    addition = prepare_addition(code, shape, at, magic) if shape.residual else None
    return Finish(shape, at.shift, shifts, factors, magic, addition)


def prepare_addition(code: Code, shape: Epilogue, at: Pointers, magic: int) -> Addition:
    """Load what a fused addition keeps in registers; `magic` has what rounds its operand."""
    form = shape.form
    assert form is not None
    base = magic if form.shift == 0 else code.constant(MAGIC_BITS)
    last = base if form.sum_shift == 0 else code.constant(MAGIC_BITS + form.sum_shift)
    start = code.make("add {0}.4s, {1}.4s, {2}.4s", base, code.spread(at.scales, 8, "4s"))
    scales = (code.spread(at.scales, 0, "8b"), code.spread(at.scales, 4, "8b"))
    return Addition(scales, start, base, code.spread(at.factor, 0, "4s"), last)
