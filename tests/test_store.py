"""The store: known keys, damage, kills, two runs at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from pydantic import BaseModel

from mfn_compile.errors import DeviceError
from mfn_compile.store import RESULT, Stage, Store


class Answer(BaseModel):
    value: int


STAGE = Stage("answer", Answer, ("hashing",), ("numpy",))


def counting(store: Store, inputs: dict[str, int], calls: list[int]) -> Answer:
    def build(folder: Path) -> Answer:
        calls.append(1)
        (folder / "data.bin").write_bytes(b"content")
        return Answer(value=inputs["x"])

    return store.run(STAGE, inputs, build).result


def test_a_known_key_is_not_built_again(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []
    assert counting(store, {"x": 1}, calls) == counting(store, {"x": 1}, calls) == Answer(value=1)
    assert len(calls) == 1
    assert counting(store, {"x": 2}, calls).value == 2
    assert len(calls) == 2


def test_the_key_depends_on_source_and_tools() -> None:
    inputs = {"x": 1}
    keys = {
        STAGE.key(inputs),
        Stage("answer", Answer, ("errors",), ("numpy",)).key(inputs),
        Stage("answer", Answer, ("hashing",), ("torch",)).key(inputs),
        Stage("other", Answer, ("hashing",), ("numpy",)).key(inputs),
    }
    assert len(keys) == 4


DAMAGED_RESULTS = {"text": b"{", "bytes": b"\xff\xfe", "list": b"[]", "null": b'{"files": null}'}


@pytest.mark.parametrize("damage", ["file", "missing", *DAMAGED_RESULTS])
def test_damage_is_built_again(tmp_path: Path, damage: str) -> None:
    store, calls = Store(tmp_path), []
    counting(store, {"x": 1}, calls)
    folder = next(tmp_path.glob(f"answer/*/{RESULT}")).parent
    if damage == "file":
        (folder / "data.bin").write_bytes(b"c0ntent")
    elif damage in DAMAGED_RESULTS:
        (folder / RESULT).write_bytes(DAMAGED_RESULTS[damage])
    else:
        (folder / "data.bin").unlink()
    assert counting(store, {"x": 1}, calls) == Answer(value=1)
    assert len(calls) == 2
    assert (folder / "data.bin").read_bytes() == b"content"


def test_a_file_in_the_place_of_a_stage_is_replaced(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []
    counting(store, {"x": 1}, calls)
    folder = next(tmp_path.glob(f"answer/*/{RESULT}")).parent
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("")
    assert counting(store, {"x": 1}, calls) == Answer(value=1)


def test_an_error_of_the_stage_itself_is_not_blamed_on_the_cache(tmp_path: Path) -> None:
    def fails(folder: Path) -> Answer:
        raise PermissionError(13, "Permission denied", "/somewhere/face.jpg")

    with pytest.raises(PermissionError):
        Store(tmp_path).run(STAGE, {"x": 1}, fails)


def test_a_failed_build_leaves_its_folder_for_the_next(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def dies(folder: Path) -> Answer:
        (folder / "progress").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.run(STAGE, {"x": 1}, dies)

    def resumes(folder: Path) -> Answer:
        assert (folder / "progress").read_text() == "half"
        return Answer(value=1)

    assert not store.run(STAGE, {"x": 1}, resumes).reused


def test_an_unwritable_root_is_a_device_error(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(DeviceError, match="--cache-dir"):
        counting(Store(blocker / "cache"), {"x": 1}, [])


CHILD = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from tests.test_store import STAGE, Answer
    from mfn_compile.store import Store

    def build(folder):
        with open(sys.argv[2], "a") as log:
            log.write("built\\n")
        time.sleep(float(sys.argv[3]))
        return Answer(value=7)

    print(Store(Path(sys.argv[1]), lambda text: print(text, flush=True)).run(
        STAGE, {"x": 7}, build).result.value)
    """
)


def child(root: Path, log: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), str(log), str(seconds)],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip


def wait_for(path: Path) -> None:
    while not path.exists() or not path.read_text():
        time.sleep(0.01)


def test_two_runs_build_a_key_once_and_the_second_says_it_waits(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = child(tmp_path, log, 4.0)
    wait_for(log)
    second = child(tmp_path, log, 0.0)
    assert first.communicate()[0].split() == ["7"]
    output = second.communicate()[0]
    assert "another run is building answer" in output
    assert output.split()[-1] == "7"
    assert log.read_text() == "built\n"


def test_a_killed_run_releases_the_key(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = child(tmp_path, log, 600.0)
    wait_for(log)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert child(tmp_path, log, 0.0).communicate()[0].split() == ["7"]
    assert log.read_text() == "built\nbuilt\n"
