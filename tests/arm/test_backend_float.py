"""Libraries of networks that compute partly in float: the first layer, an island, the end."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from mfn_compile.arm import oracle
from mfn_compile.arm.backend import precision
from mfn_compile.arm.codegen import compile_network
from mfn_compile.arm.firmware.golden import golden_files
from mfn_compile.arm.firmware.linker import native_aarch64
from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.arm.host import HostNetwork
from mfn_compile.arm.network import entry_points
from mfn_compile.arm.program import has_quantized_input, make_program
from mfn_compile.arm.reader import read_graph
from mfn_compile.arm.schedules import Schedules
from mfn_compile.errors import InternalCheckError
from tests.arm import emulated
from tests.arm.firmware import networks, stub
from tests.arm.firmware.networks import Made
from tests.arm.graphs import images
from tests.arm.qdq_files import PREPROCESSING, Net, start
from tests.arm.test_reader_ends import float_middle, float_stem, lp_normalized


def normalized() -> onnx.ModelProto:
    net, x = start(6)
    return net.model(lp_normalized(net, x))


def all_float() -> onnx.ModelProto:
    """A float stem, a float island and a normalized end."""
    net = Net(14)
    x = net.relu6(net.conv("input", 8, 3, 3, stride=2, quantized=False))
    x = net.qdq(net.conv(net.qdq(x, 1 / 32), 8, 8), 1 / 64)
    x = net.qdq(net.op("Relu", net.conv(x, 8, 8, quantized=False)), 1 / 32)
    return net.model(lp_normalized(net, x))


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "stem": float_stem, "middle": float_middle, "end": normalized, "all": all_float,
}  # fmt: skip
QUANTIZED = {"stem": False, "middle": True, "end": True, "all": False}


@pytest.fixture(scope="module", params=NETWORKS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def made(name: str, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return networks.make(NETWORKS[name](), tmp_path_factory.mktemp(name))


def stem_graph() -> IntegerGraph:
    return read_graph(float_stem(), PREPROCESSING)


def test_the_proof_runs_every_variant(made: Made) -> None:
    ran = {proof.cpu: (proof.variants, proof.vectors) for proof in made.firmware.proofs}
    both = ("neon", "dotprod")
    if not native_aarch64():
        assert ran == {"cortex-a53": (("neon",), 6), "cortex-a76": (both, 6), "max": (both, 6)}
    assert made.firmware.unproven == ""
    assert made.firmware.agreement.differing_by_layer == 0
    assert made.firmware.openvino_min_cosine > 0.9999


def test_a_program_of_the_bundle_prints_the_oracles_bits(made: Made, tmp_path: Path) -> None:
    program = tmp_path / "example"
    inputs = (f"-I{made.bundle / 'include'}", made.bundle / "example.c", made.archive)
    stub.succeed(stub.cross(), "-std=c99", "-static", *inputs, "-o", program)
    rgb = images(made.graph, 4)[3]
    (tmp_path / "face.rgb").write_bytes(rgb.tobytes())
    (wanted,) = oracle.embed(made.graph, rgb[None])
    for cpu in ("cortex-a53", "cortex-a76"):
        lines = stub.succeed(*stub.emulate(program, tmp_path / "face.rgb", cpu=cpu)).splitlines()
        found = np.array([float(line) for line in lines], np.float32)
        assert np.array_equal(found.view(np.uint32), wanted.view(np.uint32))


def test_quantized_entry_points_are_there_where_the_input_is_int8(name: str, made: Made) -> None:
    takes = QUANTIZED[name]
    assert has_quantized_input(made.graph) == takes
    listed = stub.succeed(stub.tool("aarch64-linux-gnu-nm"), made.archive)
    symbols = set(re.findall(r" T (\S+)$", listed, re.MULTILINE))
    names = ("mfn_embed", "mfn_embed_parallel")
    plain = {f"{name}{end}" for name in names for end in ("", "_neon", "_dotprod")}
    plain.add("mfn_has_dotprod")
    more = {"mfn_embed_quantized", "mfn_embed_quantized_neon", "mfn_embed_quantized_dotprod"}
    assert symbols == (plain | more if takes else plain)
    assert ("quantized" in listed) == takes
    assert ("mfn_embed_quantized" in made.header) == takes
    assert ("#define MFN_HAS_QUANTIZED_INPUT 1\n" in made.header) == takes
    assert ("mfn_embed_quantized" in made.readme) == takes
    assert ("first layer of this network computes in float" in made.readme) != takes
    assert (".i8" in made.readme) == takes
    assert len(list((made.bundle / "golden").glob("*.i8"))) == (6 if takes else 0)
    assert (".i8" in (made.bundle / "golden/SHA256SUMS").read_text()) == takes


def test_length_is_said_to_be_1_where_it_is(name: str, made: Made) -> None:
    ends = name in ("end", "all")
    assert ("Their length is 1" in made.readme) == ends
    assert (", of length 1" in made.header) == ends
    embedding = np.frombuffer((made.bundle / "golden/000.f32").read_bytes(), "<f4")
    assert bool(abs(np.linalg.norm(embedding) - 1) < 1e-6) == ends


def test_float_islands_are_reported(name: str, made: Made) -> None:
    layers = {"stem": 1, "middle": 3, "end": 0, "all": 2}[name]
    assert len(precision(made.graph).float_layers) == layers
    for variant in ("neon", "dotprod"):
        kinds = Counter(
            (row.kind, row.kernel.split("_")[0])
            for row in made.firmware.census if row.variant == variant
        )  # fmt: skip
        assert kinds["float", "float"] == layers + (name == "middle")  # its addition
        assert kinds["float", "unit"] == (name in ("end", "all"))
        assert {kind for kind, kernel in kinds if kernel in ("gemm", "depthwise")} == {
            "dense-int8", "depthwise-int8",
        }  # fmt: skip


def test_the_readmes_sentences_fit_the_page(made: Made) -> None:
    for text in (made.readme, made.header):
        assert max(map(len, text.splitlines())) <= 100
        assert not [line for line in text.splitlines() if line != line.rstrip()]


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_the_host_computes_the_oracles_bits(build: Callable[[], onnx.ModelProto]) -> None:
    graph = read_graph(build(), PREPROCESSING)
    rgb = images(graph, 6)
    found, wanted = HostNetwork(graph).embed(rgb), oracle.embed(graph, rgb)
    assert np.array_equal(found.view(np.uint32), wanted.view(np.uint32))


def test_the_host_refuses_int8_images_of_a_float_stem() -> None:
    network, rgb = HostNetwork(stem_graph()), images(stem_graph(), 2)
    assert network.embed(rgb).shape == (2, 8)
    with pytest.raises(ValueError, match="int8, but the network's first layer computes in float"):
        network.embed(rgb.astype(np.int8))
    with pytest.raises(ValueError, match="images are float32"):
        network.embed(rgb.astype(np.float32))


def test_a_float_stem_has_one_entry_point() -> None:
    graph = stem_graph()
    assert entry_points(make_program(graph, Schedules("generic", "neon")), "_x") == ("mfn_embed_x",)
    llvm = compile_network(graph, emulated.NEON, suffix="_x").llvm
    assert "define i32 @mfn_embed_x(" in llvm
    assert "quantized" not in llvm


@pytest.mark.parametrize("target", ["cortex-a53", "cortex-a76"])
def test_a_float_stem_on_other_targets(target: str, tmp_path: Path) -> None:
    made = networks.make(float_stem(), tmp_path, target)
    assert len(made.firmware.proofs) >= (1 if native_aarch64() else 2)
    assert "mfn_embed_quantized" not in made.header


def test_golden_vectors_have_quantized_values_all_or_none() -> None:
    first, second = stub.vectors()[:2]
    bare = replace(first, quantized=None)
    files = golden_files([bare, replace(second, quantized=None)])
    assert not [name for name in files if name.endswith(".i8")]
    for pair in ([bare, second], [second, bare]):
        with pytest.raises(InternalCheckError, match="Its arrays are"):
            golden_files(pair)
