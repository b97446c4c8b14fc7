"""The memory plan: checked by a memory that remembers whose bytes it holds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.arm.plan import ALIGNMENT, Plan, make_plan
from mfn_compile.arm.program import IMAGE, UNFUSED, Program, Step, make_program
from mfn_compile.arm.schedules import Schedules
from mfn_compile.model.network import MobileFaceNetConfig
from tests.arm.graphs import Draft, Style, graphs

PEAK_112 = 602_112  # 56x56x64 and the 56x56x128 that it is expanded to
RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


class Memory:
    """Bytes of a workspace by the number of the buffer that wrote them last."""

    def __init__(self, program: Program, plan: Plan) -> None:
        self._plan, self._owners = plan, np.full(plan.peak, -1)
        self._sizes = dict(program.sizes)
        for step in program.steps:
            self._sizes |= step.scratch
        self._numbers = {name: number for number, name in enumerate(self._sizes)}

    def _place(self, name: str) -> NDArray[Any]:
        offset = self._plan.offset(name)
        assert offset % ALIGNMENT == 0
        assert offset + self._sizes[name] <= self._plan.peak
        return self._owners[offset : offset + self._sizes[name]]

    def write(self, name: str) -> None:
        self._place(name)[:] = self._numbers[name]

    def holds(self, name: str) -> bool:
        return bool((self._place(name) == self._numbers[name]).all())

    def run(self, step: Step) -> None:
        """Operands are whole before the step, and behind it unless the result replaced them."""
        for name in step.reads:
            assert self.holds(name), f"{step.layer} reads {name}, which is gone"
        for name in (*step.scratch, step.writes):
            self.write(name)
        for name in (*step.scratch, *step.reads):
            assert self.holds(name) or name == step.replaces, f"{step.layer} destroys {name}"


def assert_sound(program: Program, *, overlap: bool = True) -> Plan:
    """Run the plan; nothing is lost, and its numbers are true."""
    plan = make_plan(program, overlap=overlap)
    memory = Memory(program, plan)
    for step in program.steps:
        memory.run(step)
        if not overlap:
            assert step.replaces is None or memory.holds(step.replaces)
    assert memory.holds(program.graph.output)
    assert plan.peak >= plan.lower_bound
    assert plan.peak == max(block.end for block in plan.allocations)
    assert_apart(plan)
    return plan


def assert_apart(plan: Plan) -> None:
    for index, block in enumerate(plan.allocations):
        for other in plan.allocations[index + 1 :]:
            meet = block.first <= other.last and other.first <= block.last
            assert not meet or block.end <= other.offset or other.end <= block.offset


def assert_legal_replacements(program: Program) -> None:
    """Nobody reads a replaced tensor later; the result is as large; it is not the caller's."""
    for index, step in enumerate(program.steps):
        if step.replaces is None:
            continue
        assert step.replaces in step.reads
        assert step.reads.count(step.replaces) == 1
        assert step.replaces not in (program.steps[0].writes, program.graph.output)
        assert program.sizes[step.replaces] == program.sizes[step.writes]
        assert all(step.replaces not in later.reads for later in program.steps[index + 1 :])


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Steps without kernels: random sizes, readers, scratch buffers and replacements."""
    count = draw(st.integers(1, 12))
    names = [f"t{i}" for i in range(count)]
    reads: list[list[str]] = [[]]
    for index in range(1, count):
        reads.append(draw(st.lists(st.sampled_from(names[:index]), max_size=3, unique=True)))
    size = st.integers(1, 2000) | st.sampled_from([64, 128, 1024])
    sizes = {name: draw(size) for name in names}
    steps = []
    for index, name in enumerate(names):
        later = {n for each in reads[index + 1 :] for n in each}
        free = [n for n in reads[index] if n not in later and n != names[0]]
        replaces = draw(st.none() | st.sampled_from(free)) if free else None
        if replaces is not None:
            sizes[name] = sizes[replaces]
        scratch = {f"{name}%s": draw(size)} if draw(st.booleans()) else {}
        source = tuple(reads[index]) if index else (IMAGE,)
        steps.append(Step(name, "other", (), source, name, scratch, replaces))
    steps[0] = Step("t0", "other", (), (), "t0")
    graph: Any = SimpleNamespace(output=names[-1])
    return Program(graph, tuple(steps), {}, (), sizes)


@given(program=programs(), overlap=st.booleans())
@settings(RELAXED, max_examples=500)
def test_plans_of_random_programs(program: Program, overlap: bool) -> None:
    assert_sound(program, overlap=overlap)


@given(graph=graphs(), isa=st.sampled_from(["neon", "dotprod", "avx2", "generic"]))
@RELAXED
def test_plans_of_random_networks(graph: IntegerGraph, isa: str) -> None:
    program = make_program(graph, Schedules("generic", isa))
    assert_legal_replacements(program)
    dense = assert_sound(program)
    assert dense.peak <= assert_sound(program, overlap=False).peak


def chain(*sizes: int, scratch: int = 0) -> Program:
    """Every step reads what the one before it wrote; the second one has scratch memory."""
    steps = [
        Step(
            f"s{i}", "other", (), (f"t{i - 1}",) if i else (), f"t{i}",
            {"scratch": scratch} if scratch and i == 1 else {},
        )
        for i in range(len(sizes))
    ]  # fmt: skip
    graph: Any = SimpleNamespace(output=f"t{len(sizes) - 1}")
    return Program(graph, tuple(steps), {}, (), {f"t{i}": s for i, s in enumerate(sizes)})


def test_table_of_a_chain() -> None:
    plan = assert_sound(chain(100, 600, 128, 10, scratch=64))
    table = [(a.names, a.offset, a.bytes, a.first, a.last) for a in plan.allocations]
    assert table == [
        (("t1",), 0, 640, 1, 2),
        (("t3",), 0, 64, 3, 4),
        (("t0",), 640, 128, 0, 1),
        (("t2",), 640, 128, 2, 3),
        (("scratch",), 768, 64, 1, 1),
    ]
    assert plan.peak == plan.lower_bound == 832


def test_an_illegal_replacement_would_be_found() -> None:
    first, second, third = chain(64, 64, 64).steps
    steps = (
        first, second,
        Step("s2", "other", (), ("t1",), "t2", replaces="t1"),
        Step("s3", "other", (), ("t1", "t2"), "t3"),
    )  # fmt: skip
    graph: Any = SimpleNamespace(output="t3")
    broken = Program(graph, steps, {}, (), dict.fromkeys(("t0", "t1", "t2", "t3"), 64))
    with pytest.raises(AssertionError, match="s3 reads t1, which is gone"):
        assert_sound(broken)
    assert third.replaces is None


def replacements(graph: IntegerGraph) -> list[str | None]:
    program = make_program(graph, Schedules("generic", "neon"), UNFUSED)
    return [step.replaces for step in program.steps]


def test_a_fused_addition_takes_the_place_of_its_operand() -> None:
    draft = Draft(0)
    x = draft.conv(draft.image(4, 4), 16)
    y = draft.conv(draft.conv(x, 32), 16, skip=x)
    z = draft.conv(draft.conv(y, 0), 16, skip=y)
    graph = draft.graph(draft.conv(z, 8, (4, 4), to_float=True))
    assert replacements(graph) == [None, None, None, x, None, y, None]
    plan = make_plan(make_program(graph, Schedules("generic", "neon"), UNFUSED))
    assert plan.offset(x) == plan.offset(y) == plan.offset(z)


def test_no_place_is_taken_that_somebody_reads() -> None:
    draft = Draft(0)
    x = draft.conv(draft.image(4, 4), 16)
    y = draft.conv(x, 16, skip=x)  # reads whole rows of what it would overwrite
    z = draft.conv(draft.conv(y, 16), 16, skip=x)
    z = draft.conv(z, 16, skip=x)
    w = draft.conv(draft.conv(z, 16), 16, skip=y)
    w = draft.add(w, y)
    graph = draft.graph(draft.conv(w, 8, (4, 4), to_float=True))
    assert replacements(graph) == [None, None, None, None, None, x, None, None, None, None]


def mobilefacenet(config: MobileFaceNetConfig) -> IntegerGraph:
    """The paper's network with arbitrary weights."""
    draft = Draft(0, Style("few"))
    same = (1, 1, 1, 1)
    x = draft.image(config.height, config.width)
    x = draft.conv(x, config.stem_width, (3, 3), stride=(2, 2), padding=same)
    x = draft.conv(x, 0, (3, 3), padding=same)
    for block in config.blocks:
        stride = (block.stride, block.stride)
        y = draft.conv(draft.conv(x, block.expanded), 0, (3, 3), stride=stride, padding=same)
        x = draft.conv(y, block.out_channels, skip=x if block.residual else None)
    assert config.head_width is not None
    x = draft.conv(draft.conv(x, config.head_width), 0, config.feature_map)
    return draft.graph(draft.conv(x, config.embedding_width, to_float=True))


@pytest.mark.parametrize("isa", ["neon", "dotprod", "avx2"])
def test_mobilefacenet_needs_no_byte_more_than_its_largest_layer(isa: str) -> None:
    graph = mobilefacenet(MobileFaceNetConfig())
    program = make_program(graph, Schedules("generic", isa), UNFUSED)
    assert_legal_replacements(program)
    plan = assert_sound(program)
    assert plan.peak == plan.lower_bound == PEAK_112
    fused = sum(block.residual for block in MobileFaceNetConfig().blocks)
    assert sum(step.replaces is not None for step in program.steps) == fused
