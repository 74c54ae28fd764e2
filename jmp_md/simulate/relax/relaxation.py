"""A structure that relaxes: an optimizer of ASE's moves it, forces come from elsewhere."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import ase.optimize
import numpy as np
from ase.filters import FrechetCellFilter
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import GPa

from jmp_md.errors import InputError, JMPError
from jmp_md.simulate.relax.cell import strains, symmetric
from jmp_md.simulate.relax.precomputed import PrecomputedCalculator
from jmp_md.structure_files import attach_results

if TYPE_CHECKING:
    from ase import Atoms
    from ase.optimize.optimize import Optimizer

    from jmp_md.simulate.options import RelaxOptions

_RISE = 1e-3  # eV, more than rounding or the last steps of a relaxation make


@dataclass(frozen=True)
class RelaxResult:
    """A relaxed structure and how it was reached.

    Attributes:
        atoms: The structure, with the calculator of the one given, or, where it was one of many,
            with energy and forces.
        converged: Whether ``fmax`` was reached, and the energy has not risen on the way.
        steps: Optimizer steps taken.
        energy: eV, without the work of an outer pressure; NaN after an error.
        energy_change: eV, final minus initial.
        fmax: eV/Å, the largest force left; with a relaxed cell, stress counts too.
        error: Why one of many structures was dropped.
        stress_left: GPa, the largest component of stress that a relaxed cell has beyond the outer
            pressure; None where the cell was not relaxed.
    """

    atoms: Atoms
    converged: bool
    steps: int
    energy: float
    energy_change: float
    fmax: float
    error: JMPError | None = None
    stress_left: float | None = None

    @classmethod
    def failed(cls, given: Atoms, error: JMPError) -> RelaxResult:
        """The end of a structure that could not be computed where it was given."""
        nothing = float("nan")
        return cls(given.copy(), False, 0, nothing, nothing, nothing, error)


class InProgress(NamedTuple):
    """How far a relaxation has got.

    Attributes:
        positions: (n_atoms, 3) Å.
        cell: (3, 3) Å.
        steps: Optimizer steps taken.
        initial: eV, energy of the structure given; None where it is not known yet.
    """

    positions: np.ndarray
    cell: np.ndarray
    steps: int
    initial: float | None


class _Cell(FrechetCellFilter):
    """Atoms and cell, whose gradient takes long enough to be computed once only where they are."""

    _results: dict[str, Any] | None = None

    def get_forces(self, **options: Any) -> np.ndarray:
        """(n_atoms + 3, 3) eV/Å, of the results that the calculator was given last."""
        if self._results is not self.atoms.calc.results:
            self._results, self._gradient = self.atoms.calc.results, super().get_forces(**options)
        return self._gradient


class Relaxation:
    """A structure on its way.

    Args:
        index: Its number among those that relax.
        given: The structure, for which :func:`~jmp_md.simulate.relax.cell.check_fit` holds.
        options: Of the relaxation.
        optimizer: Name of an optimizer of ASE.
        start: Where to go on; None begins where ``given`` is. The optimizer begins anew.
        log: Where the optimizer writes its lines.

    Attributes:
        index: As given.
        atoms: Where it is, with energy, forces and stress once :meth:`see` has brought them.
        steps: Steps taken.
        energy: eV, without springs and the work of an outer pressure.
        fmax: eV/Å, the largest force; with a relaxed cell, its gradient counts too.
        error: Why it cannot be computed.

    Raises:
        InputError: spglib, which keeps symmetry, is not installed.
    """

    energy = fmax = float("nan")
    error: JMPError | None = None

    def __init__(
        self,
        index: int,
        given: Atoms,
        options: RelaxOptions,
        optimizer: str,
        start: InProgress | None = None,
        log: TextIO | None = None,
    ) -> None:
        self.index, self._options, self._logs = index, options, log is not None
        self._constraints = given.copy().constraints
        self.atoms = symmetric(given) if options.keep_symmetry else given.copy()
        self._strains = strains(given, options)
        self._moving: Atoms | _Cell = self.atoms
        if self._strains is not None:
            pressure = options.pressure * GPa
            self._moving = _Cell(self.atoms, self._strains, scalar_pressure=pressure)
        self.atoms.calc = PrecomputedCalculator()
        self.atoms.calc.results = {"energy": 0.0, "free_energy": 0.0}
        # eV, springs and the work of pressure; what is to become least holds them.
        self._initial_work = self._moving.get_potential_energy()
        self.steps, self._initial = 0, None
        if start is not None:
            self.atoms.set_cell(start.cell, apply_constraint=False)
            self.atoms.set_positions(start.positions, apply_constraint=False)
            self.steps, self._initial = start.steps, start.initial
        optimize = getattr(ase.optimize, optimizer)
        self._optimizer: Optimizer = optimize(self._moving, logfile=log)

    @property
    def progress(self) -> InProgress:
        """How far it has got."""
        atoms = self.atoms
        return InProgress(atoms.positions, atoms.cell.array, self.steps, self._initial)

    @property
    def converged(self) -> bool:
        """Whether forces are small enough."""
        return self.error is None and self.fmax <= self._options.fmax

    @property
    def goes_on(self) -> bool:
        """Whether there is a step to take."""
        return self.error is None and not self.converged and self.steps < self._options.steps

    def see(
        self, energy: float, forces: np.ndarray, stress: np.ndarray, error: JMPError | None
    ) -> None:
        """Take what was computed where the structure is.

        Args:
            energy: eV.
            forces: (n_atoms, 3) eV/Å, without those of constraints.
            stress: (3, 3) eV/Å³, NaN where it is not known.
            error: Why nothing was.
        """
        known = bool(np.isfinite(stress).all())
        if error is None and self._strains is not None and not known:
            error = InputError("there is no stress, by which the cell could relax")
        self.error = error
        if error is not None:
            self.energy = self.fmax = float("nan")
            return
        self.energy = float(energy)
        results: dict[str, Any] = {"energy": self.energy, "forces": forces.copy()}
        if known:
            results["stress"] = full_3x3_to_voigt_6_stress(stress)
        self.atoms.calc.results = results | {"free_energy": self.energy}
        if self._initial is None:
            self._initial = self.energy
        felt = self._moving.get_forces()
        self.fmax = float(np.linalg.norm(felt, axis=1).max())
        if self._logs:
            self._optimizer.nsteps = self.steps
            self._optimizer.log(-felt.ravel())

    def move(self) -> None:
        """Take a step."""
        self._optimizer.step()
        self.steps += 1

    def end(self) -> RelaxResult:
        """What became of the structure."""
        results = {} if self.error is not None else dict(self.atoms.calc.results)
        results.pop("free_energy", None)
        atoms = self.atoms.copy()
        atoms.set_constraint(self._constraints)
        initial = self.energy if self._initial is None else self._initial
        return RelaxResult(
            attach_results(atoms, results),
            self.converged and not self._has_risen(initial),
            self.steps,
            self.energy,
            self.energy - initial,
            self.fmax,
            self.error,
            self._stress_left(),
        )

    def _has_risen(self, initial: float) -> bool:
        """Whether it went uphill, with a warning: forces may vanish there, but not in a minimum
        that belongs to the start."""
        rise = self._moving.get_potential_energy() - (initial + self._initial_work)
        if rise > _RISE:
            warnings.warn(
                f"structure {self.index}: the energy rose by {rise:.4f} eV: the optimizer has left "
                "the minimum of the structure given; start nearer to it, or with optimizer FIRE "
                "(--optimizer FIRE)",
                stacklevel=3,
            )
        return bool(rise > _RISE)

    def _stress_left(self) -> float | None:
        if self._strains is None or self.error is not None:
            return None
        stress = self.atoms.get_stress() / GPa + np.array([self._options.pressure] * 3 + [0.0] * 3)
        return float(np.abs(stress * self._strains).max())
