"""Small torch modules that keep their weights under the key names of public MobileFaceNets.

Written independently of the package, so that agreement of the outputs means something.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# (expansion, channels, repeats, first stride), the paper's shape with few channels
STAGES = ((2, 8, 3, 2), (4, 16, 1, 2), (2, 16, 2, 1), (4, 16, 1, 2), (2, 16, 2, 1))
STEM, HEAD, EMBEDDING = 8, 24, 12


def walk(stages=STAGES, channels=STEM):
    """Yield (in, mid, out, stride) of each block."""
    for t, c, n, s in stages:
        for i in range(n):
            yield channels, t * channels, c, s if i == 0 else 1
            channels = c


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random statistics, scales and slopes, so that a swapped tensor shows."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for m in module.modules():
            if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
                uniform(m.running_mean, -0.3, 0.3)
                uniform(m.running_var, 0.5, 2.0)
                if m.affine:
                    uniform(m.weight, 0.5, 1.5)
                    uniform(m.bias, -0.3, 0.3)
            elif isinstance(m, nn.PReLU):
                uniform(m.weight, -0.2, 0.6)
            elif isinstance(m, nn.Conv2d | nn.Linear):
                fan_in = m.weight[0].numel()
                uniform(m.weight, -((3 / fan_in) ** 0.5), (3 / fan_in) ** 0.5)
                if m.bias is not None:
                    uniform(m.bias, -0.3, 0.3)
    return module.eval()


def conv(i, o, k=1, s=1, groups=1, bias=False, pad=None):
    padding = (k // 2 if isinstance(k, int) else 0) if pad is None else pad
    return nn.Conv2d(i, o, k, s, padding, groups=groups, bias=bias)


class Foamliu(nn.Module):
    def __init__(self, kernel=7, stages=STAGES):
        super().__init__()

        def unit(i, o, k=1, s=1, groups=1):
            return nn.Sequential(conv(i, o, k, s, groups), nn.BatchNorm2d(o), nn.ReLU6())

        self.conv1 = unit(3, STEM, 3, 2)
        self.dw_conv = nn.Module()
        self.dw_conv.depthwise = conv(STEM, STEM, 3, groups=STEM)
        self.dw_conv.pointwise = conv(STEM, STEM)
        self.dw_conv.bn1, self.dw_conv.bn2 = nn.BatchNorm2d(STEM), nn.BatchNorm2d(STEM)
        self.features = nn.ModuleList()
        for i, mid, o, s in walk(stages):
            block = nn.Module()
            block.conv = nn.Sequential(
                unit(i, mid), unit(mid, mid, 3, s, mid), conv(mid, o), nn.BatchNorm2d(o)
            )
            block.add = s == 1 and i == o
            self.features.append(block)
        self.conv2 = unit(o, HEAD)
        self.gdconv = nn.Module()
        self.gdconv.depthwise = conv(HEAD, HEAD, kernel, groups=HEAD, pad=0)
        self.gdconv.bn = nn.BatchNorm2d(HEAD)
        self.conv3 = conv(HEAD, EMBEDDING, bias=True)
        self.bn = nn.BatchNorm2d(EMBEDDING)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = F.relu(self.dw_conv.bn1(self.dw_conv.depthwise(x)))
        x = F.relu(self.dw_conv.bn2(self.dw_conv.pointwise(x)))
        for block in self.features:
            y = block.conv(x)
            x = x + y if block.add else y
        x = self.gdconv.bn(self.gdconv.depthwise(self.conv2(x)))
        return self.bn(self.conv3(x)).flatten(1)


class Named(nn.Module):
    """conv, bn and, unless linear, prelu: the unit of Xiaoccer and InsightFace_Pytorch."""

    def __init__(self, i, o, k=1, s=1, groups=1, linear=False, pad=None):
        super().__init__()
        self.conv, self.bn = conv(i, o, k, s, groups, pad=pad), nn.BatchNorm2d(o)
        if not linear:
            self.prelu = nn.PReLU(o)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return self.prelu(x) if hasattr(self, "prelu") else x


class Xiaoccer(nn.Module):
    def __init__(self, kernel=(7, 6), stages=STAGES):
        super().__init__()
        self.conv1 = Named(3, STEM, 3, 2)
        self.dw_conv1 = Named(STEM, STEM, 3, groups=STEM)
        self.blocks = nn.ModuleList()
        for i, mid, o, s in walk(stages):
            block = nn.Module()
            block.conv = nn.Sequential(
                conv(i, mid), nn.BatchNorm2d(mid), nn.PReLU(mid),
                conv(mid, mid, 3, s, mid), nn.BatchNorm2d(mid), nn.PReLU(mid),
                conv(mid, o), nn.BatchNorm2d(o),
            )  # fmt: skip
            block.add = s == 1 and i == o
            self.blocks.append(block)
        self.conv2 = Named(o, HEAD)
        self.linear7 = Named(HEAD, HEAD, kernel, groups=HEAD, linear=True, pad=0)
        self.linear1 = Named(HEAD, EMBEDDING, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dw_conv1(self.conv1(x))
        for block in self.blocks:
            y = block.conv(x)
            x = x + y if block.add else y
        return self.linear1(self.linear7(self.conv2(x))).flatten(1)


class DepthWise(nn.Module):
    def __init__(self, i, mid, o, s, add):
        super().__init__()
        self.conv, self.conv_dw = Named(i, mid), Named(mid, mid, 3, s, mid)
        self.project = Named(mid, o, linear=True)
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.conv_dw(self.conv(x)))
        return x + y if self.add else y


class Residuals(nn.Module):
    def __init__(self, c, mid, n):
        super().__init__()
        self.model = nn.Sequential(*(DepthWise(c, mid, c, 1, True) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class InsightFacePytorch(nn.Module):
    """Returns the embedding before the L2 norm when `norm` is False."""

    def __init__(self, norm=False, affine=True):
        super().__init__()
        self.norm = norm
        self.conv1 = Named(3, 8, 3, 2)
        self.conv2_dw = Named(8, 8, 3, groups=8)
        self.conv_23, self.conv_3 = DepthWise(8, 16, 8, 2, False), Residuals(8, 16, 2)
        self.conv_34, self.conv_4 = DepthWise(8, 32, 16, 2, False), Residuals(16, 32, 3)
        self.conv_45, self.conv_5 = DepthWise(16, 64, 16, 2, False), Residuals(16, 32, 1)
        self.conv_6_sep = Named(16, HEAD)
        self.conv_6_dw = Named(HEAD, HEAD, (7, 7), groups=HEAD, linear=True, pad=0)
        self.linear = nn.Linear(HEAD, EMBEDDING, bias=False)
        self.bn = nn.BatchNorm1d(EMBEDDING, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_3(self.conv_23(self.conv2_dw(self.conv1(x))))
        x = self.conv_5(self.conv_45(self.conv_4(self.conv_34(x))))
        x = self.bn(self.linear(self.conv_6_dw(self.conv_6_sep(x)).flatten(1)))
        return x / x.norm(2, 1, True) if self.norm else x


class Layers(nn.Module):
    """Anything under `layers`, with an optional shortcut."""

    def __init__(self, *layers, add=False):
        super().__init__()
        self.layers, self.add = nn.Sequential(*layers), add

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.add else y


class ArcfaceTorch(nn.Module):
    """get_mbf and, with blocks[0] > 1, get_mbf_large."""

    def __init__(self, blocks=(1, 2, 3, 1), scale=2, base=4):
        super().__init__()
        narrow, wide = base * scale, 2 * base * scale

        def unit(i, o, k=1, s=1, groups=1):
            return Layers(conv(i, o, k, s, groups), nn.BatchNorm2d(o), nn.PReLU(o))

        def linear(i, o, k=1, groups=1, pad=None):
            return Layers(conv(i, o, k, 1, groups, pad=pad), nn.BatchNorm2d(o))

        def depthwise(i, o, s, mid, add=False):
            return Layers(unit(i, mid), unit(mid, mid, 3, s, mid), linear(mid, o), add=add)

        def residual(c, n, mid):
            return Layers(*(depthwise(c, c, 1, mid, add=True) for _ in range(n)))

        second = (
            unit(narrow, narrow, 3, groups=base)  # grouped, not depthwise, where scale > 1
            if blocks[0] == 1
            else residual(narrow, blocks[0], 12)
        )
        self.layers = nn.ModuleList(
            [
                unit(3, narrow, 3, 2),
                second,
                depthwise(narrow, narrow, 2, 12),
                residual(narrow, blocks[1], 12),
                depthwise(narrow, wide, 2, 20),
                residual(wide, blocks[2], 20),
                depthwise(wide, wide, 2, 40),
                residual(wide, blocks[3], 20),
            ]
        )
        self.conv_sep = unit(wide, HEAD)
        self.features = Layers(
            linear(HEAD, HEAD, 7, HEAD, pad=0),
            nn.Flatten(),
            nn.Linear(HEAD, EMBEDDING, bias=False),
            nn.BatchNorm1d(EMBEDDING),
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.features(self.conv_sep(x))
