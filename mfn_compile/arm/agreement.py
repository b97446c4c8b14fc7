"""The oracle against ONNX Runtime with its optimizations off, value by value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from mfn_compile.arm import oracle
from mfn_compile.arm.graph import IntegerGraph
from mfn_compile.arm.reader import read_graph, read_unfused
from mfn_compile.errors import InternalCheckError
from mfn_compile.model.preprocessing import Preprocessing
from mfn_compile.onnx_session import open_session
from mfn_compile.vectors import cosines

Array = NDArray[Any]


@dataclass(frozen=True)
class Agreement:
    """Int8 values of all tensors and images.

    values: how many were compared.
    end_to_end: how many differ when the oracle starts from the image.
    by_layer: how many differ when each node gets ONNX Runtime's own inputs; `largest` by how much.
    """

    values: int
    end_to_end: int
    by_layer: int
    largest: int
    worst: str
    cosine: float
    embedding_difference: float
    embedding_size: float

    @property
    def rate(self) -> float:
        """Share of values that differ layer by layer."""
        return self.by_layer / self.values


def compare(
    model: onnx.ModelProto | Path, crops: NDArray[np.uint8], preprocessing: Preprocessing
) -> Agreement:
    """Run both on uint8 RGB crops [N, 112, 112, 3].

    Raises:
        InternalCheckError: fusing the residual additions changed a value.
        BadInputError: the file is no QDQ network that the reader takes.
    """
    proto = onnx.load(model) if isinstance(model, Path) else model
    graph, fused = read_unfused(proto, preprocessing), read_graph(proto, preprocessing)
    names = [n.output for n in graph.nodes if graph.tensors[n.output].dtype == "int8"]
    values = end_to_end = largest = 0
    by_layer = dict.fromkeys(names, 0)
    ours, theirs = [], []
    references = _reference(proto, names, preprocessing.apply(crops))
    for image, (embedding, reference) in zip(preprocessing.crop(crops), references, strict=True):
        found = oracle.run(graph, image)
        _check_fusion(fused, found, image)
        for name in names:
            values += reference[name].size
            end_to_end += int((found[name] != reference[name]).sum())
        for name, difference in _layers(graph, found, reference):
            by_layer[name] += int((difference > 0).sum())
            largest = max(largest, int(difference.max()))
        ours.append(found[graph.output].reshape(-1))
        theirs.append(embedding.reshape(-1))
    mine, judge = np.stack(ours), np.stack(theirs)
    return Agreement(
        values=values,
        end_to_end=end_to_end,
        by_layer=sum(by_layer.values()),
        largest=largest,
        worst=max(by_layer, key=lambda n: by_layer[n]),
        cosine=float(cosines(mine, judge).min()),
        embedding_difference=float(np.abs(mine - judge).max()),
        embedding_size=float(np.abs(judge).max()),
    )


def _check_fusion(fused: IntegerGraph, found: dict[str, Array], image: NDArray[np.uint8]) -> None:
    for name, value in oracle.run(fused, image).items():
        if not np.array_equal(value, found[name]):
            raise InternalCheckError("Fusing residual additions changed a value", where=name)


def _layers(graph: IntegerGraph, found: dict[str, Array], reference: dict[str, Array]) -> Any:
    """(tensor, |difference|) of every int8 tensor, from ONNX Runtime's int8 tensors before it."""
    first = graph.nodes[0].output
    known = {first: found[first], **reference}
    if first in reference:
        yield first, np.abs(found[first].astype(int) - reference[first])
    for node in graph.nodes[1:]:
        value = oracle.run_node(node, known)
        if node.output in reference:
            yield node.output, np.abs(value.astype(int) - reference[node.output])
        known.setdefault(node.output, value)


def _reference(proto: onnx.ModelProto, names: list[str], batch: Array) -> Any:
    """(embedding, int8 tensors [H, W, C] by name) of ONNX Runtime, image by image."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(proto)
    inferred = {v.name: v for v in onnx.shape_inference.infer_shapes(proto).graph.value_info}
    exposed.graph.output.extend(inferred[name] for name in names)
    session = open_session(exposed.SerializeToString(), optimized=False, threads=1)
    entry = session.get_inputs()[0].name
    for image in batch:
        embedding, *tensors = session.run(None, {entry: image[None]})
        yield embedding, {n: _signed(t) for n, t in zip(names, tensors, strict=True)}


def _signed(tensor: Array) -> Array:
    """[1, C, H, W] or [1, C], int8 or uint8, to int8 [H, W, C]."""
    signed = (tensor.astype(np.int16) - 128).astype(np.int8) if tensor.dtype == np.uint8 else tensor
    return signed[0].transpose(1, 2, 0) if signed.ndim == 4 else signed.reshape(1, 1, -1)
