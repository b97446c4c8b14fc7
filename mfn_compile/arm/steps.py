"""Float operations of one input, channel by channel: how they act on tables and activations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mfn_compile.arm.graph import Float32, Int8
from mfn_compile.arm.values import Activation, Affine, Bounds, Slope, Step


def apply_to_table(step: Step, table: Float32) -> Float32:
    """The table [C, 256] behind the step, every operation rounded to float32 as ONNX does."""
    if isinstance(step, Affine):
        scaled = table * step.multiply[:, None] / step.divide[:, None]
        return scaled + step.add[:, None]
    if isinstance(step, Slope):
        return np.where(table < 0, table * step.slope[:, None], table)
    return np.minimum(np.maximum(table, step.low[:, None]), step.high[:, None])


def is_identity(activation: Activation) -> bool:
    """Whether the activation changes nothing."""
    open_ended = np.all(np.isneginf(activation.low)) and np.all(np.isposinf(activation.high))
    return activation.slope is None and bool(open_ended)


def then(activation: Activation, step: Step) -> Activation | None:
    """The activation followed by the step, None where that is no activation."""
    if isinstance(step, Bounds):
        low = np.minimum(np.maximum(activation.low, step.low), step.high)
        high = np.minimum(np.maximum(activation.high, step.low), step.high)
        return replace(activation, low=low, high=high)
    if isinstance(step, Slope):
        if np.all(activation.low >= 0):
            return activation
        return replace(activation, slope=step.slope) if is_identity(activation) else None
    return None


def quantize(values: Float32, scale: Float32, zero: Int8) -> Int8:
    """QuantizeLinear: values float32 [C] or [C, n], scale and zero [C]; int8 of that shape."""
    columns = (-1,) + (1,) * (values.ndim - 1)
    with np.errstate(over="ignore"):
        rounded = np.rint(values / scale.reshape(columns)) + zero.reshape(columns).astype(
            np.float32
        )
    return np.asarray(np.clip(rounded, -128, 127), np.int8)


def decode_table(scale: Float32, zero: Int8) -> Float32:
    """DequantizeLinear of every code: float32 [C, 256], column code + 128."""
    codes = np.arange(-128, 128, dtype=np.int32)[None, :] - zero.astype(np.int32)[:, None]
    return codes.astype(np.float32) * scale[:, None]
