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
from mfn_compile.evaluate.onnx_embedder import OnnxRuntimeEmbedder
from mfn_compile.export.exporter import export
from mfn_compile.model.loader import load_checkpoint
from mfn_compile.model.network import MobileFaceNet

FOLDS = 5  # of ten
WEIGHTS = Path(mfn_compile.demo.__file__).parent / "mobilefacenet_demo.safetensors"


def test_they_fit_the_network() -> None:
    missing, unexpected = MobileFaceNet().load_state_dict(load_file(WEIGHTS), strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)


def embeddings(folder: Path, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Of the exported network: torch's own operators take ten times as long."""
    model = load_checkpoint(WEIGHTS)
    path = folder / export(model, folder).file
    raw = OnnxRuntimeEmbedder(path, model.info.preprocessing, optimize=True).embed(crops)
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
def test_float_accuracy_leaves_room_to_see_quantization(tmp_path: Path) -> None:
    """On half of the folds, whose people are in no other."""
    table = pairs()
    used = table.fold < FOLDS
    first, second, same = table.first[used], table.second[used], table.same[used]
    count = 1 + max(first.max(), second.max())
    crops = render(table.images.identity[:count], table.images.shot[:count])
    embedded = embeddings(tmp_path, crops)
    score = (embedded[first] * embedded[second]).sum(axis=1)
    accuracies = []
    for fold in range(FOLDS):
        inside = table.fold[used] == fold
        grid = np.linspace(-1, 1, 2001)
        accepted = score[~inside][None] >= grid[:, None]
        threshold = grid[(accepted == same[~inside]).mean(axis=1).argmax()]
        accuracies.append(((score[inside] >= threshold) == same[inside]).mean())
    assert 0.97 <= np.mean(accuracies) <= 0.998
