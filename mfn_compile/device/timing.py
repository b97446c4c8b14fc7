"""Timing of instruction classes on Cortex-A53 and Cortex-A55, all times in cycles.

Both cores issue two instructions a cycle in program order and have two 64-bit vector pipes. What
is known of them is public: Arm's optimization guide for the A55, and measurements by the authors
of ncnn and ONNX Runtime for both. Rows are tried in their order; the first that matches counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

Core = Literal["a53", "a55"]


@dataclass(frozen=True)
class Timing:
    """How an instruction goes through the pipeline.

    Attributes:
        latency: until another instruction can use the result.
        chain: until the next instruction that adds to the result can issue; None: `latency`.
        pipes: 64-bit vector pipes that it takes; a 128-bit instruction takes both.
        busy: cycles that the pipes stay taken.
        first: whether it issues as the first of a cycle only.
        port: cycles that its load or store port stays taken.
        stall: cycles in which nothing else issues, its own included; 0: it can pair.
        no_vector: whether no vector arithmetic issues in its cycle.
        late: whether its inputs are needed one cycle after it issues.
    """

    latency: int = 1
    chain: int | None = None
    pipes: int = 0
    busy: int = 1
    first: bool = False
    port: int = 0
    stall: int = 0
    no_vector: bool = False
    late: bool = False

    @property
    def begins(self) -> bool:
        """Whether it must be the first of its cycle."""
        return self.first or self.stall > 0 or self.no_vector


@dataclass(frozen=True)
class Row:
    """A class of instructions: a pattern that the mnemonic begins with, 64-bit and 128-bit."""

    title: str
    mnemonics: re.Pattern[str]
    half: Timing
    whole: Timing


def _row(title: str, pattern: str, latency: int, whole: int | None = None, busy: int = 1) -> Row:
    half = Timing(latency, pipes=1, busy=busy)
    both = Timing(whole or latency, pipes=2, busy=busy * (1 if busy == 1 else 2), first=True)
    return Row(title, re.compile(pattern), half, both)


BRANCH = Timing()
VECTOR = (
    _row("division, square root", r"fdiv|fsqrt", 13, busy=10),
    _row("float arithmetic, conversion", r"fmul|fml|fadd|fsub|fmax|fmin|fcvt|frint|[su]cvtf", 4),
    _row("float move", r"fmov", 4),
    _row("multiplication", r"mul|ml[as]|[su]mul|[su]ml[as]l|[su]dot|usdot|sudot|[su]mmla", 4),
    _row("saturating arithmetic, rounding shifts", r"[su]q|[su]rsh[lr]|rshrn", 4),
    _row("sums and extremes across lanes", r"[su]adalp|addv|[su]max|[su]min", 4),
    _row("addition", r"(add|sub)$", 2, whole=3),
    _row("all others", r"", 2),
)
TO_GENERAL = Timing(3, pipes=1)
INTO_LANE = Timing(2, late=True)
TABLE_LOOKUP = re.compile(r"tb[lx]")
# The A53 forwards the sum of a float multiply-add to the next one only.
A53_FLOAT_SUM = re.compile(r"fml[as]")
A53_FLOAT_LATENCY, A53_FLOAT_CHAIN = 8, 4

SCALAR = (
    (re.compile(r"mul|m(add|sub|neg)|[su]mull|[su]m(add|sub|neg)l|[su]mulh"), Timing(3)),
    (re.compile(r"[su]div"), Timing(8)),
    (re.compile(r""), Timing(1)),
)


def of_vector(
    mnemonic: str, core: Core, *, whole: bool, to_general: bool, into_lane: bool
) -> Timing:
    """Timing of arithmetic on vector registers.

    Args:
        whole: it works on 128 bits.
        to_general: its result is a general register.
        into_lane: it writes one lane.
    """
    if to_general:
        return TO_GENERAL
    if into_lane:
        return INTO_LANE
    row = next(row for row in VECTOR if row.mnemonics.match(mnemonic))
    timing = row.whole if whole else row.half
    if core == "a53" and A53_FLOAT_SUM.match(mnemonic):
        return replace(timing, latency=A53_FLOAT_LATENCY, chain=A53_FLOAT_CHAIN)
    return replace(timing, first=True) if TABLE_LOOKUP.match(mnemonic) else timing


def of_scalar(mnemonic: str) -> Timing:
    """Timing of arithmetic on general registers."""
    return next(timing for pattern, timing in SCALAR if pattern.match(mnemonic))


@dataclass(frozen=True)
class Shape:
    """What a load or store moves: how many registers, vectors, 128 bits each, or one lane."""

    registers: int
    vector: bool
    whole: bool
    one_lane: bool
    pair: bool


INTERLEAVED_LOAD = {"ld2": 4, "ld3": 6, "ld4": 9}
INTERLEAVED_STORE = {"st2": 2, "st3": 3, "st4": 5}


def of_load(mnemonic: str, shape: Shape, core: Core) -> Timing:
    """Timing of a load: 64 bits a cycle come from the cache, and wide loads stop the issue."""
    number = shape.registers
    if not shape.vector:
        return Timing(3, port=2 if shape.pair else 1)
    if shape.one_lane:
        return Timing(4, port=number, first=True)
    halves = number * (2 if shape.whole else 1)
    if mnemonic in INTERLEAVED_LOAD:
        cycles = max(halves if halves > 1 else 0, INTERLEAVED_LOAD[mnemonic])
        return Timing(2 + cycles, port=cycles, stall=cycles)
    if shape.whole:
        extra = 3 if mnemonic == "ld1" else 2
        return Timing(extra + halves, port=halves, stall=halves)
    if number == 1:
        latency = 4 if mnemonic == "ld1" else 3
        return Timing(latency, port=1, no_vector=core == "a53")
    if mnemonic == "ld1":
        return Timing(3 + halves, port=halves, stall=halves)
    return Timing(4, port=2, stall=2 if core == "a53" else 0)


def of_store(mnemonic: str, shape: Shape) -> Timing:
    """Timing of a store."""
    port = shape.registers if shape.whole and not shape.one_lane else 1
    port = INTERLEAVED_STORE.get(mnemonic, port)
    return Timing(1, port=port, first=shape.vector)
