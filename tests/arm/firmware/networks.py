"""Firmware folders of real networks, small ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from mfn_compile.arm.artifact import make_firmware
from mfn_compile.arm.embedder import IntegerEmbedder
from mfn_compile.arm.firmware.linker import native_aarch64
from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.arm.reader import read_graph
from mfn_compile.progress import SilentProgress
from mfn_compile.results import CheckpointInfo, Firmware
from mfn_compile.target import load_target
from tests.arm.firmware import stub
from tests.arm.qdq_files import PREPROCESSING, Net, images


@dataclass(frozen=True, eq=False)
class Made:
    """A network with its firmware files, and what is known about them."""

    graph: IntegerGraph
    firmware: Firmware
    bundle: Path

    @property
    def archive(self) -> Path:
        """The static library."""
        return self.bundle / "lib/libmfn.a"

    @property
    def header(self) -> str:
        """Text of mfn.h."""
        return (self.bundle / "include/mfn.h").read_text()

    @property
    def readme(self) -> str:
        """Text of README.md."""
        return (self.bundle / "README.md").read_text()


def need_tools() -> None:
    """Skip where a library cannot be linked and run."""
    stub.cross()
    if not native_aarch64():
        stub.tool("qemu-aarch64")


def crops(count: int = 5) -> NDArray[np.uint8]:
    """uint8 RGB [count, 112, 112, 3], of which the small networks read the middle."""
    whole = np.zeros((count, 112, 112, 3), np.uint8)
    PREPROCESSING.crop(whole)[:] = images(count)
    return whole


def make(model: onnx.ModelProto, folder: Path, target: str = "arm64") -> Made:
    """Everything that a compilation writes; the library's own proof has run."""
    need_tools()
    qdq = folder / "network.onnx"
    onnx.save(model, qdq)
    graph = read_graph(qdq, PREPROCESSING)
    checkpoint = CheckpointInfo(
        name="small.pt",
        sha256="0123456789abcdef" * 4,
        layout="by hand",
        parameters=1,
        macs=1,
        embedding_width=graph.embedding,
        activations=("relu6",),
        preprocessing=PREPROCESSING,
    )
    bundle = folder / "firmware"
    ours = IntegerEmbedder(qdq, PREPROCESSING)
    firmware = make_firmware(
        graph, load_target(target), checkpoint, qdq, crops(), ours, bundle, SilentProgress()
    )
    return Made(graph, firmware, bundle)


def integer_network() -> onnx.ModelProto:
    """Every layer int8: dense, depthwise, a residual addition, the embedding."""
    net = Net(3)
    x = net.qdq("input", 1 / 64)
    x = net.qdq(net.relu6(net.conv(x, 8, 3, 3, stride=2)), 1 / 32)
    y = net.qdq(net.prelu(net.conv(x, 8, 8, 3, groups=8), 8), 1 / 32)
    x = net.qdq(net.op("Add", x, net.qdq(net.conv(y, 8, 8), 1 / 64)), 1 / 32)
    return net.model(net.head(x, 8, 8))
