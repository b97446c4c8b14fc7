"""The runner with real engines: on this machine, and on the virtual board where it has a root."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mfn_compile.bench.converting import Converted
from mfn_compile.bench.environments import site_of
from mfn_compile.bench.peers import find_peers
from mfn_compile.bench.run import RUNNER, count
from mfn_compile.bench.subject import Subject
from mfn_compile.device.board import find_core
from mfn_compile.errors import DeviceError
from mfn_compile.model.preprocessing import Preprocessing

SIDE, WIDTH = 8, 4
NCNN = find_peers(["ncnn"])[0]


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    """One convolution over a whole 8x8 image, and its reference embedding."""
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(WIDTH, 3, SIDE, SIDE)).astype(np.float32)
    node = helper.make_node("Conv", ["input", "w"], ["embedding"], kernel_shape=[SIDE, SIDE])
    graph = helper.make_graph(
        [node],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, WIDTH, 1, 1])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "float.onnx")
    images = generator.normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)
    np.save(tmp_path / "counted.npy", images)
    session = onnxruntime.InferenceSession(tmp_path / "float.onnx")
    found = [session.run(None, {"input": image[None]})[0].ravel() for image in images]
    np.save(tmp_path / "reference.npy", np.stack(found))
    (tmp_path / "tiny.param").write_text(
        "7767517\n2 2\nInput in0 0 1 in0\n"
        f"Convolution c 1 1 in0 out0 0={WIDTH} 1={SIDE} 5=0 6={weight.size}\n"
    )
    (tmp_path / "tiny.bin").write_bytes(bytes(4) + weight.tobytes())
    prep = Preprocessing(height=SIDE, width=SIDE, mean=(0, 0, 0), std=(1, 1, 1))
    return Subject("tiny", tmp_path, "tiny", tmp_path / "float.onnx", prep, "input", "embedding")


def job(subject: Subject, engine: str, files: list[str]) -> Path:
    place = subject.folder / f"{engine}.json"
    content = {
        "engine": engine,
        "precision": "f32",
        "files": [str(subject.folder / name) for name in files],
        "shape": subject.shape,
        "input": "in0",
        "output": "out0",
    }
    place.write_text(json.dumps(content))
    return place


def test_onnxruntime_embeds_on_this_machine(subject: Subject) -> None:
    source, out = subject.file("counted"), subject.folder / "out.npy"
    place = job(subject, "onnxruntime", ["float.onnx"])
    subprocess.run([sys.executable, RUNNER, place, "embed", source, out], check=True)
    np.testing.assert_allclose(np.load(out), subject.reference(), rtol=1e-4, atol=1e-4)


def test_a_server_times_what_it_is_asked(subject: Subject) -> None:
    place = job(subject, "onnxruntime", ["float.onnx"])
    command = [sys.executable, RUNNER, place, "serve", subject.file("counted")]
    done = subprocess.run(command, input="3\n2\n", capture_output=True, text=True, check=True)
    ready, *times = done.stdout.split()
    assert ready == "ready"
    assert all(0 < float(time) < 1 for time in times)
    assert len(times) == 2


def test_memory_is_what_an_engine_adds(subject: Subject) -> None:
    place = job(subject, "onnxruntime", ["float.onnx"])
    command = [sys.executable, RUNNER, place, "memory", subject.file("counted")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 1e6 < int(done.stdout) < 1e9


def test_ncnn_is_counted_on_the_virtual_board(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    try:
        site_of(NCNN)
    except DeviceError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("MFN_CACHE_DIR", str(tmp_path / "cache"))
    place = job(subject, "ncnn", ["tiny.param", "tiny.bin"])
    converted = Converted(place, "0" * 64, 1, "")
    found = count(NCNN, converted, subject, find_core("cortex-a55"))
    assert found.cosine > 0.999
    assert 1_000 < found.instructions < 10_000_000
    assert found.cycles > 100
    # What was counted is read from the disk: the model is not needed any more.
    place.unlink()
    assert count(NCNN, converted, subject, find_core("cortex-a55")) == found
    # A reference that says otherwise is seen.
    reference = subject.reference()
    np.save(subject.file("reference"), -reference)
    place = job(subject, "ncnn", ["tiny.param", "tiny.bin"])
    other = replace(converted, sha256="1" * 64)
    assert count(NCNN, other, subject, find_core("cortex-a55")).cosine < -0.999
