"""How this package opens ONNX Runtime: one place for its settings and its errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

# ONNX Runtime's own exceptions have no common base below Exception.
ORT_ERRORS = (
    ort_state.Fail,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.NoSuchFile,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
)


def open_session(model: Path | bytes, *, optimized: bool, threads: int) -> Any:
    """A session on the CPU.

    Args:
        model: the file, or its content.
        optimized: False runs the graph node by node as written, QDQ in float: the judge.
        threads: inside of an operator.

    Raises:
        one of ORT_ERRORS: the model cannot be loaded.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its errors come as exceptions
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
