"""Appends nodes to the integer graph and turns promised values into tensors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfn_compile.arm import integers
from mfn_compile.arm.graph import (
    Add,
    Conv,
    Dequantize,
    Float32,
    FloatAdd,
    FloatConv,
    Input,
    Int8,
    Lookup,
    Node,
    Quantize,
    Requantize,
    Tensor,
    ToFloat,
)
from mfn_compile.arm.steps import apply_to_table, is_identity, quantize, then
from mfn_compile.arm.values import (
    Affine,
    Codes,
    ConvSum,
    Decoded,
    Extent,
    FloatSum,
    FloatTensor,
    Image,
    PairSum,
    Real,
    Step,
    Window,
    no_activation,
)


@dataclass(eq=False)
class Builder:
    """The integer graph under construction.

    `file` names the model in errors; `channels` is the colour order of the network's input.
    """

    file: str
    channels: tuple[int, int, int]
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    floats: dict[Real, FloatTensor] = field(default_factory=dict)

    def emit(self, node: Node, extent: Extent, dtype: str = "int8") -> None:
        """Append a node; its name gets a suffix where another node has it."""
        names = {n.name for n in self.nodes}
        name, number = node.name, 2
        while name in names:
            name, number = f"{node.name}_{number}", number + 1
        self.nodes.append(replace(node, name=name))
        self.tensors[node.output] = Tensor(
            node.output, extent.height, extent.width, extent.channels, dtype
        )

    def fresh(self, name: str) -> str:
        """`name`, with a suffix where a tensor has it."""
        number, result = 2, name
        while result in self.tensors:
            result, number = f"{name}_{number}", number + 1
        return result

    def quantize(
        self, value: Real, scale: Float32, zero: Int8, output: str, name: str, unsigned: bool
    ) -> Codes:
        """The int8 tensor `output` of a float value; scale and zero [C]."""
        extent, output = value.extent, self.fresh(output)
        codes = Codes(extent, output, unsigned)
        if isinstance(value, Decoded):
            table = quantize(value.table, scale, zero)
            if np.array_equal(table, np.broadcast_to(np.arange(-128, 128), table.shape)):
                return replace(codes, tensor=value.tensor)
            self.emit(Lookup(name, value.tensor, output, table), extent)
        elif isinstance(value, Image):
            table = quantize(value.table, scale, zero)
            self.emit(Input(name, output, table, self.channels), extent)
        elif isinstance(value, ConvSum):
            self._convolve(value, output, scale, zero)
        elif isinstance(value, PairSum):
            where, a, b = f"{self.file}: node {value.name!r}", value.a, value.b
            scales, zeros = (a.scale, b.scale), (a.zero, b.zero)
            added = integers.residual(scales, zeros, value.activation, (scale, zero), where)
            self.emit(Add(value.name, a.tensor, b.tensor, output, added), extent)
        else:
            tensor = self.materialize(value, f"{output}_float").tensor
            self.emit(Quantize(name, tensor, output, scale, zero), extent)
        return codes

    def _convolve(
        self, value: ConvSum, output: str, scale: Float32 | None, zero: Int8 | None
    ) -> None:
        """Emit the convolution, to int8 of (scale, zero), or to float32 without them."""
        where = f"{self.file}: node {value.name!r}, Conv"
        weight, bias, unit = integers.layer_integers(
            value.weight, value.unit, value.bias, value.zero, where
        )
        stage: Requantize | ToFloat
        if scale is None or zero is None:
            stage = integers.to_float(unit, value.activation, where)
        else:
            integers.check_bias(value.bias, unit, scale, where)
            stage = integers.requantize(unit, value.activation, scale, zero, where)
        window = value.window
        node = Conv(
            name=value.name,
            input=value.tensor,
            output=output,
            weight=_channels_last(weight, window.depthwise),
            bias=bias,
            depthwise=window.depthwise,
            pad_value=value.zero,
            stride=window.stride,
            padding=window.padding,
            output_stage=stage,
        )
        self.emit(node, value.extent, "float32" if scale is None else "int8")

    def materialize(self, value: Real, name: str) -> FloatTensor:
        """The value as a float32 tensor, called `name` where it does not exist yet."""
        if isinstance(value, FloatTensor):
            return value
        if value in self.floats:
            return self.floats[value]
        extent, output = value.extent, self.fresh(name)
        if isinstance(value, Image):
            self.emit(Input("input", output, value.table, self.channels), extent, "float32")
        elif isinstance(value, Decoded) and value.steps:
            return self._replay(value, name)
        elif isinstance(value, Decoded):
            node = Dequantize(output, value.tensor, output, value.scale, value.zero)
            self.emit(node, extent, "float32")
        elif isinstance(value, ConvSum):
            self._convolve(value, output, None, None)
        elif isinstance(value, PairSum):
            return self._float_pair(value, name)
        else:
            self._float_convolve(value, output)
        self.floats[value] = FloatTensor(extent, output)
        return self.floats[value]

    def _replay(self, value: Decoded, name: str) -> FloatTensor:
        """Dequantize, then the steps in float."""
        plain = replace(value, table=value.table, steps=())
        result: Real = self.materialize(plain, self.fresh(f"{value.tensor}_float"))
        for step in value.steps:
            result = self.apply(step, result, f"{name}_step")
        self.floats[value] = self.materialize(result, name)
        return self.floats[value]

    def _float_pair(self, value: PairSum, name: str) -> FloatTensor:
        plain = is_identity(value.activation)
        added: Real = self.add(value.a, value.b, value.name, name if plain else f"{name}_sum")
        if not plain:
            added = replace(self.pass_through(added), activation=value.activation)
        self.floats[value] = self.materialize(added, name)
        return self.floats[value]

    def add(self, a: Real, b: Real, name: str, output: str) -> FloatTensor:
        """The float sum of two values."""
        left = self.materialize(a, f"{output}_a").tensor
        right = self.materialize(b, f"{output}_b").tensor
        result = FloatTensor(a.extent, self.fresh(output))
        self.emit(FloatAdd(name, left, right, result.tensor), a.extent, "float32")
        return result

    def _float_convolve(self, value: FloatSum, output: str) -> None:
        window, activation = value.window, value.activation
        node = FloatConv(
            name=value.name,
            input=value.tensor,
            output=output,
            weight=_channels_last(value.weight, window.depthwise),
            bias=value.bias,
            depthwise=window.depthwise,
            stride=window.stride,
            padding=window.padding,
            slope=activation.slope,
            low=activation.low,
            high=activation.high,
        )
        self.emit(node, value.extent, "float32")

    def pass_through(self, value: Real, name: str = "float") -> FloatSum:
        """A float value as a depthwise convolution that changes nothing, for steps to fold into."""
        tensor = self.materialize(value, name).tensor
        channels = value.extent.channels
        return FloatSum(
            extent=value.extent,
            name=f"{tensor}_function",
            tensor=tensor,
            weight=np.ones((channels, 1, 1, 1), np.float32),
            bias=np.zeros(channels, np.float32),
            window=Window((1, 1), (1, 1), (0, 0, 0, 0), depthwise=True),
            activation=no_activation(channels),
        )

    def apply(self, step: Step, value: Real, name: str) -> Real:
        """The value behind a float step; folded where possible, else in a float island."""
        if isinstance(value, Image):
            return replace(value, table=apply_to_table(step, value.table))
        if isinstance(value, Decoded):
            table, steps = apply_to_table(step, value.table), (*value.steps, step)
            return replace(value, table=table, steps=steps)
        folded = None if isinstance(value, FloatTensor) else _fold(step, value)
        if folded is None:
            folded = _fold(step, self.pass_through(value, f"{name}_input"))
        assert folded is not None  # everything folds into a sum that has no activation yet
        return folded


def _fold(step: Step, value: ConvSum | PairSum | FloatSum) -> ConvSum | PairSum | FloatSum | None:
    """The sum with the step in its weights or its activation, None where it has no place."""
    if not isinstance(step, Affine):
        activation = then(value.activation, step)
        return None if activation is None else replace(value, activation=activation)
    if isinstance(value, PairSum) or not is_identity(value.activation):
        return None
    factor = step.multiply.astype(np.float64) / step.divide
    bias = value.bias * factor + step.add
    if isinstance(value, ConvSum):
        return replace(value, unit=value.unit * factor, bias=bias)
    weight = (value.weight * factor.reshape(-1, 1, 1, 1)).astype(np.float32)
    return replace(value, weight=weight, bias=bias.astype(np.float32))


def _channels_last(weight: NDArray[Any], depthwise: bool) -> NDArray[Any]:
    """[O, I, KH, KW] to [O, KH, KW, I], depthwise [C, 1, KH, KW] to [KH, KW, C]."""
    if depthwise:
        return np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0))
    return np.ascontiguousarray(weight.transpose(0, 2, 3, 1))
