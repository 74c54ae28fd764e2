"""Layers of the folded network, see :mod:`jmp_md.nn.folded`.

No postponed annotations in this file: TorchScript reads them as they are.
"""

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from jmp_md.nn.activation import GAIN
from jmp_md.nn.layers import Dense, ResidualLayer, ScaleFactor

HALF = math.sqrt(0.5)


def held(weight: Tensor) -> Tensor:
    """A weight to be held: a constant, or one with a gradient where those are enabled."""
    return weight if torch.is_grad_enabled() else weight.detach()


class Linear(nn.Module):
    """W x for a weight that is folded."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", held(weight).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight)


class LinearOfHead(Linear):
    """W x + b."""

    bias: Tensor

    def __init__(self, layer: nn.Linear, gain: float) -> None:
        super().__init__(layer.weight * gain)
        bias = layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias
        self.register_buffer("bias", held(bias).clone())

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


class Table(nn.Module):
    """A vector for each element."""

    weight: Tensor

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.register_buffer("weight", held(embedding.weight).clone())

    def forward(self, index: Tensor) -> Tensor:
        return functional.embedding(index, self.weight)


class LinearInHalf(Linear):
    """The same in the type of the weight, whatever that of x."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.to(self.weight.dtype), self.weight)


def linear(weight: Tensor, half: torch.dtype | None) -> Linear:
    """A linear layer in the type of its weight, or in another."""
    return Linear(weight) if half is None else LinearInHalf(weight.to(half))


def weight_of(layer: Dense, *factors: float | ScaleFactor) -> Tensor:
    """The weight of a layer times constants and fitted factors."""
    weight = layer.linear.weight
    for factor in factors:
        weight = weight * (factor.scale_factor if isinstance(factor, ScaleFactor) else factor)
    return weight


def _dense(layers: nn.Sequential) -> list[Dense]:
    """The dense layers among layers."""
    return [layer for layer in layers if isinstance(layer, Dense)]


class FoldedResidual(nn.Module):
    """:class:`~jmp_md.nn.layers.ResidualLayer` on x / gain: its gain is ``gain / sqrt(2)``."""

    share: Final[float]

    def __init__(self, layer: ResidualLayer, gain: float, half: torch.dtype | None) -> None:
        super().__init__()
        inner, outer = _dense(layer.dense_mlp)
        self.inner = linear(weight_of(inner, gain), half)
        self.outer = linear(weight_of(outer, GAIN), half)
        self.share = GAIN / gain

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.outer(functional.silu(self.inner(x))))
        return torch.add(x, y, alpha=self.share)


class FoldedLayers(nn.Module):
    """Residual layers in a row, after a dense layer if there is one.

    Attributes:
        gain: Of what they return.
    """

    has_dense: Final[bool]

    def __init__(self, layers: nn.Sequential, gain: float, half: torch.dtype | None) -> None:
        super().__init__()
        dense, rest = _dense(layers), [x for x in layers if isinstance(x, ResidualLayer)]
        self.has_dense = bool(dense)
        self.dense: nn.Module = nn.Identity()
        if self.has_dense:
            self.dense, gain = linear(weight_of(dense[0], gain), half), GAIN
        residual = []
        for layer in rest:
            residual.append(FoldedResidual(layer, gain, half))
            gain *= HALF
        self.residual = nn.ModuleList(residual)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        if self.has_dense:
            x = functional.silu(self.dense(x))
        for layer in self.residual:
            x = layer(x)
        return x
