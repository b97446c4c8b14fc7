"""The winners of a tuning as records."""

from __future__ import annotations

from collections.abc import Sequence

from mfn_compile.errors import UsageError
from mfn_compile.records import SCHEMA, Entry, Records, order_of
from mfn_compile.tune.task import Result, Task
from mfn_compile.version import __version__


def records_of(
    tasks: Sequence[Task], result: Result, cpu: str, isa: str, device: str, seed: int
) -> Records:
    """One entry a kernel.

    Args:
        tasks: those that were tuned; no two are of one shape.
        cpu: LLVM's name of the core.
        isa: instruction set of the kernels.
        device: what they were measured on: virtual:CORE, or the key of real boards.
        seed: of the search.
    """
    by_key = {task.key: task for task in tasks}
    entries = [
        Entry(
            family=by_key[winner.kernel].family,
            kernel=winner.kernel,
            sizes=dict(by_key[winner.kernel].sizes),
            attributes=dict(by_key[winner.kernel].attributes),
            knobs=dict(winner.knobs),
            cycles=winner.cycles,
            first_cycles=winner.first_cycles,
            trial=winner.trial,
        )
        for winner in result.kernels
    ]
    return Records(
        schema=SCHEMA,
        cpu=cpu,
        isa=isa,
        device=device,
        seed=seed,
        version=__version__,
        entries=tuple(sorted(entries, key=order_of)),
    )


def merged(several: Sequence[Records]) -> Records:
    """The records of several networks for one core; of a kernel in two, the faster one's.

    Raises:
        UsageError: they were measured on different devices, whose cycles do not compare.
    """
    if len(devices := sorted({records.device for records in several})) > 1:
        raise UsageError(
            "Records of different devices cannot be merged",
            why=" and ".join(devices),
            hint="Tune all networks on the same device",
        )
    best: dict[str, Entry] = {}
    for records in several:
        for entry in records.entries:
            if entry.kernel not in best or entry.cycles < best[entry.kernel].cycles:
                best[entry.kernel] = entry
    return several[0].model_copy(update={"entries": tuple(sorted(best.values(), key=order_of))})


def with_entries(records: Records, more: Sequence[Entry]) -> Records:
    """Records with more entries, of other kernels."""
    entries = tuple(sorted((*records.entries, *more), key=order_of))
    return records.model_copy(update={"entries": entries})
