"""Opens a QDQ ONNX file that nobody vouches for; attributes and constants of its nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from mfn_compile.arm.values import Constant, Extent
from mfn_compile.errors import BadInputError
from mfn_compile.model.files import checked_sha256
from mfn_compile.model.onnx_model import CHECKER_ERRORS, load_onnx, opset_of
from mfn_compile.model.preprocessing import Preprocessing

OPSETS = range(13, 22)
REQUANTIZE = "quantize the network with `mfn-compile quantize`"
FOLDABLE_SIZE = 64  # shape arithmetic is about a few integers
ARRAY_ERRORS = (ValueError, TypeError, KeyError, IndexError, RuntimeError)


@dataclass(frozen=True)
class Source:
    """A parsed model; `name` is its file, for errors."""

    name: str
    model: Any

    def where(self, node: Any) -> str:
        """The file, the node and its op."""
        name = node.name or (node.output[0] if node.output else "")
        return f"{self.name}: node {name!r}, {node.op_type}"

    def refuse(self, node: Any, what: str, why: str = "", hint: str = "") -> BadInputError:
        """The error of a node that the integer graph cannot hold."""
        return BadInputError(what, where=self.where(node), why=why, hint=hint)


def open_source(source: Path | onnx.ModelProto, operators: Collection[str]) -> Source:
    """Parse and check a model whose nodes may be `operators` only.

    Raises:
        BadInputError: missing, too large, damaged, external data, opset, an unknown operator,
            not quantized.
    """
    if isinstance(source, Path):
        checked_sha256(source)
        result = Source(str(source), load_onnx(source))
    else:
        result = Source(source.graph.name or "model", source)
        _check_internal(result)
    _check_operators(result, operators)
    opset = opset_of(result.model)
    if opset not in OPSETS:
        raise BadInputError(
            f"the ONNX model has opset {opset}, supported are {OPSETS[0]} to {OPSETS[-1]}",
            where=result.name,
            hint="export it with opset 17",
        )
    try:
        onnx.checker.check_model(result.model)
        onnx.shape_inference.infer_shapes(_without_notes(result.model), strict_mode=True)
    except CHECKER_ERRORS as error:
        raise BadInputError(
            "the ONNX file is damaged or no ONNX model",
            where=result.name,
            why=str(error).strip().partition("\n")[0][:300],
            hint="export or copy it again",
        ) from error
    return result


def _without_notes(model: Any) -> Any:
    """A copy without the shapes of inner tensors, which tools forget to update."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    return copy


def _check_internal(source: Source) -> None:
    graph = source.model.graph
    constants = [a.t for n in graph.node for a in n.attribute if a.HasField("t")]
    for tensor in [*graph.initializer, *constants]:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise BadInputError(
                "a tensor of the ONNX model lies in another file",
                where=f"{source.name}: {tensor.name}",
                hint="save the model as one file (onnx.save with save_as_external_data=False)",
            )


def _check_operators(source: Source, operators: Collection[str]) -> None:
    model = source.model
    if len(model.functions) or len(model.graph.sparse_initializer):
        raise BadInputError(
            "the ONNX model has local functions or sparse tensors", where=source.name
        )
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in operators:
            domain = f"{node.domain}." if node.domain else ""
            raise source.refuse(
                node,
                f"operator {domain}{node.op_type} cannot be compiled for ARM",
                f"Known are {', '.join(sorted(operators))}",
                "keep other post-processing outside of the model, or compile for intel instead",
            )
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise BadInputError("the ONNX model is not quantized", where=source.name, hint=REQUANTIZE)


def read_image(source: Source, preprocessing: Preprocessing) -> tuple[str, Extent]:
    """Name and extent of the one image input.

    Raises:
        BadInputError: not one float input [1 or N, 3, H, W] and one output, a dynamic height or
            width, or another size than the preprocessing gives.
    """
    graph = source.model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise BadInputError(
            f"the ONNX model has {len(inputs)} inputs and {len(graph.output)} outputs, "
            "it must have one each",
            where=source.name,
            hint="export the network alone: one image batch in, one embedding out",
        )
    kind = inputs[0].type.tensor_type
    dims = [int(d.dim_value) if d.HasField("dim_value") else None for d in kind.shape.dim]
    wanted = [3, preprocessing.height, preprocessing.width]
    fits = len(dims) == 4 and dims[0] in (None, 1) and dims[1:] == wanted
    if kind.elem_type != TensorProto.FLOAT or not fits:
        shown = ", ".join("?" if d is None else str(d) for d in dims)
        dynamic = len(dims) == 4 and None in dims[1:]
        raise BadInputError(
            f"the input of the ONNX model is {TensorProto.DataType.Name(kind.elem_type)} "
            f"[{shown}], it must be float32 [1 or N, {', '.join(map(str, wanted))}]",
            where=f"{source.name}: {inputs[0].name}",
            why="Its height and width are dynamic" if dynamic else "",
            hint="export it with fixed height and width, and state the same size in the "
            "preprocessing",
        )
    return inputs[0].name, Extent(preprocessing.height, preprocessing.width, 3)


def attribute(node: Any, name: str, default: Any) -> Any:
    """Value of an attribute of `node`."""
    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return default


def tensor_array(source: Source, tensor: Any) -> NDArray[Any]:
    """The values of a TensorProto.

    Raises:
        BadInputError: its bytes do not fit its shape, or it holds NaN.
    """
    try:
        array = np.asarray(numpy_helper.to_array(tensor))
    except ARRAY_ERRORS as error:
        raise BadInputError(
            "a tensor of the ONNX model is damaged",
            where=f"{source.name}: {tensor.name}",
            why=str(error)[:300],
            hint="export or copy it again",
        ) from error
    if array.dtype == np.float32 and np.isnan(array).any():
        raise BadInputError(
            "a tensor of the ONNX model holds NaN",
            where=f"{source.name}: {tensor.name}",
            hint="the training diverged or the file is damaged: use an earlier checkpoint",
        )
    return array


CONSTANT_FIELDS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def constant_node(source: Source, node: Any) -> Constant:
    """The value of a Constant node."""
    for item in node.attribute:
        if item.name == "value":
            return Constant(tensor_array(source, item.t))
        if item.name in CONSTANT_FIELDS:
            value = onnx.helper.get_attribute_value(item)
            return Constant(np.asarray(value, CONSTANT_FIELDS[item.name]))
    raise source.refuse(node, "the constant is neither a tensor nor a number")


def _squeeze(array: NDArray[Any], axes: NDArray[Any] | None = None) -> NDArray[Any]:
    return np.squeeze(array, None if axes is None else tuple(int(a) for a in axes))


def _unsqueeze(array: NDArray[Any], axes: NDArray[Any]) -> NDArray[Any]:
    return np.expand_dims(array, tuple(int(a) for a in axes))


# Arithmetic on shapes, as torch exports `view(x.size(0), -1)`.
SHAPE_ARITHMETIC: dict[str, Callable[..., NDArray[Any]]] = {
    "Gather": lambda array, index: np.take(array, index, axis=0),
    "Concat": lambda *arrays: np.concatenate(arrays),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Cast": lambda array: array.astype(np.int64),
}


def fold_shape(source: Source, node: Any, arrays: list[NDArray[Any]]) -> Constant:
    """One step of shape arithmetic on constants.

    Raises:
        BadInputError: not a few integers, or the step is impossible.
    """
    small = all(a.size <= FOLDABLE_SIZE and a.dtype.kind == "i" for a in arrays)
    if not small or (node.op_type in ("Gather", "Concat") and attribute(node, "axis", 0) != 0):
        raise source.refuse(node, "arithmetic on constants other than shapes is not supported")
    try:
        return Constant(np.asarray(SHAPE_ARITHMETIC[node.op_type](*arrays)))
    except ARRAY_ERRORS as error:
        raise source.refuse(node, "the shape cannot be computed", str(error)[:300]) from error


def resolve_shape(shape: list[int], dims: list[int]) -> list[int] | None:
    """The dims that a Reshape to `shape` gives, None where it is impossible."""
    if any(d == 0 and i >= len(dims) for i, d in enumerate(shape)) or shape.count(-1) > 1:
        return None
    result = [dims[i] if d == 0 else d for i, d in enumerate(shape)]
    total, known = math.prod(dims), math.prod(d for d in result if d != -1)
    if -1 in result and known > 0:
        result[result.index(-1)] = total // known
    return result if min(result, default=0) > 0 and math.prod(result) == total else None
