"""parallel.json of a bundle: into which tasks mfn_embed_parallel cuts the work of each phase."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from mfn_compile.arm.firmware.facts import Variant
from mfn_compile.errors import BadInputError
from mfn_compile.frozen import Frozen

FILE = "parallel.json"


class CallParts(Frozen):
    """One call of a kernel."""

    kernel: str = Field(description="symbol without mfn_ and the variant")
    parts: tuple[int, ...] = Field(min_length=1, description="units of work of every task")

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


def read_parts(bundle: Path, variant: Variant) -> VariantParts | None:
    """What a bundle says of a variant; None where it says nothing.

    Raises:
        BadInputError: the file is not what a compilation wrote.
    """
    path = bundle / FILE
    if not path.is_file():
        return None
    try:
        whole = Parts.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BadInputError(
            "A file of the bundle is damaged",
            where=str(path),
            why=str(error.errors(include_url=False)[0]["msg"]),
            hint="Check the bundle: mfn-compile verify BUNDLE",
        ) from error
    return next((each for each in whole.variants if each.variant == variant), None)


def slowest(parts: Sequence[float], threads: int) -> float:
    """When the last thread ends, where each takes the next part as soon as it is free."""
    ends = [0.0] * threads
    for part in parts:
        heapq.heapreplace(ends, ends[0] + part)
    return max(ends)
