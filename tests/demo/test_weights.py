from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import mfn_compile.demo
from mfn_compile.demo.benchmark import pairs
from mfn_compile.demo.faces import render
from mfn_compile.model.network import MobileFaceNet

WEIGHTS = Path(mfn_compile.demo.__file__).parent / "mobilefacenet_demo.safetensors"


def demo_network() -> MobileFaceNet:
    network = MobileFaceNet()
    missing, unexpected = network.load_state_dict(load_file(WEIGHTS), strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return network.eval()


def embeddings(network: MobileFaceNet, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), 100):
            batch = torch.from_numpy(images[start : start + 100]).permute(0, 3, 1, 2).float()
            parts.append(network((batch - 127.5) / 128).numpy())
    raw = np.concatenate(parts)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


def test_file_is_small_and_describes_itself() -> None:
    assert WEIGHTS.stat().st_size < 4.2e6
    with safe_open(WEIGHTS, "pt") as file:
        metadata = file.metadata()
    assert metadata["demo"] == "true"
    assert json.loads(metadata["preprocessing"]) == {
        "color": "RGB", "mean": [127.5] * 3, "std": [128.0] * 3,
    }  # fmt: skip
    assert metadata["description"] == "demo model on rendered faces"


def test_weights_are_finite_float32() -> None:
    for name, value in load_file(WEIGHTS).items():
        assert value.dtype == torch.float32, name
        assert bool(torch.isfinite(value).all()), name
        if name.endswith("running_var"):
            assert float(value.min()) > 0, name


@pytest.mark.slow
def test_float_accuracy_leaves_room_to_see_quantization() -> None:
    table = pairs()
    embedded = embeddings(demo_network(), render(table.images.identity, table.images.shot))
    score = (embedded[table.first] * embedded[table.second]).sum(axis=1)
    accuracies = []
    for fold in range(10):
        inside = table.fold == fold
        grid = np.linspace(-1, 1, 2001)
        accepted = score[~inside][None] >= grid[:, None]
        threshold = grid[(accepted == table.same[~inside]).mean(axis=1).argmax()]
        accuracies.append(((score[inside] >= threshold) == table.same[inside]).mean())
    assert 0.97 <= np.mean(accuracies) <= 0.998
