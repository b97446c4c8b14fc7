"""Damaged and foreign folders, and the two readable forms of the log."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mfn_compile.tune.errors import TuningFolderError
from mfn_compile.tune.log import HEADER, LINES, TABLE, open_log
from mfn_compile.tune.task import Knob, Outcome
from tests.tune.synthetic import FIRST, SMALL, small


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    task = small()
    with open_log(tmp_path, [task], "a72", "1") as log:
        for point, cycles in (((0, 0, 0), 9.0), ((1, 0, 0), None), ((2, 1, 1), 7.0)):
            error = None if cycles else 'it said "no",\nthen stopped'
            log.append(task, task.choice(point), Outcome(cycles, error, 0.5), seed=1)
    return tmp_path


def test_log_and_table_say_the_same(folder: Path) -> None:
    lines = [json.loads(text) for text in (folder / LINES).read_text().splitlines()]
    with (folder / TABLE).open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [int(row["trial"]) for row in rows] == [1, 2, 3]
    for line, row in zip(lines, rows, strict=True):
        assert json.loads(row["knobs"]) == line["knobs"]
        assert row["cycles"] == ("" if line["cycles"] is None else str(line["cycles"]))
        assert row["error"] == (line["error"] or "")


def test_half_a_line_is_dropped_wherever_a_kill_left_it(folder: Path) -> None:
    raw = (folder / LINES).read_bytes()
    for length in {*range(raw.rindex(b"\n", 0, -1) + 1, len(raw), 9), len(raw) - 1}:
        (folder / LINES).write_bytes(raw[:length])
        (folder / TABLE).write_bytes(b"trial,ker")
        with open_log(folder, [small()], "a72", "1") as log:
            assert sorted(log.known) == [("gemm_64x64", (0, 0, 0)), ("gemm_64x64", (1, 0, 0))]
        assert (folder / LINES).read_bytes().count(b"\n") == 2
        assert (folder / TABLE).read_text().startswith("trial,kernel,knobs")


def test_other_kernels_may_come_and_go(folder: Path) -> None:
    other = small(rows=128)
    with open_log(folder, [other], "a72", "1") as log:
        assert log.known == {}
        assert log.append(other, FIRST, Outcome(3.0, None, 0.1), seed=1).trial == 4
    with open_log(folder, [small(), other], "a72", "1") as log:
        assert len(log.known) == 4


@pytest.mark.parametrize(
    ("target", "code", "where"), [("a76", "1", "target"), ("a72", "2", "code")]
)
def test_another_tuning(folder: Path, target: str, code: str, where: str) -> None:
    with (
        pytest.raises(TuningFolderError, match=f"tuning.json: {where}.*another folder"),
        open_log(folder, [small()], target, code),
    ):
        pass


def test_another_knob_space(folder: Path) -> None:
    wider = (Knob("tile", (1, 2, 4, 6, 8, 12, 16, 24)), *SMALL[1:])
    with (
        pytest.raises(TuningFolderError, match=r"spaces\.gemm_64x64"),
        open_log(folder, [replace(small(), knobs=wider)], "a72", "1"),
    ):
        pass


def _line(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        lines = (folder / LINES).read_text().splitlines(keepends=True)
        document = json.loads(lines[1])
        change(document)
        lines[1] = json.dumps(document) + "\n"
        (folder / LINES).write_text("".join(lines))

    return write


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        (_line(lambda line: line.update(cycles=-1)), "trials.jsonl:2.*cycles"),
        (_line(lambda line: line.update(cycles=1.0)), "trials.jsonl:2"),
        (_line(lambda line: line.update(trial=7)), "trials.jsonl:2"),
        (_line(lambda line: line.update(target="a53")), "trials.jsonl:2"),
        (_line(lambda line: line.update(more=1)), "trials.jsonl:2.*more"),
        (_line(lambda line: line.update(knobs={"tile": 3})), "trials.jsonl:2"),
        (_line(lambda line: line.update(knobs={"tile": 1.5})), "trials.jsonl:2"),
        (lambda folder: (folder / LINES).write_bytes(b"\xff\x00\n"), "trials.jsonl:1"),
        (lambda folder: (folder / HEADER).write_text("{}"), "tuning.json"),
        (lambda folder: (folder / HEADER).write_text("[" * 9999), "tuning.json"),
        (lambda folder: (folder / HEADER).unlink(), "tuning.json"),
    ],
)
def test_damage_is_named(folder: Path, damage: Callable[[Path], None], where: str) -> None:
    damage(folder)
    before = (folder / LINES).read_bytes()
    with (
        pytest.raises(TuningFolderError, match=where),
        open_log(folder, [small()], "a72", "1"),
    ):
        pass
    assert (folder / LINES).read_bytes() == before
