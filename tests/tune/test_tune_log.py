"""Damaged and foreign folders, and the two readable forms of the log."""

from __future__ import annotations

import csv
import json
import math
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mfn_compile.errors import DeviceError, ExitCode, MfnError
from mfn_compile.tune.errors import TuningFolderError
from mfn_compile.tune.log import HEADER, LINES, TABLE, forget, open_log
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


@pytest.mark.parametrize("cycles", [math.inf, math.nan, 0.0, -1.0])
def test_a_count_that_cannot_be_is_a_failed_trial(tmp_path: Path, cycles: float) -> None:
    task, choice = small(), dict(FIRST)
    with open_log(tmp_path, [task], "a72", "1") as log:
        log.append(task, choice, Outcome.counted(cycles, 0.5), seed=1)
    line = json.loads((tmp_path / LINES).read_text(), parse_constant=pytest.fail)
    assert line["cycles"] is None
    assert str(cycles) in line["error"]
    with (tmp_path / TABLE).open(newline="") as handle:
        assert [row["cycles"] for row in csv.DictReader(handle)] == [""]
    with open_log(tmp_path, [task], "a72", "1") as log:
        (known,) = log.known.values()
        assert known.outcome == Outcome.counted(cycles, 0.5)


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


def _as_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def _as_link_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "gone" / "away")


@pytest.mark.parametrize(
    ("spoil", "name", "code"),
    [
        (_as_folder, HEADER, ExitCode.BAD_INPUT),
        (_as_folder, LINES, ExitCode.BAD_INPUT),
        (_as_folder, TABLE, ExitCode.DEVICE),
        (_as_folder, ".lock", ExitCode.DEVICE),
        (_as_link_to_nowhere, LINES, ExitCode.DEVICE),
    ],
)
def test_what_cannot_be_opened_is_named(
    folder: Path, spoil: Callable[[Path], None], name: str, code: ExitCode
) -> None:
    spoil(folder / name)
    with pytest.raises(MfnError) as caught, open_log(folder, [small()], "a72", "1"):
        pass
    assert caught.value.exit_code == code
    assert name in caught.value.where
    assert caught.value.why
    assert caught.value.hint


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DeviceError, match=r"cannot be written.*file"),
        open_log(tmp_path / "file" / "tuned", [small()], "a72", "1"),
    ):
        pass


def test_what_cannot_be_deleted_is_named(folder: Path) -> None:
    (folder / "database.json").mkdir()
    with pytest.raises(DeviceError, match=r"database\.json"):
        forget(folder, ["none.json", "database.json"])


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files cannot grow beyond a size, in bytes: like a disk that gets full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_the_tuning_and_the_log_stays_good(folder: Path) -> None:
    task, size = small(), (folder / LINES).stat().st_size
    with (
        pytest.raises(DeviceError, match=rf"cannot be written.*{LINES}"),
        largest_file(size + 20),  # half a line more; the other files are shorter
        open_log(folder, [task], "a72", "1") as log,
    ):
        log.append(task, task.choice((2, 0, 0)), Outcome(5.0, None, 0.5), seed=1)
    with open_log(folder, [task], "a72", "1") as log:
        assert len(log.known) == 3
