"""The MobileFaceNet family as one configurable torch module.

Structure and widths follow Table 1 of Chen et al., "MobileFaceNets: Efficient CNNs for Accurate
Real-Time Face Verification on Mobile Devices" (2018): stem 3x3/2, depthwise 3x3, inverted
residual bottlenecks, 1x1 head, linear global depthwise convolution, linear 1x1, BatchNorm.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn


class Activation(StrEnum):
    """Non-linearity of a convolution unit; NONE is a linear unit."""

    PRELU = "prelu"
    RELU = "relu"
    RELU6 = "relu6"
    NONE = "none"


@dataclass(frozen=True)
class BottleneckSpec:
    """One inverted residual: 1x1 expand, 3x3 depthwise, linear 1x1 project (channel counts)."""

    in_channels: int
    expanded: int
    out_channels: int
    stride: int
    residual: bool


def bottlenecks(
    stages: tuple[tuple[int, int, int, int], ...], in_channels: int
) -> tuple[BottleneckSpec, ...]:
    """Expand the paper's (t, c, n, s) rows into one spec a block."""
    specs = []
    for expansion, out_channels, repeats, first_stride in stages:
        for index in range(repeats):
            stride = first_stride if index == 0 else 1
            residual = stride == 1 and in_channels == out_channels
            expanded = expansion * in_channels
            specs.append(BottleneckSpec(in_channels, expanded, out_channels, stride, residual))
            in_channels = out_channels
    return tuple(specs)


PAPER_STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
PAPER_BLOCKS = bottlenecks(PAPER_STAGES, in_channels=64)


@dataclass(frozen=True)
class MobileFaceNetConfig:
    """Everything that distinguishes two members of the family.

    `head_width` None leaves out the 1x1 head (MobileFaceNet-S); `linear` False leaves out the
    last 1x1 (MobileFaceNet-M and -S), and the embedding is then the global depthwise output.
    `linear_bn` False leaves out the last BatchNorm. `depthwise` False leaves out the 3x3 behind
    the stem; `depthwise_groups` None means one group a channel.
    """

    height: int = 112
    width: int = 112
    activation: Activation = Activation.PRELU
    stem_width: int = 64
    depthwise_activation: Activation = Activation.PRELU
    depthwise: bool = True
    depthwise_groups: int | None = None
    depthwise_pointwise: bool = False
    blocks: tuple[BottleneckSpec, ...] = PAPER_BLOCKS
    head_width: int | None = 512
    linear: bool = True
    linear_bias: bool = False
    linear_bn: bool = True
    embedding_width: int = 128
    bn_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.height % 16 or self.width % 16:
            raise ValueError(f"input {self.height}x{self.width} is not a multiple of 16")
        if not self.linear and self.embedding_width != self.feature_width:
            raise ValueError(
                f"without the last 1x1 the embedding is {self.feature_width} wide, "
                f"not {self.embedding_width}"
            )

    @property
    def feature_width(self) -> int:
        """Channels that enter the global depthwise convolution."""
        return self.blocks[-1].out_channels if self.head_width is None else self.head_width

    @property
    def feature_map(self) -> tuple[int, int]:
        """Height and width of the map that the global depthwise convolution covers."""
        return self.height // 16, self.width // 16


class ConvUnit(nn.Sequential):
    """Convolution, optional BatchNorm, optional activation; submodules `conv`, `bn`, `act`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = False,
        bn: bool = True,
        eps: float = 1e-5,
        activation: Activation = Activation.NONE,
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding, groups=groups, bias=bias
        )
        self.add_module("conv", conv)
        if bn:
            self.add_module("bn", nn.BatchNorm2d(out_channels, eps=eps))
        if activation is not Activation.NONE:
            self.add_module("act", _activation(activation, out_channels))


def _activation(kind: Activation, channels: int) -> nn.Module:
    if kind is Activation.PRELU:
        return nn.PReLU(channels)
    return nn.ReLU6() if kind is Activation.RELU6 else nn.ReLU()


class Bottleneck(nn.Module):
    """Inverted residual with linear projection; adds its input when the spec says so."""

    def __init__(self, spec: BottleneckSpec, activation: Activation, eps: float) -> None:
        super().__init__()
        mid = spec.expanded
        self.residual = spec.residual
        self.expand = ConvUnit(spec.in_channels, mid, eps=eps, activation=activation)
        self.depthwise = ConvUnit(
            mid, mid, 3, stride=spec.stride, padding=1, groups=mid, eps=eps, activation=activation
        )
        self.project = ConvUnit(mid, spec.out_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class MobileFaceNet(nn.Module):
    """The network; its embedding is not L2-normalized."""

    def __init__(self, config: MobileFaceNetConfig | None = None) -> None:
        super().__init__()
        cfg = config or MobileFaceNetConfig()
        self.config = cfg
        act, stem, feature = cfg.activation, cfg.stem_width, cfg.feature_width
        eps = cfg.bn_eps
        self.stem = ConvUnit(3, stem, 3, stride=2, padding=1, eps=eps, activation=act)
        dw_act, groups = cfg.depthwise_activation, cfg.depthwise_groups or stem
        self.depthwise = (
            ConvUnit(stem, stem, 3, padding=1, groups=groups, eps=eps, activation=dw_act)
            if cfg.depthwise
            else nn.Identity()
        )
        self.pointwise = (
            ConvUnit(stem, stem, eps=eps, activation=dw_act)
            if cfg.depthwise_pointwise
            else nn.Identity()
        )
        self.blocks = nn.Sequential(*(Bottleneck(b, act, eps) for b in cfg.blocks))
        self.head = (
            nn.Identity()
            if cfg.head_width is None
            else ConvUnit(cfg.blocks[-1].out_channels, feature, eps=eps, activation=act)
        )
        self.global_depthwise = ConvUnit(feature, feature, cfg.feature_map, groups=feature, eps=eps)
        self.linear = (
            ConvUnit(feature, cfg.embedding_width, bias=cfg.linear_bias, bn=cfg.linear_bn, eps=eps)
            if cfg.linear
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Normalized float32 images [N, 3, H, W] to embeddings [N, embedding_width]."""
        y = self.pointwise(self.depthwise(self.stem(x)))
        y = self.global_depthwise(self.head(self.blocks(y)))
        return torch.flatten(self.linear(y), 1)
