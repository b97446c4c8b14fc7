"""QDQ or fp32 ONNX to OpenVINO IR."""

from __future__ import annotations

import re
from pathlib import Path

import openvino as ov
from openvino import opset13 as ops

from mfn_compile.errors import InternalCheckError
from mfn_compile.intel.runtime import core

COUNTED_NAME = re.compile(r"[A-Za-z]+_\d+")


def convert(onnx_file: Path, xml: Path) -> tuple[Path, Path]:
    """Write `xml` and its .bin from an ONNX file, weights uncompressed; batch fixed to 1.

    Raises:
        InternalCheckError: OpenVINO's frontend does not take the file.
    """
    try:
        model = core().read_model(str(onnx_file))
        if model.input(0).partial_shape[0].is_dynamic:
            shape = model.input(0).partial_shape
            shape[0] = 1
            model.reshape(shape)
        _flatten_prelu_slopes(model)
        number_unnamed_nodes(model)
    except RuntimeError as error:
        raise InternalCheckError(
            "OpenVINO cannot convert the model",
            where=onnx_file.name,
            why=str(error).strip(),
        ) from error
    ov.save_model(model, str(xml), compress_to_fp16=False)
    return xml, xml.with_suffix(".bin")


def _flatten_prelu_slopes(model: ov.Model) -> None:
    """Give every PReLU its slope as [C] instead of ONNX's [C, 1, 1].

    The CPU plugin fuses a PReLU into the convolution before it only in this form; left as it is,
    every convolution writes float32 and is reordered twice (half the speed, measured).
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() != "PRelu":
            continue
        slope = node.input_value(1).get_node()
        if slope.get_type_name() == "Constant" and slope.data.size > 1:
            flat = ops.constant(slope.data.reshape(-1))
            node.input(1).replace_source_output(flat.output(0))
    model.validate_nodes_and_infer_types()


def number_unnamed_nodes(model: ov.Model) -> None:
    """Rename what OpenVINO named by a counter of the process: equal input, equal bytes."""
    for position, node in enumerate(model.get_ordered_ops()):
        if COUNTED_NAME.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_{position}")
