"""Embedding arithmetic that several stages need."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine a row of two [N, D] arrays, computed in float64; 0 where either row is zero."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    product = (x * y).sum(axis=1)
    cosine: NDArray[np.float64] = np.divide(
        product, norms, out=np.zeros_like(product), where=norms > 0
    )
    return cosine
