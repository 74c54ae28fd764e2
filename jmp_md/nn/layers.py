"""Building blocks of the network: dense and residual layers, scale factors, MLP heads."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from jmp_md.forks import expect_threads
from jmp_md.nn.activation import ScaledSiLU, sigma


def merge(x: Tensor, y: Tensor) -> Tensor:
    """(x + y) / sqrt(2): the sum of two embeddings of unit variance has it again."""
    return (x + y).mul_(1.0 / math.sqrt(2.0))


class Dense(nn.Module):
    """Linear layer without bias, followed by sigma unless told otherwise."""

    def __init__(self, in_features: int, out_features: int, activation: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.activation = activation
        he_orthogonal_(self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return sigma(y) if self.activation else y

    def times(self, factor: Tensor, x: Tensor) -> Tensor:
        """factor * W x, for a factor of one number: there are fewer weights than features."""
        return functional.linear(x, self.linear.weight * factor)


class ResidualLayer(nn.Module):
    """(x + sigma(W1 sigma(W0 x))) / sqrt(2)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.dense_mlp = nn.Sequential(Dense(features, features), Dense(features, features))

    def forward(self, x: Tensor) -> Tensor:
        return merge(x, self.dense_mlp(x))


def residual_stack(features: int, depth: int) -> nn.Sequential:
    """``depth`` residual layers in a row."""
    return nn.Sequential(*[ResidualLayer(features) for _ in range(depth)])


class ScaleFactor(nn.Module):
    """A fitted constant that keeps activations at unit variance.

    The layer before multiplies its weight by ``scale_factor`` (:meth:`Dense.times`). The forward
    pass only marks the result ``x`` and the ``reference`` whose variance it should have: fitting
    looks at both through a hook.
    """

    scale_factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale_factor", torch.tensor(1.0))

    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        return x


class Bilinear(nn.Module):
    """W vec(x) for x of shape (..., n_left, n_right)."""

    def __init__(self, n_left: int, n_right: int, out_features: int) -> None:
        super().__init__()
        self.bilinear = Dense(n_left * n_right, out_features, activation=False)

    def times(self, factor: Tensor, x: Tensor) -> Tensor:
        """factor * W vec(x)."""
        return self.bilinear.times(factor, x.flatten(-2))


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
    if weight.is_meta:
        return
    if weight.is_cpu:
        expect_threads()
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
        self.register_buffer("offset", torch.linspace(0.0, 1.0, num_radial, device="cpu"))
        self.register_buffer("temps", torch.full((num_radial,), 0.5 / spacing**2))

    def forward(self, distance: Tensor) -> Tensor:
        """(n,) Å -> (n, num_radial)."""
        x, gap = self._places(distance)
        return self._gaussians(gap) * _envelope(x).unsqueeze(-1)

    def trained(self, distance: Tensor) -> Tensor:
        """The same for training, which differentiates forces: slopes are made once, at once."""
        if not distance.requires_grad:
            return self(distance)
        x, gap = self._places(distance)
        envelope, gaussians = _envelope(x).unsqueeze(-1), self._gaussians(gap)
        slope = (-105.0 * x**4 * (1.0 - x).square()).unsqueeze(-1)  # of the envelope
        slopes = gaussians * (slope - 2.0 * self.temps.abs() * gap * envelope) / self.cutoff
        values: Tensor = _KnownSlopes.apply(distance, (gaussians * envelope).detach(), slopes)
        return values

    def _places(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """d / cutoff, and how far it is from the middle of each Gaussian."""
        # Envelope and two derivatives are zero at 1, so it may end there.
        x = (distance * (1.0 / self.cutoff)).clamp(max=1.0)
        return x, x.unsqueeze(-1) - self.offset

    def _gaussians(self, gap: Tensor) -> Tensor:
        # Most Gaussians are far away. exp takes ten times as long where it underflows; 1e-26 is
        # nothing beside the near ones, in double precision, too.
        return torch.exp((gap * gap * -self.temps.abs()).clamp(min=-60.0))


def _envelope(x: Tensor) -> Tensor:
    x2 = x * x
    return 1.0 + x2 * x2 * x * (x * (35.0 - 15.0 * x) - 21.0)


class _KnownSlopes(torch.autograd.Function):
    """Functions of one variable: values (n, m) and slopes of x (n,)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(slopes)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return (gradient * slopes).sum(1), None, None
