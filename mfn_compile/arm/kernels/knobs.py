"""How a kernel's code can be ordered: the choices, which tuning makes for each kernel and core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Value = str | int | bool
Loads = Literal["whole", "halves", "general"]


@dataclass(frozen=True)
class Key:
    """What a kernel is apart from its knobs.

    Attributes:
        family: "gemm" or "depthwise".
        name: unique; family, sizes and attributes in one word.
        sizes: by name, each at least 1.
        attributes: what tells kernels of one family apart that is no size.
    """

    family: str
    name: str
    sizes: Mapping[str, int]
    attributes: Mapping[str, Value]


@dataclass(frozen=True)
class Knobs:
    """Choices that change the order of instructions, never a result.

    Attributes:
        loads: how the matrix product brings 128-bit operands into registers. "whole": `ldr q`.
            "halves": `ldr d` and `ldr x` with `ins`, which pair with 128-bit arithmetic on a core
            that stops for `ldr q`. "general": `ldr x` and `ins` for both halves, for a core whose
            64-bit vector loads do not pair either.
            Depthwise strips bring theirs in the same way.
        late: whether a tile's later weights are loaded within the step that reads them, which
            leaves more time for those of the next step. Tiles by fours always load half of their
            operands so.
        gap: slots from a load into a general register until its `ins`: more hides the load, and
            holds the register longer.
        quads: whether 3x3 depthwise windows that are no strips (`window.py`) go through `sdot`,
            where there is one.
        strips: of how many output columns a depthwise strip is at most; wider ones load and
            rearrange less twice, and are more code.
    """

    loads: Loads = "whole"
    late: bool = True
    gap: int = 3
    quads: bool = True
    strips: int = 14


_LOADS: tuple[Value, ...] = ("whole", "halves", "general")
_GEMM: Mapping[str, tuple[Value, ...]] = {
    "loads": _LOADS,
    "late": (True, False),
    "gap": (3, 2, 4, 5),
}
_STRIPS: tuple[Value, ...] = (14, 8, 7, 4, 2)
# What can be chosen, by family of kernels and instruction set; the first value wins ties.
SPACES: Mapping[tuple[str, str], Mapping[str, tuple[Value, ...]]] = {
    ("gemm", "dotprod"): _GEMM,
    ("gemm", "neon"): _GEMM,
    ("depthwise", "dotprod"): {"loads": _LOADS, "strips": _STRIPS, "quads": (True, False)},
    ("depthwise", "neon"): {"loads": _LOADS, "strips": _STRIPS},
    ("depthwise", "i8mm"): {"loads": _LOADS, "strips": _STRIPS, "quads": (True, False)},
}


def space_of(family: str, isa: str) -> Mapping[str, tuple[Value, ...]]:
    """Knobs of a family with their values; none where there is nothing to choose."""
    return SPACES.get((family, isa), {})


DEFAULT = Knobs()  # of a kernel that nobody tuned
