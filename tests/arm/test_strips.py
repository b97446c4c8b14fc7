"""Blocks of layers strip by strip: the schedule, the plan, and the same bits as layer by layer."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfn_compile.arm import oracle
from mfn_compile.arm.blocks import WORKSPACE, block_bytes, blocks, candidates, default_rows
from mfn_compile.arm.calls import Place, Program
from mfn_compile.arm.codegen import compile_network
from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.arm.host import HostNetwork
from mfn_compile.arm.kernels import gemm
from mfn_compile.arm.plan import make_plan
from mfn_compile.arm.program import UNFUSED, make_program
from mfn_compile.arm.schedules import Schedules
from mfn_compile.arm.strips import Sweep, Window, pieces, schedule
from mfn_compile.device.kernels import calls_of, macs_of
from mfn_compile.model.network import MobileFaceNetConfig
from tests.arm import emulated
from tests.arm.conftest import Quantized
from tests.arm.graphs import Draft, Style, images
from tests.arm.test_plan import assert_legal_replacements, assert_sound, mobilefacenet

SAME = (1, 1, 1, 1)
RELAXED = settings(max_examples=300, deadline=None)


@st.composite
def chains(draw: st.DrawFn) -> list[Sweep]:
    """Layers of which each reads the one before it: pixel by pixel, or by windows."""
    rows, width = draw(st.integers(1, 20)), draw(st.integers(1, 12))
    tile = draw(st.sampled_from([4, 6, 8]))
    found: list[Sweep] = []
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            found.append(Sweep(rows, width, tile))
            continue
        height = draw(st.integers(1, min(rows, 5)))
        stride = draw(st.integers(1, height))
        top = draw(st.integers(0, height - 1))
        window = Window(height, stride, top, rows, width, draw(st.booleans()))
        rows = (rows + 2 * top - height) // stride + 1
        width = draw(st.integers(1, width))
        found.append(Sweep(rows, width, width * draw(st.integers(1, 2)), window))
    return found


@given(chain=chains(), rows=st.integers(1, 24))
@RELAXED
def test_what_a_layer_reads_is_there(chain: list[Sweep], rows: int) -> None:
    """Buffers remember which pixel they hold; each is made once, and read before it is gone."""
    plan = schedule(chain, rows)
    buffers = [
        np.full(kept * sweep.width, -1) for kept, sweep in zip(plan.kept, chain, strict=True)
    ]
    read = [0] * len(chain)
    for strip in range(len(plan.made[0])):
        for k, sweep in enumerate(chain):
            begin, end = (plan.made[k][strip - 1] if strip else 0), plan.made[k][strip]
            if k:
                needed = np.arange(read[k], sweep.needs(end))
                assert (buffers[k - 1][needed % len(buffers[k - 1])] == needed).all()
                read[k] = sweep.released(end)
            made = np.arange(begin, end)
            buffers[k][made % len(buffers[k])] = made
    assert [made[-1] for made in plan.made] == [sweep.pixels for sweep in chain]
    assert (buffers[-1] == np.arange(chain[-1].pixels)).all()


@given(chain=chains(), rows=st.integers(1, 24))
@RELAXED
def test_calls_are_whole_grains_in_one_piece(chain: list[Sweep], rows: int) -> None:
    plan = schedule(chain, rows)
    for sweep, made, kept in zip(chain, plan.made, plan.kept, strict=True):
        parts = [(a, b) for a, b in pairwise((0, *made)) if a < b]
        around = kept * sweep.width
        if sweep.window is None:
            parts = [part for a, b in parts for part in pieces(a, b, sweep.grained, around)]
            assert all(a // around == (b - 1) // around for a, b in parts)
            assert all(b <= sweep.grained or a == sweep.grained for a, b in parts)
        assert [a for a, _ in parts] == [0, *(b for _, b in parts[:-1])]
        assert all(a % sweep.grain == 0 for a, _ in parts)


def block_graph(*, short: bool = False) -> IntegerGraph:
    """A stem whose block goes on to the first projection, then blocks with and without a sum."""
    draft = Draft(0, Style(slope="usual", zero="each", pad="each"))
    x = draft.conv(draft.image(23, 15), 16, (3, 3), stride=(2, 1), padding=SAME)
    x = draft.conv(draft.conv(x, 0, (3, 3), padding=SAME), 48)
    x = draft.conv(draft.conv(x, 0, (3, 3), stride=(1, 2), padding=(1, 0, 1, 1)), 16)
    y = draft.conv(draft.conv(x, 32), 0, (3, 3), padding=SAME)
    x = draft.conv(y, 16, skip=x)
    if short:
        return draft.graph(draft.conv(x, 8, draft.shape(x)[:2], to_float=True))
    y = draft.conv(draft.conv(x, 32), 0, (3, 3), stride=(2, 1))
    x = draft.conv(draft.conv(y, 20), 40)
    x = draft.conv(x, 0, draft.shape(x)[:2])
    return draft.graph(draft.conv(x, 8, to_float=True))


def choices(graph: IntegerGraph) -> list[dict[str, int]]:
    """Every candidate of every block at least once; unfused first."""
    found = candidates(graph)
    most = max(len(rows) for rows in found.values())
    return [
        {name: rows[min(at, len(rows) - 1)] for name, rows in found.items()} for at in range(most)
    ]


def test_blocks_end_at_the_smallest_tensors() -> None:
    graph = block_graph()
    sizes = [[graph.tensors[node.output].channels for node in block] for block in blocks(graph)]
    assert sizes == [[16, 16, 48, 48, 16], [32, 32, 16], [32, 32, 20], [40, 40]]
    found = candidates(graph)
    assert [rows[0] for rows in found.values()] == [0] * len(found)
    assert len(found["conv1"]) > 2
    assert found["conv12"] == (0,)


def test_blocks_keep_what_others_read() -> None:
    draft = Draft(0)
    x = draft.conv(draft.image(8, 8), 16)
    y = draft.conv(draft.conv(x, 32), 0, (3, 3), padding=SAME)
    z = draft.conv(y, 16, skip=x)
    z = draft.add(draft.conv(z, 0, (3, 3), padding=SAME), draft.conv(draft.lookup(y), 16))
    graph = draft.graph(draft.conv(z, 8, (8, 8), to_float=True))
    assert [[node.name for node in block] for block in blocks(graph)] == [["conv2", "conv3"]]


@pytest.mark.parametrize("isa", ["neon", "dotprod", "avx2"])
def test_every_choice_is_sound_and_counts_its_work(isa: str) -> None:
    graph = mobilefacenet(MobileFaceNetConfig())
    whole = make_program(graph, Schedules("generic", isa), UNFUSED)
    for strips in choices(graph):
        program = make_program(graph, Schedules("generic", isa), strips=strips)
        assert_legal_replacements(program)
        assert_sound(program)
        assert_inside(program)
        assert work(program) == work(whole)


@pytest.mark.parametrize("isa", ["neon", "dotprod"])
def test_the_default_needs_half_of_the_memory(isa: str) -> None:
    graph, tile = mobilefacenet(MobileFaceNetConfig()), gemm.TILES[isa].rows
    plan = assert_sound(make_program(graph, Schedules("generic", isa)))
    assert plan.peak <= min(1.01 * plan.lower_bound, WORKSPACE)
    chosen = default_rows(graph, tile)
    assert [name for name, rows in chosen.items() if rows] == ["conv1"]
    smallest = default_rows(graph, tile, limit=0)
    least = max(block_bytes(graph, b, smallest[b[0].name], tile) for b in blocks(graph))
    assert (
        make_plan(make_program(graph, Schedules("generic", isa), strips=smallest)).peak
        <= least + 4096
        < plan.peak
    )


def work(program: Program) -> int:
    """Multiply-adds, by the names of the kernels; their calls are as many as the names say."""
    calls = Counter(call.kernel for call in program.calls())
    for kernel, layers in program.layers().items():
        assert calls[kernel] == calls_of(kernel) * len(layers)
    return sum((macs_of(name) or 0) * n // calls_of(name) for name, n in calls.items())


def assert_inside(program: Program) -> None:
    """Every operand begins inside of its buffer."""
    sizes = dict(program.sizes)
    for step in program.steps:
        sizes |= step.scratch
        for call in step.calls:
            places = [operand for operand in call.operands if isinstance(operand, Place)]
            for place in places:
                assert 0 <= place.offset < sizes.get(place.buffer, 1)


def test_a_residual_takes_the_place_of_its_block_input() -> None:
    graph = block_graph()
    for strips in choices(graph)[1:]:
        fused = [
            step
            for step in make_program(graph, Schedules("generic", "neon"), strips=strips).steps
            if step.replaces
        ]
        assert [step.replaces for step in fused] == [fused[0].reads[0]]


def test_unknown_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="'conv2'"):
        make_program(block_graph(), Schedules("generic", "neon"), strips={"conv2": 2})
    with pytest.raises(ValueError, match="< 0"):
        make_program(block_graph(), Schedules("generic", "neon"), strips={"conv1": -1})


def test_strips_give_the_same_bits_on_the_host() -> None:
    """Embeddings, and the tensors between blocks, are those of the oracle."""
    graph = block_graph()
    rgb = images(graph, 3)
    wanted = [oracle.run(graph, image) for image in rgb]
    _, few, _, odd, *_, most = choices(graph)
    for strips in (few, odd):
        found = HostNetwork(graph, strips=strips).embed(rgb)
        assert np.array_equal(found, [each[graph.output].ravel() for each in wanted])
    kept = HostNetwork(graph, keep=True, strips=most).tensors(rgb[2])
    assert set(kept) < set(graph.tensors)
    assert all(np.array_equal(tensor, wanted[2][name]) for name, tensor in kept.items())


def test_strips_of_a_real_network_give_the_same_bits(tiny: Quantized) -> None:
    graph, faces = tiny.graph, tiny.faces[:4]
    strips = {name: max(rows[:2]) for name, rows in candidates(graph).items()}
    assert any(strips.values())
    found = HostNetwork(graph, strips=strips).embed(faces)
    assert np.array_equal(found, HostNetwork(graph, strips=UNFUSED).embed(faces))


@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a76"])
def test_strips_give_the_same_bits_under_emulation(cpu: str, tmp_path: Path) -> None:
    emulated.need_emulator()
    machine = {"cortex-a53": emulated.NEON, "cortex-a76": emulated.DOTPROD}[cpu]
    graph = block_graph(short=True)
    rgb = images(graph, 3)
    compiled = compile_network(graph, machine, strips=choices(graph)[3])
    jobs = [emulated.Job(compiled, rgb)]
    wanted = [oracle.run(graph, image)[graph.output].ravel() for image in rgb]
    (found,) = emulated.run(emulated.build(jobs, tmp_path), jobs, cpu)
    assert np.array_equal(found.embeddings, wanted)
