"""Other engines on the virtual board: our instrument and the prototype count the same run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mfn_compile.device.blocks import Counts, join
from mfn_compile.device.board import find_core
from mfn_compile.device.costs import Costs, model_of
from mfn_compile.device.mca import find_mca
from mfn_compile.device.profile import block_cycles
from mfn_compile.device.runner import run_counted
from mfn_compile.device.sysroot import core_view, python_command, require_sysroot
from mfn_compile.errors import DeviceError
from tests.arm.firmware import stub
from tests.device.tool_modules import tool_module

CORES = ("cortex-a53", "cortex-a55", "cortex-a72", "cortex-a76")
SIZE = 96
# Both instruments watch the same run; the prototype knows another magic number.
MARKS = """
import ctypes, sys
libc = ctypes.CDLL(None)
def mark(begin):
    for magic in (0x4D464E42, 0x5641524D)[:: 1 if begin else -1]:
        libc.syscall(172, ctypes.c_long(magic), ctypes.c_long(begin))
"""
NCNN = f"""{MARKS}
import ncnn
net = ncnn.Net()
net.opt.num_threads, net.opt.lightmode = 1, True
net.load_param(sys.argv[1])
net.load_model(ncnn.DataReaderFromEmpty())
image = ncnn.Mat({SIZE}, {SIZE}, 3)
image.fill(0.01)
def run():
    extractor = net.create_extractor()
    extractor.input(net.input_names()[0], image)
    assert extractor.extract(net.output_names()[0])[0] == 0
"""
ONNXRUNTIME = f"""{MARKS}
import os
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it would be a second thread
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
image = numpy.full((1, 3, {SIZE}, {SIZE}), 0.01, numpy.float32)
def run():
    session.run(None, {{"x": image}})
"""
TWICE = "run()\nmark(1)\nrun()\nmark(0)\n"
pytestmark = [pytest.mark.usefixtures("board"), pytest.mark.slow]


def _ncnn_network(path: Path) -> None:
    graph = tool_module("ncnn_networks").Graph()
    blob = graph.convolution(graph.image(SIZE), 32, 3, 2)
    for outputs, stride in ((64, 1), (128, 2)):
        blob = graph.convolution(graph.depthwise(blob, 3, stride), outputs)
    graph.classify(graph.average(blob))
    path.write_text(graph.text(), encoding="ascii")


def _onnx_network(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    import numpy as np

    helper, random = onnx.helper, np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    shapes = ((32, 3, 3, 2, 1), (32, 1, 3, 1, 32), (64, 32, 1, 1, 1), (64, 1, 3, 2, 64))
    last_shape = (128, 64, 1, 1, 1)
    for index, (outputs, inputs, kernel, stride, group) in enumerate((*shapes, last_shape)):
        value = random.standard_normal((outputs, inputs, kernel, kernel)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(value, f"w{index}"))
        sizes = {"strides": [stride] * 2, "pads": [kernel // 2] * 4, "group": group}
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], **sizes))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        last = f"r{index}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["y"]))

    def info(name: str, shape: list[int]) -> object:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes, "g", [info("x", [1, 3, SIZE, SIZE])], [info("y", [1, 128, 1, 1])], weights
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


PEERS = {"ncnn": (NCNN, _ncnn_network), "onnxruntime": (ONNXRUNTIME, _onnx_network)}


@dataclass(frozen=True)
class Prototype:
    """The laboratory prototype, with its plugin built."""

    folder: Path
    environment: dict[str, str]

    def cycles(self, counts: Path, core: str) -> float:
        """Million cycles of a counted run."""
        script = self.folder / "vcycles.py"
        command = [sys.executable, str(script), str(counts), "--cpu", core]
        options = {"env": self.environment, "capture_output": True, "text": True}
        done = subprocess.run(command, check=True, timeout=300, **options)
        match = re.search(rf"{core}\s+([\d.]+) Mcyc", done.stdout)
        assert match is not None
        return float(match[1])


@pytest.fixture(scope="module")
def instrument(prototype: Path) -> Prototype:
    """It with what it needs."""
    try:
        mca = find_mca().path
    except DeviceError as error:
        pytest.skip(str(error))
    environment = {
        **os.environ,
        "LLVM_MCA": mca,
        "LLVM_MC": stub.tool(Path(mca).name.replace("mca", "mc")),
        "VCACHE": str(prototype / "cache.json"),
    }
    return Prototype(prototype, environment)


def _count(peer: str, core_name: str, folder: Path, instrument: Prototype) -> Counts:
    try:
        root = require_sysroot(peer)
    except DeviceError as error:
        pytest.skip(str(error))
    script, make = PEERS[peer]
    core = find_core(core_name)
    program, network = folder / "run.py", folder / "network"
    program.write_text(script + TWICE, encoding="ascii")
    make(network)
    python, options = python_command(core_view(root, core, folder), peer)
    second = ("-plugin", f"{instrument.folder / 'bbcount.so'},out={folder / 'prototype'}")
    return run_counted((python, program, network), core, options=(*second, *options))


# Importing onnxruntime takes 10 s a core under QEMU: one core of each kind of model.
PAIRS = [("ncnn", core) for core in CORES] + [
    ("onnxruntime", core) for core in ("cortex-a55", "cortex-a76")
]


@pytest.mark.parametrize(("peer", "core_name"), PAIRS)
def test_the_prototype_agrees_on_peers(
    peer: str, core_name: str, tmp_path: Path, instrument: Prototype
) -> None:
    counts = _count(peer, core_name, tmp_path, instrument)
    costs = Costs(model_of(find_core(core_name)), tmp_path)
    ours = sum(block_cycles(join(counts.blocks), costs)) / 1e6
    theirs = instrument.cycles(tmp_path / "prototype.0", core_name)
    print(f"{peer} on {core_name}: {ours:.4f} and {theirs:.4f} million cycles")
    assert ours > 0.05
    assert ours == pytest.approx(theirs, rel=0.03)
