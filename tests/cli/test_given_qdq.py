"""A QDQ file that another quantizer wrote, compiled in place of our own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from mfn_compile.report.document import load
from tests.arm.qdq_files import runtime_quantized
from tests.cli.test_bad_input import refused
from tests.cli.test_commands import data_options, mfn
from tests.conftest import FaceFolder


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    assert mfn("export", "--checkpoint", checkpoint, "--out", folder).exit_code == 0
    return folder / "model_fp32.onnx"


@pytest.fixture(scope="module")
def given(exported: Path, faces: FaceFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX Runtime's static quantizer, per-channel weights, unsigned activations."""
    paths = sorted(faces.images.rglob("*.png"))[:24]
    crops = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    batches = ((crops - np.float32(127.5)) / np.float32(128)).transpose(0, 3, 1, 2)[:, None]
    folder = tmp_path_factory.mktemp("given")
    model = runtime_quantized(
        folder, onnx.load(exported), per_channel=True, unsigned=True, batches=batches
    )
    onnx.save(model, folder / "theirs.onnx")
    return folder / "theirs.onnx"


@pytest.mark.parametrize("target", ["arm64", "intel"])
def test_it_is_compiled_and_judged_as_ours_is(
    given: Path, checkpoint: Path, faces: FaceFolder, tmp_path: Path, target: str
) -> None:
    options = [*data_options(checkpoint, faces), "--max-drop", 100, "--out", tmp_path / "b"]
    found = mfn("--target", target, "--tune", 0, "--qdq", given, *options, "--quiet")
    assert found.exit_code == 0, found.output
    result = load(tmp_path / "b" / "report.json")
    assert result.quantization.method == "given"
    assert result.quantization.candidates[0].held_out_cosine > 0.9
    assert result.quantization.quantized_convolutions == 17
    assert result.evaluation is not None
    assert result.evaluation.cosine.mean > 0.9
    assert any(row.role == "QDQ network" for row in result.inputs)
    assert result.backend is not None
    if target == "arm64":
        assert result.backend.firmware is not None
        agreement = result.backend.firmware.agreement
        assert agreement.differing_by_layer < 5e-3 * agreement.values
        assert agreement.largest <= 1


def test_a_float_file_is_refused_with_what_to_do(
    exported: Path, checkpoint: Path, faces: FaceFolder
) -> None:
    options = data_options(checkpoint, faces)
    refused(3, "Leave --qdq out", "--target", "arm64", "--qdq", exported, *options)


def test_another_networks_file_is_refused(
    given: Path, checkpoint: Path, faces: FaceFolder, tmp_path: Path
) -> None:
    model = onnx.load(given)
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.int8 and array.ndim == 4:
            shuffled = np.random.default_rng(0).permutation(array.reshape(-1)).reshape(array.shape)
            tensor.CopyFrom(onnx.numpy_helper.from_array(shuffled, tensor.name))
    onnx.save(model, tmp_path / "other.onnx")
    options = data_options(checkpoint, faces)
    says = "computes something else"
    refused(3, says, "--target", "arm64", "--qdq", tmp_path / "other.onnx", *options)


def test_what_the_integer_graph_cannot_hold_is_named(
    given: Path, checkpoint: Path, faces: FaceFolder, tmp_path: Path
) -> None:
    model = onnx.load(given)
    node = next(n for n in model.graph.node if n.op_type == "PRelu")
    node.op_type = (
        "Max"  # same shapes, same values wherever the slope is no larger than 1 and x > 0
    )
    onnx.save(model, tmp_path / "max.onnx")
    options = data_options(checkpoint, faces)
    found = mfn("--target", "arm64", "--qdq", tmp_path / "max.onnx", *options, "--quiet")
    assert found.exit_code == 3
    assert "Max" in found.stderr


def test_damaged_and_missing_files(
    given: Path, checkpoint: Path, faces: FaceFolder, tmp_path: Path
) -> None:
    options = data_options(checkpoint, faces)
    refused(3, "no.onnx", "--target", "arm64", "--qdq", tmp_path / "no.onnx", *options)
    (tmp_path / "cut.onnx").write_bytes(given.read_bytes()[:-500])
    refused(3, "cut.onnx", "--target", "arm64", "--qdq", tmp_path / "cut.onnx", *options)


def test_it_cannot_be_fine_tuned(given: Path, checkpoint: Path, faces: FaceFolder) -> None:
    options = data_options(checkpoint, faces)
    refused(2, "exclude each other", "--target", "arm64", "--qdq", given, "--qat", *options)
