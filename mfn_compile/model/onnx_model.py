"""Reads a float ONNX file that nobody vouches for, and checks that it is of the family."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, numpy_helper, shape_inference

from mfn_compile.errors import BadInputError
from mfn_compile.model.files import MAX_BYTES, checked_sha256
from mfn_compile.model.preprocessing import CROP_SIZE

# Convolutions, activations, the residual add, the embedding layer, an L2 norm at the end.
# fmt: off
ALLOWED_OPS = frozenset((
    "Conv", "BatchNormalization", "PRelu", "Relu", "Clip", "Add", "Flatten", "Reshape", "Gemm",
    "MatMul", "Identity", "Constant", "Dropout", "Squeeze", "Unsqueeze", "Transpose", "Shape",
    "Gather", "Concat", "Cast", "Slice", "ConstantOfShape", "Expand", "LpNormalization",
    "ReduceL2", "Div",
))
QUANTIZED_OPS = frozenset((
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
    "ConvInteger", "MatMulInteger", "FakeQuantize",
))
# fmt: on
ACTIVATIONS = {"PRelu": "prelu", "Relu": "relu", "Clip": "relu6"}
MIN_OPSET = 7
# Bytes that are no text surface as a UnicodeDecodeError, which is a ValueError.
CHECKER_ERRORS = (
    onnx.checker.ValidationError,
    shape_inference.InferenceError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class OnnxCheckpoint:
    """A checked float model: image [N, 3, height, width] in, embedding [N, D] out."""

    sha256: str
    opset: int
    input_name: str
    output_name: str
    height: int
    width: int
    dynamic_batch: bool
    embedding_width: int
    parameters: int
    macs: int
    activations: tuple[str, ...]
    metadata: dict[str, str]


def read_onnx(path: Path, *, max_bytes: int = MAX_BYTES) -> OnnxCheckpoint:
    """Read and check an `.onnx` file; nothing in it is executed.

    Raises:
        BadInputError: missing, too large, damaged, external data, not one image input and one
            embedding output, an operator outside the family, quantized, NaN or infinity.
    """
    sha256 = checked_sha256(path, max_bytes=max_bytes)
    model = load_onnx(path)
    _check_operators(model, path)
    _check_constants(model, path)
    _signature(model, path)  # its message says more than the checker's
    inferred = _checked(model, path)
    image, embedding = _signature(inferred, path)
    shapes = _shapes(inferred)
    batch, height, width = _image_shape(image, path)
    return OnnxCheckpoint(
        sha256=sha256,
        opset=opset_of(model),
        input_name=image.name,
        output_name=embedding.name,
        height=height,
        width=width,
        dynamic_batch=batch is None,
        embedding_width=_embedding_width(embedding, path),
        parameters=_parameters(model),
        macs=_macs(inferred, shapes, path),
        activations=_activations(model),
        metadata={p.key: p.value for p in model.metadata_props},
    )


def load_onnx(path: Path) -> Any:
    """Parse the file into a ModelProto without touching any other file.

    Raises:
        BadInputError: damaged, or its tensors lie in other files.
    """
    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except (DecodeError, OSError, ValueError, RuntimeError) as error:
        raise _damaged(path, str(error)) from error
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise BadInputError(
                "a tensor of the ONNX model lies in another file",
                where=f"{path}: {tensor.name}",
                hint="save the model as one file (onnx.save with save_as_external_data=False)",
            )
    return model


def opset_of(model: Any) -> int:
    """Version of the default operator set, 0 when the model names none."""
    versions = [int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")]
    return max(versions, default=0)


def _damaged(path: Path, why: str) -> BadInputError:
    return BadInputError(
        "the ONNX file is damaged or no ONNX model",
        where=str(path),
        why=why.strip().splitlines()[0][:300] if why.strip() else "",
        hint="export or copy it again",
    )


def _tensors(model: Any) -> list[Any]:
    """Initializers and the tensors of Constant nodes."""
    constants = [a.t for n in model.graph.node for a in n.attribute if a.HasField("t")]
    return [*model.graph.initializer, *constants]


def _check_operators(model: Any, path: Path) -> None:
    if not model.graph.node:
        raise _damaged(path, "it has no nodes")
    if len(model.functions) or len(model.graph.sparse_initializer):
        raise BadInputError("the ONNX model has local functions or sparse tensors", where=str(path))
    for node in model.graph.node:
        name = node.name or (node.output[0] if node.output else "")
        where = f"{path}: node {name!r}"
        if node.op_type in QUANTIZED_OPS:
            raise BadInputError(
                f"the ONNX model is already quantized ({node.op_type})",
                where=where,
                hint="give the float model; quantizing it is what this program does",
            )
        if node.domain not in ("", "ai.onnx") or node.op_type not in ALLOWED_OPS:
            domain = f"{node.domain}." if node.domain else ""
            raise BadInputError(
                f"operator {domain}{node.op_type} does not occur in the MobileFaceNet family",
                where=where,
                why=f"Known are {', '.join(sorted(ALLOWED_OPS))}",
                hint="keep normalization and post-processing outside the model; other networks "
                "are not supported",
            )
    if not any(node.op_type == "Conv" for node in model.graph.node):
        raise BadInputError("the ONNX model has no convolution", where=str(path))


def _check_constants(model: Any, path: Path) -> None:
    for tensor in _tensors(model):
        if tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE):
            raise BadInputError(
                f"a tensor of the ONNX model is {TensorProto.DataType.Name(tensor.data_type)}",
                where=f"{path}: {tensor.name}",
                hint="export the model in float32",
            )
        try:
            values = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            raise _damaged(path, f"tensor {tensor.name}: {error}") from error
        if values.dtype == np.float32 and not np.isfinite(values).all():
            raise BadInputError(
                "a tensor of the ONNX model holds NaN or infinity",
                where=f"{path}: {tensor.name}",
                hint="the training diverged or the file is damaged: use an earlier checkpoint",
            )


def _checked(model: Any, path: Path) -> Any:
    """The model with inferred shapes, once onnx.checker accepts it."""
    if opset_of(model) < MIN_OPSET:
        raise BadInputError(
            f"the ONNX model has opset {opset_of(model)}, the oldest supported is {MIN_OPSET}",
            where=str(path),
            hint="export it with opset 17",
        )
    try:
        onnx.checker.check_model(model)
        return shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except CHECKER_ERRORS as error:
        raise _damaged(path, str(error)) from error


def _signature(model: Any, path: Path) -> tuple[Any, Any]:
    # before IR version 4 initializers are listed among the inputs
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    for kind, values in (("input", inputs), ("output", list(model.graph.output))):
        if len(values) != 1:
            names = ", ".join(value.name for value in values) or "none"
            raise BadInputError(
                f"the ONNX model has {len(values)} {kind}s ({names}), it must have one",
                where=str(path),
                hint="export the network alone: one image batch in, one embedding out",
            )
        if values[0].type.tensor_type.elem_type != TensorProto.FLOAT:
            raise BadInputError(
                f"the {kind} of the ONNX model is not float32",
                where=f"{path}: {values[0].name}",
                hint="export it with a normalized float32 image as its input",
            )
    return inputs[0], model.graph.output[0]


def _dims(value: Any) -> tuple[int | None, ...]:
    return tuple(
        int(d.dim_value) if d.HasField("dim_value") else None
        for d in value.type.tensor_type.shape.dim
    )


def _image_shape(image: Any, path: Path) -> tuple[int | None, int, int]:
    dims = _dims(image)
    fits = len(dims) == 4 and dims[0] in (None, 1) and dims[1] == 3
    height, width = (dims[2], dims[3]) if fits else (None, None)
    if height is None or width is None or not (0 < height <= CROP_SIZE and 0 < width <= CROP_SIZE):
        shown = ", ".join("?" if d is None else str(d) for d in dims)
        raise BadInputError(
            f"the input of the ONNX model is [{shown}], it must be [N or 1, 3, H, W] with fixed "
            f"H and W up to {CROP_SIZE}",
            where=f"{path}: {image.name}",
            hint="export it with a 1x3x112x112 example input, channels first",
        )
    return dims[0], height, width


def _embedding_width(embedding: Any, path: Path) -> int:
    dims = _dims(embedding)
    if len(dims) != 2 or dims[0] not in (None, 1) or not dims[1]:
        shown = ", ".join("?" if d is None else str(d) for d in dims)
        raise BadInputError(
            f"the output of the ONNX model is [{shown}], it must be [N, D]",
            where=f"{path}: {embedding.name}",
            hint="flatten the embedding before exporting",
        )
    return dims[1]


def _shapes(model: Any) -> dict[str, tuple[int | None, ...]]:
    values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    shapes = {value.name: _dims(value) for value in values}
    for tensor in model.graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims)
    for node in model.graph.node:
        if node.op_type == "Constant":
            shapes[node.output[0]] = tuple(node.attribute[0].t.dims)
    return shapes


def _activations(model: Any) -> tuple[str, ...]:
    kinds = (ACTIVATIONS[n.op_type] for n in model.graph.node if n.op_type in ACTIVATIONS)
    return tuple(dict.fromkeys(kinds))


def _parameters(model: Any) -> int:
    """Elements of weights, biases, scales and slopes; running statistics do not count."""
    constants = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    names: dict[str, None] = {}
    for node in model.graph.node:
        last = 3 if node.op_type == "BatchNormalization" else len(node.input)
        if node.op_type in ("Conv", "BatchNormalization", "PRelu", "Gemm", "MatMul"):
            names.update(dict.fromkeys(node.input[1:last]))
    return sum(math.prod(constants[name].dims) for name in names if name in constants)


def _macs(model: Any, shapes: dict[str, tuple[int | None, ...]], path: Path) -> int:
    total = 0
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        weight, output = shapes.get(node.input[1], ()), shapes.get(node.output[0], ())
        if not weight or not output or None in weight or None in output[1:]:
            raise BadInputError(
                f"the shape of a {node.op_type} cannot be inferred",
                where=f"{path}: node {node.name!r}",
                hint="export it with fixed height and width",
            )
        # Conv [O, I/g, kh, kw]; Gemm and MatMul multiply each output by the inner dimension
        inner = math.prod(d or 1 for d in weight[1:])
        if node.op_type != "Conv":
            inner = math.prod(d or 1 for d in weight) // (output[-1] or 1)
        total += inner * math.prod(d or 1 for d in output[1:])
    return total
