"""How far a quantized network's embeddings turn away from the float ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.quantize.onnxruntime_session import Floats, Judge
from mfn_compile.vectors import cosines


@dataclass(frozen=True)
class Agreement:
    """Embedding cosine over images."""

    mean: float
    minimum: float


class HeldOut:
    """Held-out crops with the float network's embeddings, to judge candidates against.

    Args:
        fp32: the float ONNX file.
        crops: uint8 RGB [n, 112, 112, 3].
        preprocessing: input contract of the network.
    """

    def __init__(
        self, fp32: Path | bytes, crops: NDArray[np.uint8], preprocessing: Preprocessing
    ) -> None:
        self.images = preprocessing.apply(crops)
        self.reference = Judge(fp32, optimized=True).embed(self.images)

    def judge(self, qdq: Path | bytes) -> Agreement:
        """Agreement of a QDQ file, computed as written."""
        return self.agreement(Judge(qdq).embed(self.images))

    def agreement(self, embeddings: Floats) -> Agreement:
        """Agreement of embeddings float32 [n, D] of the same crops."""
        values = cosines(self.reference, embeddings)
        return Agreement(float(values.mean()), float(values.min()))
