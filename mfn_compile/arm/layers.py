"""Convolutions and linear layers of the ONNX graph, read as sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mfn_compile.arm.builder import Builder
from mfn_compile.arm.elementwise import floats
from mfn_compile.arm.proto import Source, attribute
from mfn_compile.arm.values import (
    Constant,
    ConvSum,
    Decoded,
    Extent,
    Float64,
    FloatSum,
    Int64,
    Real,
    Scaled,
    Value,
    Window,
    no_activation,
)

INTEL = "compile this network for intel instead"
Weights = Scaled | Constant


def read_convolution(
    source: Source, builder: Builder, node: Any, values: Sequence[Value | None]
) -> ConvSum | FloatSum:
    """A Conv node; integer where its input and its weights are both dequantized.

    Raises:
        BadInputError: weights that are no int8 or float32 constant, groups, dilations, auto_pad,
            shapes that do not match, per-channel input scales in front of a dense convolution.
    """
    value, weight = values[0], values[1]
    assert isinstance(value, Real)
    if value.extent.flat:
        raise source.refuse(node, "its input is flattened")
    weight = checked_weights(source, node, weight)
    shape = weight.integers.shape if isinstance(weight, Scaled) else weight.array.shape
    window = _window(source, node, shape, value.extent)
    extent = _output_extent(source, node, window, value.extent, shape[0])
    bias = _bias(source, node, values[2] if len(values) > 2 else None, shape[0])
    return make_sum(source, builder, node, value, weight, bias, window, extent)


def read_linear(
    source: Source, builder: Builder, node: Any, values: Sequence[Value | None]
) -> ConvSum | FloatSum:
    """A Gemm or MatMul of a flattened activation, as a convolution with one window.

    Raises:
        BadInputError: alpha, beta or transA, shapes, weights as for `read_convolution`.
    """
    value = values[0]
    assert isinstance(value, Real)
    if not value.extent.flat:
        raise source.refuse(node, "its input is not flattened")
    odd = [n for n, d in (("alpha", 1.0), ("beta", 1.0)) if attribute(node, n, d) != d]
    if odd or attribute(node, "transA", 0):
        raise source.refuse(node, f"it has {' and '.join(odd) or 'transA'}")
    weight = checked_weights(source, node, values[1])
    array = weight.integers if isinstance(weight, Scaled) else weight.array
    transposed = bool(attribute(node, "transB", 0))
    old = value.extent
    if array.ndim != 2 or array.shape[1 if transposed else 0] != old.dims[1]:
        raise source.refuse(
            node, f"its weights {list(array.shape)} do not fit {old.dims[1]} inputs"
        )
    array = array if transposed else array.T
    shape = (array.shape[0], old.channels, old.height, old.width)
    if isinstance(weight, Scaled):
        if weight.scale.size > 1 and weight.axis != (0 if transposed else 1):
            raise source.refuse(node, "its weights have one scale an input")
        weight = replace(weight, integers=array.reshape(shape), axis=0)
    else:
        weight = Constant(array.reshape(shape))
    window = Window((old.height, old.width), (1, 1), (0, 0, 0, 0), depthwise=False)
    bias = _bias(source, node, values[2] if len(values) > 2 else None, shape[0])
    extent = Extent(1, 1, shape[0], flat=True)
    return make_sum(source, builder, node, value, weight, bias, window, extent)


def make_sum(
    source: Source,
    builder: Builder,
    node: Any,
    value: Real,
    weight: Weights,
    bias: Float64,
    window: Window,
    extent: Extent,
) -> ConvSum | FloatSum:
    """The layer in integers where its input is a plain int8 tensor, else in float."""
    name = node.name or node.output[0]
    if isinstance(weight, Scaled) and isinstance(value, Decoded) and not value.steps:
        unit = _unit(source, node, value, weight, window.depthwise)
        return ConvSum(
            extent, name, value.tensor, value.zero, weight.integers, unit, bias, window,
            no_activation(extent.channels),
        )  # fmt: skip
    tensor = builder.materialize(value, node.input[0]).tensor
    real = floats(source, node, weight, "weight")
    return FloatSum(
        extent, name, tensor, real, bias.astype(np.float32), window,
        no_activation(extent.channels),
    )  # fmt: skip


def checked_weights(source: Source, node: Any, weight: Value | None) -> Weights:
    """Weights of a layer: a float32 constant, or int8 once their zero points are subtracted."""
    if isinstance(weight, Constant) and weight.array.dtype == np.float32:
        if np.isfinite(weight.array).all():
            return weight
    elif isinstance(weight, Scaled):
        if _fits_int8(weight.integers):
            return weight
        raise source.refuse(
            node,
            "its weights are outside of int8",
            "Weights minus their zero points must lie between -128 and 127",
            "quantize weights symmetrically",
        )
    raise source.refuse(
        node,
        "its weights are no int8 or float32 constant",
        hint="keep weights as initializers; weights that are computed are not supported",
    )


def _fits_int8(integers: Int64) -> bool:
    return integers.size > 0 and integers.min() >= -128 and integers.max() <= 127


def _unit(source: Source, node: Any, value: Decoded, weight: Scaled, depthwise: bool) -> Float64:
    """What one accumulated integer is worth, [O]."""
    outputs = weight.integers.shape[0]
    if weight.scale.size > 1 and (weight.axis != 0 or weight.scale.size != outputs):
        raise source.refuse(node, "its weights have one scale an input channel")
    scale = value.scale.astype(np.float64)
    if not depthwise:
        if np.any(scale != scale[0]):
            raise source.refuse(
                node,
                "its input has one scale a channel, but it sums over channels",
                hint="per-channel activations are possible in front of depthwise layers only",
            )
        scale = scale[:1]
    return np.broadcast_to(scale * weight.scale.astype(np.float64), (outputs,)).copy()


def _bias(source: Source, node: Any, value: Value | None, outputs: int) -> Float64:
    if value is None:
        return np.zeros(outputs)
    exact = value.floats() if isinstance(value, Scaled) else None
    array = floats(source, node, value, "bias").astype(np.float64) if exact is None else exact
    if array.size not in (1, outputs) or not np.isfinite(array).all():
        raise source.refuse(node, f"its bias {list(array.shape)} does not fit {outputs} outputs")
    return np.broadcast_to(array.reshape(-1), (outputs,)).copy()


def _window(source: Source, node: Any, shape: tuple[int, ...], extent: Extent) -> Window:
    if len(shape) != 4 or 0 in shape:
        raise source.refuse(node, f"its weights have shape {list(shape)}, four dimensions expected")
    groups, channels = int(attribute(node, "group", 1)), extent.channels
    depthwise = groups > 1
    if groups not in (1, channels) or (depthwise and shape[0] != channels):
        raise source.refuse(
            node,
            f"{groups} groups of {channels} channels to {shape[0]}",
            "Convolutions are dense or depthwise",
            INTEL,
        )
    if shape[1] != channels // groups:
        raise source.refuse(node, f"its weights take {shape[1]} channels of {channels // groups}")
    kernel = (shape[2], shape[3])
    if tuple(attribute(node, "kernel_shape", kernel)) != kernel:
        raise source.refuse(node, "its kernel_shape is not that of its weights")
    if any(d != 1 for d in attribute(node, "dilations", ())):
        raise source.refuse(node, "it is dilated", hint=INTEL)
    stride = tuple(attribute(node, "strides", (1, 1)))
    padding = tuple(attribute(node, "pads", (0, 0, 0, 0)))
    mode = attribute(node, "auto_pad", b"NOTSET")
    if mode not in (b"NOTSET", b"VALID"):
        raise source.refuse(
            node, f"auto_pad {mode.decode(errors='replace')}", hint="export explicit pads"
        )
    if mode == b"VALID":
        padding = (0, 0, 0, 0)
    if len(stride) != 2 or min(stride) < 1:
        raise source.refuse(node, f"its strides are {list(stride)}")
    if len(padding) != 4 or any(not 0 <= p < kernel[i % 2] for i, p in enumerate(padding)):
        raise source.refuse(node, f"pads {list(padding)} do not fit a window {list(kernel)}")
    return Window(kernel, (stride[0], stride[1]), (*padding,), depthwise)


def _output_extent(
    source: Source, node: Any, window: Window, extent: Extent, outputs: int
) -> Extent:
    top, left, bottom, right = window.padding
    height = (extent.height + top + bottom - window.kernel[0]) // window.stride[0] + 1
    width = (extent.width + left + right - window.kernel[1]) // window.stride[1] + 1
    if height < 1 or width < 1:
        raise source.refuse(
            node, f"its window does not fit an image of {extent.height}x{extent.width}"
        )
    return Extent(height, width, outputs)
