from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import warnings
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from mfn_compile.errors import BadInputError, DeviceError, ExitCode, InternalCheckError, UsageError
from mfn_compile.export import exporter
from mfn_compile.export.exporter import export
from mfn_compile.export.graph import finish
from mfn_compile.export.parity import check_parity
from mfn_compile.model.loader import load_checkpoint
from mfn_compile.model.network import Activation
from mfn_compile.results import ExportResult

from .networks import ACTIVATIONS, loaded, network


@pytest.fixture(scope="module")
def faces():
    return np.random.default_rng(3).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)


def run(path, images):
    return ort.InferenceSession(str(path)).run(None, {"input": images})[0]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_export_is_folded_named_and_right(activation, faces, tmp_path):
    module = network(activation)
    result = export(loaded(module), tmp_path, face_crops=faces)
    path = tmp_path / "model_fp32.onnx"
    model = onnx.load(str(path))
    ops = Counter(node.op_type for node in model.graph.node)
    name = {"prelu": "PRelu", "relu": "Relu", "relu6": "Clip"}[activation]
    assert set(ops) == {"Conv", "Add", "Flatten", name}
    assert result.convolutions == ops["Conv"] == 23
    assert result.opset == model.opset_import[0].version == 17
    assert result.file == path.name
    assert result.bytes == path.stat().st_size
    assert result.parity.inputs == ("8 random images", "3 face crops")
    assert result.parity.max_relative_difference < 1e-5
    names = {node.name for node in model.graph.node}
    assert {"stem.conv", "blocks.1.add", "blocks.3.depthwise.conv", "linear.conv"} <= names
    assert all(i.name.split(".")[0] in str(names) for i in model.graph.initializer)
    x = np.random.default_rng(0).standard_normal((1, 3, 112, 112), np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(run(path, x), expected, rtol=1e-4, atol=1e-5)


def test_metadata_and_signature(tmp_path):
    export(loaded(network(height=96, width=96)), tmp_path)
    model = onnx.load(str(tmp_path / "model_fp32.onnx"))
    stated = {p.key: p.value for p in model.metadata_props}
    assert json.loads(stated["preprocessing"])["std"] == [128, 128, 128]
    assert model.graph.input[0].name == "input"
    assert model.graph.output[0].name == "embedding"
    dims = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [1, 3, 96, 96]


def test_dynamic_batch(tmp_path):
    result = export(loaded(network()), tmp_path, dynamic_batch=True)
    assert result.dynamic_batch
    x = np.random.default_rng(0).standard_normal((3, 3, 112, 112), np.float32)
    together = run(tmp_path / "model_fp32.onnx", x)
    single = [run(tmp_path / "model_fp32.onnx", image[None])[0] for image in x]
    np.testing.assert_allclose(together, np.stack(single), rtol=1e-4, atol=1e-5)


def test_opset_is_stated(tmp_path):
    assert export(loaded(network()), tmp_path, opset=15).opset == 15


@pytest.mark.parametrize(
    "options",
    [
        {"linear": False, "embedding_width": 24},
        {"linear": False, "head_width": None, "embedding_width": 16},
        {"depthwise_groups": 2, "depthwise_pointwise": True},
        {"depthwise": False},
    ],
    ids=["M", "S", "grouped", "plain"],
)
def test_variants(options, tmp_path):
    assert export(loaded(network(**options)), tmp_path).parity.max_relative_difference < 1e-5


SCRIPT = """
import sys, hashlib, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from networks import loaded, network
from mfn_compile.export.exporter import export
print(export(loaded(network(seed=5)), Path(sys.argv[2])).sha256)
"""


def test_same_weights_same_bytes(tmp_path):
    first = export(loaded(network(seed=5)), tmp_path / "a")
    again = export(loaded(network(seed=5)), tmp_path / "b")
    assert (tmp_path / "a" / again.file).read_bytes() == (tmp_path / "b" / again.file).read_bytes()
    here = os.path.dirname(__file__)
    # another process has another hash seed
    other = subprocess.run(
        [sys.executable, "-c", SCRIPT, here, str(tmp_path / "c")],
        check=True, capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert other.stdout.split()[-1] == first.sha256
    assert export(loaded(network(seed=6)), tmp_path / "d").sha256 != first.sha256


def test_nothing_is_printed(tmp_path, capfd, recwarn):
    export(loaded(network()), tmp_path)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


class TestParityCheck:
    @pytest.mark.parametrize("tensor", ["stem.conv.weight", "blocks.2.expand.act.weight"])
    def test_corrupted_export_is_caught(self, tensor, tmp_path, monkeypatch):
        def corrupt(model, info):
            for initializer in model.graph.initializer:
                if initializer.name == tensor:
                    values = numpy_helper.to_array(initializer).copy()
                    values.flat[0] += 0.05
                    initializer.CopyFrom(numpy_helper.from_array(values, tensor))
            return finish(model, info)

        monkeypatch.setattr(exporter, "finish", corrupt)
        with pytest.raises(InternalCheckError, match="does not compute") as caught:
            export(loaded(network()), tmp_path)
        assert caught.value.exit_code is ExitCode.INTERNAL_CHECK
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("wrong", [np.nan, np.inf, 1 + 2e-4])
    def test_limit(self, wrong):
        ones = np.ones((1, 2), np.float32)
        with pytest.raises(InternalCheckError):
            check_parity(lambda x: ones, lambda x: ones * wrong, {"x": ones}, where="w")

    def test_within_the_limit(self):
        ones = np.ones((1, 2), np.float32)
        parity = check_parity(
            lambda x: ones, lambda x: ones * np.float32(1 + 5e-5), {"x": ones}, where="w"
        )
        assert parity.max_relative_difference == pytest.approx(5e-5, rel=0.01)

    def test_other_width(self):
        with pytest.raises(InternalCheckError, match="shape"):
            check_parity(
                lambda x: np.ones((1, 2)), lambda x: np.ones((1, 3)), {"x": np.ones(1)}, where="w"
            )

    def test_all_zero_reference(self):
        zeros = np.zeros((1, 2), np.float32)
        check_parity(lambda x: zeros, lambda x: zeros, {"x": zeros}, where="w")
        with pytest.raises(InternalCheckError):
            check_parity(lambda x: zeros, lambda x: zeros + 1, {"x": zeros}, where="w")


class TestWriting:
    def test_full_disk(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(DeviceError, match="No space left"):
            export(loaded(network()), tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_output_is_a_file(self, tmp_path):
        (tmp_path / "out").touch()
        with pytest.raises(DeviceError):
            export(loaded(network()), tmp_path / "out")


class Foreign(nn.Module):
    """A network that ends as other programs write it."""

    def __init__(self, norm, bias, bn=True):
        super().__init__()
        body = network(Activation.PRELU, linear=False, embedding_width=24)
        self.body, self.norm = body, norm
        self.fc = nn.Linear(24, 12, bias=bias)
        self.bn = nn.BatchNorm1d(12, eps=2e-5) if bn else nn.Identity()
        if bn:
            nn.init.uniform_(self.bn.weight, 0.5, 1.5)
            nn.init.uniform_(self.bn.bias, -1, 1)
            self.bn.running_mean.uniform_(-0.5, 0.5)
            self.bn.running_var.uniform_(0.5, 2)
        self.eval()

    def forward(self, x):
        x = self.bn(self.fc(self.body(x)))
        if self.norm == "div":
            return x / x.norm(2, 1, True)
        return nn.functional.normalize(x) if self.norm == "normalize" else x


def export_foreign(module, path, *, dynamic=False, opset=17):
    axes = {"data": {0: "n"}, "fc1": {0: "n"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.zeros(1, 3, 112, 112),), str(path), dynamo=False,
            input_names=["data"], output_names=["fc1"], opset_version=opset, dynamic_axes=axes,
        )  # fmt: skip
    return load_checkpoint(path)


class TestOnnxCheckpoint:
    @pytest.mark.parametrize("norm", ["none", "div", "normalize"])
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("dynamic", [True, False])
    def test_same_form_as_our_own_export(self, norm, bias, dynamic, faces, tmp_path):
        module = Foreign(norm, bias)
        model = export_foreign(module, tmp_path / "in.onnx", dynamic=dynamic)
        result = export(model, tmp_path, dynamic_batch=dynamic, face_crops=faces)
        written = onnx.load(str(tmp_path / result.file))
        ops = {node.op_type for node in written.graph.node}
        assert ops == {"Conv", "PRelu", "Add", "Flatten"}
        assert result.convolutions == 23
        x = np.random.default_rng(0).standard_normal((1, 3, 112, 112), np.float32)
        with torch.no_grad():
            expected = module(torch.from_numpy(x)).numpy()
        actual = run(tmp_path / result.file, x)
        if norm != "none":
            actual /= np.linalg.norm(actual)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(("opset", "expected"), [(11, 17), (13, 17), (17, 17), (18, 18)])
    def test_opset(self, opset, expected, tmp_path):
        model = export_foreign(Foreign("none", True), tmp_path / "in.onnx", opset=opset)
        assert export(model, tmp_path).opset == expected

    def test_fixed_batch_from_a_dynamic_one(self, tmp_path):
        model = export_foreign(Foreign("none", False), tmp_path / "in.onnx", dynamic=True)
        export(model, tmp_path)
        graph = onnx.load(str(tmp_path / "model_fp32.onnx")).graph
        for value in (graph.input[0], graph.output[0]):
            assert value.type.tensor_type.shape.dim[0].dim_value == 1

    def test_dynamic_batch_of_a_fixed_one(self, tmp_path):
        model = export_foreign(Foreign("none", False), tmp_path / "in.onnx")
        with pytest.raises(UsageError, match="fixed batch"):
            export(model, tmp_path, dynamic_batch=True)

    def test_our_own_export_is_a_fixed_point(self, tmp_path):
        export(loaded(network()), tmp_path / "a")
        model = load_checkpoint(tmp_path / "a" / "model_fp32.onnx")
        result = export(model, tmp_path / "b")
        assert isinstance(result, ExportResult)
        assert result.parity.max_abs_difference == 0
        first, second = (onnx.load(str(tmp_path / d / "model_fp32.onnx")) for d in "ab")
        assert [n.name for n in first.graph.node] == [n.name for n in second.graph.node]

    def test_batchnorm_before_any_layer(self, tmp_path):
        module = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), network()).eval()
        model = export_foreign(module, tmp_path / "in.onnx")
        with pytest.raises(BadInputError, match="BatchNormalization"):
            export(model, tmp_path)

    def test_weight_of_the_wrong_shape(self, tmp_path, capfd):
        """Neither the checker nor shape inference sees it, ONNX Runtime does."""
        export_foreign(Foreign("none", True), tmp_path / "in.onnx")
        proto = onnx.load(str(tmp_path / "in.onnx"))
        conv = proto.graph.node[4].input[1]
        proto.graph.node[4].input[1] = proto.graph.node[0].input[1]
        assert conv != proto.graph.node[4].input[1]
        onnx.save(proto, str(tmp_path / "in.onnx"))
        with pytest.raises(BadInputError, match=r"in\.onnx"):
            export(load_checkpoint(tmp_path / "in.onnx"), tmp_path)
        assert capfd.readouterr().err == ""

    def test_nodes_without_names(self, tmp_path):
        export_foreign(Foreign("none", True), tmp_path / "in.onnx")
        proto = onnx.load(str(tmp_path / "in.onnx"))
        for node in proto.graph.node:
            node.name = ""
        onnx.save(proto, str(tmp_path / "in.onnx"))
        export(load_checkpoint(tmp_path / "in.onnx"), tmp_path)
        names = [n.name for n in onnx.load(str(tmp_path / "model_fp32.onnx")).graph.node]
        assert all(names)
        assert len(set(names)) == len(names)
