"""The cores that the virtual board knows: pipeline model, caches and peaks, from cores.toml."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path

from pydantic import Field

from mfn_compile.arm.firmware.facts import INSTRUCTIONS, Variant
from mfn_compile.boards import LINE as LINE
from mfn_compile.boards import Cache
from mfn_compile.errors import BadInputError
from mfn_compile.frozen import Frozen
from mfn_compile.tomlfile import load_model


class Macs(Frozen):
    """Int8 multiply-adds a cycle, at most, by variant; None where the core cannot run it."""

    neon: float = Field(gt=0)
    dotprod: float | None = Field(default=None, gt=0)
    i8mm: float | None = Field(default=None, gt=0)

    def of(self, variant: Variant) -> float | None:
        """Of one variant."""
        found: float | None = getattr(self, variant)
        return found


class Transfer(Frozen):
    """Nominal bytes a cycle into the first-level cache."""

    l2: float = Field(gt=0)
    memory: float = Field(gt=0)


class Core(Frozen):
    """One processor core."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    model: str = Field(
        pattern=r"^(mca:[a-z0-9.-]+|in-order:(a53|a55))$", description="where cycles come from"
    )
    dispatch: int | None = Field(default=None, ge=1, le=16, description="instructions a cycle")
    qemu: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", description="QEMU's name of the CPU")
    part: int = Field(ge=0, lt=1 << 12, description="Arm's number of it, as in /proc/cpuinfo")
    stepping: tuple[int, int] = Field(description="variant and revision, likewise")
    macs: Macs
    l1: Cache = Field(description="first-level data cache")
    l2: Cache
    transfer: Transfer

    def peak(self, variant: Variant) -> float:
        """Int8 multiply-adds a cycle that no code of the variant can exceed.

        Raises:
            BadInputError: the core cannot run the variant.
        """
        found = self.macs.of(variant)
        if found is None:
            raise BadInputError(
                f"{self.name} cannot run the variant {variant}",
                why=f"the core has no {INSTRUCTIONS[variant]} instructions",
                hint="Profile the variant neon there",
            )
        return found


class _Cores(Frozen):
    core: tuple[Core, ...]


@cache
def cores() -> tuple[Core, ...]:
    """Every core with a model."""
    return load_model(Path(__file__).parent / "cores.toml", _Cores, "table of cores").core


def find_core(name: str) -> Core:
    """The core of that name.

    Raises:
        BadInputError: there is no model of it; the message lists those that there are.
    """
    known = {core.name: core for core in cores()}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    raise BadInputError(
        f"There is no model of the core {name!r}",
        why=f"The virtual board has {', '.join(known)}",
        hint=f"Did you mean {near[0]!r}?" if near else "Choose the one that is most like it",
    )
