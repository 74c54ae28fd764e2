"""Energies, and their gradients as a loss needs them: differentiable by the weights once more.

The exact way differentiates twice by autograd. The other way asks kernels for energies and forces,
and takes what the loss wants of the forces, a derivative of weight gradients along one direction,
from a central difference: with ``v = dL/dF`` and energies ``E`` of weights ``w``,

    dL/dw = dL/dE dE/dw - d/dt dE(x + t v)/dw,    t = 0,

so that no second derivative is ever formed. It costs one step of forces and two gradients by the
weights, whatever the number of atoms.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from jmp_md.forks import expect_threads
from jmp_md.graph.layout import Graph
from jmp_md.load import kernel_folder
from jmp_md.nn.kernels.run import Kernels
from jmp_md.potential import Potential
from jmp_md.step import with_gradients
from jmp_md.structures import Structures, centred, strained
from jmp_md.training.sections import OptimiserSection

# Å that the atom which is displaced most is moved by; the error is that of rounding over it, and
# its square over that of the length on which energies change.
_DISPLACEMENT = {torch.float32: 2e-3, torch.float64: 1e-4}


class Derived(NamedTuple):
    """What a loss is made of, differentiable by the weights.

    Attributes:
        energies: (n_atoms,) as :meth:`~jmp_md.potential.Potential.network` gives them.
        direct_forces: (n_atoms, 3) likewise, or empty.
        by_positions: (n_atoms, 3) eV/Å gradient of the total energy; None when not asked for.
        by_strain: (n_structures, 3, 3) eV by a symmetric strain; None when not asked for.
    """

    energies: Tensor
    direct_forces: Tensor
    by_positions: Tensor | None
    by_strain: Tensor | None


class Derivatives(Protocol):
    """A way to them."""

    def __call__(
        self,
        potential: Potential,
        structures: Structures,
        *,
        positions: bool,
        strain: bool,
        scale: float = 1.0,
    ) -> Derived:
        """Energies, and the gradients that are wanted.

        Args:
            potential: What is trained.
            structures: In its type and on its device.
            positions: Whether the gradient by positions is wanted.
            strain: Whether that by strain is.
            scale: Of the energy while its gradient is taken, lest it vanish in fp16.
        """
        ...


def exact(
    potential: Potential,
    structures: Structures,
    *,
    positions: bool,
    strain: bool,
    scale: float = 1.0,
) -> Derived:
    """See :class:`Derivatives`: by differentiating twice."""
    s = structures._replace(positions=structures.positions.detach().requires_grad_(positions))
    by = torch.zeros_like(s.cells).requires_grad_(strain)
    energies, direct_forces = potential.network(strained(s, by) if strain else s)
    inputs = [s.positions] * positions + [by] * strain
    found: list[Tensor] = []
    if inputs:
        total = (energies * potential.head.energy_scale).sum() * scale
        gradients = torch.autograd.grad(total, inputs, create_graph=True)
        found = [g / scale for g in gradients] if scale != 1.0 else list(gradients)
    by_positions = found.pop(0) if positions else None
    return Derived(energies, direct_forces, by_positions, found.pop(0) if strain else None)


class Differences:
    """By kernels and differences; :func:`exact` where they are not for a potential.

    Args:
        folder: Where compiled kernels are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._problems: WeakKeyDictionary[Potential, str] = WeakKeyDictionary()

    def problem(self, potential: Potential) -> str:
        """Why they are not for a potential; empty where they are."""
        if potential not in self._problems:
            found = _unfit(potential) or Kernels(potential.fold(), self._folder).problem
            self._problems[potential] = found
        return self._problems[potential]

    def __call__(
        self,
        potential: Potential,
        structures: Structures,
        *,
        positions: bool,
        strain: bool,
        scale: float = 1.0,
    ) -> Derived:
        """See :class:`Derivatives`."""
        if self.problem(potential):
            return exact(potential, structures, positions=positions, strain=strain, scale=scale)
        expect_threads()
        kernels = Kernels(potential.fold(trained=True), self._folder)
        displaced = _Displaced(potential, structures, kernels, positions, strain)
        energies, by_positions, by_strain = _OnceMore.apply(displaced, *kernels.trained)
        unit = potential.head.energy_scale
        return Derived(
            energies,
            energies.new_zeros(0, 3),
            by_positions * unit if positions else None,
            by_strain * unit if strain else None,
        )


def derivatives_of(section: OptimiserSection, *, sharded: bool) -> Derivatives:
    """The fastest way that the settings of a run allow.

    Args:
        section: Of the recipe.
        sharded: Whether the weights are split between processes.
    """
    plain = section.precision == "float32" and not section.recompute
    whole = not (section.dropout or section.edge_dropout or sharded)
    folder = kernel_folder() if section.derivatives == "auto" and plain and whole else None
    return exact if folder is None else Differences(folder)


def _unfit(potential: Potential) -> str:
    """Why differences are not for a potential, whatever its size."""
    if potential.force_head is not None:
        return "it has direct forces"
    if potential.policy.kind != "smooth":
        return "energies jump where its graphs change"
    return ""


class _Displaced:
    """Structures where they are, and displaced along a direction."""

    def __init__(
        self,
        potential: Potential,
        structures: Structures,
        kernels: Kernels,
        positions: bool,
        strain: bool,
    ) -> None:
        self._potential, self._kernels = potential, kernels
        self._wanted = positions, strain
        self._step = _DISPLACEMENT[structures.positions.dtype]
        s = structures
        with torch.no_grad():
            # Displacements would be lost in what is far from the origin.
            s = s._replace(positions=centred(s.positions, s.structure, len(s.cells)))
            self._structures = potential.prepare(s, margin=3.0 * self._step)

    def values(self) -> tuple[Tensor, Tensor, Tensor]:
        """Energies of atoms, and gradients of their sum by positions and strain."""
        s = self._structures
        positions, strain = torch.zeros_like(s.positions), torch.zeros_like(s.cells)
        inputs = [x for x, on in zip((positions, strain), self._wanted, strict=True) if on]
        for x in inputs:
            x.requires_grad_()
        with torch.set_grad_enabled(bool(inputs)):
            energies, roots, gradients = self._kernels(s.numbers, self._graph(positions, strain))
            energies = energies.detach()
            found: list[Tensor] = []
            if inputs:
                total = with_gradients(energies.sum(), roots, gradients)
                found = list(torch.autograd.grad(total, inputs))
        by_positions = found.pop(0) if self._wanted[0] else positions
        return energies, by_positions, found.pop(0) if self._wanted[1] else strain

    def by_weights(self, seeds: Tensor, positions: Tensor, strain: Tensor) -> list[Tensor]:
        """Gradients by what kernels have of the weights.

        Of the sum of energies times seeds (n_atoms,), and of gradients by positions and by strain
        times what is given for them.
        """
        s, kernels = self._structures, self._kernels
        if not any(self._wanted):
            return kernels.by_weights(s.numbers, self._potential.graph_of(s), seeds)
        strain = 0.5 * (strain + strain.transpose(1, 2))
        size = _largest(positions, s.structure, len(s.cells))
        size = size + (s.cells @ strain).norm(dim=2).amax(dim=1)
        share = torch.where(size > 0, self._step / size, 0.0)
        positions = positions * share[s.structure].unsqueeze(1)
        strain = strain * share.view(-1, 1, 1)
        slope = (0.5 * size / self._step)[s.structure]
        before = kernels.by_weights(
            s.numbers, self._graph(-positions, -strain), 0.5 * seeds - slope
        )
        after = kernels.by_weights(s.numbers, self._graph(positions, strain), 0.5 * seeds + slope)
        return list(torch._foreach_add(before, after))

    def _graph(self, displacements: Tensor, strain: Tensor) -> Graph:
        s = self._structures
        moved = s._replace(positions=s.positions + displacements)
        return self._potential.graph_of(strained(moved, strain) if self._wanted[1] else moved)


class _OnceMore(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, displaced: _Displaced, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.displaced = displaced
        return displaced.values()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.displaced.by_weights(*given)


def _largest(vectors: Tensor, structure: Tensor, n_structures: int) -> Tensor:
    """Length of the longest vector of each structure."""
    lengths = vectors.norm(dim=1)
    return lengths.new_zeros(n_structures).scatter_reduce(0, structure, lengths, "amax")
