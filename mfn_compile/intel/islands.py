"""Single layers back in float32: which may gain by it, and the change itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from mfn_compile.errors import InternalCheckError
from mfn_compile.intel.execution import WEIGHTED

RUNS = 40
WARM_UP = 8
# What the frontend makes of a DequantizeLinear and the QuantizeLinear before it.
BETWEEN = frozenset({"Multiply", "Subtract", "Convert"})
CONVOLUTIONS = frozenset({"Convolution", "GroupConvolution"})


def layer_seconds(compiled: ov.CompiledModel, tensor: NDArray[np.float32]) -> dict[str, float]:
    """Median time of every convolution by its name, in seconds, of a model with PERF_COUNT."""
    request = compiled.create_infer_request()
    found: dict[str, list[float]] = {}
    for run in range(WARM_UP + RUNS):
        request.infer({0: tensor}, share_inputs=True)
        for row in request.get_profiling_info() if run >= WARM_UP else ():
            if row.node_type in WEIGHTED | CONVOLUTIONS:
                found.setdefault(row.node_name, []).append(row.real_time.total_seconds())
    return {name: float(np.median(times)) for name, times in found.items()}


@dataclass(frozen=True)
class LayerGain:
    """A convolution, its seconds in INT8, and how many fewer it takes in the float network."""

    name: str
    seconds: float
    gain: float


def by_gain(int8: dict[str, float], fp32: dict[str, float]) -> list[LayerGain]:
    """Layers of both networks, the best in float32 first.

    It is a guess where to look: layers that then hand on float32 cost their neighbours more.
    """
    gains = [LayerGain(name, int8[name], int8[name] - fp32[name]) for name in int8 if name in fp32]
    return sorted(gains, key=lambda layer: -layer.gain)


def make_float(model: ov.Model, names: Iterable[str]) -> None:
    """Give the named convolutions the float values that their INT8 inputs were quantized from.

    Their weights stay the quantized ones, so that they only lose the rounding of the input.

    Raises:
        InternalCheckError: there is no such convolution with a quantized input.
    """
    wanted = set(names)
    for node in model.get_ordered_ops():
        if node.get_friendly_name() in wanted and node.get_type_name() in CONVOLUTIONS:
            source = _before_quantizer(node)
            if source is not None:
                node.input(0).replace_source_output(source)
                wanted.remove(node.get_friendly_name())
    if wanted:
        raise InternalCheckError(
            "A layer cannot be computed in float32",
            where=", ".join(sorted(wanted)),
            why="the network has no such convolution with a quantized input",
        )
    model.validate_nodes_and_infer_types()


def _before_quantizer(node: ov.Node) -> ov.Output | None:
    source = node.input_value(0)
    while source.get_node().get_type_name() in BETWEEN:
        source = source.get_node().input_value(0)
    found = source.get_node()
    return found.input_value(0) if found.get_type_name() == "FakeQuantize" else None
