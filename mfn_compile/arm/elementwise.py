"""ONNX operators of one activation and constants, read as steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mfn_compile.arm.graph import Float32
from mfn_compile.arm.proto import Source, attribute
from mfn_compile.arm.values import Affine, Bounds, Constant, Extent, Scaled, Slope, Step, Value


def floats(source: Source, node: Any, value: Value | None, what: str) -> Float32:
    """A constant as float32, dequantized where it is quantized.

    Raises:
        BadInputError: no float constant.
    """
    if isinstance(value, Scaled):
        return value.floats().astype(np.float32)
    if isinstance(value, Constant) and value.array.dtype == np.float32:
        return value.array
    raise source.refuse(node, f"its {what} is not a float32 constant")


def per_channel(source: Source, node: Any, array: Float32, extent: Extent) -> Float32:
    """A constant that broadcasts over channels only, as [C].

    Raises:
        BadInputError: it differs from pixel to pixel.
    """
    channels = extent.channels
    if array.size == 1:
        return np.full(channels, array.reshape(()), np.float32)
    tail = (channels,) if extent.flat and extent.point else (channels, 1, 1)
    rank = len(extent.dims)
    padded = (1,) * (len(tail) - array.ndim) + array.shape
    if array.ndim > rank or padded[-len(tail) :] != tail or array.size != channels:
        raise source.refuse(
            node,
            f"a constant of shape {list(array.shape)} does not belong to {channels} channels",
            "Constants must be one number, or one a channel",
        )
    return array.reshape(channels)


def _filled(extent: Extent, value: float) -> Float32:
    return np.full(extent.channels, value, np.float32)


Reader = Callable[[Source, Any, Sequence[Value | None], Extent], Step]


def _relu(source: Source, node: Any, values: Sequence[Value | None], extent: Extent) -> Step:
    return Bounds(_filled(extent, 0.0), _filled(extent, np.inf))


def _clip(source: Source, node: Any, values: Sequence[Value | None], extent: Extent) -> Step:
    bounds = []
    for index, default in ((1, -np.inf), (2, np.inf)):
        value = values[index] if index < len(values) else None
        array = np.float32(default) if value is None else floats(source, node, value, "bound")
        if np.size(array) != 1:
            raise source.refuse(node, "its bounds are not single numbers")
        bounds.append(_filled(extent, float(np.reshape(array, ()))))
    return Bounds(*bounds)


def _prelu(source: Source, node: Any, values: Sequence[Value | None], extent: Extent) -> Step:
    slope = floats(source, node, values[1], "slope")
    return Slope(per_channel(source, node, _finite(source, node, slope), extent))


def _leaky(source: Source, node: Any, values: Sequence[Value | None], extent: Extent) -> Step:
    return Slope(_finite(source, node, _filled(extent, attribute(node, "alpha", 0.01))))


def _batch_norm(source: Source, node: Any, values: Sequence[Value | None], extent: Extent) -> Step:
    names = ("scale", "bias", "mean", "variance")
    arrays = [floats(source, node, v, n) for v, n in zip(values[1:], names, strict=True)]
    shape = (extent.channels,)
    if any(a.shape != shape for a in arrays) or (extent.flat and not extent.point):
        raise source.refuse(node, f"its parameters do not belong to {extent.channels} channels")
    if attribute(node, "training_mode", 0):
        raise source.refuse(node, "it is in training mode", hint="export the model in eval mode")
    scale, bias, mean, variance = arrays
    epsilon = np.float32(attribute(node, "epsilon", 1e-5))
    if np.any(variance + epsilon <= 0):
        raise source.refuse(node, "its variance is not above 0")
    factor = _finite(source, node, scale / np.sqrt(variance + epsilon))
    shift = _finite(source, node, bias - mean * factor)
    return Affine(factor, _filled(extent, 1.0), shift)


def _arithmetic(source: Source, node: Any, values: Sequence[Value | None], extent: Extent) -> Step:
    """Add, Sub, Mul or Div of an activation and a constant, in either order."""
    constant_first = isinstance(values[0], Constant | Scaled)
    raw = floats(source, node, values[0 if constant_first else 1], "operand")
    constant = per_channel(source, node, _finite(source, node, raw), extent)
    one, zero = _filled(extent, 1.0), _filled(extent, 0.0)
    op = node.op_type
    if op == "Add":
        return Affine(one, one, constant)
    if op == "Mul":
        return Affine(constant, one, zero)
    if op == "Sub":
        return Affine(-one, one, constant) if constant_first else Affine(one, one, -constant)
    if constant_first or np.any(constant == 0):
        raise source.refuse(node, "it divides by an activation or by 0")
    return Affine(one, constant, zero)


def _finite(source: Source, node: Any, array: Float32) -> Float32:
    if not np.isfinite(array).all():
        raise source.refuse(node, "a constant of it is infinite or not a number")
    return array


STEPS: dict[str, Reader] = {
    "Relu": _relu,
    "Clip": _clip,
    "PRelu": _prelu,
    "LeakyRelu": _leaky,
    "BatchNormalization": _batch_norm,
    "Add": _arithmetic,
    "Sub": _arithmetic,
    "Mul": _arithmetic,
    "Div": _arithmetic,
}


def read_step(source: Source, node: Any, values: Sequence[Value | None], extent: Extent) -> Step:
    """The step of a node in `STEPS` on an activation of `extent`.

    Raises:
        BadInputError: a constant is missing, has the wrong shape or is not finite.
    """
    with np.errstate(all="ignore"):
        return STEPS[node.op_type](source, node, values, extent)
