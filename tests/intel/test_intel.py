"""The OpenVINO backend on tiny networks, with the real runtime."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch

from mfn_compile.errors import DeviceError, InternalCheckError, UsageError
from mfn_compile.intel import runtime
from mfn_compile.intel.embedder import OpenVinoEmbedder
from mfn_compile.intel.execution import precision
from mfn_compile.intel.ir import convert
from mfn_compile.intel.latency import measure
from mfn_compile.model.network import Activation, MobileFaceNet
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.progress import SilentProgress
from tests.tiny import tiny_config

ONE = runtime.latency_properties(1)
SHAPE = Preprocessing(height=32, width=32, mean=(127.5,) * 3, std=(128.0,) * 3)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = MobileFaceNet(tiny_config(activation=Activation.PRELU)).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.PReLU):
            torch.nn.init.uniform_(module.weight, 0.1, 0.9)
    path = tmp_path_factory.mktemp("intel") / "net.onnx"
    torch.onnx.export(
        network, (torch.zeros(1, 3, 32, 32),), path, dynamo=False, opset_version=17,
        input_names=["input"], output_names=["embedding"],
        dynamic_axes={"input": {0: "n"}, "embedding": {0: "n"}},
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def xml(onnx_file: Path) -> Path:
    return convert(onnx_file, onnx_file.with_suffix(".xml"))[0]


def test_conversion_fixes_the_batch_and_keeps_the_function(onnx_file: Path, xml: Path) -> None:
    import onnxruntime

    assert list(ov.Core().read_model(xml).input(0).shape) == [1, 3, 32, 32]
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)
    ours = runtime.compile_model(xml, "CPU", ONE)([x])[0]
    judge = onnxruntime.InferenceSession(onnx_file).run(None, {"input": x})[0]
    np.testing.assert_allclose(ours, judge, rtol=1e-4, atol=1e-5)


def test_converting_twice_gives_the_same_bytes(onnx_file: Path, xml: Path, tmp_path: Path) -> None:
    again = convert(onnx_file, tmp_path / xml.name)
    for path in again:
        assert path.read_bytes() == (xml.parent / path.name).read_bytes()


def test_importing_the_backend_starts_no_process() -> None:
    code = (
        "import multiprocessing.process as p\n"
        "def refuse(self): raise SystemExit('a process was started')\n"
        "p.BaseProcess.start = refuse\n"
        "import mfn_compile.intel.runtime, mfn_compile.quantize.quiet as q\n"
        "with q.quiet_nncf(): pass\n"
    )
    clean = {key: value for key, value in os.environ.items() if key not in ("CI", "NNCF_CI")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_prelu_slopes_are_flat_so_that_the_plugin_fuses_them(xml: Path) -> None:
    slopes = [
        node.input_value(1).get_shape()
        for node in ov.Core().read_model(xml).get_ordered_ops()
        if node.get_type_name() == "PRelu"
    ]
    assert slopes
    assert all(len(shape) == 1 for shape in slopes)
    others = precision(runtime.compile_model(xml, "CPU", ONE)).other_layers
    assert not any(kind.startswith("Eltwise") for kind in others), others


def test_a_float_network_has_no_int8_layer(xml: Path) -> None:
    found = precision(runtime.compile_model(xml, "CPU", ONE))
    assert found.int8_layers == 0
    assert len(found.float_layers) == 17
    assert all(layer.endswith(": f32") for layer in found.float_layers)


def test_float_stays_float32_where_the_cpu_has_bfloat16(xml: Path) -> None:
    compiled = runtime.compile_model(xml, "CPU", ONE)
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == ov.Type.f32


def test_embeddings_keep_their_order_on_many_streams(xml: Path) -> None:
    crops = np.random.default_rng(1).integers(0, 256, (37, 112, 112, 3), np.uint8)
    embedder = OpenVinoEmbedder(xml, SHAPE)
    together = embedder.embed(crops)
    assert together.shape == (37, 16)
    assert together.dtype == np.float32
    alone = np.concatenate([embedder.embed(crops[i : i + 1]) for i in range(37)])
    np.testing.assert_array_equal(together, alone)
    assert len({row.tobytes() for row in together}) == 37


def test_the_embedder_key_follows_weights_and_input(xml: Path, tmp_path: Path) -> None:
    base = OpenVinoEmbedder(xml, SHAPE)
    bgr = OpenVinoEmbedder(xml, SHAPE.model_copy(update={"color": "BGR"}))
    copy = tmp_path / "net.xml"
    copy.write_bytes(xml.read_bytes())
    weights = bytearray(xml.with_suffix(".bin").read_bytes())
    copy.with_suffix(".bin").write_bytes(weights)
    assert OpenVinoEmbedder(copy, SHAPE).key == base.key
    weights[0] ^= 1
    copy.with_suffix(".bin").write_bytes(weights)
    assert len({base.key, bgr.key, OpenVinoEmbedder(copy, SHAPE).key}) == 3


def test_latency_is_of_both_networks_in_one_run(xml: Path) -> None:
    crop = np.zeros((1, 112, 112, 3), np.uint8)
    found = measure(
        xml, xml, crop, SHAPE, device="CPU", properties=ONE, progress=SilentProgress(), repeats=40
    )
    assert found.kind == "measured"
    assert 0 < found.p50_ms <= found.p90_ms <= found.p99_ms
    assert 0 < found.fp32_p50_ms <= found.fp32_p90_ms <= found.fp32_p99_ms
    assert (found.threads, found.repeats) == (1, 40)
    assert found.runtime.startswith("OpenVINO 20")
    assert found.input == "float32 [1, 3, height, width]"
    assert 0.2 < found.speedup < 5  # the same network twice: only noise may part them


def test_an_absent_device_lists_the_present_ones(xml: Path) -> None:
    with pytest.raises(DeviceError, match="CPU") as caught:
        runtime.compile_model(xml, "NPU", ONE)
    assert caught.value.exit_code == 6


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(InternalCheckError, match=r"net\.onnx"):
        convert(path, tmp_path / "net.xml")


def test_one_process_has_one_isa_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_isa_in_use", [None])
    runtime.limit_isa(None)
    with pytest.raises(UsageError, match="AVX2"):
        runtime.limit_isa("AVX2")
