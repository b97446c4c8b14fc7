"""The board's server in an AArch64 Python under QEMU: a board, but for its times."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mfn_compile.device.real.measure import Amount, BoardRun, measure_local, measure_rpc
from mfn_compile.device.real.programs import LayerSource
from mfn_compile.errors import DeviceError
from mfn_compile.progress import Progress, SilentProgress
from mfn_compile.target import load_target
from tests.arm.firmware import networks, stub
from tests.arm.qdq_files import PREPROCESSING
from tests.device.real.servers import Boards, Watching, emulated_python, tracker

pytest.importorskip("tvm", reason="TVM is not installed")
AMOUNT = Amount(rounds=1, warm_up=300, repeats=10, layers=10)
# A round that lasts its whole budget, however fast the machine is: somebody has to hit it.
LASTING = Amount(rounds=1, warm_up=1, repeats=1_000_000, layers=10, budget_ms=4_000)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> networks.Made:
    """A network of four layers, for both variants."""
    return networks.make(networks.integer_network(), tmp_path_factory.mktemp("measured"))


@pytest.fixture(scope="module")
def layers(small: networks.Made) -> LayerSource:
    """What its kernels are compiled from."""
    code = load_target("arm64").code
    assert code is not None
    return LayerSource(small.bundle.parent / "network.onnx", PREPROCESSING, code)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """A program that is an AArch64 Python with the wheels, and the environment for it."""
    return emulated_python(tmp_path_factory.mktemp("python"), "max")


@pytest.fixture(scope="module")
def emulated(python: tuple[str, dict[str, str]]) -> Iterator[Boards]:
    """A tracker; servers that tests start are emulated."""
    with tracker() as port:
        found = Boards(port)
        try:
            found.start("emu", *python)
            yield found
        finally:
            found.stop()


def run(
    small: networks.Made,
    layers: LayerSource,
    boards: Boards,
    resume: Path,
    progress: Progress | None = None,
    amount: Amount = AMOUNT,
) -> BoardRun:
    return measure_rpc(
        small.bundle,
        boards.address("emu"),
        resume=resume,
        progress=progress or SilentProgress(),
        seconds=120,
        amount=amount,
        layers=layers,
    )


@pytest.mark.slow
def test_the_server_is_killed_in_a_round_and_the_next_try_measures_the_rest(
    small: networks.Made,
    layers: LayerSource,
    emulated: Boards,
    python: tuple[str, dict[str, str]],
    tmp_path: Path,
) -> None:
    server = emulated.running[0]

    def kill(note: str) -> None:
        if note.startswith("check-dotprod"):
            threading.Timer(0.2, emulated.send, (server, signal.SIGKILL)).start()

    with pytest.raises(DeviceError, match="lost while it did the job round-0") as caught:
        run(small, layers, emulated, tmp_path, Watching(kill), LASTING)
    assert caught.value.exit_code == 6
    emulated.end(server)
    emulated.start("emu", *python)
    progress = Watching()
    found = run(small, layers, emulated, tmp_path, progress, LASTING)
    assert found.resumed == 2
    assert progress.notes == ["2 of 4 jobs were done by an earlier try"]
    assert (found.variant, found.vectors, found.warm_up) == ("dotprod", 6, 1)
    assert found.repeats > 5


def test_this_machine_measures_the_same_way(small: networks.Made, layers: LayerSource) -> None:
    found = measure_local(
        small.bundle,
        progress=SilentProgress(),
        amount=Amount(rounds=2, warm_up=2, repeats=10, layers=10),
        layers=layers,
        runner=stub.emulate(Path("program"), cpu="cortex-a53")[:-1],
    )
    assert found.boards[0].endswith("(this machine)")
    assert found.variants == ("neon",)
    assert found.variant == "neon"
    assert found.vectors == 6
    assert {one.layer for one in found.layers} == {step for step, _ in calls(layers, "neon")}


def check(found: BoardRun, small: networks.Made) -> None:
    """A result of an emulator that has dot products."""
    assert found.architecture == "aarch64"
    assert (found.variant, found.variants) == ("dotprod", ("neon", "dotprod"))
    assert (found.vectors, found.repeats, found.warm_up) == (6, 10, 300)
    assert 0 < found.p50_ms <= found.p90_ms <= found.p99_ms
    assert sum(one.share for one in found.layers) == pytest.approx(1)
    known = {row.kernel for row in small.firmware.census}
    assert known & {one.kernel for one in found.layers}


def calls(source: LayerSource, variant: str) -> tuple[tuple[str, str], ...]:
    """Layers and kernels of a variant, in order."""
    from mfn_compile.arm.prepared import prepared
    from mfn_compile.arm.program import make_program
    from mfn_compile.arm.reader import read_graph
    from mfn_compile.arm.schedules import shipped

    cpus = {code.name: code.cpu for code in source.code.variants}
    graph = prepared(read_graph(source.qdq, source.preprocessing))
    program = make_program(graph, shipped(cpus[variant], variant))
    return tuple((step.layer, call.kernel) for step in program.steps for call in step.calls)
