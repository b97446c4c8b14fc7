"""A float ONNX file for MNN by its converter, quantized by its quantizer.

Runs in MNN's own environment: to_mnn.py JOB.json (see bench/converting.py). The extension module
`_tools` is called and not the commands mnnconvert and mnnquant around it: those install a logging
package with pip, and send the model's size and options to MNN's authors.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import _tools as tools  # type: ignore[import-not-found]
import numpy as np


def convert(job: dict[str, Any], out: Path) -> None:
    """What `mnnconvert` does; MNN's converter folds and fuses by itself."""
    options = ("-f", "ONNX", "--modelFile", job["onnx"], "--MNNModel", str(out))
    half = ("--fp16",) if job["precision"] == "f16" else ()
    tools.mnnconvert(["mnnconvert", *options, "--bizCode", "bench", *half])


def quantize(job: dict[str, Any], source: Path, out: Path) -> str:
    """What `mnnquant` does, on the crops as image files."""
    folder, config = out.with_name("calibration"), out.with_name("quantize.json")
    folder.mkdir(exist_ok=True)
    pixels = np.load(job["pixels"])[: job["images"]]
    for index, image in enumerate(pixels):
        head = f"P6 {image.shape[1]} {image.shape[0]} 255\n".encode("ascii")
        (folder / f"{index:04d}.ppm").write_bytes(head + image.tobytes())
    settings = {
        "format": "RGB",  # the pixels are in the network's order already
        "mean": job["mean"],
        "normal": [1 / value for value in job["std"]],
        "width": pixels.shape[2],
        "height": pixels.shape[1],
        "path": f"{folder}/",
        "used_image_num": len(pixels),
        "feature_quantize_method": job["method"],
        "weight_quantize_method": "MAX_ABS",
        "feature_clamp_value": 127,
        "weight_clamp_value": 127,
        "batch_size": 10,
        "quant_bits": 8,
        "model": source.name,
    }
    config.write_text(json.dumps(settings), encoding="utf-8")
    # The wheel's own command passes three strings where this takes a list, and so crashes.
    tools.mnnquant(["mnnquant", str(source), str(out), str(config)])
    shutil.rmtree(folder)
    config.unlink()
    return f"mnnquant, {job['method']}, {len(pixels)} crops"


def main(place: str) -> None:
    """Convert one model."""
    job = json.loads(Path(place).read_text(encoding="utf-8"))
    out = Path(job["out"], "model.mnn")
    quantizer = ""
    if job["precision"] == "int8":
        plain = out.with_name("float.mnn")
        convert(job, plain)
        quantizer = quantize(job, plain, out)
        plain.unlink()
    else:
        convert(job, out)
    print(json.dumps({"files": [out.name], "quantizer": quantizer}))


if __name__ == "__main__":
    main(*sys.argv[1:])
