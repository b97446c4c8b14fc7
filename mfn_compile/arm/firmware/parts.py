"""parallel.json of a bundle: into which tasks mfn_embed_parallel cuts the work of each phase."""

from __future__ import annotations

from pydantic import Field

from mfn_compile.arm.firmware.facts import Variant
from mfn_compile.frozen import Frozen

FILE = "parallel.json"


class CallParts(Frozen):
    """One call of a kernel."""

    kernel: str = Field(description="symbol without mfn_ and the variant")
    parts: tuple[int, ...] = Field(min_length=1, description="units of work of every task")
    halo: bool = Field(
        description="a depthwise kernel: every task first copies rows that the task before has too"
    )

    @property
    def units(self) -> int:
        """Units of the whole call."""
        return sum(self.parts)


class PhaseParts(Frozen):
    """What one parallel_for does; a phase of one task is done without it. A task does its part of
    one call after another.
    """

    layers: tuple[str, ...] = Field(min_length=1)
    calls: tuple[CallParts, ...] = Field(min_length=1)

    @property
    def tasks(self) -> int:
        """How many tasks."""
        return len(self.calls[0].parts)


class VariantParts(Frozen):
    """One variant, phase by phase in order."""

    variant: Variant
    phases: tuple[PhaseParts, ...]


class Parts(Frozen):
    """The whole file."""

    variants: tuple[VariantParts, ...]
