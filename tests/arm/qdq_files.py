"""Builders of small QDQ files, by hand and by other people's quantizers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mfn_compile.model.preprocessing import Preprocessing

Array = NDArray[Any]
SIZE = 16
PREPROCESSING = Preprocessing(
    height=SIZE, width=SIZE, color="BGR", mean=(127.5, 120.0, 110.0), std=(128.0, 64.0, 128.0)
)


def images(count: int = 4, seed: int = 0, size: int = SIZE) -> NDArray[np.uint8]:
    """Smooth random images, uint8 RGB [count, size, size, 3]."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, size // 4, size // 4, 3))
    noise = random.integers(-30, 31, (count, size, size, 3))
    return np.clip(coarse.repeat(4, 1).repeat(4, 2) + noise, 0, 255).astype(np.uint8)


def normalized(rgb: NDArray[np.uint8], given: Preprocessing = PREPROCESSING) -> Array:
    """What the ONNX model takes, float32 [N, 3, H, W]."""
    whole = np.zeros((len(rgb), 112, 112, 3), np.uint8)
    given.crop(whole)[:] = rgb
    return given.apply(whole)


class Net:
    """An ONNX graph written node by node; every method returns the name of a tensor.

    `exact` makes all scales powers of two, biases multiples of the accumulator's unit and slopes
    short, so that ONNX Runtime's float32 makes no rounding error and must agree bit for bit.
    """

    def __init__(self, seed: int = 0, *, exact: bool = True, opset: int = 17) -> None:
        self.random = np.random.default_rng(seed)
        self.exact, self.opset = exact, opset
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.scales: dict[str, Array] = {}  # of dequantized tensors, for exact biases
        self.count = 0

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output."""
        self.count += 1
        name = f"{kind}_{self.count}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"node_{name}", **attributes))
        return name

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        """An initializer."""
        self.count += 1
        name = f"constant_{self.count}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def scale(self, middle: float, count: int = 0) -> Array:
        """A scale near `middle`, or `count` of them."""
        raw = middle * self.random.uniform(0.6, 1.6, count or None)
        return np.float32(2.0 ** np.rint(np.log2(raw))) if self.exact else np.float32(raw)

    def qdq(
        self, x: str, scale: Any = 1 / 64, zero: Any = 0, dtype: Any = np.int8, again: int = 1
    ) -> str:
        """QuantizeLinear and DequantizeLinear; `zero` None leaves the zero point out."""
        scale = np.asarray(scale, np.float32)
        axis = {"axis": 1} if scale.ndim else {}
        parameters = [self.const(scale)]
        if zero is not None:
            parameters.append(self.const(np.broadcast_to(zero, scale.shape), dtype))
        codes = self.op("QuantizeLinear", x, *parameters, **axis)
        for _ in range(again):
            result = self.op("DequantizeLinear", codes, *parameters, **axis)
        self.scales[result] = scale
        return result

    def weights(
        self, shape: Sequence[int], *, per_channel: bool = True, axis: int = 0, zero: Any = None,
        dtype: Any = np.int8, reach: int = 90,
    ) -> str:  # fmt: skip
        """Dequantized random weights."""
        fan = float(np.prod(shape[1:])) if axis == 0 else float(shape[0])
        scale = self.scale(1 / 60 / np.sqrt(fan), shape[axis] if per_channel else 0)
        shift = 0 if zero is None else int(zero)
        values = self.random.integers(-reach, reach + 1, shape) + shift
        inputs = [self.const(values, dtype), self.const(scale)]
        if zero is not None:
            inputs.append(self.const(np.full(scale.shape, zero), dtype))
        name = self.op("DequantizeLinear", *inputs, **({"axis": axis} if per_channel else {}))
        self.scales[name] = scale
        return name

    def bias(self, x: str, weight: str, count: int) -> str:
        """A float bias; a multiple of the accumulator's unit where `exact`."""
        value = self.random.uniform(-0.3, 0.3, count)
        if self.exact and x in self.scales and weight in self.scales:
            unit = self.scales[x].astype(np.float64) * self.scales[weight]
            value = np.rint(value / unit) * unit
        return self.const(value)

    def conv(
        self, x: str, outputs: int, inputs: int, kernel: int = 1, *, stride: int = 1,
        groups: int = 1, bias: bool = True, quantized: bool = True, **keywords: Any,
    ) -> str:  # fmt: skip
        """Conv with 'same' padding; `keywords` go to `weights`."""
        shape = (outputs, inputs // groups, kernel, kernel)
        if quantized:
            weight = self.weights(shape, **keywords)
        else:
            weight = self.const(self.random.normal(0, 0.8 / np.sqrt(np.prod(shape[1:])), shape))
        extra = [self.bias(x, weight, outputs)] if bias else []
        pad = kernel // 2
        return self.op(
            "Conv", x, weight, *extra, group=groups, kernel_shape=[kernel, kernel],
            pads=[pad] * 4, strides=[stride] * 2, dilations=[1, 1],
        )  # fmt: skip

    def prelu(self, x: str, channels: int) -> str:
        """PRelu with one slope a channel, eighths where `exact`."""
        slope = self.random.uniform(-0.2, 0.6, (channels, 1, 1))
        return self.op("PRelu", x, self.const(np.rint(slope * 8) / 8 if self.exact else slope))

    def relu6(self, x: str) -> str:
        """Clip to [0, 6]."""
        return self.op("Clip", x, self.const(0.0), self.const(6.0))

    def batch_norm(self, x: str, channels: int, *, signs: bool = False) -> str:
        """BatchNormalization; its factor is a power of two and its shift short where `exact`."""
        factor = 2.0 ** self.random.integers(-1, 2, channels)
        factor *= self.random.choice([-1.0, 1.0], channels) if signs else 1.0
        shift, mean = self.random.integers(-8, 9, (2, channels)) / 32
        variance = np.full(channels, 0.25)
        if not self.exact:
            factor, variance = factor * 1.1, self.random.uniform(0.2, 2, channels)
        parameters = [self.const(v) for v in (factor / 2, shift, mean, variance)]
        return self.op("BatchNormalization", x, *parameters, epsilon=0.0)

    def head(self, x: str, channels: int, size: int, embedding: int = 8) -> str:
        """Global depthwise convolution, linear convolution, flattening."""
        weight = self.weights((channels, 1, size, size))
        bias = self.bias(x, weight, channels)
        x = self.op("Conv", x, weight, bias, group=channels, kernel_shape=[size, size])
        x = self.qdq(x, self.scale(1 / 64))
        return self.op("Flatten", self.conv(x, embedding, channels), axis=1)

    def model(
        self, output: str, width: Any = 8, *, size: int = SIZE, batch: Any = 1
    ) -> onnx.ModelProto:
        """The finished model."""
        image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, size, size])
        dims = width if isinstance(width, list) else [batch, width]
        last = helper.make_tensor_value_info(output, TensorProto.FLOAT, dims)
        graph = helper.make_graph(self.nodes, "tiny", [image], [last], self.constants)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def start(seed: int = 0, **keywords: Any) -> tuple[Net, str]:
    """A net and its first quantized tensor, 8 channels of 8x8."""
    net = Net(seed, **keywords)
    x = net.qdq("input", net.scale(1 / 64))
    return net, net.qdq(net.relu6(net.conv(x, 8, 3, 3, stride=2)), net.scale(1 / 40))


def ended(net: Net, x: str) -> onnx.ModelProto:
    return net.model(net.head(x, 8, 8))


def plain(seed: int = 0, *, exact: bool = True, activation: str = "relu6", opset: int = 17,
          unsigned: bool = False, scales_per_channel: bool = True) -> onnx.ModelProto:  # fmt: skip
    """Stem, depthwise, pointwise, a residual block, head: what our quantizer writes."""
    net = Net(seed, exact=exact, opset=opset)
    kind: dict[str, Any] = {"zero": 3, "dtype": np.int8}
    if unsigned:
        kind = {"zero": 117, "dtype": np.uint8}

    def act(x: str, channels: int, each: bool = False) -> str:
        x = {"relu6": net.relu6, "relu": lambda y: net.op("Relu", y)}.get(
            activation, lambda y: net.prelu(y, channels)
        )(x)
        return net.qdq(x, net.scale(1 / 40, channels if each and scales_per_channel else 0), **kind)

    x = net.qdq("input", net.scale(1 / 64), **kind)
    x = act(net.conv(x, 8, 3, 3, stride=2), 8, each=True)
    x = act(net.conv(x, 8, 8, 3, groups=8), 8)
    x = net.qdq(net.conv(x, 8, 8), net.scale(1 / 50), **kind)
    y = act(net.conv(x, 16, 8), 16, each=True)
    y = act(net.conv(y, 16, 16, 3, groups=16), 16)
    y = net.qdq(net.conv(y, 8, 16), net.scale(1 / 50), **kind)
    x = net.qdq(net.op("Add", x, y), net.scale(1 / 40), **kind)
    return net.model(net.head(x, 8, 8))


def float_network(seed: int = 0, *, batch_norm: bool = False, gemm: bool = False) -> Any:
    """A float network with a residual block, for quantizers of other people."""
    net = Net(seed, exact=False)

    def block(x: str, outputs: int, inputs: int, kernel: int, act: bool = True, **more: Any) -> str:
        x = net.conv(x, outputs, inputs, kernel, quantized=False, bias=not batch_norm, **more)
        x = net.batch_norm(x, outputs) if batch_norm else x
        return net.prelu(x, outputs) if act else x

    x = block("input", 8, 3, 3, stride=2)
    x = block(x, 8, 8, 3, groups=8)
    y = block(x, 16, 8, 1)
    y = block(y, 16, 16, 3, groups=16)
    x = net.op("Add", x, block(y, 8, 16, 1, act=False))
    weight = net.const(net.random.normal(0, 0.1, (8, 1, 8, 8)))
    x = net.op("Conv", x, weight, group=8, kernel_shape=[8, 8])
    if not gemm:
        return net.model(net.op("Flatten", net.conv(x, 8, 8, 1, quantized=False)))
    x = net.op("Reshape", x, net.const([-1, 8], np.int64))
    weight, bias = net.const(net.random.normal(0, 0.4, (8, 8))), net.const(np.zeros(8))
    return net.model(net.op("Gemm", x, weight, bias, transB=1))


def runtime_quantized(
    folder: Path,
    network: onnx.ModelProto,
    *,
    per_channel: bool,
    unsigned: bool,
    batches: Array | None = None,
) -> onnx.ModelProto:
    """The network as ONNX Runtime's static quantizer writes it; `batches` [N, 1, 3, H, W]."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            given = normalized(images(16, 9))[:, None] if batches is None else batches
            self.batches = iter(given)

        def get_next(self) -> dict[str, Array] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch}

    source, target = folder / "float.onnx", folder / "quantized.onnx"
    onnx.save(network, source)
    kind = quantization.QuantType
    quantization.quantize_static(
        source, target, Reader(), quant_format=quantization.QuantFormat.QDQ,
        per_channel=per_channel, weight_type=kind.QInt8,
        activation_type=kind.QUInt8 if unsigned else kind.QInt8,
    )  # fmt: skip
    return onnx.load(target)
