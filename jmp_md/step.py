"""A step of a simulation: what a potential asks its network for, and how it is computed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from jmp_md.graph.layout import Graph
from jmp_md.nn.fold import FoldedNetwork
from jmp_md.nn.kernels.run import Kernels


class StepResult(NamedTuple):
    """What the network gives for a graph.

    Attributes:
        energies: (n_atoms,) as :meth:`jmp_md.potential.Potential.network` gives them.
        forces: (n_atoms, 3) direct forces, or empty.
        total: () the sum of the energies, which has a gradient where gradients are enabled.
    """

    energies: Tensor
    forces: Tensor
    total: Tensor


def with_gradients(total: Tensor, roots: list[Tensor], gradients: list[Tensor]) -> Tensor:
    """A number () whose gradient by each of the roots is known."""
    result: Tensor = _KnownGradients.apply(total, gradients, *roots)
    return result


class _KnownGradients(torch.autograd.Function):
    # Roots and gradients may go to torch.autograd.grad as they are, but that imports sympy.
    @staticmethod
    def forward(ctx: Any, total: Tensor, gradients: list[Tensor], *roots: Tensor) -> Tensor:
        ctx.gradients = gradients
        return total.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *torch._foreach_mul(ctx.gradients, slope)


class Step(Protocol):
    """Computes the network of a potential on a graph."""

    @property
    def frugal(self) -> bool:
        """Whether kernels compute energies, in a sixth of the memory that operations take."""
        ...

    def __call__(self, numbers: Tensor, graph: Graph, *, direct: bool, lean: bool) -> StepResult:
        """Run it; gradients are wanted where they are enabled.

        Args:
            numbers: (n_atoms,) atomic numbers.
            graph: Graph whose distances, unit vectors and weights can be differentiated.
            direct: Whether direct forces are wanted.
            lean: Whether to compute blocks again in the backward pass, to need less memory.
        """
        ...

    def forget(self) -> None:
        """Expect other weights, of another type or on another device."""
        ...


class Foldable(Protocol):
    """A potential, as far as a step knows it."""

    backbone: Any

    def fold(self) -> FoldedNetwork:
        """The network of the weights as they are now, for inference."""
        ...

    def parameters(self) -> Iterator[Any]:
        """Weights."""
        ...

    def buffers(self) -> Iterator[Tensor]:
        """Other tensors."""
        ...


class FoldedStep:
    """The folded network of a potential, in eager mode or by kernels of its own.

    It is folded at the first step, and again when weights have changed since; at every step while
    any of them has a gradient, since fused optimisers change weights without a trace. Changes by
    operations on ``.data``, or of parts of the network that are put in the place of others, are
    noticed after :meth:`forget` only.

    Args:
        potential: What to compute.
        kernels: Folder for compiled kernels, which are used where they can be; None for PyTorch's
            operations alone. Direct forces and lean memory are left to the latter.
    """

    def __init__(self, potential: Foldable, kernels: Path | None = None) -> None:
        self._potential = potential
        self._folder = kernels
        self._folded: _Folded | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_folded": None}

    @property
    def network(self) -> FoldedNetwork:
        """The network, of the weights as they are now."""
        return self._current().network

    @property
    def kernels(self) -> Kernels | None:
        """What computes steps in place of the network's own operations, if anything does."""
        return self._current().kernels

    @property
    def frugal(self) -> bool:
        """See :class:`Step`."""
        return self.kernels is not None

    def _current(self) -> _Folded:
        folded, potential = self._folded, self._potential
        if folded is None or folded.state != _state(potential, folded.weights):
            everything = [*potential.parameters(), *potential.buffers()]
            weights = [w for w in everything if not w.is_inference()]  # others have no versions
            network, kernels = potential.fold(), None
            if self._folder is not None:
                found = Kernels(network, self._folder)
                kernels = None if found.problem else found
            folded = _Folded(weights, _state(potential, weights), network, kernels)
            # At once, as threads share it.
            self._folded = None if any(w.requires_grad for w in weights) else folded
        return folded

    def forget(self) -> None:
        """Fold again at the next step."""
        self._folded = None

    def __call__(self, numbers: Tensor, graph: Graph, *, direct: bool, lean: bool) -> StepResult:
        _, _, network, kernels = self._current()
        if kernels is not None and not direct and not lean:
            energies, roots, gradients = kernels(numbers, graph)
            total = with_gradients(energies.detach().sum(), roots, gradients)
            return StepResult(energies, energies.new_zeros(0, 3), total)
        run = network.lean if lean else network
        energies, forces = run(numbers, graph)
        return StepResult(energies, forces, energies.sum())


class _Folded(NamedTuple):
    """A network, and what it was folded from."""

    weights: list[Tensor]
    state: list[object]
    network: FoldedNetwork
    kernels: Kernels | None


def _state(potential: Foldable, weights: list[Tensor]) -> list[object]:
    """What changes with the weights, their storage, or the precision."""
    of_each = [(w._version, w.data_ptr(), w.requires_grad) for w in weights]
    return [potential.backbone.bf16, *of_each]
