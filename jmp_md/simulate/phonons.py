"""Phonons of crystals with phonopy, from symmetry-reduced displacements in one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.errors import InputError
from jmp_md.simulate.crystals import check_crystal, warn_official
from jmp_md.simulate.singlepoint import singlepoint
from jmp_md.units import EV_IN_KJ_PER_MOL

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator
    from ase.cell import Cell

IMAGINARY = 0.05  # THz; what is closer to zero is rounding, as of the acoustic modes at Γ
LENGTH = 10.0  # Å, least height of a supercell that is not given
_TOGETHER = 8_000  # atoms between two calls of ``progress``: fills a GPU, seconds on a core
_MOST_ATOMS = 20_000  # of a supercell, beyond which a slip of the keyboard is likelier


@dataclass(frozen=True)
class Bands:
    """Frequencies along a path through the Brillouin zone.

    Attributes:
        qpoints: For each segment (n, 3), in the reciprocal lattice of the primitive cell.
        distances: For each segment (n,) 1/Å, along the whole path.
        frequencies: For each segment (n, n_bands) THz; negative ones are imaginary.
        labels: Names of the two ends of each segment.
    """

    qpoints: list[np.ndarray]
    distances: list[np.ndarray]
    frequencies: list[np.ndarray]
    labels: list[tuple[str, str]]


@dataclass(frozen=True)
class Thermal:
    """Harmonic free energy and what follows from it, at constant volume, per primitive cell.

    Modes below 0.05 THz, also imaginary ones, do not count.

    Attributes:
        temperatures: (n,) K.
        free_energy: (n,) eV, with the zero-point energy.
        entropy: (n,) eV/K.
        heat_capacity: (n,) eV/K.
    """

    temperatures: np.ndarray
    free_energy: np.ndarray
    entropy: np.ndarray
    heat_capacity: np.ndarray


@dataclass(frozen=True)
class Phonons:
    """Phonons in the harmonic approximation.

    Attributes:
        phonopy: Phonopy's object, with displacements, forces and force constants.
        bands: Along ASE's standard path.
        dos_frequencies: (n,) THz.
        dos: (n,) states per THz and primitive cell.
        thermal: From 0 K up.
        lowest: THz, the lowest frequency on path and mesh; below -0.05 the crystal is unstable.
        highest: THz.
        n_displacements: Displaced supercells that were computed.
        fmax: eV/Å, the largest force before any displacement: zero in a relaxed crystal.
        sum_rule: eV/Å², the largest force constant for moving the whole crystal, before it is made
            zero: a measure of the error of the forces.
    """

    phonopy: Any
    bands: Bands
    dos_frequencies: np.ndarray
    dos: np.ndarray
    thermal: Thermal
    lowest: float
    highest: float
    n_displacements: int
    fmax: float
    sum_rule: float

    @property
    def imaginary(self) -> bool:
        """Whether there are imaginary modes, beyond rounding."""
        return self.lowest < -IMAGINARY


def phonons(
    atoms: Atoms,
    calculator: Calculator,
    *,
    supercell: Sequence[int] | None = None,
    delta: float = 0.01,
    mesh: float = 100.0,
    points: int = 51,
    max_temperature: float = 1000.0,
    progress: Callable[[int, int], None] | None = None,
) -> Phonons:
    """Phonons by finite displacements in a supercell.

    Symmetry tells phonopy which atoms to displace. The forces that are there without displacement
    are subtracted. Long-range electrostatics are not added: optical modes of polar crystals do not
    split at Γ.

    Args:
        atoms: A relaxed crystal: a primitive or any other cell.
        calculator: ASE calculator, best in double precision; a ``JMPCalculator`` computes the
            displaced supercells in batches.
        supercell: Repeats of the given cell: one number, three, or nine for phonopy's matrix;
            None takes as many as make it 10 Å high in every direction.
        delta: Å by which atoms are displaced.
        mesh: Å, length that gives the mesh of q-points for density of states and thermal
            properties: so many per 1/length of each reciprocal vector.
        points: q-points along the longest segment of the path.
        max_temperature: K, of the thermal properties.
        progress: Called with how many supercells are computed, and of how many.

    Raises:
        InputError: phonopy is missing, no crystal, an option that cannot be meant, or a structure
            that cannot be computed.
    """
    check_options(atoms, supercell, delta, mesh, points, max_temperature)
    phonon = _start(atoms, supercell_matrix(atoms, supercell))
    warn_official(calculator)
    phonon.generate_displacements(distance=delta)
    wanted = [phonon.supercell, *phonon.supercells_with_displacements]
    forces = _forces(wanted, calculator, progress)
    phonon.forces = forces[1:] - forces[0]
    phonon.produce_force_constants(show_drift=False)
    sum_rule = float(np.abs(phonon.force_constants.sum(axis=1)).max())
    phonon.symmetrize_force_constants(show_drift=False)

    bands = _bands(phonon, points)
    phonon.run_mesh(mesh)
    phonon.run_total_dos()
    everything = np.concatenate([*bands.frequencies, phonon.mesh.frequencies])
    return Phonons(
        phonon,
        bands,
        np.array(phonon.total_dos.frequency_points),
        np.array(phonon.total_dos.dos),
        _thermal(phonon, max_temperature),
        float(everything.min()),
        float(everything.max()),
        len(forces) - 1,
        float(np.linalg.norm(forces[0], axis=1).max()),
        sum_rule,
    )


def check_options(
    atoms: Atoms,
    supercell: Sequence[int] | None,
    delta: float,
    mesh: float,
    points: int,
    max_temperature: float,
) -> None:
    """Refuse what :func:`phonons` would, before anything is computed.

    Raises:
        InputError: See there.
    """
    check_crystal(atoms, "phonons")
    if not 0 < delta < 0.5:
        raise InputError(f"delta {delta!r} Å: must be positive and small, 0.01 is usual")
    if not (mesh > 0 and points > 1 and max_temperature > 0):
        raise InputError(
            f"mesh {mesh!r} Å, points {points!r}, max_temperature {max_temperature!r} K: must be "
            "positive, with 2 points or more"
        )
    supercell_matrix(atoms, supercell)
    try:
        import phonopy  # noqa: F401
    except ImportError as error:
        raise InputError(
            "phonons need phonopy, which is not installed: pip install 'jmp-md[phonons]'"
        ) from error


def supercell_matrix(atoms: Atoms, repeats: Sequence[int] | None) -> np.ndarray:
    """Phonopy's (3, 3) matrix of a supercell.

    Args:
        atoms: The crystal.
        repeats: One, three or nine numbers, as for :func:`phonons`.

    Raises:
        InputError: Not one, three or nine whole numbers, or a matrix that makes no supercell.
    """
    if repeats is None:
        heights = 1 / np.linalg.norm(atoms.cell.reciprocal(), axis=1)
        repeats = np.ceil(LENGTH / heights - 1e-6).astype(int).tolist()
    given = np.array(repeats).ravel()
    if given.size not in (1, 3, 9) or not np.issubdtype(given.dtype, np.integer):
        raise InputError(
            f"supercell {list(repeats)}: give one, three or nine whole numbers, e.g. 2 2 2"
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
    return matrix


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


def _start(atoms: Atoms, matrix: np.ndarray) -> Any:
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms
    from phonopy.structure.cells import guess_primitive_matrix

    cell = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(),
        masses=atoms.get_masses(),
    )
    return Phonopy(cell, supercell_matrix=matrix, primitive_matrix=guess_primitive_matrix(cell))


def _forces(
    cells: Sequence[Any],
    calculator: Calculator,
    progress: Callable[[int, int], None] | None,
) -> np.ndarray:
    """(n_cells, n_atoms, 3) eV/Å."""
    from ase import Atoms

    structures = [
        Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)
        for cell in cells
    ]
    forces = []
    count = max(_TOGETHER // len(structures[0]), 1)
    for start in range(0, len(structures), count):
        some = structures[start : start + count]
        forces += [result.forces for result in singlepoint(some, calculator)]
        if progress is not None:
            progress(len(forces), len(structures))
    return np.array(forces)


def _bands(phonon: Any, points: int) -> Bands:
    from ase.cell import Cell

    segments, labels = band_path(Cell(phonon.primitive.cell), points)
    phonon.run_band_structure(segments)
    found = phonon.band_structure
    distances = [np.array(d) for d in found.distances]
    return Bands(segments, distances, [np.array(f) for f in found.frequencies], labels)


def _thermal(phonon: Any, max_temperature: float) -> Thermal:
    temperatures = np.arange(0.0, max_temperature + 5.0, 10.0)
    phonon.run_thermal_properties(temperatures=temperatures, cutoff_frequency=IMAGINARY)
    found = phonon.thermal_properties
    joule = 1 / (1000 * EV_IN_KJ_PER_MOL)  # eV per J/mol
    return Thermal(
        temperatures,
        np.array(found.free_energy) / EV_IN_KJ_PER_MOL,
        np.array(found.entropy) * joule,
        np.array(found.heat_capacity) * joule,
    )
