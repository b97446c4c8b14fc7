"""A float ONNX file for OpenVINO, quantized by NNCF with its own defaults.

Runs in OpenVINO's own environment: to_openvino.py JOB.json (see bench/converting.py).
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino


def quantize(model: openvino.Model, job: dict[str, Any]) -> tuple[openvino.Model, str]:
    """nncf.quantize as its documentation shows it."""
    import nncf  # noqa: PLC0415 - only for INT8

    images = np.load(job["calibration"])[: job["images"]]
    data = nncf.Dataset([image[None] for image in images])
    return nncf.quantize(model, data, subset_size=len(images)), (
        f"nncf.quantize {nncf.__version__}, its defaults, {len(images)} crops"
    )


def main(place: str) -> None:
    """Convert one model."""
    job = json.loads(Path(place).read_text(encoding="utf-8"))
    out = Path(job["out"], "model.xml")
    model, quantizer = openvino.convert_model(job["onnx"]), ""
    if job["precision"] == "int8":
        model, quantizer = quantize(model, job)
    openvino.save_model(model, str(out), compress_to_fp16=job["precision"] == "f16")
    files = [out.name, out.with_suffix(".bin").name]
    print(json.dumps({"files": files, "quantizer": quantizer}))


if __name__ == "__main__":
    main(*sys.argv[1:])
