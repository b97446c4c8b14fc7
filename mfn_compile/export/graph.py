"""ONNX graphs: torch to ONNX, simplification, metadata, deterministic bytes."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, cast

import onnx
import onnxsim
import torch

from mfn_compile.errors import BadInputError, UsageError
from mfn_compile.export.naming import (
    hoist_constants,
    name_after_modules,
    name_missing,
    rename_tensors,
)
from mfn_compile.export.rewrite import drop_l2_norm, linear_to_convolution
from mfn_compile.model.network import MobileFaceNet
from mfn_compile.model.onnx_model import load_onnx, opset_of, read_onnx
from mfn_compile.results import CheckpointInfo

INPUT, OUTPUT = "input", "embedding"
BATCH_AXIS = "batch"
PRODUCER = "mfn-compile"


def graph_of_module(module: MobileFaceNet, *, opset: int, dynamic_batch: bool) -> Any:
    """ONNX model of a folded network; batch 1 or a free batch axis."""
    buffer = io.BytesIO()
    config = module.config
    axes = {INPUT: {0: BATCH_AXIS}, OUTPUT: {0: BATCH_AXIS}} if dynamic_batch else None
    with warnings.catch_warnings():
        # the TorchScript exporter is deprecated, but NNCF's QDQ export needs it as well
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.onnx")
        warnings.filterwarnings("ignore", message="You are using the legacy TorchScript-based")
        torch.onnx.export(
            module,
            (torch.zeros(1, 3, config.height, config.width),),
            cast("Any", buffer),  # a buffer is fine where dynamo is False
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=opset,
            dynamic_axes=axes,
            do_constant_folding=True,
            dynamo=False,
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    name_after_modules(model)
    return model


def graph_of_file(path: Path, *, opset: int, dynamic_batch: bool) -> Any:
    """The checked ONNX checkpoint with our tensor names, the batch asked for, and at least `opset`.

    Raises:
        BadInputError: the file cannot be used or not be converted to `opset`.
        UsageError: a free batch axis is asked of a model that was exported for one image.
    """
    checked = read_onnx(path)
    if dynamic_batch and not checked.dynamic_batch:
        raise UsageError(
            "the ONNX model has a fixed batch of one",
            where=str(path),
            hint="export it with a free batch axis, or leave out the dynamic batch option",
        )
    model = load_onnx(path)
    _drop_constant_inputs(model)
    if opset_of(model) < opset:
        try:
            model = onnx.version_converter.convert_version(model, opset)
        except (RuntimeError, ValueError) as error:
            raise BadInputError(
                f"the ONNX model cannot be converted from opset {checked.opset} to {opset}",
                where=str(path),
                why=str(error).splitlines()[0] if str(error) else "",
                hint=f"export it with opset {opset}",
            ) from error
    name_missing(model)
    rename_tensors(model, {checked.input_name: INPUT, checked.output_name: OUTPUT})
    _set_batch(model.graph.input[0], dynamic_batch)
    _set_batch(model.graph.output[0], dynamic_batch)
    del model.graph.value_info[:]  # it may state the batch that was there before
    return model


def simplify(model: Any, *, where: str) -> tuple[Any, bool]:
    """Constants folded, BatchNorms fused, dead nodes gone; the embedding layer a convolution.

    Returns the model and whether an L2 norm at its end was removed.

    Raises:
        BadInputError: a BatchNormalization is left that no layer can take in.
    """
    simplified, _ = onnxsim.simplify(model)
    hoist_constants(simplified)
    normed = drop_l2_norm(simplified)
    linear_to_convolution(simplified)
    left = [n.name for n in simplified.graph.node if n.op_type == "BatchNormalization"]
    if left:
        raise BadInputError(
            f"{len(left)} BatchNormalization nodes follow no convolution or linear layer",
            where=f"{where}: {', '.join(left[:3])}",
            hint="export the network from torch in eval mode, or pass its state dict",
        )
    return simplified, normed


def finish(model: Any, info: CheckpointInfo) -> bytes:
    """The input contract as metadata, and bytes that depend on nothing but graph and contract."""
    model.producer_name, model.producer_version = PRODUCER, ""
    model.graph.name = "mobilefacenet"
    model.doc_string = model.graph.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del model.metadata_props[:]
    onnx.helper.set_model_props(
        model,
        {"layout": info.layout, "preprocessing": info.preprocessing.model_dump_json()},
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _drop_constant_inputs(model: Any) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    keep = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(keep)


def _set_batch(value: Any, dynamic: bool) -> None:
    axis = value.type.tensor_type.shape.dim[0]
    axis.Clear()
    if dynamic:
        axis.dim_param = BATCH_AXIS
    else:
        axis.dim_value = 1
