"""What OpenMM's topologies say of particles, and topologies of structures in ASE."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import openmm
from ase import Atoms
from ase.data import atomic_masses
from ase.neighborlist import natural_cutoffs, neighbor_list
from openmm import app, unit

from jmp_md.calculators.openmm_box import openmm_box
from jmp_md.errors import InputError
from jmp_md.units import NM_IN_ANGSTROM

_NAMED = 5  # lost atoms in an error
_SHORTEST = 1.5  # Å; crystals have none shorter than 2


@dataclass(frozen=True)
class Particles:
    """Particles of a system.

    Attributes:
        numbers: (n_particles,) atomic numbers, 0 for particles that are no atoms.
        names: What to call them.
        lost: Indices of those of which the source tells no element, and not that they are no atoms.
        periodic: Whether there is a box; None where the source cannot tell.
    """

    numbers: np.ndarray
    names: list[str]
    lost: list[int]
    periodic: bool | None

    @classmethod
    def of(
        cls, source: app.Topology | Sequence[int], system: openmm.System | None = None
    ) -> Particles:
        """Particles of a topology, whose system knows which of them are no atoms, or of numbers."""
        if isinstance(source, app.Topology):
            atoms = list(source.atoms())
            numbers = [a.element.atomic_number if a.element is not None else 0 for a in atoms]
            names = [f"{a.name} of {a.residue.name} {a.residue.id}" for a in atoms]
            known = _without_element(system)
            lost = [i for i, a in enumerate(atoms) if a.element is None and i not in known]
            return cls(np.array(numbers), names, lost, _has_box(source))
        try:
            numbers = [int(z) for z in source]
        except (TypeError, ValueError) as error:
            raise InputError(
                f"neither an openmm.app.Topology nor atomic numbers: {type(source).__name__}; "
                "give e.g. pdb.topology, or atoms.numbers of ASE"
            ) from error
        return cls(np.array(numbers), [f"Z = {z}" for z in numbers], [], None)

    def choose(self, atoms: Sequence[int] | None) -> np.ndarray:
        """Indices of the particles a potential acts among.

        Raises:
            InputError: An index that does not exist or occurs twice, or an atom without element.
        """
        if atoms is None:
            if self.lost:
                some = ", ".join(f"{i} ({self.names[i]})" for i in self.lost[:_NAMED])
                more = f" and {len(self.lost) - _NAMED} more" if len(self.lost) > _NAMED else ""
                raise InputError(
                    f"OpenMM cannot tell the element of particle {some}{more}, and it is no "
                    "virtual site of the system: fill columns 77 and 78 of the PDB file, set "
                    "atom.element in the topology, or choose the others with atoms="
                )
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


def _has_box(topology: app.Topology) -> bool:
    """Whether a topology has a box, and no placeholder for one."""
    box = topology.getPeriodicBoxVectors()
    if box is None:
        return False
    shortest = float(np.linalg.norm(np.array(box.value_in_unit(unit.angstrom)), axis=1).min())
    if shortest < _SHORTEST:
        raise InputError(
            f"the box of the topology has a vector of {shortest:g} Å, shorter than any crystal's "
            "and a placeholder in many PDB files (CRYST1 1 1 1): give the box, or "
            "topology.setPeriodicBoxVectors(None) where there is none"
        )
    return True


def _without_element(system: openmm.System | None) -> Collection[int]:
    """Virtual sites and Drude particles of a system, which are no atoms."""
    if system is None:
        return ()
    found = {i for i in range(system.getNumParticles()) if system.isVirtualSite(i)}
    for force in system.getForces():
        if isinstance(force, openmm.DrudeForce):
            found |= {force.getParticleParameters(k)[0] for k in range(force.getNumParticles())}
    return found


class Isotope(app.Element):
    """An element with another mass, unlike others not entered into OpenMM's table of elements."""

    def __init__(self, element: app.Element, mass: float) -> None:
        self.element = element
        self.isotope_mass = mass * unit.dalton

    @property
    def atomic_number(self) -> int:
        return self.element.atomic_number

    @property
    def name(self) -> str:
        return self.element.name

    @property
    def symbol(self) -> str:
        return self.element.symbol

    @property
    def mass(self) -> unit.Quantity:
        return self.isotope_mass


def topology_from_ase(atoms: Atoms) -> app.Topology:
    """A topology of one residue, with bonds where atoms are about as close as bonds are long.

    Barostats, trajectories and PDB files need the bonds; the potential does not. Networks that go
    on through the box get none, so that barostats scale their atoms, not the network as one.
    Masses that were set come along as those of the elements.

    Args:
        atoms: Periodic in three directions or none. The box gets other vectors of the same lattice
            where OpenMM needs them; positions stay valid.

    Raises:
        InputError: A crystal that OpenMM takes only turned (``turned_for_openmm``), periodic in
            some directions only, or a mass that is not positive.
    """
    if len(atoms.constraints) > 0:
        warnings.warn(
            "constraints of ASE do not reach OpenMM: keep atoms in place by "
            "system.setParticleMass(i, 0)",
            stacklevel=2,
        )
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    elements = _elements(atoms)
    made = [
        topology.addAtom(f"{symbol}{k + 1}", element, residue)
        for k, (symbol, element) in enumerate(zip(atoms.symbols, elements, strict=True))
    ]
    for i, j in _bonds(atoms):
        topology.addBond(made[i], made[j])
    if atoms.pbc.any():
        if not atoms.pbc.all():
            raise InputError(
                f"pbc {atoms.pbc.tolist()}: OpenMM knows boxes in three directions, or none"
            )
        box = openmm_box(atoms.cell.array)
        if box is None:
            raise InputError(
                f"cell {atoms.cell.array.tolist()}: OpenMM needs a along x and b in the xy plane, "
                "and this lattice has no such vectors: atoms = turned_for_openmm(atoms) turns the "
                "crystal; take the positions from there, too"
            )
        vectors = [openmm.Vec3(*map(float, row)) for row in box / NM_IN_ANGSTROM]
        topology.setPeriodicBoxVectors(vectors * unit.nanometer)
    return topology


def _elements(atoms: Atoms) -> list[app.Element | None]:
    """Elements, with the mass of each atom where that is not the natural one."""
    elements: list[app.Element | None] = []
    for k, (number, mass) in enumerate(zip(atoms.numbers, atoms.get_masses(), strict=True)):
        element = app.Element.getByAtomicNumber(int(number)) if number > 0 else None
        if element is not None and mass != atomic_masses[number]:
            if not 0 < mass < np.inf:
                raise InputError(
                    f"atom {k} ({atoms.symbols[k]}) has the mass {mass:g}: give a positive one, "
                    "and keep atoms in place by system.setParticleMass(i, 0)"
                )
            element = Isotope(element, float(mass))
        elements.append(element)
    return elements


def _bonds(atoms: Atoms) -> list[tuple[int, int]]:
    """Pairs of atoms about as close as bonds are long, in molecules of finite size."""
    if len(atoms) < 2:
        return []
    first, second, shift = neighbor_list("ijS", atoms, natural_cutoffs(atoms, mult=1.15))
    neighbours: list[list[tuple[int, np.ndarray]]] = [[] for _ in atoms]
    for i, j, s in zip(first.tolist(), second.tolist(), shift, strict=True):
        neighbours[i].append((j, s))
    bonds: list[tuple[int, int]] = []
    image: dict[int, np.ndarray] = {}  # cell in which an atom is next to the first of its molecule
    for start in range(len(atoms)):
        if start in image:
            continue
        image[start] = np.zeros(3, dtype=int)
        molecule, finite = [start], True
        for i in molecule:  # grows as it is followed
            for j, s in neighbours[i]:
                if j not in image:
                    image[j] = image[i] + s
                    molecule.append(j)
                finite = finite and bool((image[j] == image[i] + s).all())
        if finite:
            bonds += [(i, j) for i in molecule for j, _ in neighbours[i] if i < j]
    return sorted(bonds)
