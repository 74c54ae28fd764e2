"""What holds atoms during dynamics: fixed places, planes and lines, bonds, the centre of mass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.errors import InputError
from jmp_md.simulate.md.segments import Segments

if TYPE_CHECKING:
    from ase import Atoms

# Of one atom each and linear, so that a projection of its momentum is all they need.
LINEAR = ("FixAtoms", "FixCartesian", "FixScaled", "FixedPlane", "FixedLine")
_NO_PAIRS = np.empty((0, 2), dtype=int)
SUPPORTED = (*LINEAR, "FixBondLengths", "FixCom", "Hookean")


def check_constraints(atoms: Atoms) -> None:
    """Refuse constraints that dynamics does not know, and what leaves nothing that can move.

    Raises:
        InputError: Such a constraint, by its name, or a structure without degrees of freedom.
    """
    names = [type(constraint).__name__ for constraint in atoms.constraints]
    unknown = sorted(set(names) - set(SUPPORTED))
    if unknown:
        raise InputError(
            f"dynamics does not know the constraint {', '.join(unknown)}, only "
            f"{', '.join(SUPPORTED)}: remove it from the structure"
        )
    if "FixBondLengths" in names and not set(names) <= {"FixBondLengths", "Hookean"}:
        others = ", ".join(sorted(set(names) - {"FixBondLengths", "Hookean"}))
        raise InputError(f"bonds of fixed length do not go with {others}: remove one of the two")
    if "FixCom" in names and not set(names) <= {"FixCom", "Hookean"}:
        raise InputError("FixCom does not go with other constraints: remove one of the two")
    if Constraints([atoms], remove_drift=False).freedom[0] < 1:
        raise InputError(
            f"nothing can move: the constraints {', '.join(names)} hold all {len(atoms)} atoms; "
            "leave some free"
        )


class Constraints:
    """Constraints of several structures, whose atoms stand in one row.

    Linear constraints and a centre of mass at rest are orthogonal projections of momenta in the
    metric of the masses, so that what thermostats sample on the rest is canonical. Bonds of fixed
    length are solved by ASE's RATTLE (Andersen, J. Comput. Phys. 52, 24 (1983)), springs
    (``Hookean``) add energy and forces.

    Args:
        structures: Structures with supported constraints; see :func:`check_constraints`.
        remove_drift: Keep the centre of mass of those without constraints at rest, where there is
            more than one atom.

    Attributes:
        centred: (n_structures,) bool, whether the total momentum is zero and stays so.
        anchored: (n_structures,) bool, whether something is fixed, so that total momentum is
            no constant of motion.
        freedom: (n_structures,) degrees of freedom that share the kinetic energy.
    """

    def __init__(self, structures: Sequence[Atoms], remove_drift: bool) -> None:
        self._segments = Segments([len(atoms) for atoms in structures])
        self._masses = np.concatenate([atoms.get_masses() for atoms in structures])[:, None]
        self._projectors = _projectors(structures)
        self._templates = {i: _template(a) for i, a in enumerate(structures) if _solved(a)}
        names = [{type(c).__name__ for c in atoms.constraints} for atoms in structures]
        many = self._segments.counts > 1
        self.centred = np.array([n == {"FixCom"} or (remove_drift and not n) for n in names]) & many
        self.anchored = np.array([not n.isdisjoint(LINEAR) for n in names])
        free = 3.0 * self._segments.counts
        if self._projectors is not None:
            free = self._segments.sum(np.trace(self._projectors, axis1=1, axis2=2))
        self.freedom = np.rint(free).astype(int) - 3 * self.centred
        for index, template in self._templates.items():
            self.freedom[index] -= _independent(template)

    def project(self, momenta: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """The part of momenta, or of forces, (n_atoms, 3) that the constraints leave."""
        if self._projectors is not None:
            momenta = np.einsum("nij,nj->ni", self._projectors, momenta)
        if self.centred.any():
            total = np.where(self.centred[:, None], self._segments.sum(momenta), 0.0)
            velocity = total / self._segments.sum(self._masses)
            momenta = momenta - self._masses * self._segments.spread(velocity)
        if self._templates:
            momenta = momenta.copy()
        for _, atoms, own in self._solved():
            atoms.positions = positions[own]
            with _solvable():
                for constraint in _bonds(atoms):
                    constraint.adjust_momenta(atoms, momenta[own])
        return momenta

    def drift(
        self, positions: np.ndarray, momenta: np.ndarray, time: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions and momenta after free flight for a time."""
        moved = positions + time * momenta / self._masses
        if self._templates:
            momenta = momenta.copy()
        for _, atoms, own in self._solved():
            if not _bonds(atoms):
                continue
            atoms.positions = positions[own]
            with _solvable():
                for constraint in _bonds(atoms):
                    constraint.adjust_positions(atoms, moved[own])
                momenta[own] = (moved[own] - positions[own]) * self._masses[own] / time
                atoms.positions = moved[own]
                for constraint in _bonds(atoms):
                    constraint.adjust_momenta(atoms, momenta[own])
        return moved, momenta

    def springs(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energy (n_structures,) in eV and forces (n_atoms, 3) in eV/Å of springs."""
        energy, forces = np.zeros(len(self._segments)), np.zeros_like(positions)
        for index, atoms, own in self._solved():
            for constraint in _springs(atoms):
                atoms.positions = positions[own]
                energy[index] += constraint.adjust_potential_energy(atoms)
                constraint.adjust_forces(atoms, forces[own])
        return energy, forces

    def keep(self, kept: np.ndarray) -> None:
        """Go on with some of the structures: (n_structures,) bool."""
        atoms = self._segments.spread(kept)
        self._masses = self._masses[atoms]
        if self._projectors is not None:
            self._projectors = self._projectors[atoms]
        places = np.cumsum(kept) - 1
        self._templates = {int(places[i]): a for i, a in self._templates.items() if kept[i]}
        self.centred, self.anchored = self.centred[kept], self.anchored[kept]
        self.freedom = self.freedom[kept]
        self._segments = self._segments.keep(kept)

    def _solved(self) -> Iterator[tuple[int, Atoms, slice]]:
        """Place, template and atoms of the structures that ASE's constraints are asked for."""
        if self._templates:
            slices = self._segments.slices()
            for index, atoms in self._templates.items():
                yield index, atoms, slices[index]


def _solved(atoms: Atoms) -> bool:
    return bool(_bonds(atoms) or _springs(atoms))


def _template(atoms: Atoms) -> Atoms:
    """A copy to ask ASE's constraints with; lengths of bonds are those at the start."""
    copy = atoms.copy()
    for constraint in _bonds(copy):
        if constraint.bondlengths is None:
            constraint.bondlengths = constraint.initialize_bond_lengths(atoms)
    return copy


def _independent(atoms: Atoms) -> int:
    """How many of the bonds of fixed length take a degree of freedom; others follow from them."""
    pairs = np.concatenate([np.reshape(c.pairs, (-1, 2)) for c in _bonds(atoms)] or [_NO_PAIRS])
    gradients = np.zeros((len(pairs), len(atoms), 3))
    for row, (i, j) in zip(gradients, pairs, strict=True):
        direction = atoms.get_distance(int(i), int(j), mic=bool(atoms.pbc.any()), vector=True)
        row[i], row[j] = -direction, direction
    return int(np.linalg.matrix_rank(gradients.reshape(len(pairs), -1), tol=1e-6))


@contextmanager
def _solvable() -> Iterator[None]:
    """Say which constraints it is that ASE cannot solve.

    Raises:
        InputError: It gave up.
    """
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            "the bonds of fixed length cannot be kept (FixBondLengths: the iteration did not "
            "converge): leave out bonds whose length follows from that of others, or take a "
            "shorter time step"
        ) from error


def _bonds(atoms: Atoms) -> list[Any]:
    return [c for c in atoms.constraints if type(c).__name__ == "FixBondLengths"]


def _springs(atoms: Atoms) -> list[Any]:
    return [c for c in atoms.constraints if type(c).__name__ == "Hookean"]


def _projectors(structures: Sequence[Atoms]) -> np.ndarray | None:
    """(n_atoms, 3, 3) projectors onto the directions each atom can move in; None where all can."""
    found = []
    for atoms in structures:
        normals: dict[int, list[np.ndarray]] = {}
        for constraint in atoms.constraints:
            if type(constraint).__name__ in LINEAR:
                for index in np.arange(len(atoms))[constraint.index]:
                    normals.setdefault(int(index), []).append(_normals(constraint, atoms))
        own = np.tile(np.eye(3), (len(atoms), 1, 1))
        for index, vectors in normals.items():
            own[index] = _complement(np.concatenate(vectors))
        found.append(own)
    joined = np.concatenate(found)
    return None if (joined == np.eye(3)).all() else joined


def _normals(constraint: Any, atoms: Atoms) -> np.ndarray:
    """(n, 3) directions in which a linear constraint lets nothing move."""
    kind = type(constraint).__name__
    if kind == "FixAtoms":
        return np.eye(3)
    if kind == "FixCartesian":
        return np.eye(3)[np.asarray(constraint.mask)]
    if kind == "FixScaled":
        return np.asarray(atoms.cell.reciprocal())[np.asarray(constraint.mask)]
    direction = np.asarray(constraint.dir, dtype=float)[None]
    if kind == "FixedPlane":
        return direction
    return _complement(direction)


def _complement(normals: np.ndarray) -> np.ndarray:
    """(3, 3) orthogonal projector onto what is perpendicular to (n, 3) vectors."""
    _, weights, axes = np.linalg.svd(normals, full_matrices=False)
    held = axes[weights > 1e-9 * weights.max()]
    return np.eye(3) - held.T @ held
