"""A float ONNX file for ncnn: pnnx converts; INT8 scales and file are made here.

Runs in ncnn's own environment: to_ncnn.py JOB.json (see bench/converting.py). The wheels have
neither ncnn2table nor ncnn2int8, so this does what their sources do: weight scales 127 / max a
channel, activation scales of a whole tensor from the threshold with the least Kullback-Leibler
divergence between the histogram and its 128 levels (or the largest value), and requantization
inside of a convolution whose only reader is another one.
"""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ncnn  # type: ignore[import-not-found]
import numpy as np

Array = np.ndarray[Any, Any]
BINS, LEVELS, TOP = 2048, 128, 127
MOST_IMAGES = 100  # all tensors of each pass through Python
FLOAT_FLAG, INT8_FLAG = 0, 0x000D4B38
CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")
WITHOUT_DATA = ("Input", "Flatten", "Split", "BinaryOp", "Clip", "ReLU", "Reshape")


@dataclass
class Layer:
    """One line of a .param file, and its data."""

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    settings: dict[str, str]
    weight: Array = field(default_factory=lambda: np.empty(0, np.float32))
    rest: bytes = b""  # bias or slope, as it stands in the file

    def line(self) -> str:
        """As in the file."""
        settings = " ".join(f"{key}={value}" for key, value in self.settings.items())
        counts = f"{len(self.inputs)} {len(self.outputs)}"
        return " ".join([self.kind, self.name, counts, *self.inputs, *self.outputs, settings])


def read(param: Path, data: bytes) -> list[Layer]:
    """Layers with their data."""
    layers, at = [], 0
    for line in param.read_text().splitlines()[2:]:
        kind, name, read_count, made_count, *words = line.split()
        ins, outs = int(read_count), int(made_count)
        settings = dict(word.split("=", 1) for word in words[ins + outs :])
        layer = Layer(kind, name, words[:ins], words[ins : ins + outs], settings)
        size = 0
        if kind in CONVOLUTIONS:
            count = int(settings["6"])
            if int.from_bytes(data[at : at + 4], "little") != FLOAT_FLAG:
                raise SystemExit(f"{name} does not have float32 weights")
            layer.weight = np.frombuffer(data, "<f4", count, at + 4)
            at += 4 + 4 * count
            size = 4 * int(settings["0"]) if settings.get("5") == "1" else 0
        elif kind == "PReLU":
            size = 4 * int(settings["0"])
        elif kind not in WITHOUT_DATA:
            raise SystemExit(f"the layer {kind} is not known here")
        layer.rest = data[at : at + size]
        at += size
        layers.append(layer)
    if at != len(data):
        raise SystemExit(f"{len(data) - at} bytes of the .bin file are left over")
    return layers


def ranges(
    param: Path, binary: Path, blobs: list[str], images: Array, method: str
) -> dict[str, float]:
    """Of every blob the magnitude that becomes 127: the largest, or by KL the best threshold."""
    net = ncnn.Net()
    net.opt.use_vulkan_compute, net.opt.lightmode = False, False
    net.load_param(str(param))
    net.load_model(str(binary))

    def values(image: Array) -> dict[str, Array]:
        extractor = net.create_extractor()
        extractor.set_light_mode(False)
        extractor.input("in0", ncnn.Mat(image))
        return {blob: np.abs(np.array(extractor.extract(blob)[1]).ravel()) for blob in blobs}

    most = dict.fromkeys(blobs, 1e-9)
    for image in images:
        most = {blob: max(most[blob], float(v.max())) for blob, v in values(image).items()}
    if method != "KL":
        return most
    counts = {blob: np.zeros(BINS) for blob in blobs}
    for image in images:
        for blob, found in values(image).items():
            place = (found[found > 0] * (BINS / most[blob])).astype(np.int32)
            counts[blob] += np.bincount(np.minimum(place, BINS - 1), minlength=BINS)
    return {blob: threshold(most[blob], counts[blob]) for blob in blobs}


def threshold(most: float, counts: Array) -> float:
    """The magnitude whose 128 levels lose the least information."""
    whole = counts / counts.sum()
    best, chosen = np.inf, BINS
    for cut in range(LEVELS, BINS + 1):
        kept = whole[:cut].copy()
        kept[-1] += whole[cut:].sum()
        level = np.arange(cut) * LEVELS // cut
        present = whole[:cut] > 0
        sums = np.bincount(level, whole[:cut], LEVELS)
        shares = sums / np.maximum(np.bincount(level, present, LEVELS), 1)
        expanded = np.where(present, shares[level], 0)
        kept, expanded = kept + 1e-9, expanded + 1e-9
        kept, expanded = kept / kept.sum(), expanded / expanded.sum()
        divergence = float((kept * np.log(kept / expanded)).sum())
        if divergence < best:
            best, chosen = divergence, cut
    return (chosen + 0.5) * most / BINS


def quantized(layers: list[Layer], scales: dict[str, float]) -> tuple[str, bytes]:
    """Both files with int8 convolutions."""
    lines, data = [], []
    for layer in layers:
        if layer.kind not in CONVOLUTIONS:
            lines.append(layer.line())
            data.append(layer.rest)
            continue
        readers = [other for other in layers if layer.outputs[0] in other.inputs]
        fused = len(readers) == 1 and readers[0].kind in CONVOLUTIONS
        layer.settings["8"] = "101" if fused else "1"
        rows = layer.weight.reshape(int(layer.settings["0"]), -1)
        weight_scales = TOP / np.maximum(np.abs(rows).max(1), 1e-9)
        steps = np.clip(np.rint(rows * weight_scales[:, None]), -TOP, TOP).astype(np.int8).tobytes()
        tail = [scales[layer.inputs[0]], *([scales[layer.outputs[0]]] if fused else [])]
        data += [
            INT8_FLAG.to_bytes(4, "little"),
            steps + bytes(-len(steps) % 4),
            layer.rest,
            weight_scales.astype("<f4").tobytes(),
            np.array(tail, "<f4").tobytes(),
        ]
        lines.append(layer.line())
    blobs = {name for layer in layers for name in (*layer.inputs, *layer.outputs)}
    head = f"7767517\n{len(layers)} {len(blobs)}\n"
    return head + "\n".join(lines) + "\n", b"".join(data)


def main(place: str) -> None:
    """Convert one model."""
    job = json.loads(Path(place).read_text(encoding="utf-8"))
    out = Path(job["out"])
    shape = ",".join(map(str, (1, *job["shape"])))
    work = out / "pnnx"
    work.mkdir()
    (work / "m.onnx").write_bytes(Path(job["onnx"]).read_bytes())
    tool = Path(sys.executable).with_name("pnnx")  # beside this environment's Python
    # It rounds weights to half precision by default.
    half = int(job["precision"] == "f16")
    command = [str(tool), "m.onnx", f"inputshape=[{shape}]", f"fp16={half}"]
    subprocess.run(command, cwd=work, check=True, capture_output=True)
    param, binary = work / "m.ncnn.param", work / "m.ncnn.bin"
    text, data, quantizer = param.read_text(), binary.read_bytes(), ""
    if job["precision"] == "int8":
        layers = read(param, data)
        images = np.load(job["calibration"])[: min(MOST_IMAGES, job["images"])]
        blobs = sorted({x.inputs[0] for x in layers if x.kind in CONVOLUTIONS})
        found = ranges(param, binary, blobs, images, job["method"])
        text, data = quantized(layers, {blob: TOP / found[blob] for blob in blobs})
        quantizer = f"scales and file made by mfn-compile after ncnn's sources, {job['method']}, "
        quantizer += f"{len(images)} crops (the wheels have no ncnn2table and ncnn2int8)"
    for path in work.iterdir():
        path.unlink()
    work.rmdir()
    (out / "model.param").write_text(text)
    (out / "model.bin").write_bytes(data)
    print(
        json.dumps(
            {
                "files": ["model.param", "model.bin"],
                "input": "in0",
                "output": "out0",
                "quantizer": quantizer,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
