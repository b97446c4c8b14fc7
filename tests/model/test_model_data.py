"""The two public checkpoints, where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mfn_compile.model.loader import load_checkpoint

DATA = os.environ.get("MFN_DATA", "")
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA, reason="MFN_DATA does not name the folder with real input"),
]


@pytest.mark.parametrize(
    ("file", "layout", "parameters", "macs", "size", "activations"),
    [
        (
            "foamliu_mobilefacenet.safetensors",
            "foamliu",
            999_936,
            233_810_432,
            (112, 112),
            ("relu6", "relu"),
        ),
        ("xiaoccer_068.safetensors", "xiaoccer", 999_552, 189_408_256, (112, 96), ("prelu",)),
    ],
)
def test_public_checkpoint(file, layout, parameters, macs, size, activations):
    info = load_checkpoint(Path(DATA) / "weights" / file).info
    assert (info.layout, info.parameters, info.macs) == (layout, parameters, macs)
    assert (info.preprocessing.height, info.preprocessing.width) == size
    assert info.activations == activations
    assert info.embedding_width == 128
