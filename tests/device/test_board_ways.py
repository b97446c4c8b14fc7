"""Ways to be faster, of a small library on virtual boards."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfn_compile import ways
from mfn_compile.device.spec import parse_virtual
from mfn_compile.device.virtual import run_virtual
from mfn_compile.progress import SilentProgress
from mfn_compile.store import Store
from mfn_compile.target import load_target
from mfn_compile.ways import Explorer, explore
from tests.arm.firmware import networks
from tests.arm.qdq_files import PREPROCESSING

BOARD = "virtual:raspberry-pi-3b-plus"


def explorer(folder: Path, target: str) -> Explorer:
    bundle = networks.make(networks.integer_network(), folder, target).bundle
    code = load_target(target).code
    assert code is not None
    device = parse_virtual(BOARD if target == "arm64" else "virtual:cortex-a55")
    found = run_virtual(bundle, device)
    return Explorer(folder / "network.onnx", PREPROCESSING, code, bundle, device, found)


def test_threads_inputs_and_boards_are_modelled_and_stored(
    board: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    height, width = PREPROCESSING.height, PREPROCESSING.width
    monkeypatch.setattr(ways, "SIZES", ((height, width - 2),))
    one = explorer(tmp_path, "arm64")
    store = Store(tmp_path / "store")
    found = explore(one, store, SilentProgress())
    kinds = [way.kind for way in found.ways]
    assert kinds == sorted(kinds, key=["as it is", "threads", "input", "core"].index)
    assert kinds.count("threads") == 2
    assert kinds.count("input") == 1
    first = found.ways[0]
    assert first.cycles == one.found.cycles
    assert first.milliseconds == one.device.milliseconds(first.cycles)
    others = [way for way in found.ways if way.kind == "core"]
    assert {way.device for way in others} >= {"Raspberry Pi Zero 2 W, Cortex-A53 1 GHz"}
    assert one.device.title not in {way.device for way in others}
    assert explore(one, store, SilentProgress()) == found


def test_boards_that_cannot_run_the_library_are_left_out(board: None, tmp_path: Path) -> None:
    one = explorer(tmp_path, "cortex-a55")
    found = list(one._boards("one thread"))
    assert found
    assert not any("A53" in way.device or "A72" in way.device for way in found)
    assert all(way.milliseconds is not None for way in found)
