"""mfn_embed_parallel: the cuts, and the bits for every number of threads and order of tasks."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfn_compile.arm import oracle
from mfn_compile.arm.codegen import Machine, compile_network, object_code
from mfn_compile.arm.firmware.parts import slowest
from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.arm.host import host_machine
from mfn_compile.arm.network import ERROR_ALIGNMENT, ERROR_NULL
from mfn_compile.arm.parallel import Grain, ParallelProgram, Phase, make_parallel, split
from mfn_compile.arm.plan import make_plan
from mfn_compile.arm.program import Place, make_program
from tests.arm import emulated
from tests.arm.conftest import Quantized
from tests.arm.graphs import Draft, Style, images

FINE = Grain(task=1, phase=1)  # tiny layers too
CPUS = {"cortex-a53": emulated.NEON, "cortex-a76": emulated.DOTPROD}
WEIGHTS = st.lists(st.integers(1, 1000), min_size=1, max_size=60)
TEAMS = (1, 2, 3, 4, 7)
IMAGES = 2

# Runs every image with tasks in order, backwards, shuffled, and each from the memory that it would
# find if no other one had run; then on threads. Prints each embedding. The pool is the one of the
# bundle's parallel.c, whose main has another name here.
DRIVER = """
#define main example_main
#include "parallel.c"
#undef main

enum { SIZE = MFN_INPUT_HEIGHT * MFN_INPUT_WIDTH * 3, GUARD = 4096, TEAMS = %(teams)d };
static const int teams[] = { %(team)s };
static int mode;

static void in_some_order(void *context, mfn_task *task, void *argument, int32_t count) {
    uint32_t *seed = context;
    int32_t order[64];
    for (int32_t i = 0; i < count; i++) order[i] = mode == 1 ? count - 1 - i : i;
    for (int32_t i = count - 1; mode == 2 && i > 0; i--) {
        *seed = *seed * 1664525u + 1013904223u;
        int32_t other = (int32_t)((*seed >> 8) %% (uint32_t)(i + 1)), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
    for (int32_t i = 0; i < count; i++) task(argument, order[i]);
}

static int bad;
static uint8_t before[MFN_PARALLEL_WORKSPACE_BYTES], after[MFN_PARALLEL_WORKSPACE_BYTES];

/* Every task by itself: none may change a byte that another one changes. */
static void apart(void *context, mfn_task *task, void *argument, int32_t count) {
    uint8_t *workspace = context;
    memcpy(before, workspace, sizeof before);
    memcpy(after, workspace, sizeof after);
    for (int32_t i = 0; i < count; i++) {
        memcpy(workspace, before, sizeof before);
        task(argument, i);
        for (size_t k = 0; k < sizeof before; k++) {
            if (workspace[k] != before[k]) {
                bad += after[k] != before[k];
                after[k] = workspace[k];
            }
        }
    }
    memcpy(workspace, after, sizeof after);
}

static void run(uint8_t *rgb, uint8_t *place, mfn_parallel_for *with, void *context) {
    float embedding[MFN_EMBEDDING_DIM];
    memset(place, 0xA5, GUARD + MFN_PARALLEL_WORKSPACE_BYTES + GUARD);
    bad += mfn_embed_parallel(rgb, embedding, place + GUARD, with, context) != MFN_OK;
    for (size_t i = 0; i < GUARD; i++) {
        bad += place[i] != 0xA5 || place[GUARD + MFN_PARALLEL_WORKSPACE_BYTES + i] != 0xA5;
    }
    fwrite(embedding, 4, MFN_EMBEDDING_DIM, stdout);
}

int main(void) {
    static struct pool pools[TEAMS];
    static uint8_t rgb[SIZE];
    uint32_t seed = 1;
    uint8_t *place = aligned_alloc(64, GUARD * 2 + (MFN_PARALLEL_WORKSPACE_BYTES + 63) / 64 * 64);
    for (int t = 0; t < TEAMS; t++) pool_start(&pools[t], teams[t] - 1);
    while (fread(rgb, 1, SIZE, stdin) == SIZE) {
        for (mode = 0; mode < 3; mode++) run(rgb, place, in_some_order, &seed);
        run(rgb, place, apart, place + GUARD);
        for (int t = 0; t < TEAMS; t++) run(rgb, place, pool_run, &pools[t]);
    }
    float *out = (float *)place;
    uint8_t *space = place + GUARD;
    bad += mfn_embed_parallel(NULL, out, space, in_some_order, NULL) != %(null)d;
    bad += mfn_embed_parallel(rgb, NULL, space, in_some_order, NULL) != %(null)d;
    bad += mfn_embed_parallel(rgb, out, NULL, in_some_order, NULL) != %(null)d;
    bad += mfn_embed_parallel(rgb, out, space, NULL, NULL) != %(null)d;
    bad += mfn_embed_parallel(rgb, out, space + 32, in_some_order, NULL) != %(alignment)d;
    for (int t = 0; t < TEAMS; t++) pool_stop(&pools[t]);
    free(place);
    return bad != 0;
}
"""
HEADER = """
#include <stdint.h>
#define MFN_INPUT_HEIGHT %(height)d
#define MFN_INPUT_WIDTH %(width)d
#define MFN_EMBEDDING_DIM %(embedding)d
#define MFN_WORKSPACE_BYTES %(workspace)d
#define MFN_PARALLEL_WORKSPACE_BYTES %(parallel)d
#define MFN_WORKSPACE_ALIGNMENT 64
#define MFN_OK 0
typedef void mfn_task(void *argument, int32_t index);
typedef void mfn_parallel_for(void *context, mfn_task *task, void *argument, int32_t count);
int mfn_embed(const uint8_t *rgb, float *embedding, void *workspace);
int mfn_embed_parallel(const uint8_t *rgb, float *embedding, void *workspace,
                       mfn_parallel_for *parallel_for, void *context);
"""
POOL = Path(oracle.__file__).parent / "firmware/templates/parallel.c"


def several_layers() -> IntegerGraph:
    """Residuals that take a tensor's place, strides, float islands, rows that no tile divides."""
    draft = Draft(4, Style(slope="usual", zero="each"))
    x = draft.conv(draft.image(22, 18), 16, (3, 3), stride=(2, 2), padding=(1, 1, 1, 1))
    for _ in range(2):
        y = draft.conv(draft.conv(x, 32), 0, (3, 3), padding=(1, 1, 1, 1))
        x = draft.conv(y, 16, skip=x)
    y = draft.conv(x, 0, (3, 3), padding=(1, 1, 1, 1))
    x = draft.conv(y, 16, skip=x)  # its input is what reads other rows of what it replaces
    y = draft.dequantize(draft.add(x, draft.lookup(x)))
    y = draft.float_add(y, draft.float_conv(y, 16, (3, 3), padding=(1, 1, 1, 1)))
    x = draft.conv(draft.conv(draft.quantize(y), 32), 0, (3, 3), stride=(2, 2))
    x = draft.conv(x, 0, draft.shape(x)[:2])
    return draft.graph(draft.normalize(draft.conv(x, 20, to_float=True)))


def build(
    graph: IntegerGraph, machine: Machine, folder: Path, *options: str, grain: Grain = FINE
) -> Path:
    """The driver around a compiled network, the pool of the bundle's example in it."""
    compiled = compile_network(graph, machine, threads=grain)
    assert compiled.threaded is not None
    local = machine == host_machine()
    compiler = "gcc" if local else emulated.COMPILER
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    (folder / "network.o").write_bytes(object_code(compiled.llvm))
    header = HEADER % {
        "height": graph.height, "width": graph.width, "embedding": graph.embedding,
        "workspace": compiled.plan.peak, "parallel": compiled.threaded.plan.peak,
    }  # fmt: skip
    driver = DRIVER % {
        "teams": len(TEAMS), "team": ", ".join(map(str, TEAMS)),
        "null": ERROR_NULL, "alignment": ERROR_ALIGNMENT,
    }  # fmt: skip
    (folder / "mfn.h").write_text(header)
    (folder / "main.c").write_text(driver)
    shutil.copy(POOL, folder / "parallel.c")
    link = "-no-pie" if local else "-static"
    command = [compiler, "-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", link]
    inputs = ("-I.", "main.c", "network.o", "-o", "main")
    unused = "-Wno-unused-function"  # the example's own main
    subprocess.run([*command, unused, *options, *inputs], cwd=folder, check=True)
    return folder / "main"


def check(graph: IntegerGraph, *command: str | Path) -> None:
    rgb = images(graph, IMAGES)
    done = subprocess.run(command, input=rgb.tobytes(), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    found = np.frombuffer(done.stdout, np.uint32).reshape(IMAGES, 4 + len(TEAMS), -1)
    wanted = oracle.embed(graph, rgb).view(np.uint32)
    assert np.array_equal(found, np.broadcast_to(wanted[:, None], found.shape))


@pytest.mark.parametrize("kind", ["tiny", "several"])
def test_threads_and_orders_give_the_same_bits_on_this_machine(
    kind: str, tiny: Quantized, tmp_path: Path
) -> None:
    graph = tiny.graph if kind == "tiny" else several_layers()
    check(graph, build(graph, host_machine(), tmp_path))


@pytest.mark.parametrize("cpu", CPUS)
def test_threads_and_orders_give_the_same_bits_under_emulation(cpu: str, tmp_path: Path) -> None:
    emulated.need_emulator()
    graph = several_layers()
    check(graph, emulated.EMULATOR, "-cpu", cpu, build(graph, CPUS[cpu], tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "helgrind"])
def test_valgrind_finds_nothing(tool: str, tmp_path: Path) -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    graph = several_layers()
    program = build(graph, host_machine(), tmp_path)
    check(graph, "valgrind", f"--tool={tool}", "--quiet", "--error-exitcode=3", program)


def parallel(
    graph: IntegerGraph, machine: Machine = emulated.NEON, grain: Grain = FINE
) -> ParallelProgram:
    return make_parallel(make_program(graph, machine.schedules()), grain)


def test_every_unit_of_every_call_is_done_once(tiny: Quantized) -> None:
    for graph in (tiny.graph, several_layers()):
        for machine in (emulated.NEON, emulated.DOTPROD, host_machine()):
            made = parallel(graph, machine)
            assert any(phase.tasks > 1 for phase in made.phases)
            assert any(len(phase.layers) > 1 for phase in made.phases)
            shares = [share for phase in made.phases for share in phase.shares]
            calls = [call for step in made.program.steps for call in step.calls]
            assert [share.call for share in shares] == calls
            for share in shares:
                spans = sorted(span for span in share.spans if span[0] < span[1])
                ends = [at for span in spans for at in span]
                assert (ends[0], ends[-1]) == share.call.span
                assert all(a[1] == b[0] for a, b in pairwise(spans))


def test_tasks_of_a_phase_have_scratch_of_their_own() -> None:
    made = parallel(several_layers())
    plan = make_plan(made.program)
    sizes = {name: size for step in made.program.steps for name, size in step.scratch.items()}
    owned = [(p, s) for p in made.phases for s in p.shares if s.own is not None]
    assert owned
    for phase, share in owned:
        assert share.own is not None
        assert share.stride % 64 == plan.offset(share.own) % 64 == 0
        assert sizes[share.own] == share.stride * phase.tasks


def buffers(phase: Phase) -> set[str]:
    return {o.buffer for s in phase.shares for o in s.call.operands if isinstance(o, Place)}


def test_buffers_of_a_phase_share_no_memory() -> None:
    """But for a result that takes the place of a tensor, value by value."""
    made = parallel(several_layers())
    plan = make_plan(made.program)
    joined = [phase for phase in made.phases if len(phase.layers) > 1]
    assert joined
    for phase in joined:
        names = buffers(phase)
        blocks = [block for block in plan.allocations if names.intersection(block.names)]
        for a, b in pairwise(sorted(blocks, key=lambda block: block.offset)):
            assert a.end <= b.offset


def test_small_steps_are_not_handed_out(tiny: Quantized) -> None:
    assert all(phase.tasks == 1 for phase in parallel(tiny.graph, grain=Grain()).phases)


@given(WEIGHTS, st.integers(1, 12))
def test_cuts_cover_all_units_evenly(weights: list[int], tasks: int) -> None:
    tasks = min(tasks, len(weights))
    parts = split(weights, tasks)
    assert len(parts) == tasks
    assert sorted(at for part in parts for at in range(*part)) == list(range(len(weights)))
    sums = [sum(weights[begin:end]) for begin, end in parts]
    assert all(begin < end for begin, end in parts)
    assert sums == sorted(sums, reverse=True)


@given(st.integers(1, 500), st.integers(1, 12))
def test_equal_units_are_cut_into_parts_that_differ_by_one(units: int, tasks: int) -> None:
    sizes = [end - begin for begin, end in split([1] * units, min(tasks, units))]
    assert max(sizes) - min(sizes) <= 1


@given(st.lists(st.floats(0.5, 100), min_size=1, max_size=20), st.integers(1, 8))
def test_threads_end_between_an_equal_share_and_twice_that(
    parts: Sequence[float], threads: int
) -> None:
    found = slowest(parts, threads)
    least = max(sum(parts) / threads, max(parts))
    assert least - 1e-9 <= found <= 2 * least + 1e-9  # Graham 1966: at most 2 - 1/threads
