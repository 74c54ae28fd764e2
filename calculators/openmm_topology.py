"""What OpenMM's topologies say of particles, and topologies of structures in ASE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import openmm
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list
from openmm import app, unit

from jmp_md.errors import InputError
from jmp_md.units import NM_IN_ANGSTROM


@dataclass(frozen=True)
class Particles:
    """Particles of a system: atomic numbers (0 for those that are no atoms), and their names."""

    numbers: np.ndarray
    names: list[str]
    periodic: bool

    @classmethod
    def of(cls, source: app.Topology | Sequence[int]) -> Particles:
        if isinstance(source, app.Topology):
            atoms = list(source.atoms())
            numbers = [a.element.atomic_number if a.element is not None else 0 for a in atoms]
            names = [f"{a.name} of {a.residue.name} {a.residue.id}" for a in atoms]
            return cls(np.array(numbers), names, source.getPeriodicBoxVectors() is not None)
        try:
            numbers = [int(z) for z in source]
        except (TypeError, ValueError) as error:
            raise InputError(
                f"neither an openmm.app.Topology nor atomic numbers: {type(source).__name__}; "
                "give e.g. pdb.topology, or atoms.numbers of ASE"
            ) from error
        return cls(np.array(numbers), [f"Z = {z}" for z in numbers], False)

    def choose(self, atoms: Sequence[int] | None) -> np.ndarray:
        """Indices of the particles a potential acts among."""
        if atoms is None:
            return np.flatnonzero(self.numbers > 0)
        chosen = np.array([int(i) for i in atoms], dtype=np.int64)
        if len(set(chosen.tolist())) < len(chosen):
            raise InputError("atoms: an index occurs twice")
        for i in chosen.tolist():
            if not 0 <= i < len(self.numbers):
                raise InputError(f"atoms: there is no particle {i} among {len(self.numbers)}")
            if self.numbers[i] == 0:
                raise InputError(
                    f"particle {i} ({self.names[i]}) has no element, as virtual sites and Drude "
                    "particles: leave it out of atoms"
                )
        return chosen


def topology_from_ase(atoms: Atoms) -> app.Topology:
    """A topology of one residue, with bonds where atoms are about as close as bonds are long.

    Barostats, trajectories and PDB files need the bonds; the potential does not.

    Args:
        atoms: Periodic in three directions or none, with a along x, b in the xy plane.

    Raises:
        InputError: Another cell, or periodic in some directions only.
    """
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    made = []
    for k, number in enumerate(atoms.numbers):
        element = app.Element.getByAtomicNumber(int(number)) if number > 0 else None
        made.append(topology.addAtom(f"{atoms.symbols[k]}{k + 1}", element, residue))
    cutoffs = natural_cutoffs(atoms, mult=1.15)
    first, second = neighbor_list("ij", atoms, cutoffs) if len(atoms) > 1 else ([], [])
    for i, j in sorted({(int(i), int(j)) for i, j in zip(first, second, strict=True) if i < j}):
        topology.addBond(made[i], made[j])
    if atoms.pbc.any():
        if not atoms.pbc.all():
            raise InputError(
                f"pbc {atoms.pbc.tolist()}: OpenMM knows boxes in three directions, or none"
            )
        box = [openmm.Vec3(*map(float, row)) for row in atoms.cell.array / NM_IN_ANGSTROM]
        try:
            topology.setPeriodicBoxVectors(box * unit.nanometer)
        except ValueError as error:
            raise InputError(
                f"cell {atoms.cell.array.tolist()}: {error} Turn it: "
                "atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)"
            ) from error
    return topology
