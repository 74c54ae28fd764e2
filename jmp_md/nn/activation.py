"""The activation of the network, with a second derivative made of few operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

GAIN = 1.0 / 0.6  # keeps unit variance for unit-normal input (GemNet, section 6)


def sigma(x: Tensor) -> Tensor:
    """silu(x) / 0.6."""
    y: Tensor = _Sigma.apply(x)
    return y


class ScaledSiLU(nn.Module):
    """:func:`sigma` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return sigma(x)


class _Sigma(torch.autograd.Function):
    """PyTorch would take a pass of its own for the factor, and a dozen for the second derivative.

    Conservative forces are trained through it: it is half of what a step spends on activations.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return functional.silu(x).mul_(GAIN)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        result: Tensor = _SigmaBackward.apply(gradient, x)
        return result


class _SigmaBackward(torch.autograd.Function):
    """gradient * sigma'(x), whose derivatives are gradient * sigma''(x) and sigma'(x)."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(gradient, x)
        return torch.ops.aten.silu_backward(gradient, x).mul_(GAIN)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:
        gradient, x = ctx.saved_tensors
        by_gradient: Tensor = _SigmaBackward.apply(outer, x)
        # With s the logistic function of x, s' = s (1 - s) and silu'' = s' (2 + x (1 - 2 s)).
        s = torch.sigmoid(x)
        curvature = torch.addcmul(x, x, s, value=-2.0).add_(2.0).mul_(GAIN)
        return by_gradient, torch.ops.aten.sigmoid_backward(outer * gradient, s) * curvature
