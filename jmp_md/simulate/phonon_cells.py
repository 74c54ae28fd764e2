"""The cells of a phonon calculation: supercell, primitive cell, which atoms are alike."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.cell import Cell

LENGTH = 10.0  # Å, least height of a supercell that is not given
_MOST_ATOMS = 20_000  # of a supercell, beyond which a slip of the keyboard is likelier


def supercell_matrix(atoms: Atoms, repeats: Sequence[int] | None) -> np.ndarray:
    """Phonopy's (3, 3) matrix of a supercell.

    Args:
        atoms: The crystal.
        repeats: One, three or nine numbers, as for :func:`jmp_md.simulate.phonons.phonons`.

    Raises:
        InputError: Not one, three or nine whole numbers, or a matrix that makes no supercell.
    """
    given = np.array(_high_enough(atoms) if repeats is None else repeats).ravel()
    if given.size not in (1, 3, 9) or not np.issubdtype(given.dtype, np.integer):
        raise InputError(
            f"supercell {given.tolist()}: give one, three or nine whole numbers, e.g. 2 2 2"
        )
    matrix = given.reshape(3, 3) if given.size == 9 else np.eye(3, dtype=int) * given
    count = round(float(np.linalg.det(matrix)))
    if count < 1 or (given.size < 9 and given.min() < 1):
        raise InputError(
            f"supercell {given.tolist()} makes {count} cells of one: the numbers must be positive, "
            "or nine with a positive determinant"
        )
    if count * len(atoms) > _MOST_ATOMS:
        raise InputError(
            f"supercell {given.tolist()} has {count * len(atoms)} atoms: choose a smaller one"
        )
    if count * len(atoms) == 1:
        raise InputError(
            f"supercell {given.tolist()} has one atom, and moving it moves the whole crystal: "
            "choose a larger one"
        )
    return matrix


def _high_enough(atoms: Atoms) -> np.ndarray:
    """Repeats of the cell, or of the reduced cell where that takes fewer, to 10 Å everywhere."""
    change = atoms.cell.niggli_reduce()[1].T
    change = change * round(float(np.linalg.det(change)))  # a supercell that is right-handed too
    as_given, less = _repeats(atoms.cell.array), _repeats(change @ atoms.cell.array)
    if less.prod() < as_given.prod():
        return np.diag(less) @ change
    return as_given


def _repeats(cell: np.ndarray) -> np.ndarray:
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    return np.ceil(LENGTH / heights - 1e-6).astype(int)


def band_path(cell: Cell, points: int) -> tuple[list[np.ndarray], list[tuple[str, str]]]:
    """ASE's standard path through the Brillouin zone of a cell, in straight segments.

    Args:
        cell: A primitive cell.
        points: q-points along the longest segment; the others get their share, at least 2.

    Returns:
        The q-points of each segment, (n, 3) in the reciprocal lattice, and the names of its ends.
    """
    from ase.dft.kpoints import parse_path_string

    path = cell.bandpath(npoints=0)
    ends = [pair for part in parse_path_string(path.path) for pair in pairwise(part)]
    corners = [(path.special_points[a], path.special_points[b]) for a, b in ends]
    lengths = np.array([np.linalg.norm((b - a) @ cell.reciprocal()) for a, b in corners])
    counts = np.maximum(np.rint(points * lengths / lengths.max()), 2).astype(int)
    segments = [np.linspace(a, b, n) for (a, b), n in zip(corners, counts, strict=True)]
    return segments, [(_name(a), _name(b)) for a, b in ends]


def _name(label: str) -> str:
    return "Γ" if label == "G" else label


def phonopy_of(atoms: Atoms, matrix: np.ndarray) -> tuple[Any, bool]:
    """Phonopy's object of a right-handed crystal, and whether its modes have its symmetry.

    Atoms of an element that differ in mass stay different atoms of the primitive cell. Force
    constants do not depend on masses and take all symmetry there is; frequencies over the Brillouin
    zone do not have it where isotopes break it. Where atoms of an element differ in what
    calculators see (tags, magnetic moments, charges), only translations are symmetry.
    """
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms
    from phonopy.structure.cells import guess_primitive_matrix

    seen = [atoms.numbers, atoms.get_tags(), atoms.get_initial_charges()]
    magnetic = atoms.get_initial_magnetic_moments().reshape(len(atoms), -1)
    for_forces = np.column_stack([*seen, magnetic])
    for_modes = np.column_stack([for_forces, atoms.get_masses().round(4)])
    elements, force_kinds, kinds = (
        np.unique(each, axis=0, return_inverse=True)[1].ravel()
        for each in (atoms.numbers[:, None], for_forces, for_modes)
    )
    geometry = {"cell": atoms.cell.array, "scaled_positions": atoms.get_scaled_positions()}
    cell = PhonopyAtoms(symbols=atoms.get_chemical_symbols(), masses=atoms.get_masses(), **geometry)
    # Kinds as if they were elements: only like atoms may be images of each other.
    primitive = guess_primitive_matrix(PhonopyAtoms(numbers=kinds + 1, **geometry))
    phonon = Phonopy(
        cell,
        supercell_matrix=matrix,
        primitive_matrix=primitive,
        is_symmetry=int(force_kinds.max()) == int(elements.max()),
    )
    return phonon, int(kinds.max()) == int(elements.max())


def supercells(phonon: Any, atoms: Atoms) -> list[Atoms]:
    """The supercell and its displaced copies, with all that calculators may read from atoms."""
    from ase import Atoms

    supercell = phonon.supercell
    of_cell = {index: i for i, index in enumerate(supercell.u2s_map)}
    origin = [of_cell[index] for index in supercell.s2u_map]
    found = []
    for cell in (supercell, *phonon.supercells_with_displacements):
        structure = Atoms(
            cell.symbols,
            cell=cell.cell,
            scaled_positions=cell.scaled_positions,
            pbc=True,
            info=atoms.info,
        )
        for name in ("tags", "initial_magmoms", "initial_charges"):
            if atoms.has(name):
                structure.set_array(name, atoms.get_array(name)[origin])
        found.append(structure)
    return found


def edge_share(phonon: Any) -> float:
    """The largest force constant between atoms half a supercell apart, as a share of all.

    Where it is not small, force constants reach farther than the supercell, which folds them.
    """
    from ase.geometry import minkowski_reduce

    constants = np.linalg.norm(phonon.force_constants, axis=(2, 3))[phonon.primitive.p2s_map]
    vectors, counts = phonon.primitive.get_smallest_vectors()
    lengths = np.linalg.norm(vectors @ phonon.primitive.cell, axis=1)[counts[..., 1].T]
    shortest = np.linalg.norm(minkowski_reduce(phonon.supercell.cell)[0], axis=1).min()
    edge = constants[lengths > 0.95 * shortest / 2]
    return float(edge.max() / constants.max()) if edge.size else 0.0
