"""The integer graph on this machine: the same kernels' arithmetic, compiled for the host's CPU."""

from __future__ import annotations

import platform
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray

from mfn_compile import environment
from mfn_compile.arm.codegen import Compiled, Machine, compile_network, with_batch
from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.arm.plan import ALIGNMENT
from mfn_compile.arm.program import has_quantized_input, stored_channels


def host_machine() -> Machine:
    """The best code that this CPU runs."""
    flags = environment.cpu_flags()
    if platform.machine() in ("aarch64", "arm64"):
        triple = "aarch64-linux-gnu"
        if "asimddp" in flags:
            return Machine("dotprod", triple, "cortex-a76", ("neon", "dotprod"))
        return Machine("neon", triple, "cortex-a53", ("neon",))
    triple = "x86_64-linux-gnu"
    if {"avx2", "fma"} <= flags:
        return Machine("avx2", triple, "x86-64-v3")
    return Machine("generic", triple, "x86-64-v2")


class HostNetwork:
    """A network compiled for this machine, callable from several threads.

    Args:
        graph: what is computed.
        keep: every tensor of a run can be read with `tensors` (no two share memory).
        machine: what code is generated for; this CPU must run it.
        strips: see `make_program`; by default none with `keep`.
    """

    def __init__(
        self,
        graph: IntegerGraph,
        *,
        keep: bool = False,
        machine: Machine | None = None,
        strips: Mapping[str, int] | None = None,
    ) -> None:
        self._graph = graph
        machine = machine or host_machine()
        self._compiled: Compiled = compile_network(graph, machine, overlap=not keep, strips=strips)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "host.ll")
            path.write_text(with_batch(self._compiled), encoding="utf-8")
            self._module: Any = tvm.runtime.load_module(str(path))
        self._run = self._module["mfn_batch"]
        self._local = threading.local()

    def embed(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Embeddings float32 [N, D] of uint8 RGB, or quantized int8, images [N, H, W, 3].

        Raises:
            ValueError: images of another size or type, or int8 for a network whose first layer
                computes in float.
        """
        shape = (self._graph.height, self._graph.width, 3)
        if images.shape[1:] != shape or images.dtype not in (np.uint8, np.int8):
            raise ValueError(f"images are {images.dtype} {images.shape}, not N x {shape}")
        if images.dtype == np.int8 and not has_quantized_input(self._graph):
            raise ValueError(
                "images are int8, but the network's first layer computes in float: "
                "it takes uint8 RGB only"
            )
        pixels = np.ascontiguousarray(images)
        found = np.empty((len(images), self._graph.embedding), np.float32)
        place = self._workspace().ctypes.data
        quantized = int(images.dtype == np.int8)
        self._run(len(images), pixels.ctypes.data, found.ctypes.data, place, quantized)
        return found

    def tensors(self, image: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Every tensor [H, W, C] after a run on one image [H, W, 3]; needs `keep`."""
        self.embed(image[None])
        return read_tensors(self._compiled, self._workspace().tobytes())

    def _workspace(self) -> NDArray[np.uint8]:
        """This thread's workspace, aligned."""
        if not hasattr(self._local, "workspace"):
            self._local.workspace = aligned(self._compiled.plan.peak)
        found: NDArray[np.uint8] = self._local.workspace
        return found


def aligned(size: int) -> NDArray[np.uint8]:
    """Zeroed bytes at an address that is a multiple of the workspace's alignment."""
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


def read_tensors(compiled: Compiled, workspace: bytes) -> dict[str, NDArray[Any]]:
    """Tensors [H, W, C] in a workspace whose plan does not overlap, but for those in strips."""
    found = {}
    for name in compiled.program.sizes:
        tensor = compiled.program.graph.tensors[name]
        channels = stored_channels(compiled.program.graph, tensor)
        count = tensor.height * tensor.width * channels
        offset = compiled.plan.offset(name)
        values = np.frombuffer(workspace, tensor.dtype, count, offset)
        found[name] = values.reshape(tensor.height, tensor.width, channels)[..., : tensor.channels]
    return found
