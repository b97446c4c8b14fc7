"""The exact grid: two programs that sum in other orders agree about every int8 value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mfn_compile.errors import InternalCheckError
from mfn_compile.export.fold import fold_batchnorm
from mfn_compile.model.network import Activation, MobileFaceNet
from mfn_compile.progress import SilentProgress
from mfn_compile.quantize.exact import ACTIVATION_BITS, SLOPE_BITS, to_exact_grid
from mfn_compile.quantize.exact_weights import WEIGHT_BITS, odd_part, shorten
from mfn_compile.quantize.gauge import gauged, sites
from mfn_compile.quantize.graph import Graph
from mfn_compile.quantize.nncf_network import fake_quantized, float_network, is_range, to_qdq
from mfn_compile.quantize.onnxruntime_session import Judge
from mfn_compile.quantize.ptq import post_training_quantize, prepare
from mfn_compile.quantize.qdq import check_sound, summarize
from mfn_compile.recipe import Ptq, Recipe
from mfn_compile.vectors import cosines
from tests.quantize.reference import differences
from tests.tiny import tiny_config

IMAGES = np.random.default_rng(0).standard_normal((16, 3, 32, 32)).astype(np.float32)
UNSEEN = np.random.default_rng(1).standard_normal((16, 3, 32, 32)).astype(np.float32)
ACCURATE: dict[str, Any] = {"preset": "mixed", "activation_range": "mse", "equalization": 0.25}
KINDS: dict[str, tuple[Activation, dict[str, Any], str]] = {
    "prelu": (Activation.PRELU, {}, "disable"),
    "relu": (Activation.RELU, {}, "disable"),
    "relu6": (Activation.RELU6, {}, "disable"),
    "accurate prelu": (Activation.PRELU, ACCURATE, "disable"),
    "accurate relu6": (Activation.RELU6, ACCURATE, "disable"),
    "half range": (Activation.PRELU, {}, "enable"),
    "one scale a tensor": (
        Activation.PRELU, {"per_channel_depthwise_activations": False}, "disable",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A network before and after."""

    name: str
    free: onnx.ModelProto
    float_of_free: onnx.ModelProto
    exact: onnx.ModelProto
    float_of_exact: onnx.ModelProto


def network(activation: Activation) -> MobileFaceNet:
    """Random, with live BatchNorm statistics and slopes of all kinds."""
    torch.manual_seed(0)
    module = MobileFaceNet(tiny_config(activation)).train()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.PReLU):
                part.weight.uniform_(-0.2, 0.6)
        for _ in range(20):
            module(torch.randn(8, 3, 32, 32))
    return fold_batchnorm(module.eval())


def quantized(
    activation: Activation, ptq: dict[str, Any], fix: str
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    module = network(activation)
    recipe = Recipe(name="t", description="", ptq=Ptq.model_validate(ptq))
    prepared = prepare(float_network(module, module, IMAGES[:1]), IMAGES, recipe)
    return post_training_quantize(prepared, IMAGES, recipe, fix, SilentProgress()), prepared


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest) -> Case:
    free, prepared = quantized(*KINDS[request.param])
    return Case(request.param, free, prepared, *to_exact_grid(free, prepared, IMAGES))


def integers(model: onnx.ModelProto) -> list[NDArray[np.int64]]:
    graph = Graph(model)
    return [graph.array(graph.weight(n) or "").astype(np.int64) for n in graph.layers()]


def steps(graph: Graph, conv: Any) -> NDArray[np.float64]:
    """Scale of the input times that of the weights, an output channel."""
    made = [graph.producer[name] for name in conv.input[:2]]
    step, scale = (graph.array(node.input[1]).astype(np.float64) for node in made)
    return np.asarray(step * scale)


def test_every_integer_is_the_same_in_another_order_of_summation(case: Case) -> None:
    check_sound(summarize(case.exact))
    assert differences(case.exact, UNSEEN) == 0


def test_not_even_extreme_images_make_a_sum_round(case: Case) -> None:
    signs = np.sign(UNSEEN[:4]) * 1000
    assert differences(case.exact, signs.astype(np.float32)) == 0
    assert differences(case.exact, np.full((1, 3, 32, 32), 1000, np.float32)) == 0


def test_ordinary_scales_do_not_agree() -> None:
    free, _ = quantized(*KINDS["prelu"])
    assert differences(free, UNSEEN) > 0


def test_accuracy_is_kept(case: Case) -> None:
    wanted = Judge(case.float_of_free.SerializeToString()).embed(UNSEEN)
    before = cosines(wanted, Judge(case.free.SerializeToString()).embed(UNSEEN)).mean()
    after = cosines(wanted, Judge(case.exact.SerializeToString()).embed(UNSEEN)).mean()
    assert 1 - after < 1.25 * (1 - before)


def test_what_is_written_is_short(case: Case) -> None:
    graph = Graph(case.exact)
    for quantizer in summarize(case.exact).quantizers:
        bits = WEIGHT_BITS if quantizer.weights else ACTIVATION_BITS
        assert (odd_part(quantizer.scale) < 2**bits).all()
    behind = [
        n for n in graph.nodes
        if n.op_type == "QuantizeLinear" and n.input[0] in graph.producer
        and graph.producer[n.input[0]].op_type == "PRelu"
    ]  # fmt: skip
    assert bool(behind) == any(n.op_type == "PRelu" for n in graph.nodes)
    for node in behind:
        assert (odd_part(graph.array(node.input[1])) == 1).all()
    for node in graph.nodes:
        if node.op_type == "PRelu":
            slope = np.abs(graph.array(node.input[1]))
            assert (odd_part(slope[slope > 0]) < 2**SLOPE_BITS).all()


def test_biases_are_what_an_integer_accumulator_holds(case: Case) -> None:
    graph = Graph(case.exact)
    for conv in graph.layers():
        levels = graph.array(conv.input[2]).astype(np.float64) / steps(graph, conv)
        assert (levels == np.rint(levels)).all()
        assert np.abs(levels).max() < 2**24


def test_weights_stay_in_the_range_of_the_file(case: Case) -> None:
    before, after = integers(case.free), integers(case.exact)
    for old, new in zip(before, after, strict=True):
        assert np.abs(new).max() <= np.abs(old).max()
    if case.name == "half range":
        assert max(np.abs(w).max() for w in after if w.shape[1] > 1) <= 64


def test_zero_points_and_types_stay(case: Case) -> None:
    before, after = summarize(case.free).quantizers, summarize(case.exact).quantizers
    for old, new in zip(before, after, strict=True):
        assert new.zero_point.dtype == old.zero_point.dtype
        assert (new.zero_point == old.zero_point).all()
    if case.name.startswith("accurate"):
        assert any(q.zero_point.any() for q in after)


def test_the_gauge_moves_scales_and_nothing_else(case: Case) -> None:
    moved, reference = gauged(case.free, case.float_of_free)
    for old, new in zip(integers(case.free), integers(moved), strict=True):
        assert (old == new).all()
    found = sites(Graph(moved))
    assert found or case.name == "one scale a tensor"
    for site in found:
        assert (odd_part(Graph(moved).array(site.quantizer.input[1])) == 1).all()
    for old, new in ((case.float_of_free, reference), (case.float_of_free, case.float_of_exact)):
        before = Judge(old.SerializeToString()).embed(UNSEEN)
        after = Judge(new.SerializeToString()).embed(UNSEEN)
        assert np.abs(before - after).max() < 1e-5 * np.abs(before).max()
    with_free = Judge(case.free.SerializeToString()).embed(UNSEEN)
    with_moved = Judge(moved.SerializeToString()).embed(UNSEEN)
    assert cosines(with_free, with_moved).min() > 0.99  # its rounding is still that of any order


def test_nothing_given_is_changed() -> None:
    free, prepared = quantized(*KINDS["prelu"])
    before = free.SerializeToString(), prepared.SerializeToString()
    to_exact_grid(free, prepared, IMAGES[:4])
    assert before == (free.SerializeToString(), prepared.SerializeToString())


def test_float_layers_are_left_alone() -> None:
    layers = {"float_layers": (".*blocks.1.*", ".*stem.conv.*")}
    free, prepared = quantized(Activation.RELU6, layers, "disable")
    found = to_exact_grid(free, prepared, IMAGES)
    assert summarize(found.qdq).float_layers == summarize(free).float_layers
    assert len(summarize(found.qdq).float_layers) == 4
    images = UNSEEN
    wanted = Judge(prepared.SerializeToString()).embed(images)
    before = cosines(wanted, Judge(free.SerializeToString()).embed(images)).mean()
    after = cosines(wanted, Judge(found.qdq.SerializeToString()).embed(images)).mean()
    assert 1 - after < 1.25 * (1 - before)


def test_a_layer_without_bias_and_with_one_weight_scale() -> None:
    free, prepared = quantized(*KINDS["relu"])
    graph = Graph(free)
    conv, other = graph.layers()[3:5]
    weights = graph.producer[conv.input[1]]
    largest = graph.array(weights.input[1]).max()
    target = Graph(prepared).array(Graph(prepared).layers()[3].input[1])
    graph.store(weights.input[0], np.rint(target / largest).astype(np.int8))
    graph.store(weights.input[1], np.float32(largest).reshape(()))
    graph.store(weights.input[2], np.zeros((), np.int8))
    del weights.attribute[:]
    del other.input[2]
    found = to_exact_grid(free, prepared, IMAGES)
    assert differences(found.qdq, UNSEEN) == 0


def test_weights_of_another_network_are_refused() -> None:
    free, prepared = quantized(*KINDS["relu"])
    graph = Graph(prepared)
    name = graph.layers()[2].input[1]
    graph.store(name, graph.array(name)[::-1].copy())
    with pytest.raises(InternalCheckError, match="not those that the QDQ file rounds"):
        to_exact_grid(free, prepared, IMAGES[:2])


@pytest.mark.parametrize("fix", ["disable", "enable"])
def test_a_trained_network_goes_on_the_grid(fix: Any) -> None:
    folded = network(Activation.PRELU)
    student = fake_quantized(folded, IMAGES, Recipe(name="t", description=""), fix)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if not is_range(name):
                parameter *= 1 + 0.05 * torch.randn_like(parameter)
    free, latent = to_qdq(student, IMAGES[:1]), float_network(student, folded, IMAGES[:1])
    found = to_exact_grid(free, latent, IMAGES, means="qdq")
    assert differences(found.qdq, UNSEEN[:4]) == 0
    before = Judge(free.SerializeToString()).embed(UNSEEN)
    after = Judge(found.qdq.SerializeToString()).embed(UNSEEN)
    assert cosines(before, after).mean() > 0.98


@given(
    value=st.floats(1e-20, 1e20), bits=st.integers(1, 24),
)  # fmt: skip
def test_a_shortened_number_is_the_nearest_of_few_bits(value: float, bits: int) -> None:
    short = shorten(value, bits)
    assert odd_part(short) < 2**bits
    assert abs(short - value) <= 2.0**-bits * value
    assert shorten(short, bits) == short
    assert np.float32(short) == short


@given(odd=st.integers(0, 2**20), exponent=st.integers(-60, 60))
def test_the_odd_part_forgets_powers_of_two(odd: int, exponent: int) -> None:
    assert odd_part(np.ldexp(2.0 * odd + 1, exponent)) == 2 * odd + 1


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["foamliu_mobilefacenet", "xiaoccer_068"])
def test_real_networks_agree_on_every_integer(name: str, data: Path, tmp_path: Path) -> None:
    from mfn_compile.demo.faces import render
    from mfn_compile.export.exporter import export
    from mfn_compile.model.loader import load_checkpoint

    loaded = load_checkpoint(data / "weights" / f"{name}.safetensors")
    fp32 = onnx.load(tmp_path / export(loaded, tmp_path).file)
    images = loaded.info.preprocessing.apply(render(np.arange(32), np.zeros(32, int)))
    recipe = Recipe(name="t", description="")
    free = post_training_quantize(fp32, images[:24], recipe, "disable", SilentProgress())
    found = to_exact_grid(free, fp32, images[:24])
    assert differences(found.qdq, images[24:]) == 0
    assert differences(free, images[24:25]) > 0
