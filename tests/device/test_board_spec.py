"""`--device`: which core or board a text means, and which texts mean none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfn_compile import on_device
from mfn_compile.boards import Agreement, Board, BoardCore, Calibration
from mfn_compile.device.board import cores, find_core
from mfn_compile.device.spec import VirtualDevice, parse_virtual
from mfn_compile.errors import BadInputError, MfnError, UsageError
from mfn_compile.target import load_target

CALIBRATION = Calibration(
    ratio=0.59,
    spread=1.1,
    rank=0.96,
    leave_one_out=1.11,
    worst=1.2,
    instructions=Agreement(spread=1.14, rank=0.96),
    points=10,
    fitted=False,
    source="measured",
)
BOARD = """
name = "mine"
description = "a board of mine"
backend = "tvm"
[quantization]
overflow_fix = "disable"
[runtime]
device = "CPU"
threads = 1
[budget]
latency_ms = 18.0
[code]
triple = "aarch64-linux-gnu"
[[code.variants]]
name = "neon"
cpu = "cortex-a72"
features = ["neon"]
[board]
title = "Mine"
[[board.cores]]
core = "cortex-a72"
clock_ghz = 1.5
[[board.cores]]
core = "cortex-a53"
clock_ghz = 1.2
l2 = { kib = 256, ways = 8 }
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return f"virtual:{path}"


@pytest.mark.parametrize("core", [core.name for core in cores()])
def test_every_core_is_a_device_without_a_time(core: str) -> None:
    found = parse_virtual(f"virtual:{core}")
    assert found.core == find_core(core)
    assert found.milliseconds(4e7) is None


def test_a_shipped_board() -> None:
    found = parse_virtual("virtual:raspberry-pi-4")
    assert found.core.name == "cortex-a72"
    assert found.title == "Raspberry Pi 4, Cortex-A72 1.8 GHz"


def test_a_board_of_ones_own_takes_its_first_core(tmp_path: Path) -> None:
    found = parse_virtual(write(tmp_path, BOARD))
    assert (found.core.name, found.title) == ("cortex-a72", "Mine, Cortex-A72 1.5 GHz")
    assert found.milliseconds(4e7) is None, "it was never calibrated"


def test_a_core_of_a_board_of_ones_own(tmp_path: Path) -> None:
    found = parse_virtual(f"{write(tmp_path, BOARD)}/cortex-a53")
    assert found.core.name == "cortex-a53"
    assert found.core.l2.kib == 256


def test_a_calibration_by_hand_needs_a_ratio_a_spread_and_a_source(tmp_path: Path) -> None:
    table = '[board.cores.calibration]\nratio = 0.5\nspread = 1.1\nsource = "mine"\n'
    found = parse_virtual(write(tmp_path, BOARD + table) + "/cortex-a53").milliseconds(1.2e6)
    assert found is not None
    assert found.value == pytest.approx(2.0)


def test_a_boards_caches_take_the_cores_place() -> None:
    entry = BoardCore.model_validate(
        {"core": "cortex-a53", "clock_ghz": 1.2, "l2": {"kib": 256, "ways": 8}}
    )
    board = Board(title="Mine", cores=(entry,))
    target = load_target("raspberry-pi-4").model_copy(update={"board": board})
    from mfn_compile.device import spec

    found = spec._on_board("mine", target, None)
    assert found.core.l2.kib == 256
    assert found.core.l1 == find_core("cortex-a53").l1


@given(st.floats(1e3, 1e12), st.floats(0.1, 5), st.floats(0.1, 2), st.floats(1, 2))
def test_time_is_cycles_by_clock_and_ratio(
    cycles: float, clock: float, ratio: float, spread: float
) -> None:
    calibration = CALIBRATION.model_copy(update={"ratio": ratio, "spread": spread})
    entry = BoardCore(core="cortex-a72", clock_ghz=clock, calibration=calibration)
    board = Board(title="Mine", cores=(entry,))
    found = VirtualDevice("mine", find_core("cortex-a72"), board, entry).milliseconds(cycles)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.value * clock * 1e6 * ratio == pytest.approx(cycles)
    assert found.high / found.value == pytest.approx(found.value / found.low)
    assert found.high / found.value == pytest.approx(spread**2)


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("virtual:", UsageError, "virtual:raspberry-pi-4"),
        ("virtual:raspbery-pi-4", BadInputError, "'raspberry-pi-4'"),
        ("virtual:cortex-a99", BadInputError, "cortex-a"),
        ("virtual:neon", BadInputError, "cortex-a53, cortex-a55, cortex-a72"),
        ("virtual:arm64", BadInputError, "'arm64' is no board"),
        ("virtual:raspberry-pi-4/cortex-a53", BadInputError, "It has cortex-a72"),
        ("virtual:missing.toml", BadInputError, "missing.toml"),
        ("virtual:raspberry-pi-4/", UsageError, "names no core"),
        ("none", UsageError, "rpc://HOST:PORT/KEY"),
        ("qemu", UsageError, "rpc://HOST:PORT/KEY"),
        ("", UsageError, "virtual:NAME"),
    ],
)
def test_texts_that_are_no_device(text: str, kind: type[MfnError], says: str) -> None:
    with pytest.raises(kind) as caught:
        on_device.parse(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("clock_ghz = 1.5", "", "clock_ghz"),
        ("clock_ghz = 1.5", "clock_ghz = 0", "clock_ghz"),
        ('core = "cortex-a72"\nclock', 'core = "cortex-a99"\nclock', "cortex-a53, cortex-a55"),
        ('core = "cortex-a53"', 'core = "cortex-a72"', "two entries"),
        ("[board]\n", "[board]\nghz = 1\n", "Valid here: cores, title"),
        ("kib = 256, ways = 8", "kib = 33, ways = 5", "33 KiB are no 5 ways"),
        (BOARD[BOARD.index("[board]") :], "", "no [board] section"),
    ],
)
def test_boards_that_cannot_be_used(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert BOARD.count(old) == 1
    with pytest.raises(BadInputError) as caught:
        parse_virtual(write(tmp_path, BOARD.replace(old, new)))
    assert says in str(caught.value)


def test_which_device_a_run_takes(tmp_path: Path) -> None:
    arm, board, intel = (load_target(name) for name in ("arm64", "raspberry-pi-4", "intel"))
    assert on_device.choose(None, arm, "arm64") is None
    assert on_device.choose("none", board, "raspberry-pi-4") is None
    own = on_device.choose(None, board, "raspberry-pi-4")
    assert own is not None
    assert (own.text, own.asked) == ("virtual:raspberry-pi-4", False)
    assert on_device.choose("local", intel, "intel") is None
    with pytest.raises(UsageError, match="timed on this machine"):
        on_device.choose("virtual:cortex-a72", intel, "intel")
    place = write(tmp_path, BOARD).removeprefix("virtual:")
    mine = on_device.choose(None, load_target(place), place)
    assert mine is not None
    assert mine.virtual is not None
    assert mine.virtual.title.startswith("Mine")


def test_a_targets_own_board_is_left_out_where_tools_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    target = load_target("raspberry-pi-4")
    own = on_device.choose(None, target, "raspberry-pi-4")
    asked = on_device.choose("virtual:raspberry-pi-4", target, "raspberry-pi-4")
    assert own is not None
    assert asked is not None
    assert "qemu-user" in on_device.unready(own)
    with pytest.raises(MfnError, match="qemu-user"):
        on_device.unready(asked)
