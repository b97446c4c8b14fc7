"""A float ONNX file for ONNX Runtime, quantized or halved by its own tools.

Runs in ONNX Runtime's own environment: to_onnxruntime.py JOB.json (see bench/converting.py).
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """The calibration crops one by one."""

    def __init__(self, images: np.ndarray[Any, Any], name: str) -> None:
        self._images: Iterator[np.ndarray[Any, Any]] = iter(images)
        self._name = name

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        """The next input, None at the end."""
        image = next(self._images, None)
        return None if image is None else {self._name: image[None]}


def quantize(job: dict[str, Any], out: Path) -> str:
    """quantize_static to QDQ with int8 weights a channel.

    MinMax ranges are its default; the job names another method where that is better.
    """
    prepared = out.with_name("prepared.onnx")
    quant_pre_process(job["onnx"], str(prepared))
    unsigned = job["precision"] == "int8-u8s8"
    quantization.quantize_static(
        str(prepared),
        str(out),
        Reader(np.load(job["calibration"])[: job["images"]], job["input"]),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8 if unsigned else quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        calibrate_method=getattr(quantization.CalibrationMethod, job["method"]),
    )
    prepared.unlink()
    return f"quantize_static, QDQ, per channel, {job['method']}, {job['images']} crops"


def halve(job: dict[str, Any], out: Path) -> str:
    """onnxruntime.transformers.float16, input and output stay float32."""
    import onnx  # noqa: PLC0415 - only for this precision
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

    model = onnx.load(job["onnx"])
    onnx.save(convert_float_to_float16(model, keep_io_types=True), str(out))
    return "onnxruntime.transformers.float16"


def main(place: str) -> None:
    """Convert one model."""
    job = json.loads(Path(place).read_text(encoding="utf-8"))
    out = Path(job["out"], "model.onnx")
    quantizer = ""
    if job["precision"] == "f32":
        out.write_bytes(Path(job["onnx"]).read_bytes())
    elif job["precision"] == "f16":
        quantizer = halve(job, out)
    else:
        quantizer = quantize(job, out)
    print(json.dumps({"files": [out.name], "quantizer": quantizer}))


if __name__ == "__main__":
    main(*sys.argv[1:])
