"""Memory plan: every tensor's place in one workspace, lifetimes overlapped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mfn_compile.arm.program import IMAGE, Program, Step

ALIGNMENT = 64  # bytes: a cache line, and more than any vector load asks for


@dataclass(frozen=True)
class Allocation:
    """One block of the workspace; several tensors when one takes the place of another.

    `first` and `last` are the steps between which it is in use, both included.
    """

    names: tuple[str, ...]
    bytes: int
    first: int
    last: int
    offset: int = 0

    @property
    def end(self) -> int:
        """Offset behind the block."""
        return self.offset + self.bytes


@dataclass(frozen=True)
class Plan:
    """Offsets of all buffers, and how good the plan is.

    Attributes:
        allocations: by offset.
        peak: bytes of the workspace.
        lower_bound: bytes of the largest set of buffers in use in one step; no plan needs less.
    """

    allocations: tuple[Allocation, ...]
    peak: int
    lower_bound: int

    def offset(self, name: str) -> int:
        """Byte offset of a tensor or scratch buffer."""
        return next(a.offset for a in self.allocations if name in a.names)


def make_plan(program: Program, *, overlap: bool = True) -> Plan:
    """Place all buffers of a program.

    Args:
        overlap: False gives every tensor a place of its own, so that all can be looked at after a
            run.
    """
    blocks = _blocks(program, merge=overlap)
    if not overlap:
        last = len(program.steps)
        blocks = [Allocation(b.names, b.bytes, 0, last) for b in blocks]
    plans = [_place(blocks, key) for key in _ORDERS]
    best = min(plans, key=_peak)
    return Plan(tuple(sorted(best, key=lambda a: (a.offset, a.first))), _peak(best), _bound(blocks))


def _blocks(program: Program, *, merge: bool) -> list[Allocation]:
    """Buffers with their lifetimes; a result that replaces a tensor shares its block."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    sizes = dict(program.sizes)
    owner: dict[str, str] = {}
    for index, step in enumerate(program.steps):
        for name in _touched(step):
            first.setdefault(name, index)
            last[name] = index
        sizes |= step.scratch
        if merge and step.replaces is not None:
            owner[step.writes] = owner.get(step.replaces, step.replaces)
    last[program.graph.output] = len(program.steps)
    groups: dict[str, list[str]] = {}
    for name in first:
        groups.setdefault(owner.get(name, name), []).append(name)
    return [
        Allocation(
            tuple(names),
            _align(max(sizes[name] for name in names)),
            min(first[name] for name in names),
            max(last[name] for name in names),
        )
        for names in groups.values()
    ]


def _touched(step: Step) -> tuple[str, ...]:
    names = (*step.reads, step.writes, *step.scratch)
    return tuple(name for name in names if name != IMAGE)


def _align(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


# Greedy placements differ by the order of the blocks; the best of these is taken.
_ORDERS: tuple[Callable[[Allocation], tuple[int, ...]], ...] = (
    lambda b: (-b.bytes, b.first),
    lambda b: (b.first, -b.bytes),
    lambda b: (b.first - b.last, -b.bytes),
    lambda b: ((b.first - b.last) * b.bytes, b.first),
)


def _place(
    blocks: Sequence[Allocation], order: Callable[[Allocation], tuple[int, ...]]
) -> list[Allocation]:
    placed: list[Allocation] = []
    for block in sorted(blocks, key=order):
        offset = 0
        for other in sorted(placed, key=lambda a: a.offset):
            meet = other.first <= block.last and block.first <= other.last
            if meet and offset + block.bytes > other.offset and offset < other.end:
                offset = other.end
        placed.append(Allocation(block.names, block.bytes, block.first, block.last, offset))
    return placed


def _peak(placed: Sequence[Allocation]) -> int:
    return max(block.end for block in placed)


def _bound(blocks: Sequence[Allocation]) -> int:
    steps = range(max(b.last for b in blocks) + 1)
    return max(sum(b.bytes for b in blocks if b.first <= i <= b.last) for i in steps)
