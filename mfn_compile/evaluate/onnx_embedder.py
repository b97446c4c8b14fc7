"""Runs an ONNX file with ONNX Runtime: the outside judge of what a QDQ file computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mfn_compile.errors import BadInputError, InternalCheckError
from mfn_compile.evaluate.decode import map_cores
from mfn_compile.evaluate.imageset import combine_digests
from mfn_compile.hashing import file_sha256
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.onnx_session import ORT_ERRORS, open_session

_BATCH = 8  # images a call where the batch is dynamic


class OnnxRuntimeEmbedder:
    """An ONNX network with one image input and one embedding output.

    Args:
        path: the file; its input is float32 [N, 3, height, width], N fixed or dynamic.
        preprocessing: turns crops into that input.
        optimize: False runs the graph node by node as written, QDQ in float: the judge.
        threads: images or batches computed at a time, one thread each; 0 takes all cores. Threads
            inside of an operator would wait for each other on a busy machine.

    Raises:
        BadInputError: ONNX Runtime cannot load the file, or its input is another one.
    """

    def __init__(
        self, path: Path, preprocessing: Preprocessing, *, optimize: bool, threads: int = 0
    ) -> None:
        self._preprocessing = preprocessing
        self._threads = threads
        try:
            self._session = open_session(path, optimized=optimize, threads=1)
            sha256 = file_sha256(path)
        except (*ORT_ERRORS, OSError, RuntimeError, ValueError) as error:
            raise BadInputError(
                "ONNX Runtime cannot load the network", where=str(path), why=str(error)[:300]
            ) from error
        image = self._session.get_inputs()[0]
        expected = [3, preprocessing.height, preprocessing.width]
        if list(image.shape[1:]) != expected:
            raise BadInputError(
                "the network's input does not match its preprocessing",
                where=str(path),
                why=f"shape {image.shape}, expected N x {' x '.join(map(str, expected))}",
            )
        self._input = image.name
        self._batch = image.shape[0] if isinstance(image.shape[0], int) else _BATCH
        self._fixed = isinstance(image.shape[0], int)
        self.key = combine_digests(
            "onnxruntime",
            onnxruntime.__version__,
            "optimized" if optimize else "as written",
            sha256,
            preprocessing.model_dump_json(),
        )

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB crops uint8 [n, 112, 112, 3] to float32 [n, D]."""
        starts = range(0, len(crops), self._batch)
        batches = (crops[start : start + self._batch] for start in starts)
        return np.concatenate(list(map_cores(self._embed_batch, batches, self._threads)))

    def _embed_batch(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = self._preprocessing.apply(crops)
        if self._fixed and len(crops) < self._batch:  # a fixed batch takes no shorter one
            filler = np.zeros((self._batch - len(crops), *pixels.shape[1:]), np.float32)
            pixels = np.concatenate([pixels, filler])
        result = np.asarray(self._session.run(None, {self._input: pixels})[0], np.float32)
        if len(result) != len(pixels):
            raise InternalCheckError(f"{len(pixels)} images gave an output of shape {result.shape}")
        return result.reshape(len(result), -1)[: len(crops)]
