"""A float ONNX file for LiteRT: as a torch module through litert-torch, ai-edge-quantizer for INT8.

Runs in LiteRT's own environment: to_litert.py JOB.json (see bench/converting.py).
"""

import json
import sys
from pathlib import Path
from typing import Any

import litert_torch  # type: ignore[import-not-found]
import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

REDUCED = "reduced_precision_support"  # metadata that lets XNNPACK compute in half precision
HALF = b"fp16accfp16"


class OnnxModule(torch.nn.Module):
    """The layers of a MobileFaceNet's ONNX file, as litert-torch wants them: a torch module."""

    def __init__(self, path: str) -> None:
        super().__init__()
        graph = onnx.load(path).graph
        self._values = {i.name: numpy_helper.to_array(i).copy() for i in graph.initializer}
        self._input, self._output = graph.input[0].name, graph.output[0].name
        self._steps = []
        for index, node in enumerate(graph.node):
            if node.op_type == "Constant":
                value = helper.get_attribute_value(node.attribute[0])
                self._values[node.output[0]] = numpy_helper.to_array(value)
                continue
            layer = self._layer(node)
            if isinstance(layer, torch.nn.Module):
                self.add_module(f"layer{index}", layer)
            inputs = [name for name in node.input if name and name not in self._values]
            self._steps.append((layer, inputs, node.output[0]))

    def _layer(self, node: onnx.NodeProto) -> Any:
        values = [self._values.get(name) for name in node.input]
        kind = node.op_type
        if kind == "Conv":
            return _convolution(node, values)
        if kind == "PRelu" and values[1] is not None:
            layer = torch.nn.PReLU(values[1].size)
            layer.weight.data = torch.from_numpy(values[1].reshape(-1))
            return layer
        if kind == "Clip" and values[1] is not None and values[2] is not None:
            low, high = float(values[1]), float(values[2])
            return torch.nn.ReLU6() if (low, high) == (0, 6) else torch.nn.Hardtanh(low, high)
        simple = {"Relu": torch.nn.ReLU, "Flatten": torch.nn.Flatten}
        if kind in simple:
            return simple[kind]()
        if kind == "Add":
            return torch.add
        raise SystemExit(f"the layer {kind} has no counterpart here")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """One embedding."""
        found = {self._input: image}
        for layer, inputs, output in self._steps:
            found[output] = layer(*(found[name] for name in inputs))
        return found[self._output]


def _convolution(node: onnx.NodeProto, values: list[Any]) -> torch.nn.Module:
    known = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    weight = values[1]
    groups, pads = known.get("group", 1), known.get("pads", [0, 0, 0, 0])
    layer = torch.nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        weight.shape[2:],
        stride=tuple(known.get("strides", (1, 1))),
        padding=tuple(pads[:2]),
        groups=groups,
        bias=len(values) > 2,
    )
    layer.weight.data = torch.from_numpy(weight)
    if layer.bias is not None:
        layer.bias.data = torch.from_numpy(values[2])
    return layer


def quantize(job: dict[str, Any], source: Path, out: Path) -> str:
    """ai-edge-quantizer's static recipe: int8 weights a channel, int8 activations."""
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]  # noqa: PLC0415
    from ai_edge_quantizer import quantizer, recipe  # type: ignore[import-not-found]  # noqa: PLC0415

    signatures = Interpreter(str(source)).get_signature_list()
    name, signature = next(iter(signatures.items()))
    tool = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    images = np.load(job["calibration"])[: job["images"]].transpose(0, 2, 3, 1)
    samples = [{signature["inputs"][0]: np.ascontiguousarray(image[None])} for image in images]
    tool.quantize(tool.calibrate({name: samples})).export_model(str(out), overwrite=True)
    return f"ai-edge-quantizer static_wi8_ai8, {job['images']} crops"


def allow_half(source: Path, out: Path) -> None:
    """Mark a float model as good for half precision, as XNNPACK asks for."""
    import flatbuffers  # type: ignore[import-untyped]  # noqa: PLC0415 - only for this precision
    from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-not-found]  # noqa: PLC0415

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(source.read_bytes(), 0))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(HALF, np.uint8)
    entry.name, entry.buffer = REDUCED, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    out.write_bytes(bytes(builder.Output()))


def main(place: str) -> None:
    """Convert one model."""
    job = json.loads(Path(place).read_text(encoding="utf-8"))
    out = Path(job["out"], "model.tflite")
    plain = out if job["precision"] == "f32" else out.with_name("float.tflite")
    module = litert_torch.to_channel_last_io(OnnxModule(job["onnx"]).eval(), args=[0])
    channels, height, width = job["shape"]
    litert_torch.convert(module, (torch.zeros(1, height, width, channels),)).export(str(plain))
    quantizer = ""
    if job["precision"] == "int8":
        quantizer = quantize(job, plain, out)
    elif job["precision"] == "f16":
        allow_half(plain, out)
        quantizer = f"metadata {REDUCED}: {HALF.decode()}"
    if plain != out:
        plain.unlink()
    print(json.dumps({"files": [out.name], "quantizer": quantizer}))


if __name__ == "__main__":
    main(*sys.argv[1:])
