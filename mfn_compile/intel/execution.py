"""What OpenVINO really runs, read from its execution graph."""

from __future__ import annotations

from collections import Counter

import openvino as ov

from mfn_compile.results import Precision

INT8 = frozenset({"u8", "i8"})
WEIGHTED = frozenset({"Convolution", "FullyConnected", "MatMul", "Deconvolution"})
PLUMBING = frozenset({"Input", "Output", "Const", "Result", "Parameter"})


def precision(compiled: ov.CompiledModel) -> Precision:
    """Count the weighted layers that compute in i8/u8 and name those that do not."""
    int8, floats, others = 0, [], Counter[str]()
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        kind, runs_in = (info[key].astype(str) for key in ("layerType", "runtimePrecision"))
        if kind not in WEIGHTED:
            if kind not in PLUMBING:
                others[f"{kind} {runs_in}"] += 1
        elif runs_in in INT8:
            int8 += 1
        else:
            floats.append(f"{node.get_friendly_name()}: {runs_in}")
    return Precision(
        int8_layers=int8, float_layers=tuple(floats), other_layers=dict(sorted(others.items()))
    )
