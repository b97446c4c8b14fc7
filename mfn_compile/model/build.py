"""From a recognised state dict to the network: sizes from shapes, strides from the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mfn_compile.errors import BadInputError
from mfn_compile.model.network import (
    Activation,
    BottleneckSpec,
    MobileFaceNet,
    MobileFaceNetConfig,
)
from mfn_compile.model.preprocessing import CROP_SIZE
from mfn_compile.model.recognise import COUNTER, Match

STRIDED_BLOCKS = 3  # with the stem, an input of 112 becomes the 7 of the global depthwise


@dataclass(frozen=True)
class Hints:
    """What weights cannot tell; None leaves it to the layout."""

    bn_eps: float | None = None
    activation: Activation | None = None
    depthwise_activation: Activation | None = None
    strides: tuple[int, ...] | None = None


def build(found: Match, state: Mapping[str, Tensor], hints: Hints, where: str) -> MobileFaceNet:
    """The network in eval mode with the weights of `state`.

    Raises:
        BadInputError: shapes contradict each other or the family's structure, a variance is
            negative, or the input would not be a multiple of 16 up to 112.
    """
    tensors = {key: _as_conv(key, state[source]) for key, source in found.keys.items()}
    network = MobileFaceNet(_config(found, tensors, hints, where))
    full = _complete(network, tensors)
    for key, expected in network.state_dict().items():
        if full[key].shape != expected.shape:
            raise BadInputError(
                f"a tensor has shape {list(full[key].shape)} where the network needs "
                f"{list(expected.shape)}",
                where=f"{where}: {found.keys.get(key, key)}",
                why=f"Read as layout {found.layout.name}",
            )
        if key.endswith("running_var") and float(full[key].min()) < 0:
            raise BadInputError(
                "a BatchNorm has a negative variance",
                where=f"{where}: {found.keys.get(key, key)}",
                hint="the file is damaged: download or copy it again",
            )
    network.load_state_dict(full)
    return network.eval()


def _as_conv(key: str, tensor: Tensor) -> Tensor:
    """A last layer stored as nn.Linear [D, C] is the 1x1 convolution [D, C, 1, 1]."""
    if key == "linear.conv.weight" and tensor.dim() == 2:
        return tensor[:, :, None, None]
    return tensor


def _complete(network: MobileFaceNet, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add what a file may leave out: counters, the scale and shift of a BatchNorm without."""
    full = dict(tensors)
    for key, default in network.state_dict().items():
        if key not in full or key.endswith(COUNTER):
            full[key] = default
        elif key.endswith("act.weight") and full[key].numel() == 1:
            full[key] = full[key].reshape(1).expand(default.shape)  # one slope for all channels
    return full


def _config(
    found: Match, tensors: Mapping[str, Tensor], hints: Hints, where: str
) -> MobileFaceNetConfig:
    for key, tensor in tensors.items():
        if key.endswith("conv.weight") and tensor.dim() != 4:
            raise BadInputError(
                f"a convolution's weight has {tensor.dim()} dimensions, not 4",
                where=f"{where}: {found.keys[key]}",
            )
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    kernel = shapes["global_depthwise.conv.weight"][2:]
    if not all(16 * side <= CROP_SIZE for side in kernel):
        raise BadInputError(
            f"the global depthwise kernel {kernel[0]}x{kernel[1]} asks for an input of "
            f"{16 * kernel[0]}x{16 * kernel[1]}, the largest is {CROP_SIZE}x{CROP_SIZE}",
            where=where,
        )
    blocks = _blocks(found, shapes, hints, where)
    activation, depthwise_activation = _activations(found, hints)
    head = shapes.get("head.conv.weight")
    feature = blocks[-1].out_channels if head is None else head[0]
    linear = shapes.get("linear.conv.weight")
    stem_width = shapes["stem.conv.weight"][0]
    return MobileFaceNetConfig(
        height=16 * kernel[0],
        width=16 * kernel[1],
        activation=activation,
        stem_width=stem_width,
        depthwise_activation=depthwise_activation,
        depthwise="depthwise.conv.weight" in shapes,
        depthwise_groups=_groups(shapes.get("depthwise.conv.weight"), stem_width),
        depthwise_pointwise="pointwise.conv.weight" in shapes,
        blocks=blocks,
        head_width=None if head is None else head[0],
        linear=linear is not None,
        linear_bias="linear.conv.bias" in shapes,
        linear_bn=linear is None or "linear.bn.running_mean" in shapes,
        embedding_width=feature if linear is None else linear[0],
        bn_eps=found.layout.bn_eps if hints.bn_eps is None else hints.bn_eps,
    )


def _groups(shape: tuple[int, ...] | None, channels: int) -> int | None:
    """Groups of the convolution behind the stem; None is depthwise (or a shape error later)."""
    if shape is None or channels % shape[1]:
        return None
    groups = channels // shape[1]
    return None if groups == channels else groups


def _activations(found: Match, hints: Hints) -> tuple[Activation, Activation]:
    if found.layout.activation_optional and not found.prelu:
        activation = hints.activation or Activation.RELU
        return activation, hints.depthwise_activation or activation
    return found.layout.activation, found.layout.depthwise_activation


def _blocks(
    found: Match, shapes: Mapping[str, tuple[int, ...]], hints: Hints, where: str
) -> tuple[BottleneckSpec, ...]:
    count = len(found.first_strides)
    sizes = []
    channels = shapes["stem.conv.weight"][0]
    for index in range(count):
        expand = shapes[f"blocks.{index}.expand.conv.weight"]
        project = shapes[f"blocks.{index}.project.conv.weight"]
        if expand[1] != channels:
            raise BadInputError(
                f"block {index} takes {expand[1]} channels, but {channels} arrive",
                where=f"{where}: {found.keys[f'blocks.{index}.expand.conv.weight']}",
            )
        channels = project[0]
        sizes.append((expand[1], expand[0], channels))
    strides = hints.strides or paper_strides(found.first_strides, sizes)
    if len(strides) != count or strides.count(2) != STRIDED_BLOCKS:
        raise BadInputError(
            f"{strides.count(2)} of {count} blocks would have stride 2, the family has "
            f"{STRIDED_BLOCKS}",
            where=where,
            why="Strides are not in the weights; they follow the paper's rule",
            hint="state them in the safetensors metadata (key 'strides') or use an ONNX file",
        )
    return tuple(
        BottleneckSpec(i, mid, o, stride, residual=stride == 1 and i == o)
        for (i, mid, o), stride in zip(sizes, strides, strict=True)
    )


def paper_strides(
    first_strides: list[int | None], sizes: list[tuple[int, int, int]]
) -> tuple[int, ...]:
    """Stride of each block: the layout's word, else 2 where a stage of the paper begins.

    In a plain list of blocks a stage that halves the map shows by its expansion factor: the first
    block, and each block that expands more than the one before it.
    """
    strides = []
    before = 0.0
    for stride, (in_channels, expanded, _) in zip(first_strides, sizes, strict=True):
        expansion = expanded / in_channels
        strides.append(stride if stride is not None else 1 + int(expansion > before))
        before = expansion
    return tuple(strides)


def parameter_count(found: Match, state: Mapping[str, Tensor]) -> int:
    """Learnable parameters in the file: everything but running statistics and counters."""
    return sum(
        state[source].numel()
        for key, source in found.keys.items()
        if not key.endswith(("running_mean", "running_var"))
    )


def multiply_adds(network: MobileFaceNet) -> int:
    """Multiply-adds of all convolutions for one image, exact."""
    total = 0

    def count(module: torch.nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        total += weight[0].numel() * output[0].numel()

    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    handles = [conv.register_forward_hook(count) for conv in convolutions]
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, network.config.height, network.config.width))
    finally:
        for handle in handles:
            handle.remove()
    return total
