"""Operands of the matrix kernels on their way from memory to registers, beside the arithmetic.

An operand is 16 bytes: one load, or halves that go through general registers, as `Loads` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mfn_compile.arm.kernels.knobs import Loads

WEIGHTS = "x8"
# Into the rows: of the first and the second half of the next step's 16 bytes, and of 16 more.
OFFSETS = ("x16", "x15", "x24", "x25")
_LANE_TO_LANE = 2  # slots until `ins` can follow another one


@dataclass(frozen=True)
class Operand:
    """A register that every step loads: 16 bytes at `offset` from where `base` points to.

    A `late` one is loaded in the step that reads it, the others in the step before. The `first`
    ones of a row lie where its pointer points to.
    """

    register: int
    base: str
    offset: int
    late: bool = False
    first: bool = False


@dataclass(frozen=True)
class Step:
    """One instruction of arithmetic and the operands that it waits for."""

    text: str
    uses: tuple[Operand, ...] = ()


class Loader:
    """Hands out the loads of operands one by one, each as soon as its register is free.

    Args:
        free: index of the last instruction of arithmetic that reads what an operand overwrites,
            where there is one.
        carriers: general registers for halves on their way.
        gap: see `Knobs`.
        whole: both halves of an operand come before the next operand.
    """

    def __init__(
        self,
        order: Sequence[Operand],
        free: Mapping[Operand, int],
        *,
        loads: Loads,
        carriers: Sequence[str],
        gap: int,
        whole: bool = False,
    ) -> None:
        self._free, self._whole, self._gap = free, whole, gap
        halves = {"whole": (), "halves": (1,), "general": (0, 1)}[loads]
        self._plain = [] if loads == "general" else list(order)
        self._size = "q" if loads == "whole" else "d"
        self._early = [(operand, half) for operand in order for half in halves]
        self._lanes: list[tuple[int, str, str, Operand]] = []
        self._carriers = list(carriers)
        self._missing = Counter(self._plain)
        self._missing.update(operand for operand, _ in self._early)
        self._ready: dict[Operand, int] = {}  # slot from which an operand can be read
        self._settled: dict[Operand, int] = {}  # slot from which its other half can follow

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return not (self._plain or self._early or self._lanes)

    def lacks(self, operand: Operand, slot: int) -> bool:
        """Whether it is one of the loader's that cannot be read yet."""
        return operand in self._missing and self._ready.get(operand, slot + 1) > slot

    def take(self, slot: int, done: int) -> str | None:
        """The next instruction for this slot, if one can go behind arithmetic up to `done`."""
        for at, (ready, text, carrier, operand) in enumerate(self._lanes):
            begun = operand not in self._plain  # `ldr d` clears the rest
            settled = max(ready, self._settled.get(operand, 0)) <= slot
            if begun and settled and self._is_free(operand, done):
                del self._lanes[at]
                self._carriers.append(carrier)
                self._settled[operand] = slot + _LANE_TO_LANE
                self._arrive(operand, slot + _LANE_TO_LANE)
                return text
        first = not (self._whole and len(self._early) > len(self._plain))
        if self._plain and first and self._is_free(self._plain[0], done):
            operand = self._plain.pop(0)
            self._settled[operand] = slot + self._gap
            self._arrive(operand, slot + (1 if self._size == "q" else self._gap))
            return f"ldr {self._size}{operand.register}, {_place(operand)}"
        if self._early and self._carriers:
            operand, half = self._early.pop(0)
            carrier = self._carriers.pop(0)
            text = f"ins v{operand.register}.d[{half}], {carrier}"
            self._lanes.append((slot + self._gap, text, carrier, operand))
            return f"ldr {carrier}, {_place(operand, half)}"
        return None

    def _arrive(self, operand: Operand, slot: int) -> None:
        self._missing[operand] -= 1
        if not self._missing[operand]:
            self._ready[operand] = slot

    def _is_free(self, operand: Operand, done: int) -> bool:
        return self._free.get(operand, -1) <= done


def _place(operand: Operand, half: int = 0) -> str:
    """Address of 16 bytes of an operand, or of its second half."""
    offset = operand.offset + 8 * half
    if operand.base == WEIGHTS or operand.first:
        return f"[{operand.base}, {offset}]"
    return f"[{operand.base}, {OFFSETS[offset // 8]}]"


def interleave(steps: Sequence[Step], loaders: Sequence[Loader]) -> list[str]:
    """One load behind each instruction of arithmetic; then what is left.

    Args:
        loaders: one after the other.
    """
    found: list[str] = []
    done = slot = 0
    while done < len(steps) or not all(loader.done for loader in loaders):
        waits = done < len(steps) and any(
            loader.lacks(operand, slot) for operand in steps[done].uses for loader in loaders
        )
        if done < len(steps) and not waits:
            found.append(steps[done].text)
            done += 1
        loader = next((loader for loader in loaders if not loader.done), loaders[-1])
        load = loader.take(slot, done - 1)
        found += [load] if load else []
        slot += 1
    return found
