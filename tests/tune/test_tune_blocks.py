"""Rows of blocks: tasks, costs by layer, checks to the bit, and records of this very block only."""

from __future__ import annotations

import numpy as np
import pytest

from mfn_compile.arm import oracle
from mfn_compile.arm.blocks import blocks, candidates, key_of, strips_of
from mfn_compile.arm.codegen import Machine
from mfn_compile.arm.program import make_program
from mfn_compile.arm.schedules import Schedules
from mfn_compile.device.board import find_core
from mfn_compile.records import SCHEMA, Entry, Records
from mfn_compile.tune.block_strips import (
    ROWS,
    BlockBench,
    block_tasks,
    by_layer,
    with_defaults,
    wrong_layers,
)
from mfn_compile.tune.task import Knob, Result, Task, Winner
from mfn_compile.tune.whole_network import Bench
from tests.arm.firmware import stub
from tests.arm.test_strips import block_graph

CPU, ISA = "cortex-a53", "neon"


def records(*entries: Entry) -> Records:
    return Records(
        schema=SCHEMA,
        cpu=CPU,
        isa=ISA,
        seed=0,
        version="1",
        device="virtual:none",
        entries=entries,
    )


def entry(rows: int, height: int = 0) -> Entry:
    graph = block_graph()
    key = key_of(graph, blocks(graph)[0])
    sizes = dict(key.sizes) | ({"height": height} if height else {})
    return Entry(
        family=key.family,
        kernel=key.name,
        sizes=sizes,
        attributes=dict(key.attributes),
        knobs={ROWS: rows},
        cycles=1,
        first_cycles=1,
        trial=1,
    )


def test_rows_come_from_records_of_this_very_block_that_fit() -> None:
    graph = block_graph()
    name = blocks(graph)[0][0].name
    values = candidates(graph)[name]
    default = strips_of(graph, Schedules(CPU, ISA))[name]
    wanted = next(rows for rows in values if rows != default)

    def chosen(*entries: Entry) -> int:
        return strips_of(graph, Schedules(CPU, ISA, records(*entries)))[name]

    assert chosen(entry(wanted)) == wanted
    assert chosen(entry(wanted, height=999)) == default
    assert chosen(entry(max(values) + 1)) == default


def test_costs_are_shared_by_units_of_work() -> None:
    graph = block_graph()
    rows = max(candidates(graph)[blocks(graph)[0][0].name])
    program = make_program(graph, Schedules(CPU, ISA), {blocks(graph)[0][0].name: rows})
    spent = {kernel: float(i + 1) for i, kernel in enumerate(program.kernels)}
    found = by_layer(program, spent)
    assert sum(found.values()) == pytest.approx(sum(spent.values()))
    assert set(found) == {call.layer for call in program.calls()}


def test_a_step_that_writes_other_bits_is_named_and_its_readers_are_not() -> None:
    graph = block_graph()
    program = make_program(graph, Schedules(CPU, ISA))
    rgb = np.random.default_rng(0).integers(0, 256, (graph.height, graph.width, 3), np.uint8)
    wanted = oracle.run(graph, rgb)
    found = {name: value.copy() for name, value in wanted.items()}
    assert wrong_layers(program, found, wanted) == set()
    first = program.steps[1]
    for step in program.steps[1:]:
        found[step.writes] = found[step.writes][::-1, ::-1] // 2
    assert wrong_layers(program, found, wanted) == {first.calls[-1].layer}


@pytest.mark.parametrize(("cycles", "rows"), [(979.0, 1), (981.0, 0), (1000.0, 0)])
def test_the_default_stays_where_another_costs_as_good_as_the_same(
    cycles: float, rows: int
) -> None:
    task = Task("block_a", "block", (Knob(ROWS, (0, 1)),), {"rows": 1}, 1, {ROWS: 0})
    winner = Winner("block_a", {ROWS: 1}, cycles, 1000.0, 2, 2, 0, True)
    found = with_defaults([task], Result((winner,), 1000.0, cycles, 2, 2, "exhausted"))
    assert found.kernels[0].knobs == {ROWS: rows}
    assert found.kernels[0].cycles == (cycles if rows else 1000.0)


def test_every_choice_is_counted_and_right_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    stub.cross()
    stub.tool("qemu-aarch64")
    graph = block_graph()
    machine = Machine(ISA, "aarch64-linux-gnu", CPU, ("neon", "reserve-x18"))
    shape = (2, graph.height, graph.width, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    core, cache = find_core(CPU), tmp_path_factory.mktemp("cycles")
    bench = BlockBench(Bench(graph, machine, core, images, cache), records())
    tasks = block_tasks(graph, ISA)
    assert tasks
    for at in range(2):
        given = {task.key: {ROWS: task.knobs[0].values[at]} for task in tasks}
        answer = bench.answer(given)
        assert (answer.whole, answer.errors) == ("", {})
        assert 0 < sum(answer.cycles[task.key] * task.calls for task in tasks) <= answer.total
    assert bench.answer({tasks[0].key: {ROWS: -1}}).whole
