"""Candidates in whole networks: counted, checked to the bit, and told apart when one fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mfn_compile.arm import oracle
from mfn_compile.arm.codegen import Machine, compile_network
from mfn_compile.arm.graph import Conv
from mfn_compile.arm.reader import read_graph
from mfn_compile.device.board import find_core
from mfn_compile.device.emulator import build_plugin, require_emulator
from mfn_compile.device.network_run import SUFFIX
from mfn_compile.errors import DeviceError, InternalCheckError, UsageError
from mfn_compile.tune.engine import tune
from mfn_compile.tune.measure import NetworkMeasure
from mfn_compile.tune.shipping import merged, records_of
from mfn_compile.tune.task import Task
from mfn_compile.tune.tasks import tasks_of
from mfn_compile.tune.whole_network import Bench
from tests.arm.firmware import networks, stub
from tests.arm.graphs import Draft
from tests.arm.qdq_files import PREPROCESSING

CPU, ISA = "cortex-a53", "neon"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A small network for the Cortex-A53, whose model needs no other tool than QEMU."""
    stub.cross()
    try:
        require_emulator(), build_plugin()
    except DeviceError as error:
        pytest.skip(str(error))
    graph = read_graph(networks.integer_network(), PREPROCESSING)
    machine = Machine(ISA, "aarch64-linux-gnu", CPU, ("neon", "reserve-x18"))
    shape = (2, graph.height, graph.width, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return Bench(graph, machine, find_core(CPU), images, tmp_path_factory.mktemp("cycles"))


@pytest.fixture(scope="module")
def tasks(bench: Bench) -> tuple[Task, ...]:
    return tasks_of(bench.graph, CPU, ISA)


@pytest.fixture(scope="module")
def measure(bench: Bench) -> Iterator[NetworkMeasure]:
    with NetworkMeasure(bench, 1) as found:
        yield found


def test_tasks_are_the_kernels_with_something_to_choose(tasks: tuple[Task, ...]) -> None:
    assert tasks
    assert {task.family for task in tasks} <= {"gemm", "depthwise"}
    assert all(task.space_size > 1 for task in tasks)


def test_tuning_resumes_ships_and_repeats_itself(
    bench: Bench, tasks: tuple[Task, ...], measure: NetworkMeasure, tmp_path: Path
) -> None:
    def run(folder: Path, trials: int) -> object:
        return tune(tasks, measure, folder, trials=trials, seed=1, target=CPU, batch=2)

    count = 2 * len(tasks)
    whole = run(tmp_path / "whole", count)
    first = run(tmp_path / "parts", count - 1)
    second = run(tmp_path / "parts", count)
    assert first.measured + second.measured == whole.measured == count
    assert second.kernels == whole.kernels
    assert whole.cycles <= whole.first_cycles
    records = records_of(tasks, whole, CPU, ISA, f"virtual:{CPU}", 1)
    assert merged([records, records]) == records
    board = records.model_copy(update={"device": "pi4"})
    assert (records.unit, board.unit) == ("cycles", "ns")
    with pytest.raises(UsageError, match="different devices"):
        merged([records, board])
    for task, winner in zip(tasks, whole.kernels, strict=True):
        found = records.lookup(task.family, task.sizes, task.attributes)
        assert found is not None
        assert found.exact
        assert (found.entry.knobs, found.entry.kernel) == (dict(winner.knobs), task.key)


def test_the_sum_of_the_kernels_is_a_part_of_the_whole(
    tasks: tuple[Task, ...], measure: NetworkMeasure
) -> None:
    assert measure.rest(tasks) > 0


def test_one_candidate_that_cannot_be_compiled_spoils_no_other(
    tasks: tuple[Task, ...], measure: NetworkMeasure
) -> None:
    batch = [(task, dict(task.first)) for task in tasks]
    bad = next(i for i, task in enumerate(tasks) if task.family == "gemm")
    batch[bad][1]["loads"] = "backwards"
    outcomes = list(measure(batch))
    assert [outcome.cycles is None for outcome in outcomes] == [i == bad for i in range(len(batch))]
    assert "backwards" in str(outcomes[bad].error)


def test_a_kernel_with_a_wrong_bit_is_named_and_those_behind_it_are_not(bench: Bench) -> None:
    compiled = compile_network(bench.built, bench.machine, suffix=SUFFIX, overlap=False)
    right = bench.wanted[0]
    first = next(n for n in bench.built.nodes if isinstance(n, Conv))
    tensors = {name: value.copy() for name, value in right.items()}
    tensors[first.output].flat[0] ^= 1
    for node in bench.built.nodes[2:]:
        tensors[node.output] = oracle.run_node(node, tensors)
    step = next(s for s in compiled.program.steps if s.writes == first.output)
    known = compiled.program.schedules
    keys = {known[call.kernel].kernel.name for call in step.calls if call.kernel in known}
    assert bench.wrong(compiled, tensors, right) == keys


def test_channels_that_do_not_ship_are_not_measured(bench: Bench) -> None:
    draft = Draft(5)
    x = draft.conv(draft.conv(draft.image(6, 6), 48), 24)
    node = draft.nodes[-1]
    assert isinstance(node, Conv)
    draft.change(weight=np.where(np.arange(48) < 30, 0, node.weight).astype(np.int8))
    graph = draft.graph(draft.conv(x, 8, (6, 6), to_float=True))
    smaller = replace(bench, graph=graph, images=bench.images[:, :6, :6].copy())
    found = smaller.answer({})
    assert (found.errors, found.whole) == ({}, "")
    assert found.cycles.keys() == {task.key for task in tasks_of(graph, CPU, ISA)}
    assert smaller.built.tensors[graph.nodes[1].output].channels == 18


def test_a_network_that_fails_by_itself_is_no_candidate_s_fault(bench: Bench) -> None:
    broken = replace(bench, images=bench.images[:, :1])
    with (
        NetworkMeasure(broken, 1) as measure,
        pytest.raises(InternalCheckError, match="virtual board"),
    ):
        measure.rest(())
