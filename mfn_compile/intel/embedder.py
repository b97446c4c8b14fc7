"""Embeddings of the compiled artifact over many crops, on all cores, with its own properties."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from mfn_compile import environment
from mfn_compile.hashing import file_sha256, value_sha256
from mfn_compile.intel.interface import Interface, feed, interface_of
from mfn_compile.intel.runtime import compile_model, limit_isa, throughput_properties
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.store import tool_version


class OpenVinoEmbedder:
    """Runs an IR image by image, as it is shipped; compiled on the first call.

    Attributes:
        key: content key of weights, runtime, CPU features and preprocessing.
    """

    def __init__(
        self,
        xml: Path,
        preprocessing: Preprocessing,
        device: str = "CPU",
        isa: str | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        self._xml, self._preprocessing, self._device, self._isa = xml, preprocessing, device, isa
        self._properties = throughput_properties(properties or {}, environment.cores())
        self._queue: ov.AsyncInferQueue | None = None
        self._interface: Interface = "planes"
        self.key = value_sha256(
            {
                "xml": file_sha256(xml),
                "bin": file_sha256(xml.with_suffix(".bin")),
                "runtime": f"openvino {tool_version('openvino')} {device}",
                "flags": environment.relevant_flags(),
                "isa": isa,
                "properties": self._properties,
                "preprocessing": preprocessing.model_dump(mode="json"),
            }
        )

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB crops [N, 112, 112, 3] to float32 embeddings [N, D].

        Raises:
            DeviceError: the device is absent or refuses the model.
        """
        if self._queue is None:
            limit_isa(self._isa)
            compiled = compile_model(self._xml, self._device, self._properties)
            self._queue, self._interface = ov.AsyncInferQueue(compiled), interface_of(compiled)
        tensors = feed(crops, self._interface, self._preprocessing)
        found: list[NDArray[np.float32] | None] = [None] * len(tensors)

        def keep(request: ov.InferRequest, index: int) -> None:
            found[index] = request.get_output_tensor(0).data[0].copy()

        self._queue.set_callback(keep)
        for index, tensor in enumerate(tensors):
            self._queue.start_async({0: tensor[None]}, index)
        self._queue.wait_all()
        return np.stack([row for row in found if row is not None]).astype(np.float32)
