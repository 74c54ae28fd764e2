"""Building blocks of the network: dense and residual layers, scale factors, MLP heads."""

import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from jmp_md.forks import expect_threads


class Scaled(NamedTuple):
    """The embedding ``gain * value``.

    The network is full of constant factors: 1/0.6 of the activation, 1/sqrt(2) of every sum. A
    pass over all edges for each would cost more than many layers do. They gather in ``gain``
    instead, until the next weight takes them in. Blocks end with plain tensors, so that values
    stay of order one.
    """

    value: Tensor
    gain: float


def unscaled(x: Scaled) -> Tensor:
    """The embedding as a plain tensor."""
    return x.value if x.gain == 1.0 else x.value * x.gain


def times(x: Scaled, factor: float) -> Scaled:
    """factor * x."""
    return Scaled(x.value, x.gain * factor)


def plus(x: Scaled, y: Scaled) -> Scaled:
    """x + y."""
    return Scaled(torch.add(x.value, y.value, alpha=y.gain / x.gain), x.gain)


def merge(x: Scaled, y: Scaled) -> Scaled:
    """(x + y) / sqrt(2): the sum of two embeddings of unit variance has it again."""
    return times(plus(x, y), 1.0 / math.sqrt(2.0))


def sigma(x: Tensor) -> Scaled:
    """silu(x) / 0.6: keeps unit variance for unit-normal input (GemNet, section 6)."""
    return Scaled(functional.silu(x), 1.0 / 0.6)


def scaled_silu(x: Tensor) -> Tensor:
    """:func:`sigma` as a plain tensor."""
    return functional.silu(x) * (1.0 / 0.6)


class ScaledSiLU(nn.Module):
    """:func:`scaled_silu` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return scaled_silu(x)


def joined(weights: list[Tensor], gain: float) -> Tensor:
    """gain times the weights of layers that act on the same input, outputs side by side."""
    weight = torch.cat(weights) if len(weights) > 1 else weights[0]
    return weight if gain == 1.0 else weight * gain


def product(factors: list[Tensor], gain: float) -> Tensor:
    """gain times both factors."""
    return factors[0] * (factors[1] * gain)


class Derived(nn.Module):
    """A tensor made from weights, kept while they are frozen and unchanged.

    Weights are changed by operations on them, not through ``.data``, which nothing can notice.
    From weights of more than ``LARGEST`` numbers it is made anew: the layers that use it take far
    longer. TorchScript does not get here; it reads what :func:`derive_all` has left in ``kept``.

    Attributes:
        kept: The tensor; empty before it is first made.
    """

    LARGEST = 512 * 512

    kept: Tensor
    __jit_ignored_attributes__: ClassVar[list[str]] = ["_sources", "_stamp"]

    def __init__(self) -> None:
        super().__init__()
        # Not on the device "meta", where networks are built: no file fills this.
        self.register_buffer("kept", torch.empty(0, device="cpu"), persistent=False)
        self._stamp: list[object] = []
        self._sources: list[Tensor] = []
        self._keep_always = False

    def of(
        self,
        make: Callable[[list[Tensor], float], Tensor],
        weights: list[Tensor],
        gain: float = 1.0,
    ) -> Tensor:
        """``make(weights, gain)``, which must depend on nothing that changes but these."""
        if self._keep_always:
            self.kept, self._sources = make(weights, gain).detach(), weights
            return self.kept
        # Compilers and other observers must see what the result depends on.
        if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
            return make(weights, gain)
        for w in weights:
            if w.requires_grad or w.numel() > self.LARGEST or w.is_inference():
                return make(weights, gain)
        stamp: list[object] = [(w.data_ptr(), w._version, w.dtype) for w in weights]
        stamp.append(gain)
        if stamp != self._stamp:
            with torch.no_grad():
                self.kept = make(weights, gain).detach()  # may be a parameter itself
            # Held, so that no other tensor can come to lie at the same address.
            self._stamp, self._sources = stamp, [w.detach() for w in weights]
        return self.kept

    def forget(self) -> None:
        """Keep nothing until it is needed again."""
        self.kept = self.kept.new_empty(0)
        self._stamp, self._sources = [], []

    def __deepcopy__(self, memo: dict[int, object]) -> "Derived":
        return Derived()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Derived, ()


def derive_all(network: nn.Module, run: Callable[[], object]) -> None:
    """Replace weights by the tensors derived from them, of which TorchScript uses nothing else.

    Args:
        network: A network that is to be scripted and nothing else.
        run: Runs it, through all of its layers.
    """
    parts = [module for module in network.modules() if isinstance(module, Derived)]
    for part in parts:
        part._keep_always = True
    with torch.no_grad():
        run()
    sources = {id(w) for part in parts for w in part._sources}
    for part in parts:
        part._keep_always, part._sources = False, []
    for parameter in network.parameters():
        if id(parameter) in sources:
            parameter.data = parameter.new_empty(0)


class Dense(nn.Module):
    """Linear layer without bias, followed by the scaled SiLU unless told otherwise."""

    def __init__(self, in_features: int, out_features: int, activation: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.activation = activation
        self._derived = Derived()
        he_orthogonal_(self.linear.weight)

    def forward(self, x: Scaled) -> Scaled:
        if not self.activation:
            return Scaled(self.linear(x.value), x.gain)
        if torch.jit.is_scripting():
            weight = self._derived.kept
        else:
            weight = self._derived.of(joined, [self.linear.weight], x.gain)
        return sigma(functional.linear(x.value, weight))

    def times(self, factor: Tensor, x: Tensor) -> Tensor:
        """factor * W x, for a factor of one number."""
        if torch.jit.is_scripting():
            weight = self._derived.kept
        else:
            weight = self._derived.of(product, [self.linear.weight, factor])
        return functional.linear(x, weight)


class Layers(nn.Sequential):
    """Layers in a row."""

    def forward(self, x: Scaled) -> Scaled:
        for layer in self:
            x = layer(x)
        return x


class ResidualLayer(nn.Module):
    """(x + sigma(W1 sigma(W0 x))) / sqrt(2)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.dense_mlp = Layers(Dense(features, features), Dense(features, features))

    def forward(self, x: Scaled) -> Scaled:
        return merge(x, self.dense_mlp(x))


def residual_stack(features: int, depth: int) -> Layers:
    """``depth`` residual layers in a row."""
    return Layers(*[ResidualLayer(features) for _ in range(depth)])


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

    def forward(self, x: Scaled, reference: Scaled) -> Scaled:
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
        self.register_buffer("offset", torch.linspace(0.0, 1.0, num_radial))
        self.register_buffer("temps", torch.full((num_radial,), 0.5 / spacing**2))

    def forward(self, distance: Tensor) -> Tensor:
        """(n,) Å -> (n, num_radial)."""
        # Envelope and two derivatives are zero at 1, so it may end there.
        x = (distance * (1.0 / self.cutoff)).clamp(max=1.0)
        x2 = x * x
        envelope = 1.0 + x2 * x2 * x * (x * (35.0 - 15.0 * x) - 21.0)
        gap = x.unsqueeze(-1) - self.offset
        # Most Gaussians are far away. exp takes ten times as long where it underflows; 1e-26 is
        # nothing beside the near ones, in double precision, too.
        exponent = (gap * gap * -self.temps.abs()).clamp(min=-60.0)
        return torch.exp(exponent) * envelope.unsqueeze(-1)
