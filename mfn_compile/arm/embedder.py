"""Embeddings of the integer network over many crops, on all cores of this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm.host import HostNetwork, host_machine
from mfn_compile.arm.reader import read_graph
from mfn_compile.evaluate.decode import map_cores
from mfn_compile.hashing import file_sha256, value_sha256
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.store import source_sha256, tool_version

_CHUNK = 16  # images a call, so that cores share the work evenly


class IntegerEmbedder:
    """Computes what the compiled library computes, bit for bit, with this CPU's instructions.

    Attributes:
        key: content key of network, compiler, kernels and preprocessing.
    """

    def __init__(self, qdq: Path, preprocessing: Preprocessing) -> None:
        self._qdq, self._preprocessing = qdq, preprocessing
        self._network: HostNetwork | None = None
        self.key = value_sha256(
            {
                "qdq": file_sha256(qdq),
                "runtime": f"integer graph, tvm {tool_version('apache-tvm')}",
                "kernels": host_machine().isa,
                "code": [source_sha256(name) for name in ("arm", "model", "rounding")],
                "preprocessing": preprocessing.model_dump(mode="json"),
            }
        )

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB crops [N, 112, 112, 3] to float32 embeddings [N, D].

        Raises:
            BadInputError: the QDQ file has a layer that the integer graph does not take.
        """
        if self._network is None:
            self._network = HostNetwork(read_graph(self._qdq, self._preprocessing))
        images = self._preprocessing.crop(crops)
        chunks = (images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK))
        return np.concatenate(list(map_cores(self._network.embed, chunks)))
