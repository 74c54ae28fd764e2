"""The modules that are exported: a potential with its neighbour search, ready for TorchScript.

No postponed annotations in this file: TorchScript reads them as they are.
"""

from typing import Any, Final

import torch
from torch import Tensor, nn

from jmp_md.export.neighbours import neighbours
from jmp_md.graph.pairs import Pairs
from jmp_md.potential import Potential
from jmp_md.units import EV_IN_KJ_PER_MOL, NM_IN_ANGSTROM


class ExportedPotential(nn.Module):
    """A potential in Å and eV, for Python and C++.

    Args:
        potential: What to export, in the type to compute with.
        direct: Take forces from the direct force head.
    """

    direct: Final[bool]
    references: Tensor

    def __init__(self, potential: Potential, direct: bool) -> None:
        super().__init__()
        head = potential.head
        self.direct = direct
        self.cutoff = potential.policy.cutoff
        self.energy_scale = head.energy_scale
        self.energy_mean = head.energy_mean
        self.force_scale = head.force_scale or 1.0
        self.graph = potential.graph
        self.folded = potential.fold()
        # What those who load the file ask for type and device, and whether there are direct forces.
        self.embedding, self.force_head = self.folded.embedding, self.folded.force_head
        self.register_buffer("references", potential.references.double())

    @torch.jit.export
    def network(
        self,
        positions: Tensor,
        numbers: Tensor,
        tags: Tensor,
        structure: Tensor,
        cells: Tensor,
        pairs: Pairs,
    ) -> tuple[Tensor, Tensor]:
        """Raw outputs as :meth:`jmp_md.potential.Potential.network` gives them."""
        graph = self.graph(positions, cells, structure, tags, pairs)
        energies, forces = self.folded(numbers, graph)
        return energies, forces

    @torch.jit.export
    def physical(
        self, energies: Tensor, numbers: Tensor, structure: Tensor, n_structures: int
    ) -> Tensor:
        """(n_structures,) float64 eV from the network's energies per atom; differentiable."""
        total = torch.zeros(n_structures, dtype=torch.float64, device=energies.device)
        per_atom = energies.double() * self.energy_scale + self.references[numbers]
        return total.index_add(0, structure, per_atom) + self.energy_mean

    def forward(
        self,
        positions: Tensor,
        numbers: Tensor,
        cell: Tensor,
        pbc: Tensor,
        structure: Tensor,
        tags: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Energies, forces and stress of one structure or several.

        Args:
            positions: (n_atoms, 3) Å.
            numbers: (n_atoms,) int64 atomic numbers.
            cell: (n_structures, 3, 3) Å, rows are lattice vectors.
            pbc: (n_structures, 3) bool.
            structure: (n_atoms,) int64, structure of each atom, ascending.
            tags: (n_atoms,) int64 OC20 tags; None for 2, which is right but for slabs.

        Returns:
            Energy (n_structures,) eV and, in the type of the weights, forces (n_atoms, 3) eV/Å and
            stress (n_structures, 3, 3) eV/Å³, positive under tension. The stress is NaN where
            there is none: for direct forces, and without periodicity in three directions.
            Gradients must be enabled, as they are unless switched off.
        """
        n_structures, dtype = cell.shape[0], self.embedding.weight.dtype
        given, cell = positions.detach().double(), cell.double()
        if not bool(given.isfinite().all()):
            raise ValueError("positions are not finite")
        pairs, placed = neighbours(given, structure, cell, pbc, self.cutoff)
        x, cells = placed.to(dtype), (cell * pbc.unsqueeze(-1)).to(dtype)
        tag = torch.full_like(numbers, 2) if tags is None else tags
        if self.direct:
            with torch.no_grad():
                energies, forces = self.network(x, numbers, tag, structure, cells, pairs)
            stress = torch.full_like(cells, float("nan"))
            return (
                self.physical(energies, numbers, structure, n_structures),
                forces * self.force_scale,
                stress,
            )
        strain = torch.zeros_like(cells).requires_grad_()
        symmetric = 0.5 * (strain + strain.transpose(1, 2))
        x.requires_grad_()
        moved = x.unsqueeze(1) @ symmetric.index_select(0, structure)
        energies, _ = self.network(
            x + moved.squeeze(1), numbers, tag, structure, cells + cells @ symmetric, pairs
        )
        gradients = torch.autograd.grad([energies.sum()], [x, strain])
        by_position, by_strain = gradients[0], gradients[1]
        assert by_position is not None
        assert by_strain is not None
        volume = torch.linalg.det(cells).abs()
        stress = by_strain * self.energy_scale / volume.view(-1, 1, 1)
        stress = torch.where(pbc.all(dim=1).view(-1, 1, 1), stress, float("nan"))
        energy = self.physical(energies.detach(), numbers, structure, n_structures)
        return energy, -by_position * self.energy_scale, stress


class OpenMMPotential(nn.Module):
    """A potential of fixed atoms in nm and kJ/mol; its subclasses are what TorchForce calls.

    Args:
        potential: The same potential in Å and eV, an :class:`ExportedPotential`, scripted or not.
        numbers: (n_atoms,) atomic numbers.
        atoms: (n_atoms,) indices of the particles they are.
        periodic: Whether there is a box.
        scaled: Whether a last argument scales energy and forces.
    """

    periodic: Final[bool]
    scaled: Final[bool]
    numbers: Tensor
    atoms: Tensor

    def __init__(
        self,
        potential: Any,  # ExportedPotential, whose type scripting hides
        numbers: Tensor,
        atoms: Tensor,
        *,
        periodic: bool,
        scaled: bool,
    ) -> None:
        super().__init__()
        self.potential = potential
        self.periodic = periodic
        self.scaled = scaled
        self.kj = EV_IN_KJ_PER_MOL
        self.nm = NM_IN_ANGSTROM
        self.cutoff = potential.cutoff
        self.register_buffer("numbers", numbers)
        self.register_buffer("atoms", atoms)

    def compute(
        self, positions: Tensor, first: Tensor | None, second: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Energy in kJ/mol, and direct forces (n_particles, 3) in kJ/mol/nm or nothing (0, 3)."""
        box, scale = first, second
        if not self.periodic:
            box, scale = None, first
        x = positions.index_select(0, self.atoms).double() * self.nm
        cells = torch.zeros(1, 3, 3, dtype=torch.float64, device=x.device)
        if box is not None:
            cells = box.detach().to(cells).unsqueeze(0) * self.nm
        pbc = torch.full([1, 3], box is not None, dtype=torch.bool, device=x.device)
        structure = torch.zeros_like(self.numbers)
        factor = torch.full([1], self.kj, dtype=torch.float64, device=x.device)
        if self.scaled:
            assert scale is not None
            factor = factor * scale.to(factor)

        # As the calculators do, the network is differentiated as it is, and what it gives scaled
        # in double precision: a factor on the energy would round differently in each layer.
        # Not x.detach(): compiled, TorchScript may keep the graph of a detached tensor.
        with torch.no_grad():
            pairs, placed = neighbours(x, structure, cells, pbc, self.cutoff)
            given = x.clone()
        x = placed + (x - given) * (factor * self.potential.energy_scale)  # zero, but for gradients

        dtype = self.potential.embedding.weight.dtype
        energies, forces = self.potential.network(
            x.to(dtype),
            self.numbers,
            torch.full_like(self.numbers, 2),
            structure,
            cells.to(dtype),
            pairs,
        )
        with torch.no_grad():
            values = energies.clone()
        energy = self.potential.physical(values, self.numbers, structure, 1)
        # Lost atoms have no neighbours. Not an error: torch crashes on errors in frozen modules,
        # and OpenMM reports energies that are NaN.
        energy = energy + 0.0 * given.sum()
        energy = energy * factor + (energies - values).sum()  # zero, but for gradients
        forces = (forces * (factor * self.potential.force_scale * self.nm)).to(positions.dtype)
        if forces.shape[0] > 0:
            forces = torch.zeros_like(positions).index_copy(0, self.atoms, forces)
        return energy.squeeze(), forces


class OpenMMEnergy(OpenMMPotential):
    """Energy only: OpenMM takes the forces from its gradient."""

    def forward(
        self, positions: Tensor, first: Tensor | None = None, second: Tensor | None = None
    ) -> Tensor:
        """Energy in kJ/mol, differentiable.

        Args:
            positions: (n_particles, 3) nm.
            first: (3, 3) nm, rows are the box vectors, if periodic; else as ``second``.
            second: Factor of energy and forces, if scaled.
        """
        return self.compute(positions, first, second)[0]


class OpenMMForces(OpenMMPotential):
    """Energy and direct forces."""

    def forward(
        self, positions: Tensor, first: Tensor | None = None, second: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Energy in kJ/mol and forces (n_particles, 3) in kJ/mol/nm; arguments as for energies."""
        with torch.no_grad():
            return self.compute(positions, first, second)
