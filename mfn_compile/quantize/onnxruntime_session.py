"""ONNX Runtime as the outside judge: no graph optimizations, so QDQ is computed as written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfn_compile.onnx_session import open_session

Floats = NDArray[np.float32]
BATCH = 16  # images a run where the graph's batch axis is free


class Judge:
    """One ONNX network, float32 [N, 3, H, W] in, named tensors out.

    Args:
        model: path, or the serialized file.
        outputs: tensors to return; None for the graph's own outputs.
        threads: intra-operator threads; None for one a core.
        optimized: let ONNX Runtime rewrite the graph; only for float networks.
    """

    def __init__(
        self,
        model: Path | bytes,
        *,
        outputs: Sequence[str] | None = None,
        threads: int | None = None,
        optimized: bool = False,
    ) -> None:
        self._session = open_session(
            model, optimized=optimized, threads=threads or len(os.sched_getaffinity(0))
        )
        entry = self._session.get_inputs()[0]
        self._input: str = entry.name
        # a free batch axis has a name or nothing instead of a number
        self.batch = entry.shape[0] if isinstance(entry.shape[0], int) else BATCH
        self._outputs = list(outputs) if outputs is not None else None

    def run(self, images: Floats) -> list[Floats]:
        """The chosen tensors of at most `batch` images."""
        return list(self._session.run(self._outputs, {self._input: images}))

    def batches(self, images: Floats) -> Iterator[list[Floats]]:
        """`run` over [N, 3, H, W], a batch at a time."""
        for start in range(0, len(images), self.batch):
            yield self.run(images[start : start + self.batch])

    def embed(self, images: Floats) -> Floats:
        """Embeddings float32 [N, D]."""
        return np.concatenate([outputs[0] for outputs in self.batches(images)])
