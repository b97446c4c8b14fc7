from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from mfn_compile.model.network import MobileFaceNetConfig
from mfn_compile.model.preprocessing import Preprocessing

IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}


def test_normalized_centre_in_channels_first_order():
    crops = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    got = Preprocessing(height=112, width=96, **IMAGENET).apply(crops)
    assert got.dtype == np.float32
    assert got.shape == (2, 3, 112, 96)
    assert got.flags.c_contiguous
    for channel, (mean, std) in enumerate(zip(*IMAGENET.values(), strict=True)):
        expected = (crops[:, :, 8:104, channel].astype(np.float64) - mean) / std
        np.testing.assert_allclose(got[:, channel], expected, rtol=1e-5, atol=1e-6)


def test_bgr_swaps_channels_before_mean():
    crops = np.zeros((1, 112, 112, 3), np.uint8)
    crops[..., 0] = 10  # red
    got = Preprocessing(height=96, width=96, color="BGR", mean=(0, 0, 4), std=(1, 1, 2))
    assert got.apply(crops)[0, :, 0, 0].tolist() == [0, 0, 3]


@pytest.mark.parametrize(
    "wrong",
    [
        {"std": (0, 1, 1)},
        {"std": (-1, 1, 1)},
        {"std": (1, 1, float("inf"))},
        {"mean": (float("nan"), 0, 0)},
        {"color": "GRAY"},
        {"height": 128},
        {"width": 0},
    ],
)
def test_refused(wrong):
    with pytest.raises(ValidationError):
        Preprocessing(**({"height": 112, "width": 112} | IMAGENET | wrong))


def test_describe():
    text = Preprocessing(height=112, width=96, mean=(127.5,) * 3, std=(128,) * 3).describe()
    assert text == "112x96 RGB, (x - [127.5, 127.5, 127.5]) / [128, 128, 128]"


@pytest.mark.parametrize("wrong", [{"height": 100}, {"linear": False, "embedding_width": 128}])
def test_network_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=r"16|wide"):
        MobileFaceNetConfig(**wrong)
