"""On the real images and checkpoints; MFN_DATA names the folder that holds lfw/ and weights/."""

import numpy as np
import pytest

from mfn_compile.evaluate.evaluator import evaluate
from mfn_compile.evaluate.lfw import open_lfw
from mfn_compile.evaluate.onnx_embedder import OnnxRuntimeEmbedder
from mfn_compile.evaluate.pairs import PairSet
from mfn_compile.export.exporter import export
from mfn_compile.model.loader import load_checkpoint
from mfn_compile.progress import SilentProgress

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def lfw(lfw_home):
    return open_lfw(lfw_home)


def test_protocol(lfw):
    assert (len(lfw.pairs), lfw.pairs.folds) == (6000, 10)
    assert len(lfw.images.names) == 13_233
    assert len(set(lfw.images.identities)) == 5_749
    assert len(lfw.pairs.images()) == 7_701
    for fold in range(10):
        same = lfw.pairs.same[lfw.pairs.fold == fold]
        assert (same.sum(), (~same).sum()) == (300, 300)


def test_calibration_images_are_in_no_pair(lfw):
    calibration = lfw.images.split("calib")
    assert len(calibration) == 300
    used = lfw.images.content_hashes(lfw.pairs.images())
    assert not set(lfw.images.content_hashes(calibration)) & set(used)


def test_crops_show_faces_in_place(lfw):
    """The average face is symmetric, and its eyes are darker than the forehead above them."""
    crops = lfw.images.crops(lfw.images.split("calib"))
    assert crops.shape == (300, 112, 112, 3)
    mean = crops.mean(axis=(0, 3))
    assert (
        np.corrcoef(mean[20:100, 16:96].ravel(), mean[20:100, 16:96][:, ::-1].ravel())[0, 1] > 0.95
    )
    for x in (38, 73):
        assert mean[51, x] < mean[28, x] - 15
    assert lfw.images.notes == ()


def _network(name, data, folder):
    model = load_checkpoint(data / "weights" / f"{name}.safetensors")
    written = export(model, folder / name)
    return OnnxRuntimeEmbedder(
        folder / name / written.file, model.info.preprocessing, optimize=True
    )


def _evaluated(lfw, name, folds, data, folder):
    """Of the first folds: one network, as "fp32" and as "INT8", which the evaluator must not mind.

    All ten folds take a minute and a half on one core.
    """
    network = _network(name, data, folder)
    pairs, chosen = lfw.pairs, lfw.pairs.fold < folds
    some = PairSet(
        pairs.first[chosen], pairs.second[chosen], pairs.same[chosen], pairs.fold[chosen]
    )
    return evaluate(
        lfw.images,
        some,
        network,
        network,
        dataset_name="LFW",
        all_pairs=False,
        cache_dir=folder / "cache",
        progress=SilentProgress(),
    )


@pytest.mark.slow
def test_a_published_checkpoint_reaches_its_accuracy(lfw, data, tmp_path):
    """All ten folds were 99.23 %, 99.33 % with mirror images and 98.00 % when they were run."""
    result = _evaluated(lfw, "foamliu_mobilefacenet", 3, data, tmp_path)
    assert result.fp32.accuracy == pytest.approx(99.28, abs=0.06)
    assert result.fp32.accuracy_flip == pytest.approx(99.39, abs=0.06)
    assert result.fp32.tar_at_far["1e-3"] == pytest.approx(97.89, abs=0.3)
    assert result.drop == 0
    assert result.paired.flipped == 0


@pytest.mark.slow
def test_the_other_checkpoint_tells_people_apart(lfw, data, tmp_path):
    """All ten folds were 98.60 % when they were run."""
    result = _evaluated(lfw, "xiaoccer_068", 2, data, tmp_path)
    assert result.fp32.accuracy == pytest.approx(97.83, abs=0.3)
