"""Building blocks of the network: dense and residual layers, scale factors, MLP heads."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def scaled_silu(x: Tensor) -> Tensor:
    """sigma(x) = silu(x) / 0.6: keeps unit variance for unit-normal input (GemNet, section 6)."""
    return functional.silu(x) * (1.0 / 0.6)


class ScaledSiLU(nn.Module):
    """:func:`scaled_silu` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return scaled_silu(x)


class Dense(nn.Module):
    """Linear layer without bias, followed by the scaled SiLU unless told otherwise."""

    def __init__(self, in_features: int, out_features: int, activation: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.activation = activation
        he_orthogonal_(self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return scaled_silu(x) if self.activation else x


class ResidualLayer(nn.Module):
    """(x + sigma(W1 sigma(W0 x))) / sqrt(2)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.dense_mlp = nn.Sequential(Dense(features, features), Dense(features, features))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.dense_mlp(x)) / math.sqrt(2.0)


def residual_stack(features: int, depth: int) -> nn.Sequential:
    """``depth`` residual layers in a row."""
    return nn.Sequential(*[ResidualLayer(features) for _ in range(depth)])


class ScaleFactor(nn.Module):
    """Multiplies by a fitted constant that keeps activations at unit variance.

    ``reference`` is the tensor whose variance the factor restores. Only the fitting of the
    factor looks at it, through a forward hook.
    """

    scale_factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale_factor", torch.tensor(1.0))

    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        return x * self.scale_factor


class Bilinear(nn.Module):
    """W vec(x) for x of shape (..., n_left, n_right)."""

    def __init__(self, n_left: int, n_right: int, out_features: int) -> None:
        super().__init__()
        self.bilinear = Dense(n_left * n_right, out_features, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.bilinear(x.flatten(-2))


def mlp_head(features: int, bias: bool) -> nn.Sequential:
    """Four (linear + sigma) layers of constant width, then a linear layer to one number.

    The last layer has no bias whatever ``bias`` says (spec section 6).
    """
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(features, features, bias=bias), ScaledSiLU()]
    return nn.Sequential(*layers, nn.Linear(features, 1, bias=False))


def he_orthogonal_(weight: Tensor, fan_in: int | None = None) -> None:
    """Fill a (out, in) matrix: orthogonal, rows standardised, times sqrt(1 / fan_in)."""
    with torch.no_grad():
        nn.init.orthogonal_(weight)
        if weight.shape[1] > 1:
            variance, mean = torch.var_mean(weight, dim=1, unbiased=True, keepdim=True)
            weight.sub_(mean).div_(variance.clamp(min=1e-12).sqrt())
        weight.mul_(math.sqrt(1.0 / (fan_in or weight.shape[1])))


class RadialBasis(nn.Module):
    """Gaussians of d / cutoff on [0, 1] under a polynomial envelope (spec section 2)."""

    offset: Tensor
    temps: Tensor

    def __init__(self, num_radial: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        spacing = 1.0 / max(num_radial - 1, 1)
        self.register_buffer("offset", torch.linspace(0.0, 1.0, num_radial))
        self.register_buffer("temps", torch.full((num_radial,), 0.5 / spacing**2))

    def forward(self, distance: Tensor) -> Tensor:
        """(n,) Å -> (n, num_radial)."""
        x = distance / self.cutoff
        x2 = x * x
        envelope = 1.0 + x2 * x2 * x * (-21.0 + x * (35.0 - 15.0 * x))
        envelope = torch.where(x < 1.0, envelope, torch.zeros_like(x))
        gap = x.unsqueeze(-1) - self.offset
        return envelope.unsqueeze(-1) * torch.exp(-self.temps.abs() * gap * gap)
