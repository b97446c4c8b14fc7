"""A deterministic objective: cycles as a function of shape and knobs, with interactions.

As a program it tunes into a folder and logs every measurement it is asked for, to be killed.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mfn_compile.tune.task import Choice, Knob, Outcome, Task

TILES = Knob("tile", (1, 2, 4, 6, 8, 12, 16))
SMALL = (TILES, Knob("loads", ("whole", "halves", "general")), Knob("prefetch", (False, True)))
LARGE = (
    *SMALL,
    Knob("unroll", (1, 2, 3, 4, 6, 8)),
    Knob("order", ("kmn", "mkn", "mnk", "nmk")),
    Knob("strip", (1, 2, 4, 8, 16, 32)),
)
FIRST: dict[str, str | int | bool] = {"tile": 1, "loads": "whole", "prefetch": False}
FIRST_LARGE: dict[str, str | int | bool] = {**FIRST, "unroll": 1, "order": "kmn", "strip": 1}


def small(rows: int = 64, columns: int = 64, calls: int = 1) -> Task:
    """42 points."""
    sizes = {"rows": rows, "columns": columns}
    return Task(f"gemm_{rows}x{columns}", "gemm", SMALL, sizes, calls, FIRST)


def large(rows: int = 64, columns: int = 64, calls: int = 1) -> Task:
    """6048 points."""
    sizes = {"rows": rows, "columns": columns}
    return Task(f"strips_{rows}x{columns}", "strips", LARGE, sizes, calls, FIRST_LARGE)


def cycles(task: Task, knobs: Choice) -> float:
    """Least at a tile, an unrolling and a strip that depend on the shape and on each other."""
    rows, columns = task.sizes["rows"], task.sizes["columns"]
    tile = float(knobs["tile"])
    ideal = min(12.0, rows / 8)
    slow = 1 + 0.12 * math.log2(tile / ideal) ** 2
    slow *= {"whole": 1.1, "halves": 1.0, "general": 1.05}[str(knobs["loads"])]
    slow *= 0.97 if knobs["prefetch"] and tile > 4 else 1.01
    if "unroll" in knobs:
        slow *= 1 + 0.05 * math.log2(float(knobs["unroll"]) * tile / 16) ** 2
        slow *= 1 + 0.02 * math.log2(float(knobs["strip"]) * 64 / columns) ** 2
        slow *= {"kmn": 1.2, "mkn": 1.0, "mnk": 1.07, "nmk": 1.02}[str(knobs["order"])]
    return round(rows * columns * slow)


def spilled(knobs: Choice) -> bool:
    """A corner of the space that does not build."""
    return knobs["tile"] == 16 and knobs["loads"] == "general"


def outcome(task: Task, knobs: Choice) -> Outcome:
    """Cycles, or the error of what cannot be built."""
    if spilled(knobs):
        return Outcome(None, "registers spilled", 0.01)
    return Outcome(cycles(task, knobs), None, 0.01)


def measure(batch: Sequence[tuple[Task, Choice]]) -> Iterator[Outcome]:
    """One after the other, as a board does."""
    for task, knobs in batch:
        yield outcome(task, knobs)


def best(task: Task) -> float:
    """The least cycles of the whole space."""
    choices = (task.choice(point) for point in task.points())
    return min(cycles(task, knobs) for knobs in choices if not spilled(knobs))


def network() -> list[Task]:
    """What the killed process tunes."""
    return [small(64, 64, calls=4), small(256, 32), large(128, 64, calls=2), large(32, 512)]


def _main(folder: Path, asked: Path, trials: int) -> None:
    from mfn_compile.tune.engine import tune

    with asked.open("a", encoding="utf-8") as handle:

        def logged(batch: Sequence[tuple[Task, Choice]]) -> Iterator[Outcome]:
            for task, knobs in batch:
                result = outcome(task, knobs)
                yield result
                handle.write(f"{task.key} {sorted(knobs.items())}\n")
                handle.flush()

        tune(network(), logged, folder, trials=trials, seed=3, target="synthetic")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
