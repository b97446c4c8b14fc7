"""Which knobs every kernel gets: measured ones where tuning found some, else the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from mfn_compile.arm.kernels.knobs import DEFAULT, Key, Knobs, Value, space_of
from mfn_compile.errors import BadInputError
from mfn_compile.records import Records
from mfn_compile.resources import data_dir

FOLDER = "tuned"  # of records, beside the targets
Source = Literal["tuned", "nearest", "default"]


@dataclass(frozen=True)
class Schedule:
    """The knobs of a kernel and where they come from.

    Attributes:
        kernel: what they are for.
        source: "tuned" for this very kernel, those of the "nearest" tuned one, or the
            "default".
        tuned_for: the kernel that was tuned; empty for the default.
        unit: of `cycles`: a board that is there has nanoseconds.
        cycles: of one layer, in the tuning of this very kernel; `first_cycles` with the knobs that
            it began with.
    """

    kernel: Key
    knobs: Knobs
    source: Source
    tuned_for: str = ""
    cycles: float | None = None
    first_cycles: float | None = None
    unit: Literal["cycles", "ns"] = "cycles"


@dataclass(frozen=True)
class Schedules:
    """Looks the knobs of a core's kernels up.

    Attributes:
        cpu: LLVM's name of the core.
        isa: instruction set of the kernels.
        records: what tuning found for it.
        given: knobs that go before everything else, by the kernel's name.
    """

    cpu: str
    isa: str
    records: Records | None = None
    given: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)

    def of(self, kernel: Key) -> Schedule:
        """The knobs of a kernel.

        Raises:
            TypeError: `given` names a knob that there is not.
        """
        if kernel.name in self.given:
            knobs = replace(DEFAULT, **self.given[kernel.name])  # type: ignore[arg-type]
            return Schedule(kernel, knobs, "tuned", kernel.name)
        if self.records is None or self.records.isa != self.isa:
            return Schedule(kernel, DEFAULT, "default")
        space = space_of(kernel.family, self.isa)

        def today(knobs: Mapping[str, Value]) -> bool:
            return all(name in space and value in space[name] for name, value in knobs.items())

        found = self.records.lookup(kernel.family, kernel.sizes, kernel.attributes, today)
        if found is None:
            return Schedule(kernel, DEFAULT, "default")
        entry = found.entry
        knobs = replace(DEFAULT, **entry.knobs)  # type: ignore[arg-type]
        if not found.exact:
            return Schedule(kernel, knobs, "nearest", entry.kernel)
        return Schedule(
            kernel,
            knobs,
            "tuned",
            entry.kernel,
            entry.cycles,
            entry.first_cycles,
            self.records.unit,
        )

    def rows(self, block: Key, values: Sequence[int], default: int) -> int:
        """Rows at a time of a block of layers; only records of this very block count.

        Args:
            block: see `blocks.key_of`.
            values: that can be chosen.
        """
        if block.name in self.given:
            return int(self.given[block.name]["rows"])
        if self.records is None or self.records.isa != self.isa:
            return default
        found = self.records.lookup(block.family, block.sizes, block.attributes)
        rows = found.entry.knobs.get("rows") if found is not None and found.exact else None
        return rows if type(rows) is int and rows in values else default


def shipped(cpu: str, isa: str) -> Schedules:
    """The schedules that come with the project for a core; the default ones for an unknown core.

    Raises:
        BadInputError: the file of a core is damaged.
    """
    return Schedules(
        cpu, isa, load_folder(data_dir("targets") / FOLDER, [cpu], some=False).get(cpu)
    )


def schedules_for(cpu: str, isa: str, tuned: Path | None) -> Schedules:
    """Those that ship, or where a folder of records has the core, those.

    Raises:
        BadInputError: a file is damaged.
    """
    if tuned is not None and (found := load_folder(tuned, [cpu], some=False)):
        return Schedules(cpu, isa, found[cpu])
    return shipped(cpu, isa)


def load_folder(folder: Path, cpus: Sequence[str], *, some: bool = True) -> dict[str, Records]:
    """The records of cores in a folder, CPU.json each; those without a file are left out.

    Args:
        some: at least one of them must be there.

    Raises:
        BadInputError: a file is damaged, or there is none.
    """
    paths = {cpu: folder / f"{cpu}.json" for cpu in cpus}
    found = {cpu: Records.load(path) for cpu, path in paths.items() if path.exists()}
    if some and not found:
        raise BadInputError(
            "The folder has no records of the target's cores",
            where=str(folder),
            why=f"{' and '.join(path.name for path in paths.values())} is missing",
            hint="Tune for this target first: mfn-compile tune --target NAME --out FOLDER",
        )
    for cpu, records in found.items():
        if records.cpu != cpu:
            raise BadInputError(
                f"The records are of {records.cpu}, not of {cpu}",
                where=str(paths[cpu]),
                hint="Keep the names of the files that `mfn-compile tune` wrote",
            )
    return found
