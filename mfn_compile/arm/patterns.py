"""What an ONNX node means, by its op and by what is known of its inputs: one table, `RULES`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from mfn_compile.arm import elementwise, layers, proto
from mfn_compile.arm.builder import Builder
from mfn_compile.arm.graph import Float32, Int8, Normalize
from mfn_compile.arm.proto import Source, attribute
from mfn_compile.arm.steps import decode_table
from mfn_compile.arm.values import (
    REALS,
    Codes,
    Constant,
    Decoded,
    Extent,
    FloatTensor,
    Norm,
    PairSum,
    Real,
    Scaled,
    Value,
    no_activation,
)

CONSTANTS = (Constant, Scaled)
TYPES = {onnx.TensorProto.UINT8: np.uint8, onnx.TensorProto.INT8: np.int8}
SMALLEST = float(np.finfo(np.float32).tiny)  # LpNormalization has no epsilon


@dataclass(eq=False)
class Walk:
    """State of the walk: known values by ONNX name, and the graph built so far."""

    source: Source
    builder: Builder
    known: dict[str, Value]
    quantized: dict[tuple[str, bytes, bytes, bool], Codes] = field(default_factory=dict)


Values = Sequence[Any]
Build = Callable[[Walk, Any, Values], Value]


def find_rule(walk: Walk, node: Any, values: Values) -> Build:
    """The first rule that matches the op and the kinds of the inputs.

    Raises:
        BadInputError: none does.
    """
    for op, kinds, build in RULES:
        if op == node.op_type and len(values) >= len(kinds):
            pairs = zip(values[: len(kinds)], kinds, strict=True)
            if all(isinstance(v, k) for v, k in pairs):
                return build
    shown = " and ".join("nothing" if v is None else type(v).__name__ for v in values)
    raise walk.source.refuse(
        node,
        f"{node.op_type} of {shown or 'nothing'} has no place in the integer graph",
        hint=layers.INTEL,
    )


def _scale(walk: Walk, node: Any, values: Values) -> Float32:
    """The scale of a Q or DQ node, float32 [n].

    Raises:
        BadInputError: missing, not constant, not positive and finite, blocked.
    """
    scale = values[1] if len(values) > 1 else None
    if not isinstance(scale, Constant) or scale.array.dtype != np.float32:
        raise walk.source.refuse(node, "its scale is no float32 constant")
    if scale.array.ndim > 1 or attribute(node, "block_size", 0):
        raise walk.source.refuse(node, "it has one scale a block", hint=layers.INTEL)
    if scale.array.size == 0 or not (np.isfinite(scale.array) & (scale.array > 0)).all():
        raise walk.source.refuse(
            node, "its scale is not positive and finite", hint=proto.REQUANTIZE
        )
    return scale.array.reshape(-1)


def _zero_point(walk: Walk, node: Any, values: Values, size: int) -> NDArray[Any] | None:
    """The zero point of a Q or DQ node as it is in the file, [size], None where there is none."""
    zero = values[2] if len(values) > 2 else None
    if zero is None:
        return None
    if not isinstance(zero, Constant) or zero.array.size not in (1, size):
        raise walk.source.refuse(node, f"its zero point is no constant of {size} numbers")
    return np.broadcast_to(zero.array.reshape(-1), (size,))


def _quantizer(
    walk: Walk, node: Any, values: Values, extent: Extent, default: Any
) -> tuple[Float32, Int8, bool]:
    """Scale [C], zero point [C] (shifted to int8) and signedness of an activation's Q or DQ."""
    scale = _scale(walk, node, values)
    zero = _zero_point(walk, node, values, scale.size)
    zero = np.zeros(scale.size, default) if zero is None else zero
    if zero.dtype not in (np.int8, np.uint8):
        raise walk.source.refuse(node, f"it quantizes to {zero.dtype}, not to 8 bits")
    if scale.size > 1:
        axis = attribute(node, "axis", 1)
        rank = len(extent.dims)
        if axis not in (1, 1 - rank) or scale.size != extent.dims[1] or not _by_channel(extent):
            raise walk.source.refuse(
                node, f"its {scale.size} scales do not belong to {extent.channels} channels"
            )
    unsigned = zero.dtype == np.uint8
    shifted = (zero.astype(np.int16) - (128 if unsigned else 0)).astype(np.int8)
    shape = (extent.channels,)
    return np.broadcast_to(scale, shape).copy(), np.broadcast_to(shifted, shape).copy(), unsigned


def _by_channel(extent: Extent) -> bool:
    return extent.point or not extent.flat


def _quantize(walk: Walk, node: Any, values: Values) -> Value:
    default = TYPES.get(attribute(node, "output_dtype", 0), np.uint8)
    scale, zero, unsigned = _quantizer(walk, node, values, values[0].extent, default)
    name = node.name or node.output[0]
    key = (node.input[0], scale.tobytes(), zero.tobytes(), unsigned)
    if key not in walk.quantized:
        walk.quantized[key] = walk.builder.quantize(
            values[0], scale, zero, node.output[0], name, unsigned
        )
    return walk.quantized[key]


def _dequantize(walk: Walk, node: Any, values: Values) -> Value:
    codes: Codes = values[0]
    default = np.uint8 if codes.unsigned else np.int8
    scale, zero, unsigned = _quantizer(walk, node, values, codes.extent, default)
    if unsigned != codes.unsigned:
        raise walk.source.refuse(node, "its zero point has another type than its input")
    return Decoded(codes.extent, codes.tensor, scale, zero, decode_table(scale, zero))


def _quantize_constant(walk: Walk, node: Any, values: Values) -> Value:
    """Float weights behind a quantizer, as training frameworks write them."""
    array = elementwise.floats(walk.source, node, values[0], "input")
    scale = _scale(walk, node, values)
    zero = _zero_point(walk, node, values, scale.size)
    zero = np.zeros(scale.size, np.uint8) if zero is None else zero
    if zero.dtype not in (np.int8, np.uint8):
        raise walk.source.refuse(node, f"it quantizes to {zero.dtype}, not to 8 bits")
    shape = _constant_shape(walk, node, array, scale)
    limits = np.iinfo(zero.dtype)
    rounded = np.rint(array / scale.reshape(shape)) + zero.reshape(shape)
    return Constant(np.clip(rounded, limits.min, limits.max).astype(zero.dtype))


def _dequantize_constant(walk: Walk, node: Any, values: Values) -> Value:
    array = values[0].array
    scale = _scale(walk, node, values)
    if array.dtype not in (np.int8, np.uint8, np.int32):
        raise walk.source.refuse(
            node, f"it is a constant of {array.dtype}, not of int8, uint8 or int32"
        )
    zero = _zero_point(walk, node, values, scale.size)
    integers = array.astype(np.int64)
    shape = _constant_shape(walk, node, array, scale)
    if zero is not None:
        integers = integers - zero.astype(np.int64).reshape(shape)
    axis = next((i for i, d in enumerate(shape) if d > 1), 0)
    return Scaled(integers, scale, axis)


def _constant_shape(walk: Walk, node: Any, array: NDArray[Any], scale: Float32) -> tuple[int, ...]:
    """The shape in which scales broadcast against the constant."""
    axis = int(attribute(node, "axis", 1))
    if scale.size == 1:
        return (1,) * array.ndim
    if not -array.ndim <= axis < array.ndim or array.shape[axis] != scale.size:
        raise walk.source.refuse(
            node, f"its {scale.size} scales do not fit a constant of shape {list(array.shape)}"
        )
    axis %= array.ndim
    return tuple(scale.size if i == axis else 1 for i in range(array.ndim))


def _layer(walk: Walk, node: Any, values: Values) -> Value:
    read = layers.read_convolution if node.op_type == "Conv" else layers.read_linear
    return read(walk.source, walk.builder, node, values)


def _step(walk: Walk, node: Any, values: Values) -> Value:
    value = next(v for v in values if isinstance(v, REALS))
    step = elementwise.read_step(walk.source, node, values, value.extent)
    return walk.builder.apply(step, value, node.output[0])


def _add(walk: Walk, node: Any, values: Values) -> Value:
    a, b = values
    if a.extent != b.extent:
        raise walk.source.refuse(
            node, f"it adds {a.extent.dims} and {b.extent.dims}, the shapes must be equal"
        )
    name = node.name or node.output[0]
    if isinstance(a, Decoded) and isinstance(b, Decoded) and not (a.steps or b.steps):
        return PairSum(a.extent, name, a, b, no_activation(a.extent.channels))
    return walk.builder.add(a, b, name, node.output[0])


def _same(walk: Walk, node: Any, values: Values) -> Value:
    value: Value = values[0]
    if node.op_type == "Dropout" and len(values) > 2 and values[2] is not None:
        mode = values[2]
        if not isinstance(mode, Constant) or np.any(mode.array):
            raise walk.source.refuse(node, "it is in training mode", hint="export in eval mode")
    return value


def _reshape(walk: Walk, node: Any, values: Values) -> Value:
    """Flatten, Reshape and Squeeze: only between [N, C, H, W] and [N, C*H*W]."""
    value, extent = values[0], values[0].extent
    dims, wanted = extent.dims, _target(node, extent.dims, values)
    flat = replace(extent, flat=True)
    square = replace(extent, flat=False)
    for candidate in (extent, flat, square):
        if wanted == candidate.dims and (candidate != square or extent.point or not extent.flat):
            moved: Value = replace(value, extent=candidate)
            return moved
    raise walk.source.refuse(
        node,
        f"it turns {dims} into {wanted or 'an unknown shape'}",
        "Only flattening to [N, channels] is supported",
    )


def _target(node: Any, dims: list[int], values: Values) -> list[int] | None:
    """The ONNX shape behind Flatten, Reshape or Squeeze, None where it is unknown."""
    if node.op_type == "Flatten":
        axis = attribute(node, "axis", 1) % len(dims)
        return proto.resolve_shape([1, -1], dims) if axis == 1 else None
    operand = values[1] if len(values) > 1 else None
    if not isinstance(operand, Constant) or operand.array.ndim != 1:
        return None
    numbers = [int(n) for n in operand.array]
    if node.op_type == "Reshape":
        return None if attribute(node, "allowzero", 0) else proto.resolve_shape(numbers, dims)
    axes = {n % len(dims) for n in numbers}
    if 0 in axes or any(dims[a] != 1 for a in axes):
        return None
    return [d for i, d in enumerate(dims) if i not in axes]


def _shape(walk: Walk, node: Any, values: Values) -> Value:
    dims = values[0].extent.dims[attribute(node, "start", 0) : attribute(node, "end", None)]
    return Constant(np.asarray(dims, np.int64))


def _fold(walk: Walk, node: Any, values: Values) -> Value:
    if any(not isinstance(v, Constant) for v in values):
        raise walk.source.refuse(node, f"{node.op_type} of activations is not supported")
    return proto.fold_shape(walk.source, node, [v.array for v in values])


def _axis_is_channels(node: Any, extent: Extent, axis: int) -> bool:
    return extent.point and axis % len(extent.dims) == 1


def _lp_normalize(walk: Walk, node: Any, values: Values) -> Value:
    value: Real = values[0]
    fits = _axis_is_channels(node, value.extent, int(attribute(node, "axis", -1)))
    if not fits or attribute(node, "p", 2) != 2:
        raise walk.source.refuse(node, "it is not the L2 norm of the embedding")
    return _normalize(walk, node, value, SMALLEST)


def _norm(walk: Walk, node: Any, values: Values) -> Value:
    value: Real = values[0]
    axes = attribute(node, "axes", ())
    if len(values) > 1 and isinstance(values[1], Constant):
        axes = values[1].array.reshape(-1).tolist()
    fits = len(axes) == 1 and _axis_is_channels(node, value.extent, int(axes[0]))
    if not fits or not attribute(node, "keepdims", 1):
        raise walk.source.refuse(node, "it is not the L2 norm of the embedding, keepdims=1")
    return Norm(value, SMALLEST)


def _norm_floor(walk: Walk, node: Any, values: Values) -> Value:
    low = values[1] if len(values) > 1 else None
    if low is None or (len(values) > 2 and values[2] is not None):
        raise walk.source.refuse(node, "it is no lower bound of the norm")
    epsilon = elementwise.floats(walk.source, node, low, "bound")
    if epsilon.size != 1 or not np.all(np.isfinite(epsilon) & (epsilon > 0)):
        raise walk.source.refuse(node, "its lower bound is not one number above 0")
    return Norm(values[0].of, max(values[0].epsilon, float(epsilon.reshape(()))))


def _divide_by_norm(walk: Walk, node: Any, values: Values) -> Value:
    if values[1].of is not values[0]:
        raise walk.source.refuse(node, "it divides by the norm of another tensor")
    return _normalize(walk, node, values[0], values[1].epsilon)


def _normalize(walk: Walk, node: Any, value: Real, epsilon: float) -> Value:
    tensor = walk.builder.materialize(value, f"{node.output[0]}_input").tensor
    output = walk.builder.fresh(node.output[0])
    walk.builder.emit(
        Normalize(node.name or output, tensor, output, epsilon), value.extent, "float32"
    )
    return FloatTensor(value.extent, output)


# fmt: off
RULES: tuple[tuple[str, tuple[Any, ...], Build], ...] = (
    ("Constant", (), lambda walk, node, values: proto.constant_node(walk.source, node)),
    ("Identity", (object,), _same),
    ("Dropout", (object,), _same),

    ("QuantizeLinear", (CONSTANTS,), _quantize_constant),
    ("QuantizeLinear", (REALS,), _quantize),
    ("DequantizeLinear", (Constant,), _dequantize_constant),
    ("DequantizeLinear", (Codes,), _dequantize),

    ("Conv", (REALS, object), _layer),
    ("Gemm", (REALS, object), _layer),
    ("MatMul", (REALS, object), _layer),

    ("Add", (REALS, REALS), _add),
    ("Add", (REALS, CONSTANTS), _step),
    ("Add", (CONSTANTS, REALS), _step),
    ("Sub", (REALS, CONSTANTS), _step),
    ("Sub", (CONSTANTS, REALS), _step),
    ("Mul", (REALS, CONSTANTS), _step),
    ("Mul", (CONSTANTS, REALS), _step),
    ("Div", (REALS, CONSTANTS), _step),
    ("Div", (CONSTANTS, REALS), _step),
    ("Relu", (REALS,), _step),
    ("Clip", (REALS,), _step),
    ("LeakyRelu", (REALS,), _step),
    ("PRelu", (REALS, CONSTANTS), _step),
    ("BatchNormalization", (REALS, CONSTANTS, CONSTANTS, CONSTANTS, CONSTANTS), _step),

    ("Flatten", ((*REALS, Codes),), _reshape),
    ("Reshape", ((*REALS, Codes),), _reshape),
    ("Squeeze", ((*REALS, Codes),), _reshape),
    ("Shape", (REALS,), _shape),
    ("Gather", (Constant, Constant), _fold),
    ("Concat", (Constant,), _fold),
    ("Squeeze", (Constant,), _fold),
    ("Unsqueeze", (Constant,), _fold),
    ("Cast", (Constant,), _fold),

    ("LpNormalization", (REALS,), _lp_normalize),
    ("ReduceL2", (REALS,), _norm),
    ("Clip", (Norm,), _norm_floor),
    ("Expand", (Norm,), _same),
    ("Div", (REALS, Norm), _divide_by_norm),
)
# fmt: on
OPERATORS = frozenset(op for op, _, _ in RULES)
