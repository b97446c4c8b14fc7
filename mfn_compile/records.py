"""What tuning found for a core, in the form that ships: JSON of one line a kernel, sorted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr, ValidationError, model_validator

from mfn_compile.device.spec import VIRTUAL
from mfn_compile.errors import BadInputError
from mfn_compile.files import write_whole
from mfn_compile.frozen import Frozen

SCHEMA = "mfn-compile/records/1"
MAX_BYTES = 4 << 20  # a network's records are some ten kilobytes
HINT = "Tune again with this mfn-compile, or use the records that ship with it"

Value = str | int | bool
Unit = Literal["cycles", "ns"]
Choice = Mapping[str, Value]
Scalar = StrictBool | StrictInt | StrictStr


class RecordsError(BadInputError):
    """A file of records cannot be used."""


class Entry(Frozen):
    """The winner of one kernel.

    Attributes:
        kernel: the task's key.
        sizes: the shape, each at least 1.
        attributes: what tells kernels of the family apart that is no size.
        cycles: of one layer with `knobs`; `first_cycles` with the hand-chosen ones. In the unit of
            the records: on a board that was there they are nanoseconds.
        trial: when it was found.
    """

    family: str
    kernel: str
    sizes: dict[str, int]
    attributes: dict[str, Scalar]
    knobs: dict[str, Scalar]
    cycles: float = Field(gt=0, allow_inf_nan=False)
    first_cycles: float = Field(gt=0, allow_inf_nan=False)
    trial: int = Field(ge=1)

    @model_validator(mode="after")
    def _check(self) -> Entry:
        if any(size < 1 or size > 2**40 for size in self.sizes.values()):
            raise ValueError("sizes are 1 to 2**40")
        return self


@dataclass(frozen=True)
class Found:
    """Knobs for a kernel.

    Attributes:
        entry: what was tuned.
        exact: this kernel was tuned; otherwise another one, the nearest.
        distance: attributes that differ, plus the Euclidean distance over log2 of the sizes.
    """

    entry: Entry
    exact: bool
    distance: float


class Records(Frozen):
    """The winners of a core.

    Attributes:
        cpu: LLVM's name of the core.
        isa: instruction set of the kernels.
        device: what they were measured on: virtual:CORE, or the key of real boards.
        version: mfn-compile that tuned them; `seed` of that tuning.
    """

    schema_: str = Field(alias="schema", default=SCHEMA)
    cpu: str
    isa: str
    device: str = Field(min_length=1)
    seed: int
    version: str
    entries: tuple[Entry, ...]

    @model_validator(mode="after")
    def _check(self) -> Records:
        if self.schema_ != SCHEMA:
            raise ValueError(f"schema is {self.schema_!r}, this mfn-compile reads {SCHEMA!r}")
        places = [_place(entry.family, entry.sizes, entry.attributes) for entry in self.entries]
        if len(set(places)) != len(places):
            raise ValueError("a shape has two entries")
        return self

    @property
    def unit(self) -> Unit:
        """Of the entries' cycles."""
        return "cycles" if self.device.startswith(VIRTUAL) else "ns"

    def lookup(
        self,
        family: str,
        sizes: Mapping[str, int],
        attributes: Choice | None = None,
        accept: Callable[[Choice], bool] = lambda knobs: True,
    ) -> Found | None:
        """Knobs of this kernel, or of the nearest of the family, or None.

        Args:
            accept: whether knobs can be used; entries whose knobs cannot are passed over.
        """
        wanted = _typed(attributes or {})
        alike = [
            (_distance(entry, sizes, wanted), entry.kernel, entry)
            for entry in self.entries
            if entry.family == family and entry.sizes.keys() == sizes.keys()
        ]
        for distance, _, entry in sorted(alike, key=lambda found: found[:2]):
            if accept(entry.knobs):
                return Found(entry, distance == 0, distance)
        return None

    @classmethod
    def load(cls, path: Path) -> Records:
        """Read a file of records, which may come from anyone.

        Raises:
            RecordsError: unreadable, too large, not JSON, or not records of this version.
        """
        try:
            with path.open("rb") as handle:
                raw = handle.read(MAX_BYTES + 1)
        except OSError as error:
            raise RecordsError(
                "The records cannot be read", where=str(path), why=error.strerror or str(error)
            ) from error
        if len(raw) > MAX_BYTES:
            raise RecordsError(f"The records are larger than {MAX_BYTES} bytes", where=str(path))
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise RecordsError(
                "The records do not follow their schema",
                where=f"{path}: {place}" if place else str(path),
                why=first["msg"].removeprefix("Value error, "),
                hint=HINT,
            ) from error

    def save(self, path: Path) -> None:
        """Write the file whole: a line a kernel, sorted by family, attributes and sizes.

        Raises:
            DeviceError: it cannot be written.
        """
        document = self.model_dump(mode="json", by_alias=True)
        entries = sorted(self.entries, key=order_of)
        lines = ",\n".join(f"  {_line(entry.model_dump(mode='json'))}" for entry in entries)
        head = [f" {json.dumps(k)}: {_line(v)}," for k, v in document.items() if k != "entries"]
        body = f"[\n{lines}\n ]" if lines else "[]"
        text = "\n".join(["{", *head, f' "entries": {body}', "}", ""])
        write_whole(path, text.encode())


def order_of(entry: Entry) -> tuple[str, str, list[tuple[str, int]], str]:
    """Place of an entry in a file."""
    attributes = json.dumps(entry.attributes, sort_keys=True)
    return entry.family, attributes, sorted(entry.sizes.items()), entry.kernel


def _place(family: str, sizes: Mapping[str, int], attributes: Choice) -> str:
    return json.dumps([family, dict(sizes), dict(attributes)], sort_keys=True)


def _typed(values: Choice) -> dict[str, tuple[type, Value]]:
    """Comparable so that True is not 1."""
    return {name: (type(value), value) for name, value in values.items()}


def _distance(
    entry: Entry, sizes: Mapping[str, int], attributes: dict[str, tuple[type, Value]]
) -> float:
    """One for each attribute that differs, and the Euclidean distance over log2 of the sizes."""
    there = _typed(entry.attributes)
    names = there.keys() | attributes.keys()
    differing = sum(there.get(name) != attributes.get(name) for name in names)
    logs = (math.log2(entry.sizes[name]) - math.log2(sizes[name]) for name in sizes)
    return differing + math.hypot(*logs)


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
