"""Calibration of the boards: its statistics, the files it writes, and the networks it runs."""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gmean, gstd, spearmanr

from mfn_compile.boards import Calibration
from mfn_compile.device.board import find_core
from mfn_compile.device.calibrate import (
    agreement,
    calibration,
    load_published,
    rounded,
    with_calibrations,
)
from mfn_compile.device.sysroot import require_sysroot
from mfn_compile.errors import BadInputError, DeviceError
from mfn_compile.resources import data_dir
from mfn_compile.target import Target, list_targets
from tests.device.tool_modules import TOOLS, tool_module

NETWORKS = tool_module("ncnn_networks").NETWORKS
PUBLISHED = load_published(TOOLS / "published_ncnn_times.toml")
BOARDS = [target for target in list_targets() if target.board is not None]
times = st.lists(st.floats(0.1, 1e4), min_size=3, max_size=12)


def _made(predicted: list[float], measured: list[float], names: list[str] | None = None):
    names = names or [f"n{index}" for index in range(len(measured))]
    return calibration(predicted, predicted, measured, names, fitted=False, source="here")


@given(times, st.data())
def test_the_statistics_are_scipys(measured: list[float], data: st.DataObject) -> None:
    size = len(measured)
    predicted = data.draw(st.lists(st.floats(0.1, 1e4), min_size=size, max_size=size))
    found = _made(predicted, measured)
    ratios = np.array(predicted) / np.array(measured)
    assert found.ratio == pytest.approx(gmean(ratios))
    assert found.spread == pytest.approx(float(gstd(ratios, ddof=0)), rel=1e-6)
    if len(set(predicted)) > 1 < len(set(measured)):
        assert found.rank == pytest.approx(spearmanr(predicted, measured).statistic)
    others = [gmean(np.delete(ratios, index)) for index in range(size)]
    left = np.log(ratios / others)
    assert found.leave_one_out == pytest.approx(math.exp(math.sqrt(np.mean(left**2))), rel=1e-6)
    assert found.worst == pytest.approx(math.exp(np.abs(left).max()), rel=1e-6)
    assert found.worst >= found.leave_one_out * (1 - 1e-12)
    assert found.leave_one_out >= found.spread * (1 - 1e-9)


@given(times, st.floats(0.01, 100))
def test_a_factor_is_the_ratio_and_nothing_else(measured: list[float], factor: float) -> None:
    found = _made([factor * ms for ms in measured], measured)
    assert found.ratio == pytest.approx(factor)
    assert (found.spread, found.worst) == pytest.approx((1, 1))


def test_by_hand() -> None:
    found = _made([1, 2, 16], [1, 4, 4])
    assert found.ratio == pytest.approx(2 ** (1 / 3))  # of 1, 1/2 and 4
    assert found.worst == pytest.approx(4 / math.sqrt(1 / 2))
    assert found.points == 3
    assert agreement([3, 2, 1], [1, 2, 3]).rank == pytest.approx(-1)
    equal = agreement([1, 1], [1, 2])
    assert (equal.spread, equal.rank) == pytest.approx((math.sqrt(2), 0))


def test_a_network_measured_on_two_boards_is_left_out_of_both() -> None:
    found = _made([1, 1, 1, 1], [1, 2, 1, 2], ["a", "b", "a", "b"])
    assert found.spread == pytest.approx(math.sqrt(2))
    assert found.worst == found.leave_one_out == pytest.approx(2)


@pytest.mark.parametrize(
    ("predicted", "measured", "names"),
    [([1.0], [1.0], ["a"]), ([1.0, 2.0], [1.0], ["a"]), ([1, 0], [1, 1], ["a", "b"])],
)
def test_what_has_no_calibration(predicted, measured, names) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"two|positive"):
        _made(predicted, measured, names)
    with pytest.raises(ValueError, match="two"):
        _made([1, 2], [1, 2], ["a", "a"])


@pytest.mark.parametrize("board", BOARDS, ids=lambda target: target.name)
def test_files_are_written_and_read_back(board: Target) -> None:
    text = (data_dir("targets") / f"{board.name}.toml").read_text(encoding="utf-8")
    found = {
        entry.core: rounded(_made([1, 2, 3.3], [2.2, 3, 1])).model_copy(
            update={"source": f'a "quoted" {entry.core}\\'}
        )
        for entry in board.board.cores
    }
    once = with_calibrations(f"# first\n{text}", found)
    assert once == with_calibrations(once, found)
    assert once.startswith("# first\n")
    again = Target.model_validate(tomllib.loads(once))
    assert {entry.core: entry.calibration for entry in again.board.cores} == found
    cores = [entry.model_copy(update={"calibration": None}) for entry in again.board.cores]
    assert cores == [e.model_copy(update={"calibration": None}) for e in board.board.cores]


def test_a_file_without_the_core_is_refused() -> None:
    text = '[[board.cores]]\ncore = "cortex-a53"\nclock_ghz = 1.0\n'
    with pytest.raises(BadInputError, match="cortex-a72"):
        with_calibrations(text, {"cortex-a72": _made([1, 2], [2, 3])})


def test_every_board_is_calibrated_and_has_its_sources_clock() -> None:
    names = {"raspberry-pi-5", "raspberry-pi-4", "raspberry-pi-3b-plus", "raspberry-pi-zero-2w"}
    assert {board.name for board in BOARDS} == names | {"rk3399", "rk3568", "rk3588", "uno-q"}
    rows = {(row.target, row.core): row for row in PUBLISHED.row}
    seen = {(board.name, entry.core) for board in BOARDS for entry in board.board.cores}
    assert seen == set(rows)
    for board in BOARDS:
        clocks = [entry.clock_ghz for entry in board.board.cores]
        assert clocks == sorted(clocks, reverse=True)
        for entry in board.board.cores:
            row, found = rows[board.name, entry.core], entry.calibration
            assert entry.clock_ghz == row.clock_ghz
            assert isinstance(found, Calibration)
            assert found == rounded(found)
            assert found.fitted == row.fitted
            assert row.heading in found.source
            assert found.points == (20 if board.name == "rk3568" else 10)
            assert 0.3 < found.ratio < 1
            assert found.spread <= found.leave_one_out <= found.worst


def test_published_times_are_complete() -> None:
    assert len(PUBLISHED.row) == len({row.title for row in PUBLISHED.row}) == 11
    for row in PUBLISHED.row:
        find_core(row.core)
        assert list(row.ms) == list(NETWORKS)
        assert min(row.ms.values()) > 1


# Layers, blobs, million multiply-adds, and a hash of every layer's type and parameters: those of
# the files in ncnn's benchmark folder.
FACTS = {
    "shufflenet_v2": (109, 125, 145, "ed25eb6eab8a7af0"),
    "mobilenet_v3": (145, 163, 246, "8a60ef0b2110a181"),
    "mnasnet": (76, 86, 314, "74807a8715d0679e"),
    "mobilenet_v2": (77, 87, 314, "33494b60baffe861"),
    "squeezenet": (48, 56, 418, "e62f4936bb38a0d7"),
    "mobilenet": (31, 31, 569, "0ab7a88267852b3f"),
    "resnet18": (50, 58, 1827, "a34fa541edbfa90c"),
    "squeezenet_int8": (48, 56, 418, "052e158be177335d"),
    "mobilenet_int8": (31, 31, 569, "76f81c414d6b9de8"),
    "resnet18_int8": (50, 58, 1827, "742f55056b043cf6"),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_are_the_published_ones(network: str) -> None:
    graph = NETWORKS[network]()
    magic, sizes, *lines = graph.text().splitlines()
    assert magic == "7767517"
    made: set[str] = set()
    rows = []
    for line in lines:
        kind, _, inputs, outputs, *rest = line.split()
        blobs, parameters = rest[: int(inputs) + int(outputs)], rest[int(inputs) + int(outputs) :]
        assert made.issuperset(blobs[: int(inputs)])  # every layer reads what is there
        made |= set(blobs[int(inputs) :])
        rows.append(" ".join([kind, inputs, outputs, *parameters]))
    digest = hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]
    layers, blobs = map(int, sizes.split())
    assert (layers, blobs) == (len(lines), len(made))
    assert (layers, blobs, round(graph.macs / 1e6), digest) == FACTS[network]


def test_the_tool_counts_a_network_and_keeps_it(board: None, tmp_path: Path) -> None:
    try:
        require_sysroot("ncnn")
    except DeviceError as error:
        pytest.skip(str(error))
    networks, runs = tool_module("ncnn_networks"), tool_module("calibration_runs")
    graph = networks.Graph()
    blob = graph.convolution(graph.image(32), 16, 3, 2)
    graph.classify(graph.average(graph.depthwise(blob)))
    run = runs.Run(find_core("cortex-a53"), "tiny", graph.text(), 32)
    counts = runs.count(run, tmp_path, runs.wheel())
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"cortex-a53-tiny-[0-9a-f]{12}\.txt", path.name)
    assert runs.stored(run, tmp_path, runs.wheel()) == counts
    instructions = sum(block.instructions for block in counts.blocks)
    assert graph.macs / 8 < instructions < 20 * graph.macs
    assert runs.stored(run, tmp_path, "ncnn 0") is None


def test_the_table_of_the_tool() -> None:
    tool = tool_module("calibrate_virtual_boards")
    row = PUBLISHED.row[0]
    costs = {
        (row.core, name): tool.Cost(
            core=row.core,
            network=name,
            cycles=ms * row.clock_ghz * 0.5e6,
            instructions=ms,
            l1_misses=0,
            l2_misses=0,
        )
        for name, ms in row.ms.items()
    }
    line = tool.line([row], PUBLISHED, costs, row.title)
    head, ruler, text = tool.table([line]).splitlines()
    assert head.count("|") == ruler.count("|") == text.count("|")
    assert text == "| Pi 3B+ A53 | yes | 10 | 0.50 | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 |"
