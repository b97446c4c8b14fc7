"""BatchNorm folded into the convolution before it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mfn_compile.model.network import ConvUnit, MobileFaceNet


def fold_batchnorm(module: MobileFaceNet) -> MobileFaceNet:
    """A copy of `module` in eval mode without any BatchNorm; `module` stays as it is.

    Computed in float64 and rounded once to float32. The copy maps [N, 3, H, W] float32 to
    [N, embedding_width] like the original, and its parameters can be trained.
    """
    folded = copy.deepcopy(module).eval()
    for unit in folded.modules():
        if isinstance(unit, ConvUnit) and "bn" in dict(unit.named_children()):
            conv, bn = unit.get_submodule("conv"), unit.get_submodule("bn")
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(bn, nn.BatchNorm2d)
            weight, bias = _folded(conv, bn)
            conv.weight = nn.Parameter(weight.to(conv.weight.dtype))
            conv.bias = nn.Parameter(bias.to(conv.weight.dtype))
            del unit.bn
    return folded


def _folded(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution, float64."""
    assert bn.running_mean is not None
    assert bn.running_var is not None
    with torch.no_grad():
        scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
        before = 0.0 if conv.bias is None else conv.bias.double()
        bias = bn.bias.double() + (before - bn.running_mean.double()) * scale
        return conv.weight.double() * scale[:, None, None, None], bias
