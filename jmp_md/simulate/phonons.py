"""Phonons of crystals with phonopy, from symmetry-reduced displacements in one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.errors import InputError
from jmp_md.options import with_options
from jmp_md.simulate.crystals import (
    check_crystal,
    official_verdicts,
    right_handed,
    warn_official,
)
from jmp_md.simulate.displaced import displaced_forces
from jmp_md.simulate.options import PhononOptions
from jmp_md.simulate.phonon_cells import (
    band_path,
    edge_share,
    phonopy_of,
    supercell_matrix,
    supercells,
)
from jmp_md.simulate.verdict import Verdict, doubts
from jmp_md.units import EV_IN_KJ_PER_MOL

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

IMAGINARY = 0.05  # THz; what is closer to zero is rounding, as of the acoustic modes at Γ
_RELAXED = 0.01  # eV/Å that may be left without displacement
# Shares of the largest force constant: of a sum that should be zero, and at a supercell's edge
_NOISE, _EDGE = 0.01, 0.1


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
        edge: The largest force constant between atoms half a supercell apart, as a share of the
            largest of all: small where the supercell is large enough.
        verdicts: Whether the frequencies stand.
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
    edge: float
    verdicts: tuple[Verdict, ...]

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the frequencies may be wrong; empty where nothing speaks against them."""
        return doubts(self.verdicts)

    @property
    def imaginary(self) -> bool:
        """Whether there are imaginary modes, beyond rounding."""
        return self.lowest < -IMAGINARY

    @property
    def zero_point_energy(self) -> float:
        """eV per primitive cell."""
        return float(self.thermal.free_energy[0])


@with_options(PhononOptions)
def phonons(
    atoms: Atoms,
    calculator: Calculator,
    options: PhononOptions | None = None,
    *,
    restart_from: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
    observer: Callable[[np.ndarray], None] | None = None,
    **changes: Any,
) -> Phonons:
    """Phonons by finite displacements in a supercell.

    Symmetry tells phonopy which atoms to displace; isotopes, by the masses of ``atoms``, are
    different atoms of the primitive cell. The forces that are there without displacement
    are subtracted. Long-range electrostatics are not added: optical modes of polar crystals do not
    split at Γ.

    Args:
        atoms: A relaxed crystal: a primitive or any other cell.
        calculator: ASE calculator, best in double precision; a ``JMPCalculator`` computes the
            displaced supercells in batches.
        options: See :class:`~jmp_md.simulate.options.PhononOptions`; None for the defaults. Of a
            supercell, nine numbers are phonopy's matrix.
        restart_from: Forces (n, n_atoms, 3) in eV/Å of the first supercells, as ``observer`` got
            them: those are not computed again.
        progress: Called with how many supercells are computed, and of how many.
        observer: Called with the forces of all supercells so far.
        changes: Options by name, in place of those of ``options``.

    Raises:
        InputError: phonopy is missing, no crystal, an option that does not exist or does not fit,
            or a structure that cannot be computed.
    """
    options = (options or PhononOptions()).changed(changes)
    check_phonons(atoms, options)
    atoms = right_handed(atoms)
    phonon, symmetric = phonopy_of(atoms, supercell_matrix(atoms, options.supercell))
    warn_official(calculator)
    phonon.generate_displacements(distance=options.delta)
    cells = supercells(phonon, atoms)
    forces = displaced_forces(cells, calculator, restart_from, progress, observer)
    phonon.forces = forces[1:] - forces[0]
    phonon.produce_force_constants(show_drift=False)
    sum_rule = float(np.abs(phonon.force_constants.sum(axis=1)).max())
    phonon.symmetrize_force_constants(show_drift=False)
    largest = float(np.abs(phonon.force_constants).max())
    if not largest > 0:
        raise InputError("no forces act between the atoms: they are too far apart for this model")

    bands = _bands(phonon, options.points)
    phonon.run_mesh(options.mesh, is_mesh_symmetry=symmetric)
    phonon.run_total_dos()
    everything = np.concatenate([*bands.frequencies, phonon.mesh.frequencies])
    lowest = float(everything.min())
    fmax, edge = float(np.linalg.norm(forces[0], axis=1).max()), edge_share(phonon)
    return Phonons(
        phonon,
        bands,
        np.array(phonon.total_dos.frequency_points),
        np.array(phonon.total_dos.dos),
        _thermal(phonon, options.max_temperature),
        lowest,
        float(everything.max()),
        len(forces) - 1,
        fmax,
        sum_rule,
        edge,
        (*_verdicts(lowest, fmax, sum_rule / largest, edge), *official_verdicts(calculator)),
    )


def _verdicts(lowest: float, fmax: float, noise: float, edge: float) -> list[Verdict]:
    return [
        Verdict(
            "stability",
            not lowest < -IMAGINARY,
            f"lowest frequency {lowest:.3f} THz",
            f"{-IMAGINARY} THz or more",
            "imaginary frequencies are those of a crystal that is unstable; what is closer to zero "
            "is rounding, as of the acoustic modes at Γ",
            f"there are imaginary modes, to {lowest:.3f} THz: the crystal is unstable in this "
            "model, or the supercell too small, or the structure not relaxed; thermal properties "
            "leave these modes out",
        ),
        Verdict(
            "relaxation",
            not fmax > _RELAXED,
            f"force {fmax:.4f} eV/Å",
            f"at most {_RELAXED} eV/Å",
            "the harmonic approximation is an expansion about a place without forces",
            f"forces of {fmax:.4f} eV/Å are left without displacement: the crystal is not relaxed",
        ),
        Verdict(
            "noise of forces",
            not noise > _NOISE,
            f"sum of force constants {noise:.2%}",
            f"at most {_NOISE:.0%} of the largest",
            "the acoustic sum rule: a crystal that moves as a whole feels no force",
            f"force constants of a moved crystal add up to {noise:.1%} of the largest instead of "
            "zero: forces are too noisy, use float64 and conservative forces",
        ),
        Verdict(
            "supercell",
            not edge > _EDGE,
            f"force constants at its edge {edge:.1%}",
            f"at most {_EDGE:.0%} of the largest",
            "force constants must have decayed within half a supercell (Parlinski, Li and "
            "Kawazoe, Phys. Rev. Lett. 78, 4063 (1997))",
            f"the supercell is too small: force constants between atoms half a supercell apart "
            f"are {edge:.0%} of the largest; take a larger one (--supercell)",
        ),
    ]


def check_phonons(atoms: Atoms, options: PhononOptions) -> None:
    """Refuse what :func:`phonons` would, before anything is computed.

    Raises:
        InputError: See there.
    """
    check_crystal(atoms, "phonons")
    supercell_matrix(atoms, options.supercell)
    try:
        import phonopy  # noqa: F401
    except ImportError as error:
        raise InputError(
            "phonons need phonopy, which is not installed: pip install phonopy spglib"
        ) from error


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
