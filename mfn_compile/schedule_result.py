"""What a report says of the order of a kernel's code."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mfn_compile.frozen import Frozen


class KernelSchedule(Frozen):
    """How the code of one kernel is ordered, and where that comes from."""

    kernel: str
    variant: str
    layers: int = Field(description="how many layers it serves")
    knobs: dict[str, str | int | bool]
    source: Literal["tuned", "nearest", "default"] = Field(
        description="tuned for this kernel; taken from the nearest tuned one; the default"
    )
    tuned_for: str = Field(default="", description="kernel that was tuned; empty for the default")
    cycles: float | None = Field(default=None, description="of one layer, in the tuning")
    first_cycles: float | None = Field(default=None, description="with the untuned knobs")
    unit: Literal["cycles", "ns"] = Field(
        default="cycles", description="of both; nanoseconds where a board was measured"
    )

    @property
    def gain(self) -> float | None:
        """How many times as fast as untuned."""
        if self.cycles is None or self.first_cycles is None:
            return None
        return self.first_cycles / self.cycles
