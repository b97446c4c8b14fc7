"""What is tuned, what a measurement says, and what tuning ends with; no kernel is known here.

A point of a task's space is a tuple of indices, one for each knob, into that knob's values. The
order of a space is that of the tuples: the last knob changes fastest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from mfn_compile.errors import UsageError
from mfn_compile.hashing import value_sha256

Value = str | int | bool
Choice = Mapping[str, Value]
Point = tuple[int, ...]


@dataclass(frozen=True)
class Knob:
    """One choice that changes a kernel's code and never its result.

    Attributes:
        name: what the kernel knows it by.
        values: what can be chosen, distinct and of one type, in the order that wins ties.

    Raises:
        UsageError: no values, a value twice, or values of several types.
    """

    name: str
    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        types = {type(value) for value in self.values}
        if len(types) != 1 or not types <= {str, int, bool}:
            raise UsageError("A knob's values are not of one type", where=self.name)
        if len(set(self.values)) != len(self.values):
            raise UsageError("A knob has the same value twice", where=self.name)

    def index(self, value: Value) -> int:
        """Place of `value`; True is not 1. KeyError if it is not one of the knob's values."""
        if type(value) is not type(self.values[0]) or value not in self.values:
            raise KeyError(value)
        return self.values.index(value)


@dataclass(frozen=True)
class Task:
    """One kernel of a network.

    Attributes:
        key: stable name with family and shape.
        family: kernels that the cost model learns together; the same sizes and attributes in all.
        knobs: the space.
        sizes: the shape's sizes by name, each at least 1; the cost model sees their log2.
        calls: times per inference, the weight of the kernel's cycles.
        first: the hand-chosen knobs, measured before all others.
        attributes: what tells kernels of a family apart that is no size (stride, activation).

    Raises:
        UsageError: `first` is not a point of the space, or a number is below 1.
    """

    key: str
    family: str
    knobs: tuple[Knob, ...]
    sizes: Mapping[str, int] = field(hash=False)
    calls: int
    first: Choice = field(hash=False)
    attributes: Choice = field(hash=False, default_factory=dict)

    def __post_init__(self) -> None:
        if len({knob.name for knob in self.knobs}) != len(self.knobs):
            raise UsageError("Two knobs have the same name", where=self.key)
        if self.calls < 1 or any(size < 1 for size in self.sizes.values()):
            raise UsageError("Calls and sizes are at least 1", where=self.key)
        self.point(self.first)

    @property
    def space_size(self) -> int:
        """Number of points."""
        return math.prod(len(knob.values) for knob in self.knobs)

    @property
    def features(self) -> tuple[float, ...]:
        """log2 of the sizes, in the order of their names."""
        return tuple(math.log2(self.sizes[name]) for name in sorted(self.sizes))

    def points(self) -> Iterator[Point]:
        """All points in the space's order."""
        return itertools.product(*(range(len(knob.values)) for knob in self.knobs))

    def point(self, choice: Choice) -> Point:
        """The point of a choice.

        Raises:
            UsageError: a knob is missing, unknown, or has a value that is not among its own.
        """
        if choice.keys() == {knob.name for knob in self.knobs}:
            try:
                return tuple(knob.index(choice[knob.name]) for knob in self.knobs)
            except KeyError:
                pass
        raise UsageError("The knobs are not in the kernel's space", where=self.key, why=str(choice))

    def choice(self, point: Point) -> dict[str, Value]:
        """The knobs at a point."""
        return {k.name: k.values[i] for k, i in zip(self.knobs, point, strict=True)}

    def space_sha256(self) -> str:
        """Identity of the space: names, values and their order."""
        return value_sha256([[knob.name, list(knob.values)] for knob in self.knobs])


@dataclass(frozen=True)
class Outcome:
    """What a measurement said: `cycles` or `error`, and how many `seconds` it took."""

    cycles: float | None
    error: str | None
    seconds: float

    def __post_init__(self) -> None:
        if (self.cycles is None) == (self.error is None):
            raise UsageError("A measurement has either cycles or an error")
        if self.cycles is not None and not 0 < self.cycles < math.inf:
            raise UsageError("Measured cycles are positive and finite", why=str(self.cycles))

    @classmethod
    def counted(cls, cycles: float, seconds: float) -> Outcome:
        """Of a count; one that is not positive and finite is a failure, as JSON has no infinity."""
        if 0 < cycles < math.inf:
            return cls(cycles, None, seconds)
        return cls(None, f"it cannot have taken {cycles} cycles", seconds)


class Measure(Protocol):
    """Measures a batch; the outcomes come in its order, one each.

    A generator is logged outcome by outcome, so that a kill loses at most one measurement.
    """

    def __call__(self, batch: Sequence[tuple[Task, Choice]]) -> Iterable[Outcome]:
        """Outcomes of `batch`; an exception ends the tuning."""


@dataclass(frozen=True)
class Trial:
    """One measured candidate.

    Attributes:
        number: its place in the log, from 1.
        known: it was in the log already and was not measured again.
        best: fewest cycles of this kernel so far, None while all of them failed.
        total: cycles of one inference with the best knobs so far, None until all kernels have one.
    """

    number: int
    kernel: str
    knobs: Choice
    outcome: Outcome
    known: bool
    best: float | None
    total: float | None


@dataclass(frozen=True)
class Winner:
    """How the tuning of a kernel ended; ties are won by the point that is earlier in the space.

    Attributes:
        trial: number of the winning trial in the log.
        exhausted: every point of the space was measured.
    """

    kernel: str
    knobs: Choice
    cycles: float
    first_cycles: float
    trial: int
    trials: int
    failures: int
    exhausted: bool


@dataclass(frozen=True)
class Result:
    """How a tuning ended.

    Attributes:
        kernels: one winner each, in the order of the tasks.
        first_cycles: cycles of one inference with the hand-chosen knobs, kernels times calls.
        cycles: the same with the winners.
        trials: trials of these kernels, all runs in the folder together.
        measured: how many of them this call measured.
        ended: what ended it.
    """

    kernels: tuple[Winner, ...]
    first_cycles: float
    cycles: float
    trials: int
    measured: int
    ended: Literal["trials", "exhausted", "stop"]
