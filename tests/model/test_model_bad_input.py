"""Checkpoints that must be refused, each with one paragraph that helps."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mfn_compile.errors import BadInputError, ExitCode, UsageError
from mfn_compile.model.checkpoint import read_weights
from mfn_compile.model.loader import load_checkpoint

from .replicas import Foamliu, Xiaoccer, randomize


def refused(path, **options):
    """The paragraph with which loading fails; always bad input."""
    with pytest.raises(BadInputError) as caught:
        load_checkpoint(path, **options)
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.fixture
def state():
    return randomize(Xiaoccer()).state_dict()


def test_missing_file(tmp_path):
    assert "does not exist" in refused(tmp_path / "none.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".onnx"])
def test_empty_file(suffix, tmp_path):
    path = tmp_path / f"empty{suffix}"
    path.touch()
    assert "empty" in refused(path)


def test_directory(tmp_path):
    path = tmp_path / "dir.pt"
    path.mkdir()
    assert "directory" in refused(path)


def test_unknown_suffix(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"x")
    assert "'.h5' is no checkpoint format" in refused(path)


def test_too_large_before_reading(tmp_path):
    path = tmp_path / "huge.pt"
    with path.open("wb") as file:
        file.truncate(600 * 1024 * 1024)  # sparse
    assert "629 MB" in refused(path)


def test_zip_bomb(tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(2_000_000))
    with pytest.raises(BadInputError, match="unpacks to 2 MB"):
        read_weights(path, max_bytes=1_000_000)


def test_view_larger_than_its_file(tmp_path):
    path = tmp_path / "view.pt"
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, path)
    assert "size limit" in refused(path)


@pytest.mark.parametrize("keep", [4, 100, 5000, -1])
def test_truncated_safetensors(keep, state, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(state, str(path))
    path.write_bytes(path.read_bytes()[:keep])
    assert "damaged or truncated" in refused(path)


@pytest.mark.parametrize("keep", [0.1, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_torch(keep, zipped, state, tmp_path):
    path = tmp_path / "w.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    assert "damaged" in refused(path)


@pytest.mark.parametrize(
    "content", [b"not a pickle", b"\x80", b"PK\x03\x04" + bytes(100), bytes(50)]
)
def test_garbage(content, tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(content)
    refused(path)


class Evil:
    def __init__(self, marker):
        self.command = f"touch {marker}"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["zip", "legacy", "raw"])
def test_pickle_that_would_run_code(form, state, tmp_path):
    path, marker = tmp_path / "evil.ckpt", tmp_path / "ran"
    content = {"state_dict": state, "callback": Evil(marker)}
    if form == "raw":
        path.write_bytes(pickle.dumps(content["callback"], protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    message = refused(path)
    assert not marker.exists()
    assert "system" in message
    assert "nothing was run" in message


def test_whole_module(tmp_path):
    torch.save(Xiaoccer(), tmp_path / "w.pt")
    assert "Xiaoccer" in refused(tmp_path / "w.pt")


def test_torchscript(tmp_path):
    path = tmp_path / "w.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but such files are around
        torch.jit.script(nn.Conv2d(3, 4, 1)).save(str(path))
    assert "TorchScript" in refused(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([1, 2], "holds a list"),
        (torch.zeros(3), "holds a Tensor"),
        ({}, "holds no tensors"),
        ({"state_dict": {}}, "holds no tensors"),
        ({"a": torch.zeros(1), "epoch": 3}, "'epoch' of the checkpoint is a int"),
        ({3: torch.zeros(1)}, "Entry 3"),
        ({"a": torch.zeros(0)}, "no elements"),
        ({"a": torch.zeros(4, dtype=torch.int8)}, "int8"),
        ({"a": torch.zeros(4, dtype=torch.complex64)}, "complex64"),
        ({"a": torch.zeros(4, 4).to_sparse()}, "sparse"),
    ],
)
def test_not_a_state_dict(content, expected, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    assert expected in refused(tmp_path / "w.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_names_the_tensor(value, state, tmp_path):
    state["blocks.3.conv.3.weight"][0, 0, 1, 1] = value
    torch.save(state, tmp_path / "w.pt")
    message = refused(tmp_path / "w.pt")
    assert "NaN" in message
    assert "blocks.3.conv.3.weight" in message


def test_negative_variance(state, tmp_path):
    state["conv2.bn.running_var"][0] = -1
    torch.save(state, tmp_path / "w.pt")
    assert "negative variance (" in refused(tmp_path / "w.pt")


def resnet50_shapes():
    """Key names and shapes as torchvision writes them, with one element a tensor's channels."""
    shapes = {"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 2048), "fc.bias": (1000,)}
    norms = {"bn1": 64}
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
        for block in range(blocks):
            path = f"layer{stage}.{block}"
            for index, size in enumerate((width, width, 4 * width), 1):
                shapes[f"{path}.conv{index}.weight"] = (size, 1, 1, 1)
                norms[f"{path}.bn{index}"] = size
        shapes[f"layer{stage}.0.downsample.0.weight"] = (4 * width, 1, 1, 1)
        norms[f"layer{stage}.0.downsample.1"] = 4 * width
    for path, size in norms.items():
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{path}.{name}"] = (size,)
    return shapes


def test_resnet50(tmp_path):
    torch.save({k: torch.ones(s) for k, s in resnet50_shapes().items()}, tmp_path / "r50.pth")
    message = refused(tmp_path / "r50.pth")
    for layout in ("mfn-compile", "foamliu", "xiaoccer", "insightface-pytorch", "arcface-torch"):
        assert layout in message
    assert "does not know" in message
    assert "fc.weight" in message


def test_nearest_layout_comes_first(state, tmp_path):
    del state["conv2.prelu.weight"]
    torch.save(state, tmp_path / "w.pt")
    message = refused(tmp_path / "w.pt")
    assert "nearest first: xiaoccer misses conv2.prelu.weight; " in message


def test_leftover_keys(state, tmp_path):
    state["classifier.weight"] = torch.zeros(2, 2)
    torch.save(state, tmp_path / "w.pt")
    assert "xiaoccer does not know classifier.weight" in refused(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("conv1.conv.weight", (8, 1, 3, 3)),
        ("conv1.conv.weight", (8, 27)),
        ("blocks.1.conv.0.weight", (16, 9, 1, 1)),
        ("blocks.1.conv.3.weight", (16, 1, 5, 5)),
        ("blocks.1.conv.4.bias", (15,)),
        ("linear7.conv.weight", (24, 1, 8, 7)),
        ("linear1.conv.weight", (12, 23, 1, 1)),
        ("conv2.prelu.weight", (23,)),
        ("dw_conv1.conv.weight", (8, 3, 3, 3)),
    ],
)
def test_wrong_shape(key, shape, state, tmp_path):
    state[key] = torch.ones(shape)
    torch.save(state, tmp_path / "w.pt")
    refused(tmp_path / "w.pt")


@pytest.mark.parametrize(
    "metadata",
    [
        {"preprocessing": "{"},
        {"preprocessing": "[1]"},
        {"preprocessing": '{"mean": [1, 2]}'},
        {"preprocessing": '{"std": [0, 1, 1]}'},
        {"preprocessing": '{"height": 96}'},
        {"preprocessing": '{"flavour": 3}'},
        {"bn_eps": "-1.0"},
        {"bn_eps": '"x"'},
        {"strides": "[3]"},
        {"strides": "[2]"},
        {"activation": "swish"},
    ],
)
def test_bad_metadata(metadata, state, tmp_path):
    save_file(state, str(tmp_path / "w.safetensors"), metadata=metadata)
    refused(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "override",
    [
        {"color": "HSV"},
        {"mean": (1, 2)},
        {"std": 0},
        {"std": (1, 1, float("nan"))},
        {"mean": float("inf")},
        {"height": 96},
        {"gamma": 1},
    ],
)
def test_bad_override(override, tmp_path):
    torch.save(Foamliu().state_dict(), tmp_path / "w.pt")
    with pytest.raises(UsageError):
        load_checkpoint(tmp_path / "w.pt", preprocessing_override=override)


@pytest.mark.parametrize("eps", [0, -1, 2, float("nan")])
def test_bad_eps(eps, tmp_path):
    torch.save(Foamliu().state_dict(), tmp_path / "w.pt")
    with pytest.raises(UsageError):
        load_checkpoint(tmp_path / "w.pt", bn_eps=eps)
