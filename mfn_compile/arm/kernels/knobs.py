"""How code is scheduled for a core: one table row a core, data that a tuner can fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Loads = Literal["whole", "halves", "general"]


@dataclass(frozen=True)
class Knobs:
    """Choices that change the order of instructions, never a result.

    Attributes:
        loads: how the matrix product brings 128-bit operands into registers. "whole": `ldr q`.
            "halves": `ldr d` and `ldr x` with `ins`, which pair with 128-bit arithmetic on a core
            that stops for `ldr q`. "general": `ldr x` and `ins` for both halves, for a core whose
            64-bit vector loads do not pair either.
        quads: whether 3x3 depthwise windows go through `sdot`, where there is one.
    """

    loads: Loads = "whole"
    quads: bool = True


DEFAULT = Knobs()
CORES: dict[str, Knobs] = {
    "cortex-a53": Knobs(loads="general"),
    "cortex-a55": Knobs(loads="halves", quads=False),
}


def knobs_of(cpu: str) -> Knobs:
    """The row of a core by LLVM's name; an unknown one is taken for an out-of-order core."""
    return CORES.get(cpu, DEFAULT)
