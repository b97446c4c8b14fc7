"""A walk through a network: a layer may change before the ones behind it run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from mfn_compile.onnx_session import open_session
from mfn_compile.quantize.equalize import with_outputs
from mfn_compile.quantize.graph import Graph, attribute
from mfn_compile.quantize.onnxruntime_session import Floats, Judge

Doubles = NDArray[np.float64]


class Sweep:
    """Tensors of a network over all images, each node run once, as late as possible.

    Args:
        graph: the network; initializers of nodes that were not needed yet may still be changed.
        images: preprocessed images float32 [N, 3, H, W].
    """

    def __init__(self, graph: Graph, images: Floats) -> None:
        self._graph = graph
        entry = graph.model.graph.input[0]
        first = entry.type.tensor_type.shape.dim[0]
        size = first.dim_value if first.HasField("dim_value") else len(images)
        starts = range(0, len(images), size)
        self._known: dict[str, list[NDArray[Any]]] = {
            entry.name: [images[start : start + size] for start in starts]
        }
        self._run: set[str] = set()  # nodes by their first output

    def tensor(self, name: str) -> list[Floats]:
        """The tensor `name`, a batch at a time; asked for in execution order."""
        if name not in self._known:
            self._advance(name)
        return self._known[name]

    def _advance(self, name: str) -> None:
        nodes = self._missing(name)
        self._run |= {node.output[0] for node in nodes}
        made = [out for node in nodes for out in node.output]
        outputs = [out for out in made if out == name or self._needed_later(out)]
        fed = [i for i in dict.fromkeys(i for n in nodes for i in n.input) if i in self._known]
        session = self._session(nodes, fed, outputs)
        batches = len(next(iter(self._known.values())))
        results = [
            session.run(outputs, {i: self._known[i][batch] for i in fed})
            for batch in range(batches)
        ]
        for place, out in enumerate(outputs):
            self._known[out] = [result[place] for result in results]
        self._known = {k: v for k, v in self._known.items() if k == name or self._needed_later(k)}

    def _missing(self, name: str) -> list[Any]:
        """Nodes between what is known and `name`, in execution order."""
        wanted, found = [name], set()
        while wanted:
            source = self._graph.producer.get(wanted.pop())
            if source is None or source.output[0] in found:
                continue
            found.add(source.output[0])
            wanted += [i for i in source.input if i not in self._known]
        return [node for node in self._graph.nodes if node.output[0] in found]

    def _needed_later(self, name: str) -> bool:
        return any(node.output[0] not in self._run for node in self._graph.consumers[name])

    def _session(self, nodes: list[Any], fed: list[str], outputs: list[str]) -> Any:
        used = {name for node in nodes for name in node.input}
        kinds = {i: onnx.helper.np_dtype_to_tensor_dtype(self._known[i][0].dtype) for i in fed}
        part = onnx.helper.make_graph(
            nodes,
            "part",
            [onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [tensor for tensor in self._graph.model.graph.initializer if tensor.name in used],
        )
        whole = self._graph.model
        model = onnx.helper.make_model(part, opset_imports=whole.opset_import)
        model.ir_version = whole.ir_version
        threads = len(os.sched_getaffinity(0))
        return open_session(model.SerializeToString(), optimized=False, threads=threads)


@dataclass(frozen=True, eq=False)
class Taps:
    """What meets each weight of a convolution, over all images and positions: [I, kh, kw].

    Padding counts: with it, the mean output of a row w is exactly the sum of w times `mean`.
    """

    mean: Doubles
    variance: Doubles


def taps(conv: Any, kernel: tuple[int, int], batches: list[Floats]) -> Taps:
    """Moments of the input of `conv`, whose kernel is [kh, kw]."""
    top, left, bottom, right = attribute(conv, "pads", [0, 0, 0, 0])
    stride = attribute(conv, "strides", [1, 1])
    spread = attribute(conv, "dilations", [1, 1])
    sums = np.zeros((2, batches[0].shape[1], *kernel))
    for batch in batches:
        x = np.pad(batch, ((0, 0), (0, 0), (top, bottom), (left, right)))
        high = (x.shape[2] - spread[0] * (kernel[0] - 1) - 1) // stride[0] + 1
        wide = (x.shape[3] - spread[1] * (kernel[1] - 1) - 1) // stride[1] + 1
        for place in np.ndindex(*kernel):
            down, along = (p * s for p, s in zip(place, spread, strict=True))
            seen = x[:, :, down :: stride[0], along :: stride[1]][:, :, :high, :wide]
            seen = seen.astype(np.float64)
            sums[0, :, *place] += len(batch) * seen.mean(axis=(0, 2, 3))
            sums[1, :, *place] += len(batch) * np.square(seen).mean(axis=(0, 2, 3))
    mean, square = sums / sum(len(batch) for batch in batches)
    return Taps(mean, np.maximum(square - mean**2, 0.0))


def channel_means(model: onnx.ModelProto, names: list[str], images: Floats) -> list[Doubles]:
    """Mean of every channel of each tensor [N, C, H, W], over all images and positions."""
    judge = Judge(with_outputs(model, names).SerializeToString(), outputs=names)
    totals: list[Doubles] = [np.zeros(()) for _ in names]
    for outputs in judge.batches(images):
        totals = [
            total + len(value) * value.mean(axis=(0, 2, 3), dtype=np.float64)
            for total, value in zip(totals, outputs, strict=True)
        ]
    return [total / len(images) for total in totals]
