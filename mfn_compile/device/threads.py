"""Modelled cycles of one inference on several cores: the tasks of each phase laid on threads.

Every call's cycles are those of the virtual board, where the tasks run one after another, so that
rows which neighbouring tasks both copy count for both. What a team of threads then takes is, phase
by phase, what its last thread takes, and a fork and join for every phase with more than one task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from mfn_compile.arm.firmware.facts import Variant
from mfn_compile.arm.firmware.parts import VariantParts, read_parts, slowest
from mfn_compile.device.profile import Profile, profile
from mfn_compile.device.runner import RUN_SECONDS
from mfn_compile.device.spec import VirtualDevice
from mfn_compile.device_result import Milliseconds
from mfn_compile.errors import BadInputError
from mfn_compile.frozen import Frozen

FORK_JOIN_US = 5.0  # assumed: threads that spin on Linux; a pool that sleeps takes ten times that
CLOCK_GHZ = 1.8  # assumed for a core that is not on a board
WINDOW = "depthwise_"


class TeamCost(Frozen):
    """One inference on a team of threads, each on a core of its own; modelled."""

    threads: int = Field(gt=0)
    cycles: float = Field(gt=0, description="of the longest way through all phases")
    alone_cycles: float = Field(gt=0, description="of mfn_embed on one thread")
    serial_cycles: float = Field(ge=0, description="of `cycles`, with one thread at work")
    fork_joins: int = Field(ge=0, description="phases that are handed to threads")
    fork_join_cycles: float = Field(ge=0, description="of one; an assumption, and in `cycles`")
    milliseconds: Milliseconds | None = Field(
        default=None, description="None for a core that is not on a calibrated board"
    )

    @property
    def speedup(self) -> float:
        """Against mfn_embed on one thread."""
        return self.alone_cycles / self.cycles

    @property
    def efficiency(self) -> float:
        """The speed-up by the number of threads."""
        return self.speedup / self.threads


def team_cost(
    alone: float,
    in_tasks: Profile,
    parts: VariantParts,
    *,
    threads: int = 4,
    fork_join: float = FORK_JOIN_US * CLOCK_GHZ * 1e3,
) -> TeamCost:
    """Lay the tasks of each phase on threads that take them one after another.

    Args:
        alone: cycles of mfn_embed.
        in_tasks: of mfn_embed_parallel, one task after another.
        parts: from the same bundle, of the same variant.
        fork_join: cycles.

    Raises:
        BadInputError: a kernel of `parts` is not in the profile.
    """
    per_unit, inside = _unit_cycles(in_tasks, parts)
    shared, serial, forks = 0.0, in_tasks.cycles - inside, 0
    for phase in parts.phases:
        tasks = [
            sum(call.parts[i] * per_unit[call.kernel] for call in phase.calls)
            for i in range(phase.tasks)
        ]
        if phase.tasks == 1:
            serial += tasks[0]
            continue
        forks += 1
        shared += slowest(tasks, threads)
    waits = fork_join if threads > 1 else 0.0
    return TeamCost(
        threads=threads,
        cycles=serial + shared + forks * waits,
        alone_cycles=alone,
        serial_cycles=serial,
        fork_joins=forks,
        fork_join_cycles=waits,
    )


def _unit_cycles(in_tasks: Profile, parts: VariantParts) -> tuple[dict[str, float], float]:
    """Cycles of one unit of every kernel, and of all units together."""
    units = Counter[str]()
    for phase in parts.phases:
        for call in phase.calls:
            units[call.kernel] += call.units
    costs = {row.kernel: row.cycles or 0.0 for row in in_tasks.kernels if row.in_library}
    missing = sorted(units.keys() - costs.keys())
    if missing:
        raise BadInputError(
            "The table of tasks is of another library",
            where=missing[0],
            why="the library has no such kernel",
            hint="Compile the network again",
        )
    # What the C library does is memcpy: depthwise kernels copy the rows of their window with it.
    outside = sum(row.cycles or 0.0 for row in in_tasks.kernels if not row.in_library)
    windows = sum(costs[kernel] for kernel in units if kernel.startswith(WINDOW))
    extra = outside / windows if windows else 0.0
    more = {kernel: extra for kernel in units if kernel.startswith(WINDOW)}
    whole = {kernel: costs[kernel] * (1 + more.get(kernel, 0.0)) for kernel in units}
    return {kernel: whole[kernel] / count for kernel, count in units.items()}, sum(whole.values())


def run_teams(
    place: Path,
    device: VirtualDevice,
    variant: Variant,
    alone: float,
    teams: Sequence[int],
    *,
    cache: Path | None = None,
    seconds: float = RUN_SECONDS,
) -> tuple[TeamCost, ...]:
    """Model a bundle on several cores of a virtual device; its tasks run there once for all teams.

    What the cores take from each other, caches and memory that they share, is not in it.

    Args:
        place: the bundle's folder.
        variant: which code of the library runs.
        alone: cycles of the same on one core of the device.
        teams: numbers of threads.
        cache: folder for what is computed once; by default the user's.
        seconds: after which a program is stopped.

    Returns:
        One cost a team; none where the bundle has no mfn_embed_parallel.

    Raises:
        BadInputError: the bundle lacks another file, or one is damaged.
        DeviceError: a tool is missing or failed, or the program crashed or did not end.
    """
    parts = read_parts(place, variant)
    if parts is None or not teams:
        return ()
    in_tasks = profile(place, device.core, variant, in_tasks=True, cache=cache, seconds=seconds)
    clock = CLOCK_GHZ if device.entry is None else device.entry.clock_ghz
    fork_join = FORK_JOIN_US * clock * 1e3
    costs = (
        team_cost(alone, in_tasks, parts, threads=threads, fork_join=fork_join) for threads in teams
    )
    return tuple(
        cost.model_copy(update={"milliseconds": device.milliseconds(cost.cycles)}) for cost in costs
    )
