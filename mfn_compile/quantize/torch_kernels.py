"""The two functions that NNCF's fake quantizers call, on torch's own kernels.

NNCF would compile a C++ extension with the user's compiler when the first quantizer runs: a minute
of waiting, a compiler as a requirement, and a lock that a killed run leaves behind for the next one
to hang on. torch has the same arithmetic compiled in.
"""

from __future__ import annotations

import torch
from torch import Tensor


class TorchKernels:
    """Stands where NNCF keeps its compiled extension; same names, same arguments."""

    @staticmethod
    def Quantize_forward(x: Tensor, low: Tensor, span: Tensor, levels: int) -> Tensor:
        """`x` rounded to `levels` values between `low` and `low + span`.

        `low` and `span` have one value, or one a channel and 1 in all other axes.
        """
        scale, zero_point = _grid(low, span, levels)
        if scale.numel() == 1:
            result: Tensor = torch.ops.aten._fake_quantize_learnable_per_tensor_affine(
                x, scale.reshape(1), zero_point.reshape(1), 0, levels - 1, 1.0
            )
            return result
        result = torch.ops.aten._fake_quantize_learnable_per_channel_affine(
            x, scale.reshape(-1), zero_point.reshape(-1), _axis(scale), 0, levels - 1, 1.0
        )
        return result

    @staticmethod
    def Quantize_backward(
        grad: Tensor,
        x: Tensor,
        low: Tensor,
        span: Tensor,
        levels: int,
        level_low: int,
        level_high: int,
        is_asymmetric: bool = False,
    ) -> list[Tensor | None]:
        """Gradients of `x`, of `low` and of `span`.

        The range of a symmetric quantizer is one parameter, its upper limit, from which NNCF
        derives `low` and `span`; the third gradient is then that of this limit.
        """
        scale, zero_point = _grid(low, span, levels)
        if scale.numel() == 1:
            of_x, of_scale, of_zero = (
                torch.ops.aten._fake_quantize_learnable_per_tensor_affine_backward(
                    grad, x, scale.reshape(1), zero_point.reshape(1), 0, levels - 1, 1.0
                )
            )
        else:
            of_x, of_scale, of_zero = (
                torch.ops.aten._fake_quantize_learnable_per_channel_affine_backward(
                    grad,
                    x,
                    scale.reshape(-1),
                    zero_point.reshape(-1),
                    _axis(scale),
                    0,
                    levels - 1,
                    1.0,
                )
            )
        of_scale, of_zero = of_scale.reshape(scale.shape), of_zero.reshape(scale.shape)
        if is_asymmetric:
            return [of_x, -of_zero / scale, of_scale / (levels - 1)]
        return [of_x, None, of_scale / level_high]


def use_torch_kernels() -> None:
    """Let NNCF's quantizers on the CPU run on torch's kernels in this process."""
    from nncf.torch.quantization.extensions import (  # noqa: PLC0415 - imports all of nncf
        QuantizedFunctionsCPU,
    )

    QuantizedFunctionsCPU._loaded_namespace = TorchKernels


def _grid(low: Tensor, span: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    scale = span / (levels - 1)
    return scale, torch.round(-low / scale)


def _axis(scale: Tensor) -> int:
    return max(range(scale.dim()), key=lambda axis: scale.shape[axis])
