"""Candidates on a board: a server in an AArch64 Python under QEMU, whose times say nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from mfn_compile.arm.reader import read_graph
from mfn_compile.arm.schedules import Schedules
from mfn_compile.device.real.programs import GOLDEN, LayerSource
from mfn_compile.device.tools import require_cross_compiler
from mfn_compile.errors import DeviceError, UsageError
from mfn_compile.progress import SilentProgress
from mfn_compile.records import Records
from mfn_compile.target import load_target
from mfn_compile.tune.board_network import BoardBench
from mfn_compile.tune.log import LINES
from mfn_compile.tune.tasks import tasks_of
from mfn_compile.tune.whole_network import WRONG
from mfn_compile.tuning import TuneRequest, tune_target
from tests.arm.firmware import networks, stub
from tests.arm.qdq_files import PREPROCESSING
from tests.device.real.servers import Boards, emulated_python, tracker

pytest.importorskip("tvm", reason="TVM is not installed")
KEY, CPU = "emu", "cortex-a72"
SECONDS = 180.0
# Compiled with board.c, it ends the process that loads the library on the board.
CRASH = "void _exit(int);\n__attribute__((constructor)) static void f(void) { _exit(3); }\n"


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boards]:
    """A tracker with one emulated Cortex-A72, which has no dot products."""
    stub.cross()
    python = emulated_python(tmp_path_factory.mktemp("python"), CPU)
    with tracker() as port:
        found = Boards(port)
        try:
            found.start(KEY, *python)
            yield found
        finally:
            found.stop()


@pytest.fixture(scope="module")
def qdq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of four layers."""
    path = tmp_path_factory.mktemp("network") / "network.onnx"
    onnx.save(networks.integer_network(), path)
    return path


@pytest.fixture(scope="module")
def bench(qdq: Path, boards: Boards) -> BoardBench:
    """Its neon variant on the board."""
    return make_bench(qdq, boards, "neon")


def make_bench(qdq: Path, boards: Boards, name: str) -> BoardBench:
    code = load_target("arm64").code
    assert code is not None
    variants = tuple(variant for variant in code.variants if variant.name == name)
    source = LayerSource(qdq, PREPROCESSING, code.model_copy(update={"variants": variants}))
    graph = read_graph(qdq, PREPROCESSING)
    shape = (2, graph.height, graph.width, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    command = require_cross_compiler().shared
    return BoardBench(source, graph, images, boards.address(KEY), command, SECONDS)


def tune_on(qdq: Path, address: str, folder: Path, request: TuneRequest) -> str:
    image = np.zeros((112, 112, 3), np.uint8)
    wanted = replace(request, device=address)
    found = tune_target(
        qdq, PREPROCESSING, load_target(CPU), wanted, image, folder, SilentProgress()
    )
    (core,) = found.cores
    assert (core.unit, core.device, core.variant, core.failures) == ("ns", address, "neon", 0)
    assert 0 < core.best <= core.first
    assert core.milliseconds is not None
    assert core.milliseconds.value == core.best / 1e6
    return found.lines()


@pytest.mark.slow
def test_a_network_is_tuned_on_a_board(qdq: Path, boards: Boards, tmp_path: Path) -> None:
    address = str(boards.address(KEY))
    tasks = tasks_of(read_graph(qdq, PREPROCESSING), CPU, "neon")
    said = tune_on(qdq, address, tmp_path, TuneRequest(1000, until_ms=1e6))
    assert " ms (" in said
    assert "measured" in said
    assert "ended: stop" in said
    records = Records.load(tmp_path / f"{CPU}.json")
    assert (records.device, records.unit, records.cpu, records.isa) == (KEY, "ns", CPU, "neon")
    assert {entry.kernel for entry in records.entries} == {task.key for task in tasks}
    lines = (tmp_path / CPU / LINES).read_text().splitlines()
    assert len(lines) == len(tasks)
    assert all(f'"target":"{CPU} on {KEY}"' in line for line in lines)


class _Sick(BoardBench):
    """Candidates, unlike the core's own knobs, first end the board's process, then are wrong."""

    tried = False

    def _build(self, schedules: Schedules, folder: Path) -> dict[str, Path]:
        if not schedules.given:
            return super()._build(schedules, folder)
        if _Sick.tried:
            files = super()._build(schedules, folder)
            golden = bytearray(files[GOLDEN].read_bytes())
            golden[-1] ^= 1
            files[GOLDEN].write_bytes(golden)
            return files
        _Sick.tried = True
        source = folder / "sick.h"
        source.write_text(CRASH)
        sick = replace(self, command=(*self.command, "-include", str(source)))
        return BoardBench._build(sick, schedules, folder)


def test_a_board_is_asked_again_before_a_candidate_is_to_blame(bench: BoardBench) -> None:
    task = tasks_of(bench.graph, CPU, "neon")[0]
    names = ("source", "graph", "images", "address", "command", "seconds")
    sick = _Sick(**{name: getattr(bench, name) for name in names})
    found = sick.answer({task.key: task.choice((1,) * len(task.knobs))})
    assert _Sick.tried
    assert found.whole.startswith(WRONG)
    assert "vector 1" in found.whole
    assert not found.cycles


def test_a_variant_that_the_board_lacks_is_an_error(qdq: Path, boards: Boards) -> None:
    with pytest.raises(DeviceError, match="cannot run the variant dotprod") as caught:
        make_bench(qdq, boards, "dotprod").answer({})
    assert caught.value.exit_code == 6


def test_a_board_that_is_gone_is_no_candidate_s_fault(
    bench: BoardBench, boards: Boards, qdq: Path, tmp_path: Path
) -> None:
    boards.end(boards.running[0])
    task = tasks_of(bench.graph, CPU, "neon")[0]
    with pytest.raises(DeviceError, match="No board is registered") as caught:
        bench.answer({task.key: task.first})
    assert caught.value.exit_code == 6
    with pytest.raises(DeviceError, match="No board is registered"):
        tune_on(qdq, str(boards.address(KEY)), tmp_path, TuneRequest(1))


def test_this_machine_is_tuned_through_a_server(qdq: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'local'") as caught:
        tune_on(qdq, "local", tmp_path, TuneRequest(1))
    assert "board_server.py" in caught.value.hint
