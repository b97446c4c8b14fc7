"""NNCF's fake quantization on torch's kernels, and the way back to a QDQ file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mfn_compile.errors import BadInputError
from mfn_compile.export.fold import fold_batchnorm
from mfn_compile.model.network import MobileFaceNet
from mfn_compile.quantize.graph import Graph
from mfn_compile.quantize.nncf_network import embed, fake_quantized, is_range, to_qdq
from mfn_compile.quantize.onnxruntime_session import Judge
from mfn_compile.quantize.qdq import check_sound, summarize
from mfn_compile.quantize.torch_kernels import TorchKernels
from mfn_compile.recipe import Ptq, Recipe
from tests.tiny import tiny_checkpoint, tiny_config

IMAGES = np.random.default_rng(0).standard_normal((12, 3, 32, 32)).astype(np.float32)
RECIPE = Recipe(name="t", description="")


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> MobileFaceNet:
    from safetensors.torch import load_file

    path = tiny_checkpoint(tmp_path_factory.mktemp("q") / "t.safetensors", size=32)
    network = MobileFaceNet(tiny_config(size=32))
    network.load_state_dict(load_file(path), strict=False)
    return fold_batchnorm(network)


@given(
    seed=st.integers(0, 2**32 - 1), low=st.floats(-3, 0), high=st.floats(0.1, 3),
    channels=st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_kernels_agree_with_nncf_reference(
    seed: int, low: float, high: float, channels: bool
) -> None:
    from nncf.torch.quantization.reference import ReferenceBackendType, ReferenceQuantize

    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 5, 4, 4, generator=generator) * 2
    count = (1, 5, 1, 1) if channels else (1,)
    widths = 0.5 + torch.rand(count, generator=generator)
    # limits that hold a level at zero, as NNCF's quantizers have them
    step = (high - low) / 255 * widths
    zero = round(-low / ((high - low) / 255))
    lows, spans = -zero * step, 255 * step
    ours = TorchKernels.Quantize_forward(x, lows, spans, 256)
    theirs = ReferenceQuantize(ReferenceBackendType.TORCH).forward(x.clone(), lows, spans, 256)
    ties = (x / step - torch.floor(x / step) - 0.5).abs() < 1e-3
    assert ((ours - theirs).abs()[~ties] < 1e-4).all()


def test_gradients_of_symmetric_ranges_are_those_of_finite_differences() -> None:
    x = torch.randn(200, generator=torch.Generator().manual_seed(1)) * 3
    grad = torch.ones_like(x)
    scale = torch.tensor([1.5])
    low, span = scale * (-128 / 127), scale * (255 / 127)
    of_x, _, of_scale = TorchKernels.Quantize_backward(grad, x, low, span, 256, -128, 127)
    inside = (x > low) & (x < low + span)
    assert of_x is not None
    assert of_scale is not None
    assert torch.equal(of_x != 0, inside)
    above, below = float((x >= low + span).sum()), float((x <= low).sum())
    rounding = ((torch.round(x / (scale / 127)) * (scale / 127) - x) / scale)[inside].sum()
    expected = above - below * 128 / 127 + float(rounding)
    assert float(of_scale) == pytest.approx(expected, rel=1e-3, abs=1e-2)


def test_the_qdq_file_computes_what_was_trained(folded: MobileFaceNet) -> None:
    network = fake_quantized(folded, IMAGES, RECIPE, "disable")
    model = to_qdq(network, IMAGES[:1])
    summary = summarize(model)
    check_sound(summary)
    assert summary.quantized_layers == 17
    assert summary.float_layers == ()
    assert summary.per_channel_activations > 0
    graph = Graph(model)
    assert all(graph.array(graph.weight(node) or "").dtype == np.int8 for node in graph.layers())
    theirs = Judge(model.SerializeToString()).embed(IMAGES)
    ours = embed(network, IMAGES)
    assert np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()


def test_half_range_weights_stay_in_half_the_range(folded: MobileFaceNet) -> None:
    def largest(fix: str) -> int:
        model = to_qdq(fake_quantized(folded, IMAGES, RECIPE, fix), IMAGES[:1])  # type: ignore[arg-type]
        graph = Graph(model)
        full = [n for n in graph.layers() if graph.array(graph.weight(n) or "").shape[1] > 1]
        return max(int(np.abs(graph.array(graph.weight(n) or "").astype(int)).max()) for n in full)

    assert largest("disable") == 127
    assert largest("enable") <= 64


def test_float_layers_stay_float(folded: MobileFaceNet) -> None:
    recipe = Recipe(name="t", description="", ptq=Ptq(float_layers=("stem.conv", "linear.*")))
    summary = summarize(to_qdq(fake_quantized(folded, IMAGES, recipe, "disable"), IMAGES[:1]))
    assert summary.quantized_layers == 15
    assert len(summary.float_layers) == 2
    nothing = Recipe(name="t", description="", ptq=Ptq(float_layers=("stemm.conv",)))
    with pytest.raises(BadInputError, match=r"stem\.conv"):
        fake_quantized(folded, IMAGES, nothing, "disable")


def test_ranges_are_told_from_weights(folded: MobileFaceNet) -> None:
    network = fake_quantized(folded, IMAGES, RECIPE, "disable")
    names = dict(network.named_parameters())
    weights = {name for name in names if not is_range(name)}
    assert weights == {name for name, _ in folded.named_parameters()}
    assert len(names) > len(weights)
