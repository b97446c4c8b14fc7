"""Every kernel against the oracle, bit for bit, on every instruction set.

AArch64 code runs under QEMU, many graphs in one program; x86 code runs in this process.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mfn_compile import environment
from mfn_compile.arm import oracle
from mfn_compile.arm.codegen import Machine, compile_network
from mfn_compile.arm.graph import Conv, IntegerGraph, Requantize
from mfn_compile.arm.host import HostNetwork
from mfn_compile.arm.kernels import gemm
from mfn_compile.arm.kernels.epilogue import shape_of
from mfn_compile.arm.kernels.finishing import is_short
from mfn_compile.arm.kernels.knobs import Value, space_of
from mfn_compile.arm.program import make_program, padded
from mfn_compile.arm.schedules import Schedules
from mfn_compile.errors import BadInputError
from mfn_compile.records import SCHEMA, Entry, Records
from tests.arm import emulated
from tests.arm.graphs import LARGEST, Draft, Style, assert_same, graphs, images

Array = NDArray[Any]
Tensors = dict[str, Array]
IMAGES = 3
BATCH, BATCHES = 6, 2  # graphs that share one emulated program, and how many programs
OVERLAPPED = 8  # one graph of so many also runs as it ships, tensors over one another

X86 = "x86_64-linux-gnu"
A55 = replace(emulated.DOTPROD, cpu="cortex-a55")
A72 = replace(emulated.NEON, cpu="cortex-a72")
# Machine, CPUs that QEMU shows, and the knobs of all kernels.
MACHINES: dict[str, tuple[Machine, tuple[str, ...], dict[str, Value]]] = {
    "avx2": (Machine("avx2", X86, "x86-64-v3"), (), {}),
    "generic": (Machine("generic", X86, "x86-64-v2"), (), {}),
    "neon": (emulated.NEON, ("cortex-a53",), {"loads": "general", "gap": 4, "strips": 4}),
    "neon for the A72": (A72, ("cortex-a72",), {}),
    "dotprod": (emulated.DOTPROD, ("cortex-a76", "max"), {}),
    "dotprod for the A55": (
        A55, ("cortex-a76",), {"loads": "halves", "late": False, "gap": 2, "strips": 7},
    ),
}  # fmt: skip


def need_host(machine: Machine) -> None:
    """Skip where this CPU does not run the code."""
    if platform.machine() != "x86_64":
        pytest.skip("this is no x86-64 machine")
    needed = {"avx2", "fma"} if machine.isa == "avx2" else {"sse4_1"}
    if not needed <= environment.cpu_flags():
        pytest.skip(f"this CPU lacks {', '.join(sorted(needed))}")


@pytest.fixture(params=MACHINES, scope="session")
def check(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Sequence[IntegerGraph]], None]:
    """Compiles graphs for one machine, runs them and compares every tensor with the oracle."""
    machine, cpus, knobs = MACHINES[request.param]
    if not cpus:
        need_host(machine)
        return lambda batch: on_host(batch, machine)
    emulated.need_emulator()
    schedules = Schedules(machine.cpu, machine.isa, all_kernels(machine, knobs))
    return lambda batch: under_emulation(
        batch, machine, schedules, cpus, tmp_path_factory.mktemp(request.param)
    )


def all_kernels(machine: Machine, knobs: dict[str, Value]) -> Records:
    """Records that are the nearest for every kernel."""
    sizes = {"gemm": ("m", "n", "k", "rows"), "depthwise": ("height", "width", "channels")}
    entries = [
        Entry(
            family=family,
            kernel=family,
            sizes=dict.fromkeys(names, 1),
            attributes={},
            knobs={k: v for k, v in knobs.items() if k in space_of(family, machine.isa)},
            cycles=1,
            first_cycles=1,
            trial=1,
        )
        for family, names in sizes.items()
    ]
    return Records(
        schema=SCHEMA,
        cpu=machine.cpu,
        isa=machine.isa,
        seed=0,
        version="1",
        device="virtual:none",
        entries=tuple(entries),
    )


def on_host(batch: Sequence[IntegerGraph], machine: Machine) -> None:
    for index, graph in enumerate(batch):
        rgb = images(graph, IMAGES)
        wanted = [oracle.run(graph, image) for image in rgb]
        kept = HostNetwork(graph, keep=True, machine=machine)
        for image, tensors in zip(rgb, wanted, strict=True):
            assert_same(graph, kept.tensors(image), tensors)
        networks = [kept]
        if index % OVERLAPPED == 0:
            networks.append(HostNetwork(graph, machine=machine))
        first = first_tensors(graph, wanted)
        for network in networks:
            assert_embeddings(graph, network.embed(rgb), wanted)
            if first.dtype == np.int8:
                assert_embeddings(graph, network.embed(first), wanted)


def under_emulation(
    batch: Sequence[IntegerGraph],
    machine: Machine,
    schedules: Schedules,
    cpus: Sequence[str],
    folder: Path,
) -> None:
    jobs, truth = [], []
    for index, graph in enumerate(batch):
        rgb = images(graph, IMAGES)
        wanted = [oracle.run(graph, image) for image in rgb]
        suffix = f"_{index}"
        kept = compile_network(
            graph, machine, suffix=f"{suffix}_all", overlap=False, schedules=schedules
        )
        mine = [emulated.Job(kept, rgb, keep=True)]
        first = first_tensors(graph, wanted)
        if first.dtype == np.int8:
            mine.append(emulated.Job(kept, first, quantized=True))
        if index % OVERLAPPED == 0:
            dense = compile_network(graph, machine, suffix=suffix, schedules=schedules)
            mine.append(emulated.Job(dense, rgb))
        jobs += mine
        truth += [(graph, wanted)] * len(mine)
    program = emulated.build(jobs, folder)
    for cpu in cpus:
        results = emulated.run(program, jobs, cpu)
        for result, (graph, wanted) in zip(results, truth, strict=True):
            assert_embeddings(graph, result.embeddings, wanted)
            for found, tensors in zip(result.tensors, wanted, strict=bool(result.tensors)):
                assert_same(graph, found, tensors)


def first_tensors(graph: IntegerGraph, wanted: Sequence[Tensors]) -> Array:
    """What the network gets where the caller normalizes the image, [N, H, W, 3]."""
    return np.stack([tensors[graph.nodes[0].output] for tensors in wanted])


def assert_embeddings(graph: IntegerGraph, found: Array, wanted: Sequence[Tensors]) -> None:
    for embedding, tensors in zip(found, wanted, strict=True):
        theirs = tensors | {graph.output: embedding.reshape(1, 1, -1)}
        assert_same(graph, theirs, tensors)


class Batch(list[IntegerGraph]):
    """Graphs; their arrays would fill pages of a report."""

    def __repr__(self) -> str:
        return f"<{len(self)} graphs>"


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """One simple graph first (hypothesis starts with the smallest choices), then full batches."""
    count = draw(st.sampled_from([1, BATCH, BATCH, BATCH]))
    return Batch(draw(graphs()) for _ in range(count))


@given(batch=batches())
@settings(
    max_examples=BATCHES,
    deadline=None,
    phases=[Phase.generate],  # shrinking would compile for hours
    suppress_health_check=list(HealthCheck),
)
def test_random_graphs(
    check: Callable[[Sequence[IntegerGraph]], None], batch: list[IntegerGraph]
) -> None:
    check(batch)


def linear(draft: Draft, x: str, outputs: int = 40, **fields: Any) -> str:
    """The accumulators themselves as the embedding."""
    x = draft.conv(x, outputs, draft.shape(x)[:2], to_float=True)
    return draft.change(**fields) if fields else x


def lowest_products(weights: str = "lowest", bias: str = "small") -> IntegerGraph:
    """All activations -128: products of 2**14, and of nothing else."""
    draft = Draft(1, Style(weights, bias, "ties", pad="lowest"))
    x = draft.image(7, 6, value=-128)
    x = draft.conv(x, 33, (3, 3), stride=(2, 2), padding=(1, 1, 1, 1))
    x = draft.conv(draft.constant(x, -128), 0, (3, 3), padding=(1, 1, 1, 1))
    x = draft.conv(draft.constant(x, -128), 0, draft.shape(x)[:2])
    x = draft.conv(draft.constant(x, -128), 70)
    return draft.graph(linear(draft, draft.constant(x, -128)))


def pairs(low: int) -> IntegerGraph:
    """Weights of -128 whose partner in a 16-bit sum is `low`."""
    draft = Draft(2)
    x = draft.constant(draft.conv(draft.image(3, 3), 32), -128)
    node_weight = np.full((20, 1, 1, 32), low, np.int8)
    node_weight[..., :8] = -128
    node_weight[..., 16:24] = -128
    x = draft.conv(x, 20)
    draft.change(weight=node_weight)
    return draft.graph(linear(draft, draft.constant(x, -128)))


def fours() -> IntegerGraph:
    """Four products that are 32640 together, of either sign, or one more weight than fits."""
    draft = Draft(12, Style(slope="usual"))
    random = np.random.default_rng(0)
    x = draft.conv(draft.image(3, 3), 48)
    for depth, sign, residual in ((32, 1, False), (48, -1, True), (96, -1, False), (112, 1, True)):
        skip = x if residual else None
        x = draft.constant(draft.conv(x, depth), -128)
        x = draft.conv(x, 48, skip=skip)
        weight = np.zeros((48, depth), np.int8)
        begin = depth % 32
        groups = np.arange(begin, depth).reshape(-1, 4, 8).transpose(0, 2, 1).reshape(-1, 4)
        for row, group in product(range(48), groups):
            weight[row, random.permutation(group)] = sign * np.int8([127, 100, 27, 1])
        weight[:, :begin] = sign * 127
        weight[40, groups[-1, 3]] = -128
        draft.change(weight=weight.reshape(48, 1, 1, depth))
        assert gemm.fours_fit(weight) == 32
        x = short(draft)
    return draft.graph(linear(draft, x))


def largest_accumulators(sign: int) -> IntegerGraph:
    """Accumulators of exactly sign * (2**31 - 1), where the bias does most of it."""
    draft = Draft(3, Style("lowest", "zero"))
    x = draft.constant(draft.conv(draft.image(1, 1), 48), -128)
    weight = np.full((40, 1, 1, 48), -128 if sign > 0 else 127, np.int8)
    products = 48 * 128 * (128 if sign > 0 else 127)
    bias = np.full(40, sign * (LARGEST - products), np.int32)
    return draft.graph(linear(draft, x, weight=weight, bias=bias))


def ties() -> IntegerGraph:
    """Small accumulators, multipliers of 1/2 and 1/4, dense, depthwise and in an addition."""
    draft = Draft(4, Style("few", "small", "ties", scales="ties"))
    x = draft.conv(draft.image(9, 9), 16, (1, 1))
    for kernel in ((1, 1), (3, 3)):
        x = draft.conv(x, 0, kernel)
        node = draft.nodes[-1]
        assert isinstance(node, Conv)
        half = np.resize(np.float32([0.5, 0.25, -0.5, 1.5]), 16)
        stage = replace(node.output_stage, multiplier=half)
        x = draft.change(weight=np.sign(node.weight), output_stage=stage)
    x = draft.add(x, draft.conv(x, 16, skip=x))
    return draft.graph(linear(draft, x))


def every_row_count() -> IntegerGraph:
    """Matrix products of 9 to 1 rows: whole tiles and every remainder."""
    draft = Draft(6)
    x = draft.conv(draft.image(1, 9), 9)
    while draft.shape(x)[1] > 1:
        x = draft.conv(draft.conv(x, 9 + draft.shape(x)[1]), 0, (1, 2))
    return draft.graph(linear(draft, x))


def every_width() -> IntegerGraph:
    """Channel counts around whole vectors."""
    draft = Draft(7, Style(slope="usual", zero="each", pad="each"))
    x = draft.image(3, 3)
    for channels in (1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 70):
        x = draft.conv(x, channels)
        x = draft.conv(x, 0, (3, 3), padding=(1, 1, 1, 1))
    return draft.graph(linear(draft, x, 1))


def additions(style: Style, rounds: int = 3) -> IntegerGraph:
    """Chains of additions: in the place of one operand, of the input to itself, standalone.

    A round has every kind. With PReLU one compiles for as long as most other extremes together.
    """
    draft = Draft(8, style)
    x = draft.conv(draft.image(4, 5), 24)
    for _ in range(rounds):
        y = draft.conv(x, 16)
        x = draft.conv(y, 24, skip=x)
        x = draft.conv(x, 24, skip=x)
        y = draft.conv(x, 0, (3, 3), padding=(1, 1, 1, 1), skip=x)
        x = draft.conv(x, 0, (3, 3), padding=(1, 1, 1, 1), skip=y)
        x = draft.add(x, y)
        x = draft.add(x, x)
    return draft.graph(linear(draft, x))


def zeros_with_signs() -> IntegerGraph:
    """Zeros of both signs at a bound of zero, in a convolution and behind it."""
    draft = Draft(9, Style("few", "zero", slope="wild", limits="relu"))
    x = draft.constant(draft.conv(draft.image(3, 3), 5), 0)
    x = linear(draft, x)
    node = draft.nodes[-1]
    assert isinstance(node, Conv)
    signs = np.resize(np.float32([-1, 1, 0]), 40)
    x = draft.change(output_stage=replace(node.output_stage, multiplier=signs))
    return draft.graph(draft.float_conv(x, 24))


def float_island() -> IntegerGraph:
    """From the image to the unit vector in float, but for one quantized tensor."""
    draft = Draft(10, Style(slope="wild", limits="relu6", zero="each"))
    x = draft.image(8, 6, bgr=True, dtype="float32")
    x = draft.float_conv(x, 21, (3, 3), stride=(2, 2), padding=(1, 0, 1, 1))
    y = draft.dequantize(draft.quantize(x))
    x = draft.float_add(draft.float_conv(y, 0, (3, 3), padding=(1, 1, 1, 1)), y)
    x = draft.float_conv(x, 7, draft.shape(x)[:2])
    return draft.graph(draft.normalize(x))


def short(draft: Draft, zero: int = -128) -> str:
    """The last node with constants whose epilogue is short: see `finishing.is_short`."""
    node = draft.nodes[-1]
    assert isinstance(node, Conv)
    assert isinstance(node.output_stage, Requantize)

    def plain(stage: Requantize, zero: int, **fields: Any) -> Requantize:
        count = len(stage.zero_point)
        rows = [np.full(count, value, np.int8) for value in (zero, -128, 127)]
        zeros, low, high = rows
        return replace(stage, zero_point=zeros, low=low, high=high, **fields)

    stage = plain(node.output_stage, zero, multiplier=np.abs(node.output_stage.multiplier))
    residual = node.residual
    if residual is not None:
        count = len(stage.zero_point)
        factor = np.full(count, 0.02, np.float32)
        output = plain(residual.output, 4, multiplier=factor, negative=None)
        numbers = {"scale_a": 71, "scale_b": -30, "offset": -515}
        scales = {
            name: np.full_like(getattr(residual, name), value) for name, value in numbers.items()
        }
        residual = replace(residual, output=output, **scales)
    draft.change(output_stage=stage, residual=residual)
    shape = shape_of(cast(Conv, draft.nodes[-1]), padded(len(stage.zero_point)), vectors=True)
    assert is_short(shape)
    return node.output


def short_epilogues(slope: str, zero: int) -> IntegerGraph:
    """Tiles and strips that finish their sums themselves, of every depth, width and padding."""
    draft = Draft(11, Style(slope=slope))

    def conv(*args: Any, **fields: Any) -> str:
        draft.conv(*args, **fields)
        return short(draft, zero)

    x = conv(draft.image(7, 28), 40)
    x = conv(x, 0, (3, 3), padding=(1, 1, 1, 1))
    x = conv(x, 24)
    x = conv(conv(x, 90, skip=conv(x, 90)), 24)
    x = conv(x, 0, (3, 3), padding=(1, 1, 1, 1), stride=(2, 2))
    x = conv(x, 0, (3, 3), padding=(0, 1, 1, 0))
    x = conv(conv(x, 0, (3, 3), padding=(1, 0, 0, 1)), 0, (3, 3), padding=(1, 1, 0, 0))
    x = conv(conv(x, 130), 0, (3, 3), padding=(1, 1, 1, 1), stride=(2, 2))
    return draft.graph(linear(draft, conv(x, 70)))


EXTREMES: dict[str, Callable[[], IntegerGraph]] = {
    "lowest": lowest_products,
    "lowest, large bias": lambda: lowest_products(bias="extreme"),
    "ends": lambda: lowest_products("ends"),
    "pairs of -128": lambda: pairs(-128),
    "pairs of -127": lambda: pairs(-127),
    "pairs of 127": lambda: pairs(127),
    "fours": fours,
    "2**31 - 1": lambda: largest_accumulators(1),
    "1 - 2**31": lambda: largest_accumulators(-1),
    "ties": ties,
    "rows": every_row_count,
    "widths": every_width,
    "additions": lambda: additions(Style()),
    "additions by channel": lambda: additions(Style(scales="each", zero="each")),
    "additions at the limit": lambda: additions(Style(scales="extreme")),
    "additions with PReLU": lambda: additions(Style(scales="each", slope="wild"), 1),
    "additions with one PReLU": lambda: additions(Style(slope="usual"), 1),
    "zeros": zeros_with_signs,
    "float": float_island,
    "short, ReLU": lambda: short_epilogues("none", -128),
    "short, linear": lambda: short_epilogues("none", 6),
    "short, PReLU": lambda: short_epilogues("usual", 0),
}


def test_extremes(check: Callable[[Sequence[IntegerGraph]], None]) -> None:
    check([build() for build in EXTREMES.values()])


def test_pairs_of_the_lowest_weight_alone_leave_16_bits() -> None:
    assert not gemm.pairs_fit(np.full((4, 16), -128, np.int8))
    for low in (-127, 127, 0):
        weight = np.full((4, 16), low, np.int8)
        weight[:, :8] = -128
        assert gemm.pairs_fit(weight)


def test_the_lowest_pair_is_found_where_the_kernel_adds() -> None:
    weight = np.zeros((2, 32), np.int8)
    weight[1, 16 + 3] = -128
    for partner in range(32):
        together = weight.copy()
        together[1, partner] = -128
        assert gemm.pairs_fit(together) == (partner != 16 + 3 + 8)


def test_four_that_do_not_fit_are_found_where_the_kernel_adds() -> None:
    weight = np.zeros((64, 48), np.int8)
    weight[40, [16 + 3, 16 + 3 + 8, 16 + 3 + 16]] = 85
    assert gemm.fours_fit(weight) == 64
    for place in range(48):
        if not weight[40, place]:
            more = weight.copy()
            more[40, place] = -1
            assert gemm.fours_fit(more) == (32 if place == 16 + 3 + 24 else 64)
    assert gemm.fours_fit(np.zeros((64, 16), np.int8)) == 0


@pytest.mark.parametrize("kind", ["depthwise", "addition", "float depthwise", "lookup"])
def test_only_dense_convolutions_read_the_unpadded_image(kind: str) -> None:
    draft = Draft(0)
    x = draft.image(3, 3, dtype="float32" if "float" in kind else "int8")
    match kind:
        case "depthwise":
            x = draft.conv(x, 0)
        case "addition":
            x = draft.conv(draft.conv(x, 8), 3, skip=x)
        case "float depthwise":
            x = draft.quantize(draft.float_conv(x))
        case "lookup":
            x = draft.lookup(x)
    with pytest.raises(BadInputError, match="first layer is not a dense convolution"):
        make_program(draft.graph(linear(draft, x)), Schedules("generic", "neon"))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [((9, 8), 1, 4), ((1, 3), 2, 1)], ids=["window", "stride"]
)
def test_depthwise_windows_without_a_kernel_are_refused(
    kernel: tuple[int, int], stride: int, padding: int
) -> None:
    draft = Draft(0)
    x = draft.conv(draft.image(9, 9), 8)
    x = draft.conv(x, 0, kernel, stride=(stride, stride), padding=(padding,) * 4)
    with pytest.raises(BadInputError, match="No depthwise kernel"):
        make_program(draft.graph(linear(draft, x)), Schedules("generic", "dotprod"))
