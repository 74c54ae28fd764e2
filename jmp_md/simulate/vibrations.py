"""Vibrations of molecules and their thermodynamics, by finite differences in one batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jmp_md.errors import InputError
from jmp_md.simulate.singlepoint import singlepoint

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator
    from ase.vibrations import VibrationsData

GEOMETRIES = ("monatomic", "linear", "nonlinear")
_PASCAL_PER_BAR = 1e5
# Relative size below which a rotation moves no atom: that about the axis of a linear molecule.
_STILL = 1e-3


@dataclass(frozen=True)
class Vibrations:
    """Normal modes in the harmonic approximation.

    Attributes:
        data: ASE's object: modes, animations, Hessian.
        frequencies: (n_modes,) cm⁻¹ from the lowest; negative ones are imaginary. The
            translations and rotations of a free molecule are not among them.
        energy: eV, of the structure itself.
        fmax: eV/Å, its largest force: modes have a meaning at a stationary point only.
    """

    data: VibrationsData
    frequencies: np.ndarray
    energy: float
    fmax: float


@dataclass(frozen=True)
class Thermochemistry:
    """A molecule as an ideal gas of rigid rotors and harmonic oscillators.

    Attributes:
        temperature: K.
        pressure: bar.
        zero_point_energy: eV.
        internal_energy: eV, with the potential and zero-point energy.
        enthalpy: eV.
        entropy: eV/K.
        gibbs_energy: eV.
    """

    temperature: float
    pressure: float
    zero_point_energy: float
    internal_energy: float
    enthalpy: float
    entropy: float
    gibbs_energy: float


def vibrations(atoms: Atoms, calculator: Calculator, *, delta: float = 0.01) -> Vibrations:
    """Normal modes by central differences of the forces, two structures for each coordinate.

    Atoms that ``FixAtoms`` holds do not vibrate. From the Hessian of a molecule without
    periodicity and constraints, translations and rotations are projected out, so that they do not
    mix with soft modes (Miller, Handy and Adams, J. Chem. Phys. 72, 99 (1980), equation 2.6).

    Args:
        atoms: A relaxed structure, or a transition state.
        calculator: ASE calculator, best in double precision; a ``JMPCalculator`` computes all
            displaced structures in batches.
        delta: Å by which atoms are displaced.

    Raises:
        InputError: A displacement that cannot be meant, constraints other than ``FixAtoms``, or a
            structure that cannot be computed.
    """
    from ase.vibrations import VibrationsData

    if not 0 < delta < 0.5:
        raise InputError(f"delta {delta!r} Å: must be positive and small, 0.01 is usual")
    kinds = {type(constraint).__name__ for constraint in atoms.constraints}
    if kinds - {"FixAtoms"}:
        raise InputError(f"vibrations know constraints of the kind FixAtoms only, not {kinds}")
    indices = VibrationsData.indices_from_constraints(atoms)
    if not len(indices):
        raise InputError("constraints hold all atoms, none can vibrate: remove some")
    displaced = []
    for index in indices:
        for axis in range(3):
            for sign in (1, -1):
                displaced.append(atoms.copy())
                displaced[-1].positions[index, axis] += sign * delta
    here, *results = singlepoint([atoms, *displaced], calculator)
    forces = np.array([result.forces for result in results])[:, indices]
    hessian = -(forces[::2] - forces[1::2]).reshape(3 * len(indices), -1) / (2 * delta)
    hessian = (hessian + hessian.T) / 2
    n_still = 0
    if not atoms.pbc.any() and not atoms.constraints:
        hessian, n_still = _without_rigid_motion(hessian, atoms)
    data = VibrationsData.from_2d(atoms, hessian, indices)
    frequencies = np.array([f.real - abs(f.imag) for f in data.get_frequencies()])
    moving = np.sort(np.argsort(abs(frequencies), kind="stable")[n_still:])
    assert here.forces is not None
    fmax = float(np.linalg.norm(here.forces[indices], axis=1).max())
    return Vibrations(data, np.sort(frequencies[moving]), here.energy, fmax)


def thermochemistry(
    vibrations: Vibrations,
    *,
    temperature: float = 298.15,
    pressure: float = 1.0,
    symmetry_number: int = 1,
    spin: float = 0.0,
) -> Thermochemistry:
    """Ideal-gas thermochemistry with ASE's ``IdealGasThermo``.

    Args:
        vibrations: Of a molecule at a minimum.
        temperature: K.
        pressure: bar.
        symmetry_number: Number of rotations that leave the molecule as it is, e.g. 2 for water.
        spin: Total electronic spin, e.g. 0.5 for a radical.

    Raises:
        InputError: A periodic or constrained structure, one that is not at a minimum, or values
            that cannot be meant.
    """
    from ase.thermochemistry import IdealGasThermo
    from ase.units import invcm

    atoms = vibrations.data.get_atoms()
    if atoms.pbc.any() or len(vibrations.data.get_indices()) < len(atoms):
        raise InputError("an ideal gas is of free molecules: give one without pbc and constraints")
    if not (temperature > 0 and pressure > 0 and symmetry_number >= 1 and spin >= 0):
        raise InputError(
            f"temperature {temperature!r} K, pressure {pressure!r} bar, symmetry number "
            f"{symmetry_number!r}, spin {spin!r}: the first three must be positive, spin 0 or more"
        )
    if (vibrations.frequencies < 0).any():
        raise InputError(
            f"the molecule is not at a minimum, it has imaginary frequencies of "
            f"{vibrations.frequencies[vibrations.frequencies < 0].round(1).tolist()} cm⁻¹: relax "
            "it further (--fmax 0.001, in float64)"
        )
    n_still = 3 * len(atoms) - len(vibrations.frequencies)
    gas = IdealGasThermo(
        vibrations.frequencies * invcm,
        GEOMETRIES[(3, 5, 6).index(n_still)],
        potentialenergy=vibrations.energy,
        atoms=atoms,
        symmetrynumber=symmetry_number,
        spin=spin,
    )
    pascal = pressure * _PASCAL_PER_BAR
    return Thermochemistry(
        temperature,
        pressure,
        float(gas.get_ZPE_correction()),
        float(gas.get_internal_energy(temperature, verbose=False)),
        float(gas.get_enthalpy(temperature, verbose=False)),
        float(gas.get_entropy(temperature, pascal, verbose=False)),
        float(gas.get_gibbs_energy(temperature, pascal, verbose=False)),
    )


def _without_rigid_motion(hessian: np.ndarray, atoms: Atoms) -> tuple[np.ndarray, int]:
    """The Hessian with translations and rotations projected out, and how many there are."""
    weights = np.sqrt(atoms.get_masses())[:, None]
    arms = atoms.positions - atoms.get_center_of_mass()
    motions = [np.broadcast_to(axis, arms.shape) for axis in np.eye(3)]
    motions += [np.cross(axis, arms) for axis in np.eye(3)]
    rigid = np.array([(weights * motion).ravel() for motion in motions]).T
    left, sizes, _ = np.linalg.svd(rigid, full_matrices=False)
    basis = left[:, sizes > _STILL * sizes[0]]
    projector = np.eye(len(hessian)) - basis @ basis.T
    root = np.repeat(weights, 3)
    weighted = projector @ (hessian / np.outer(root, root)) @ projector
    return weighted * np.outer(root, root), basis.shape[1]
