"""The oracle against ONNX Runtime, on images of a small network's own size."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from mfn_compile.arm import agreement
from mfn_compile.arm.reader import read_graph
from mfn_compile.model.preprocessing import Preprocessing
from tests.arm.qdq_files import PREPROCESSING, images


def compare(
    model: onnx.ModelProto | Path, rgb: NDArray[np.uint8], given: Preprocessing = PREPROCESSING
) -> agreement.Agreement:
    """Compare on uint8 RGB [N, H, W, 3]."""
    whole = np.zeros((len(rgb), 112, 112, 3), np.uint8)
    given.crop(whole)[:] = rgb
    return agreement.compare(model, whole, given)


def assert_exact(model: onnx.ModelProto, given: Preprocessing = PREPROCESSING) -> None:
    """Every int8 value is ONNX Runtime's, and so is the embedding up to its own rounding."""
    found = compare(model, images(size=given.height), given)
    assert found.values > 0
    assert (found.end_to_end, found.by_layer) == (0, 0), found
    assert found.embedding_difference <= 1e-5 * max(found.embedding_size, 1e-6), found


def kinds(model: onnx.ModelProto, given: Preprocessing = PREPROCESSING) -> Counter[str]:
    """How many nodes of each type the graph has."""
    return Counter(type(node).__name__ for node in read_graph(model, given).nodes)
