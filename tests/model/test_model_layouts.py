"""Every public layout: the loaded network computes what the replica computes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from mfn_compile.errors import BadInputError
from mfn_compile.model.loader import load_checkpoint
from mfn_compile.model.network import (
    PAPER_BLOCKS,
    Activation,
    MobileFaceNet,
    MobileFaceNetConfig,
    bottlenecks,
)

from .replicas import (
    EMBEDDING,
    ArcfaceTorch,
    Foamliu,
    InsightFacePytorch,
    Xiaoccer,
    randomize,
)

SMALL_STAGES = ((2, 8, 2, 2), (4, 16, 1, 2), (2, 16, 1, 1), (4, 16, 1, 2), (2, 16, 1, 1))
SMALL = MobileFaceNetConfig(
    stem_width=8, blocks=bottlenecks(SMALL_STAGES, 8), head_width=24, embedding_width=12
)

REPLICAS = {
    "foamliu": (Foamliu, {}, (112, 112), "RGB"),
    "xiaoccer": (Xiaoccer, {}, (112, 96), "RGB"),
    "insightface-pytorch": (InsightFacePytorch, {}, (112, 112), "BGR"),
    "arcface-torch": (ArcfaceTorch, {}, (112, 112), "RGB"),
}


def assert_same(module, reference, size):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, actual = reference(x), module(x)
    assert expected.std() > 1e-2
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def save(module, path, **metadata):
    save_file(module.state_dict(), str(path), metadata=metadata or None)
    return path


@pytest.mark.parametrize("name", REPLICAS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_layout_computes_the_same(name, suffix, tmp_path):
    make, options, size, color = REPLICAS[name]
    replica = randomize(make(**options))
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(replica.state_dict(), path)
    else:
        save(replica, path)
    loaded = load_checkpoint(path)
    assert loaded.info.layout == name
    assert loaded.info.embedding_width == EMBEDDING
    assert loaded.info.preprocessing.color == color
    assert (loaded.info.preprocessing.height, loaded.info.preprocessing.width) == size
    assert loaded.info.parameters == sum(p.numel() for p in replica.parameters())
    assert not loaded.module.training
    assert_same(loaded.module, replica, size)


@pytest.mark.parametrize(
    ("make", "options", "size"),
    [
        (Foamliu, {"kernel": (7, 6)}, (112, 96)),
        (Xiaoccer, {"kernel": (7, 7)}, (112, 112)),
        (Xiaoccer, {"kernel": (6, 6)}, (96, 96)),
        (ArcfaceTorch, {"scale": 1}, (112, 112)),
        (ArcfaceTorch, {"blocks": (2, 2, 2, 2)}, (112, 112)),  # as get_mbf_large
        (InsightFacePytorch, {"affine": False}, (112, 112)),
    ],
)
def test_variants_compute_the_same(make, options, size, tmp_path):
    replica = randomize(make(**options))
    loaded = load_checkpoint(save(replica, tmp_path / "w.safetensors"))
    assert_same(loaded.module, replica, size)


def test_batchnorm_without_scale_but_with_shift(tmp_path):
    replica = randomize(InsightFacePytorch())
    state = replica.state_dict()
    with torch.no_grad():
        replica.bn.weight.fill_(1)
    del state["bn.weight"]
    save_file(state, str(tmp_path / "w.safetensors"))
    loaded = load_checkpoint(tmp_path / "w.safetensors")
    assert_same(loaded.module, replica, (112, 112))


def test_without_a_last_batchnorm(tmp_path):
    replica = randomize(Xiaoccer())
    replica.linear1.bn = torch.nn.Identity()
    loaded = load_checkpoint(save(replica, tmp_path / "w.safetensors"))
    assert_same(loaded.module, replica, (112, 96))


def test_one_slope_for_all_channels(tmp_path):
    replica = randomize(Xiaoccer())
    replica.conv2.prelu = torch.nn.PReLU()
    loaded = load_checkpoint(save(replica, tmp_path / "w.safetensors"))
    assert_same(loaded.module, replica, (112, 96))


@pytest.mark.parametrize("given", ["option", "metadata"])
def test_batchnorm_eps_is_honoured(given, tmp_path):
    replica = randomize(Xiaoccer())
    for m in replica.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.eps = 0.05
    metadata = {"bn_eps": "0.05"} if given == "metadata" else {}
    path = save(replica, tmp_path / "w.safetensors", **metadata)
    loaded = load_checkpoint(path, bn_eps=0.05 if given == "option" else None)
    assert_same(loaded.module, replica, (112, 96))


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, height=112, width=96),
        replace(SMALL, height=96, width=96),
        replace(SMALL, linear=False, embedding_width=24),  # MobileFaceNet-M
        replace(SMALL, linear=False, head_width=None, embedding_width=16),  # MobileFaceNet-S
        replace(SMALL, depthwise=False, linear_bias=True, linear_bn=False),
        replace(SMALL, activation=Activation.RELU, depthwise_activation=Activation.RELU),
    ],
    ids=["paper", "112x96", "96x96", "M", "S", "plain", "relu"],
)
def test_own_layout_round_trip(config, tmp_path):
    original = randomize(MobileFaceNet(config))
    loaded = load_checkpoint(save(original, tmp_path / "w.safetensors"))
    assert loaded.info.layout == "mfn-compile"
    assert loaded.module.config == config or not config.depthwise
    assert_same(loaded.module, original, (config.height, config.width))


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, (Activation.RELU, Activation.RELU)),
        ({"activation": "relu6"}, (Activation.RELU6, Activation.RELU6)),
        (
            {"activation": "RELU6", "depthwise_activation": "relu"},
            (Activation.RELU6, Activation.RELU),
        ),
    ],
)
def test_own_layout_states_its_activation(stated, expected, tmp_path):
    config = replace(SMALL, activation=expected[0], depthwise_activation=expected[1])
    original = randomize(MobileFaceNet(config))
    loaded = load_checkpoint(save(original, tmp_path / "w.safetensors", **stated))
    assert loaded.info.activations == tuple(dict.fromkeys(map(str, expected)))
    assert_same(loaded.module, original, (112, 112))


def test_strides_from_metadata(tmp_path):
    stages = ((2, 8, 1, 2), (2, 16, 1, 2), (2, 16, 1, 2), (2, 16, 1, 1))
    original = randomize(MobileFaceNet(replace(SMALL, blocks=bottlenecks(stages, 8))))
    with pytest.raises(BadInputError, match="stride 2"):
        load_checkpoint(save(original, tmp_path / "plain.safetensors"))
    path = save(original, tmp_path / "stated.safetensors", strides="[2, 2, 2, 1]")
    assert_same(load_checkpoint(path).module, original, (112, 112))


def test_paper_network_counts(tmp_path):
    loaded = load_checkpoint(save(MobileFaceNet().eval(), tmp_path / "w.safetensors"))
    assert loaded.module.config.blocks == PAPER_BLOCKS
    assert loaded.info.macs == 220_965_376
    assert loaded.info.parameters == 1_003_136


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s},
        lambda s: {"net_state_dict": s, "epoch": 7},
        lambda s: {"model": {"backbone": s}, "optimizer": {}},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"state_dict": {f"module.backbone.{k}": v for k, v in s.items()}},
        lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
    ],
    ids=["state_dict", "net_state_dict", "nested", "module", "prefixes", "half"],
)
def test_wrappers_and_prefixes(wrap, tmp_path):
    replica = randomize(Xiaoccer())
    if wrap({"x": torch.ones(1)}).get("x", torch.ones(1)).dtype is torch.float16:
        replica.load_state_dict({k: v.half() for k, v in replica.state_dict().items()})
    torch.save(wrap(replica.state_dict()), tmp_path / "w.ckpt")
    assert_same(load_checkpoint(tmp_path / "w.ckpt").module, replica, (112, 96))


def test_bfloat16_safetensors(tmp_path):
    state = {
        k: v.bfloat16() if v.is_floating_point() else v
        for k, v in randomize(Foamliu()).state_dict().items()
    }
    save_file(state, str(tmp_path / "w.safetensors"))
    loaded = load_checkpoint(tmp_path / "w.safetensors")
    assert all(p.dtype is torch.float32 for p in loaded.module.parameters())


def test_old_torch_format(tmp_path):
    replica = randomize(Xiaoccer())
    torch.save(replica.state_dict(), tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    assert_same(load_checkpoint(tmp_path / "w.pt").module, replica, (112, 96))


class TestPreprocessing:
    def test_override_of_a_part(self, tmp_path):
        path = save(randomize(Xiaoccer()), tmp_path / "w.safetensors")
        loaded = load_checkpoint(path, preprocessing_override={"color": "bgr", "std": 127.5})
        assert loaded.info.preprocessing.color == "BGR"
        assert loaded.info.preprocessing.std == (127.5, 127.5, 127.5)
        assert loaded.info.preprocessing.mean == (127.5, 127.5, 127.5)

    def test_metadata_then_option(self, tmp_path):
        stated = {"color": "BGR", "mean": [1, 2, 3], "std": [4, 5, 6]}
        path = save(
            MobileFaceNet(SMALL), tmp_path / "w.safetensors", preprocessing=json.dumps(stated),
            demo="true",
        )  # fmt: skip
        loaded = load_checkpoint(path, preprocessing_override={"mean": (7, 8, 9)})
        assert loaded.info.demo
        assert loaded.info.preprocessing.color == "BGR"
        assert loaded.info.preprocessing.mean == (7, 8, 9)
        assert loaded.info.preprocessing.std == (4, 5, 6)

    def test_imagenet_in_8_bit_units(self, tmp_path):
        got = load_checkpoint(save(Foamliu(), tmp_path / "w.safetensors")).info.preprocessing
        assert got.mean == pytest.approx((123.675, 116.28, 103.53))
        assert got.std == pytest.approx((58.395, 57.12, 57.375))
