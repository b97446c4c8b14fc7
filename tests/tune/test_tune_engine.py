"""The search: optimum, determinism, budget, failures, interruption, resumption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mfn_compile.errors import UsageError
from mfn_compile.tune.engine import BATCH, TUNING_RECORDS, WORKLOADS, tune
from mfn_compile.tune.errors import FirstFailedError, FolderBusyError
from mfn_compile.tune.log import LINES
from mfn_compile.tune.task import Choice, Knob, Outcome, Task, Trial
from tests.tune.synthetic import (
    FIRST,
    best,
    cycles,
    large,
    measure,
    network,
    outcome,
    small,
    spilled,
)

ROOT = Path(__file__).parents[2]


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(text) for text in (folder / LINES).read_text().splitlines()]


def test_small_space_is_exhausted_and_its_optimum_found(tmp_path: Path) -> None:
    task = small(rows=48)
    result = tune([task], measure, tmp_path, trials=1000, seed=0, target="synthetic")
    (winner,) = result.kernels
    assert result.ended == "exhausted"
    assert winner.exhausted
    assert winner.trials == task.space_size == 42
    assert winner.failures == 2
    assert winner.cycles == best(task) == cycles(task, winner.knobs)
    assert winner.first_cycles == cycles(task, FIRST)
    assert not spilled(winner.knobs)


def test_large_space_is_searched_far_better_than_it_started(tmp_path: Path) -> None:
    tasks = [large(128, 64), large(32, 512)]
    result = tune(tasks, measure, tmp_path, trials=160, seed=0, target="synthetic")
    assert result.ended == "trials"
    for task, winner in zip(tasks, result.kernels, strict=True):
        assert winner.cycles < 1.15 * best(task) < winner.first_cycles / 3
    points = [(line["kernel"], json.dumps(line["knobs"])) for line in lines(tmp_path)]
    assert len(set(points)) == len(points) == result.trials == 160


def test_evolution_exhausts_a_space_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mfn_compile.tune.propose.ENUMERATED", 1)
    task = small(rows=48)
    result = tune([task], measure, tmp_path, trials=1000, seed=0, target="synthetic")
    assert result.ended == "exhausted"
    assert result.trials == task.space_size
    assert result.kernels[0].cycles == best(task)


def test_firsts_come_first_even_beyond_the_budget(tmp_path: Path) -> None:
    tasks = network()
    seen: list[Trial] = []
    result = tune(tasks, measure, tmp_path, trials=1, seed=0, target="t", observe=seen.append)
    assert [trial.kernel for trial in seen] == [task.key for task in tasks]
    assert [trial.knobs for trial in seen] == [task.first for task in tasks]
    assert seen[-1].total == result.cycles == result.first_cycles
    assert seen[-2].total is None
    assert result.cycles == sum(task.calls * cycles(task, task.first) for task in tasks)


def test_the_last_batch_goes_to_the_kernel_that_is_called_most(tmp_path: Path) -> None:
    """All kernels share a network, so each has a candidate in it until the budget ends."""
    tasks = [large(64, 65), large(64, 64, calls=20)]
    trials = len(tasks) * (1 + 5 * BATCH) + BATCH
    result = tune(tasks, measure, tmp_path, trials=trials, seed=0, target="t")
    rarely, often = result.kernels
    assert often.trials == rarely.trials + BATCH


def test_same_seed_same_trials(tmp_path: Path) -> None:
    runs = []
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        tune(network(), measure, tmp_path / name, trials=70, seed=seed, target="t")
        runs.append([(line["kernel"], line["knobs"]) for line in lines(tmp_path / name)])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_ties_go_to_the_earlier_point(tmp_path: Path) -> None:
    task = small()

    def flat(batch: Sequence[tuple[Task, Choice]]) -> list[Outcome]:
        return [Outcome(7.0 if c["prefetch"] else 9.0, None, 0.0) for _, c in batch]

    result = tune([task], flat, tmp_path, trials=100, seed=1, target="t")
    assert result.kernels[0].knobs == {"tile": 1, "loads": "whole", "prefetch": True}


def test_nothing_but_the_first_works(tmp_path: Path) -> None:
    task = small()

    def broken(batch: Sequence[tuple[Task, Choice]]) -> list[Outcome]:
        return [
            Outcome(5.0, None, 0.0) if c == FIRST else Outcome(None, "wrong bits\ud800" * 999, 0.0)
            for _, c in batch
        ]

    result = tune([task], broken, tmp_path, trials=100, seed=1, target="t")
    (winner,) = result.kernels
    assert winner.knobs == FIRST
    assert (winner.cycles, winner.failures) == (5.0, 41)
    assert all(str(line["error"]).startswith("wrong bits") for line in lines(tmp_path)[1:])


def test_first_that_fails_is_a_named_error(tmp_path: Path) -> None:
    def broken(batch: Sequence[tuple[Task, Choice]]) -> list[Outcome]:
        return [Outcome(None, "illegal instruction", 0.0) for _ in batch]

    for _ in range(2):  # also from the log
        with pytest.raises(FirstFailedError, match=r"gemm_64x64.*Illegal instruction"):
            tune([small()], broken, tmp_path, trials=9, seed=1, target="t")
    assert len(lines(tmp_path)) == 1


def test_stop_ends_it(tmp_path: Path) -> None:
    task = large()
    wanted = 2 * best(task)
    result = tune(
        [task], measure, tmp_path, trials=5000, seed=0, target="t", stop=lambda now: now <= wanted
    )
    assert result.ended == "stop"
    assert result.cycles <= wanted
    assert result.trials < 200


def test_interrupted_measurement_is_resumed(tmp_path: Path) -> None:
    taken = 0

    def interrupted(batch: Sequence[tuple[Task, Choice]]) -> Iterator[Outcome]:
        nonlocal taken
        for task, knobs in batch:
            if taken == 30:
                raise KeyboardInterrupt
            taken += 1
            yield outcome(task, knobs)

    with pytest.raises(KeyboardInterrupt):
        tune(network(), interrupted, tmp_path / "a", trials=60, seed=2, target="t")
    assert len(lines(tmp_path / "a")) == 30
    resumed = tune(network(), measure, tmp_path / "a", trials=60, seed=2, target="t")
    whole = tune(network(), measure, tmp_path / "b", trials=60, seed=2, target="t")
    assert resumed.measured == 30
    assert resumed.kernels == whole.kernels
    for name in (LINES, "trials.csv", WORKLOADS, TUNING_RECORDS):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_killed_runs_end_with_the_winners_of_a_whole_one(tmp_path: Path) -> None:
    folder, asked, trials = tmp_path / "killed", tmp_path / "asked", 90
    command = [sys.executable, "-m", "tests.tune.synthetic", str(folder), str(asked), str(trials)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    while process.poll() is None and _count(folder / LINES) < 40:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with (folder / LINES).open("ab") as handle:
        handle.write(b'{"trial":99,"kernel":"gemm_6')  # what a kill may leave
    before = _count(folder / LINES)
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    measured = asked.read_text().splitlines()
    assert len(set(measured)) == len(measured)
    assert before < len(lines(folder)) == trials
    again = tune(network(), _unasked, folder, trials=trials, seed=3, target="synthetic")
    whole = tune(network(), measure, tmp_path / "whole", trials=trials, seed=3, target="synthetic")
    assert again.measured == 0
    assert again.kernels == whole.kernels


def test_ctrl_c_in_the_middle_of_the_search(tmp_path: Path) -> None:
    tasks = [large(128, 64), large(32, 512)]
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        tune(tasks, measure, tmp_path, trials=6000, seed=2, target="t")
    done = len(lines(tmp_path))
    resumed = tune(tasks, measure, tmp_path, trials=done + 9, seed=2, target="t")
    assert resumed.measured == 9


def _count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _unasked(batch: Sequence[tuple[Task, Choice]]) -> list[Outcome]:
    raise AssertionError(f"measured again: {batch}")


def test_more_trials_go_on_where_fewer_ended(tmp_path: Path) -> None:
    tune(network(), measure, tmp_path, trials=37, seed=4, target="t")
    longer = tune(network(), measure, tmp_path, trials=61, seed=4, target="t")
    assert longer.measured == 24
    assert len(lines(tmp_path)) == longer.trials == 61
    shorter = tune(network(), _unasked, tmp_path, trials=37, seed=4, target="t")
    assert shorter.kernels == longer.kernels


def test_a_folder_is_for_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mfn_compile.tune.log.PATIENCE_S", 0.01)

    def nested(batch: Sequence[tuple[Task, Choice]]) -> list[Outcome]:
        tune([small()], measure, tmp_path, trials=5, seed=0, target="t")
        return [outcome(task, knobs) for task, knobs in batch]

    with pytest.raises(FolderBusyError, match="Another process"):
        tune([small()], nested, tmp_path, trials=5, seed=0, target="t")


def test_calls_that_make_no_sense(tmp_path: Path) -> None:
    other = Task("gemm_1", "gemm", small().knobs, {"n": 1}, 1, FIRST)
    for tasks in ([], [small(), small()], [small(), other]):
        with pytest.raises(UsageError):
            tune(tasks, measure, tmp_path, trials=5, seed=0, target="t")
    with pytest.raises(UsageError, match="not in the kernel's space"):
        Task("gemm_1", "gemm", small().knobs, {"n": 1}, 1, {**FIRST, "prefetch": 0})
    with pytest.raises(UsageError, match="twice"):
        Knob("tile", (1, 1))
    with pytest.raises(UsageError, match="one type"):
        Knob("tile", (1, True))
