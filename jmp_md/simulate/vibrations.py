"""Vibrations of molecules, by finite differences in one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.errors import InputError
from jmp_md.options import with_options
from jmp_md.simulate.displaced import displaced_forces
from jmp_md.simulate.options import VibrationOptions
from jmp_md.simulate.rotations import is_linear
from jmp_md.simulate.singlepoint import singlepoint
from jmp_md.simulate.verdict import Verdict, doubts

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator
    from ase.vibrations import VibrationsData

STATIONARY = 0.05  # eV/Å, the largest force with which harmonic modes have a meaning
_NOISE = 0.02  # share of the largest element by which a Hessian may miss its transpose


@dataclass(frozen=True)
class Vibrations:
    """Normal modes in the harmonic approximation.

    Attributes:
        data: ASE's object: modes, animations, Hessian.
        frequencies: (n_modes,) cm⁻¹ from the lowest; negative ones are imaginary. The
            translations and rotations of a free molecule are not among them, nor the translations
            of a periodic structure without constraints.
        energy: eV, of the structure itself.
        fmax: eV/Å, its largest force: modes have a meaning at a stationary point only.
        asymmetry: Largest difference between the Hessian as computed and its transpose, as a
            share of its largest element: a measure of the error of the forces.
    """

    data: VibrationsData
    frequencies: np.ndarray
    energy: float
    fmax: float
    asymmetry: float

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether the frequencies stand."""
        return (
            Verdict(
                "stationary point",
                not self.fmax > STATIONARY,
                f"force {self.fmax:.4f} eV/Å",
                f"at most {STATIONARY} eV/Å",
                "harmonic modes are an expansion about a place without forces",
                f"forces of {self.fmax:.3f} eV/Å are left: this is no stationary point, and "
                "harmonic frequencies have no meaning; relax it first",
            ),
            Verdict(
                "noise of forces",
                not self.asymmetry > _NOISE,
                f"Hessian misses its transpose by {self.asymmetry:.2%}",
                f"at most {_NOISE:.0%} of its largest element",
                "second derivatives of an energy do not depend on their order",
                f"the Hessian misses its transpose by {self.asymmetry:.1%}: forces are too noisy "
                "or no derivatives of the energy; use float64, conservative forces, or a larger "
                "delta",
            ),
        )

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the frequencies may be wrong; empty where nothing speaks against them."""
        return doubts(self.verdicts)

    def shapes(self) -> list[tuple[float, np.ndarray]]:
        """The modes of :attr:`frequencies`: cm⁻¹, and displacements (n_atoms, 3) of the atoms."""
        every = np.array([f.real - abs(f.imag) for f in self.data.get_frequencies()])
        n_still = len(every) - len(self.frequencies)
        moving = np.argsort(abs(every), kind="stable")[n_still:]
        modes = self.data.get_modes(all_atoms=True)
        return [(float(every[i]), modes[i]) for i in moving[np.argsort(every[moving])]]


@with_options(VibrationOptions)
def vibrations(
    atoms: Atoms,
    calculator: Calculator,
    options: VibrationOptions | None = None,
    *,
    restart_from: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
    observer: Callable[[np.ndarray], None] | None = None,
    **changes: Any,
) -> Vibrations:
    """Normal modes by central differences of the forces, two structures for each coordinate.

    Atoms that ``FixAtoms`` holds do not vibrate. From the Hessian of a structure without
    constraints, translations and, where it is not periodic, rotations are projected out, so that
    they do not mix with soft modes (Miller, Handy and Adams, J. Chem. Phys. 72, 99 (1980),
    equation 2.6).

    Args:
        atoms: A relaxed structure, or a transition state.
        calculator: ASE calculator, best in double precision; a ``JMPCalculator`` computes all
            displaced structures in batches.
        options: See :class:`~jmp_md.simulate.options.VibrationOptions`; None for the defaults.
        restart_from: Forces (n, n_atoms, 3) in eV/Å of the first displaced structures, as
            ``observer`` got them: those are not computed again.
        progress: Called with how many displaced structures are computed, and of how many.
        observer: Called with the forces of all displaced structures so far.
        changes: Options by name, in place of those of ``options``.

    Raises:
        InputError: An option that does not exist or does not fit, constraints other than
            ``FixAtoms``, or a structure that cannot be computed.
    """
    from ase.vibrations import VibrationsData

    delta = (options or VibrationOptions()).changed(changes).delta
    indices = moving_atoms(atoms)
    displaced = []
    for index in indices:
        for axis in range(3):
            for sign in (1, -1):
                displaced.append(atoms.copy())
                displaced[-1].positions[index, axis] += sign * delta
    [here] = singlepoint([atoms], calculator)
    forces = displaced_forces(displaced, calculator, restart_from, progress, observer)[:, indices]
    hessian = -(forces[::2] - forces[1::2]).reshape(3 * len(indices), -1) / (2 * delta)
    asymmetry = float(np.abs(hessian - hessian.T).max() / (np.abs(hessian).max() or 1.0))
    hessian = (hessian + hessian.T) / 2
    n_still = 0
    if not atoms.constraints:
        hessian, n_still = _without_rigid_motion(hessian, atoms)
    data = VibrationsData.from_2d(atoms, hessian, indices)
    frequencies = np.array([f.real - abs(f.imag) for f in data.get_frequencies()])
    moving = np.sort(np.argsort(abs(frequencies), kind="stable")[n_still:])
    assert here.forces is not None
    fmax = float(np.linalg.norm(here.forces[indices], axis=1).max())
    return Vibrations(data, np.sort(frequencies[moving]), here.energy, fmax, asymmetry)


def moving_atoms(atoms: Atoms) -> np.ndarray:
    """Indices of the atoms that constraints leave free.

    Raises:
        InputError: Constraints other than ``FixAtoms``, or no atom that is free.
    """
    from ase.vibrations import VibrationsData

    kinds = {type(constraint).__name__ for constraint in atoms.constraints}
    if kinds - {"FixAtoms"}:
        raise InputError(f"vibrations know constraints of the kind FixAtoms only, not {kinds}")
    indices: np.ndarray = VibrationsData.indices_from_constraints(atoms)
    if not len(indices):
        raise InputError("constraints hold all atoms, none can vibrate: remove some")
    return indices


def n_rigid_motions(atoms: Atoms) -> int:
    """Translations and rotations of a structure without constraints."""
    if atoms.pbc.any() or len(atoms) == 1:
        return 3
    return 5 if is_linear(atoms) else 6


def _without_rigid_motion(hessian: np.ndarray, atoms: Atoms) -> tuple[np.ndarray, int]:
    """The Hessian with translations and rotations projected out, and how many there are."""
    weights = np.sqrt(atoms.get_masses())[:, None]
    arms = atoms.positions - atoms.get_center_of_mass()
    motions = [np.broadcast_to(axis, arms.shape) for axis in np.eye(3)]
    count = n_rigid_motions(atoms)
    if count > 3:
        motions += [np.cross(axis, arms) for axis in np.eye(3)]
    rigid = np.array([(weights * motion).ravel() for motion in motions]).T
    basis = np.linalg.svd(rigid, full_matrices=False)[0][:, :count]
    projector = np.eye(len(hessian)) - basis @ basis.T
    root = np.repeat(weights, 3)
    weighted = projector @ (hessian / np.outer(root, root)) @ projector
    return weighted * np.outer(root, root), count
