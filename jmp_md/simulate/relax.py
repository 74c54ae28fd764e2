"""Relaxation of atoms and, where asked for, of the cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jmp_md.errors import InputError

if TYPE_CHECKING:  # the command line reads this module's defaults without ASE's import time
    from ase import Atoms

OPTIMIZERS = ("BFGS", "LBFGS", "FIRE")


@dataclass(frozen=True)
class RelaxResult:
    """A relaxed structure and how it was reached.

    Attributes:
        atoms: The structure, with the calculator of the one given.
        converged: Whether ``fmax`` was reached.
        steps: Optimizer steps taken.
        energy: eV, without the work of an outer pressure.
        energy_change: eV, final minus initial.
        fmax: eV/Å, the largest force left; with a relaxed cell, stress counts too.
    """

    atoms: Atoms
    converged: bool
    steps: int
    energy: float
    energy_change: float
    fmax: float


def relax(
    atoms: Atoms,
    *,
    fmax: float = 0.01,
    optimizer: str = "BFGS",
    relax_cell: bool = False,
    cell_mask: Sequence[int] | None = None,
    pressure: float = 0.0,
    keep_symmetry: bool = False,
    steps: int = 500,
    trajectory: str | Path | None = None,
    restart: bool = False,
    log: str | Path | None = None,
    progress: Callable[[int, float, float], None] | None = None,
    observer: Callable[[int, Atoms], None] | None = None,
) -> RelaxResult:
    """Relax a structure with its ASE calculator; the given one is left as it is.

    Constraints hold. With ``relax_cell`` the cell moves along the logarithm of its deformation
    (ASE's ``FrechetCellFilter``), and its gradient, in eV/Å per atom, counts in ``fmax``.

    Args:
        atoms: Structure with a calculator, of any kind.
        fmax: eV/Å, the largest force at which to stop.
        optimizer: ``"BFGS"``, ``"LBFGS"`` (less memory, for thousands of atoms) or ``"FIRE"``
            (robust far from a minimum).
        relax_cell: Relax the cell too; the structure is periodic in three directions.
        cell_mask: Which strains relax, 1 or 0 for each of xx, yy, zz, yz, xz, xy; None takes all.
        pressure: GPa from outside on a cell that is relaxed.
        keep_symmetry: Make the structure as symmetric as it is to 0.01 Å, and keep it so.
        steps: Most steps to take.
        trajectory: ASE trajectory of all steps.
        restart: Go on from the last step in ``trajectory``, where there is one, with an optimizer
            that has forgotten how it came there; ``steps`` counts from the start.
        log: Text file ASE's optimizer appends its log to.
        progress: Called with step, energy in eV and largest force in eV/Å, from step 0 on.
        observer: Called with step and structure, likewise.

    Raises:
        InputError: No calculator, or an option that does not exist or does not fit.
    """
    if atoms.calc is None:
        raise InputError("the structure has no calculator: set atoms.calc = JMPCalculator(...)")
    if optimizer not in OPTIMIZERS:
        raise InputError(f"optimizer {optimizer!r}: choose one of {', '.join(OPTIMIZERS)}")
    if not fmax > 0:
        raise InputError(f"fmax {fmax!r} eV/Å: must be positive, 0.01 is usual")
    if steps < 0:
        raise InputError(f"steps {steps!r}: must be 0 or more")
    if restart and trajectory is None:
        raise InputError("restart goes on from a trajectory: give one (--trajectory)")
    _check_cell_options(atoms, relax_cell, cell_mask, pressure)

    import ase.optimize
    import numpy as np
    from ase.filters import FrechetCellFilter
    from ase.units import GPa

    from jmp_md.simulate.steps_file import StepsFile

    relaxed = _symmetric(atoms) if keep_symmetry else atoms.copy()
    relaxed.calc = atoms.calc
    file = None if trajectory is None else StepsFile(trajectory, restart)
    done = 0 if file is None else file.done
    first = None if file is None else file.restore(relaxed)
    moving = relaxed
    if relax_cell:
        moving = FrechetCellFilter(relaxed, mask=cell_mask, scalar_pressure=pressure * GPa)
    initial = float(relaxed.get_potential_energy()) if first is None else first

    def state() -> tuple[float, float]:
        forces = moving.get_forces()
        return float(relaxed.get_potential_energy()), float(np.linalg.norm(forces, axis=1).max())

    run = getattr(ase.optimize, optimizer)(moving, logfile=log)
    with run:
        if file is not None:
            run.attach(lambda: file.write(relaxed))
        if progress is not None:
            report = progress  # narrowed for the closure
            run.attach(lambda: report(done + run.nsteps, *state()))
        if observer is not None:
            see = observer
            run.attach(lambda: see(done + run.nsteps, relaxed))
        try:
            converged = bool(run.run(fmax=fmax, steps=max(steps - done, 0)))
        finally:
            if file is not None:
                file.close()
    energy, largest = state()
    relaxed.set_constraint(atoms.constraints)  # without that of symmetry
    return RelaxResult(relaxed, converged, done + run.nsteps, energy, energy - initial, largest)


def _check_cell_options(
    atoms: Atoms, relax_cell: bool, cell_mask: Sequence[int] | None, pressure: float
) -> None:
    if relax_cell and not atoms.pbc.all():
        raise InputError(
            "the cell can be relaxed where the structure is periodic in three directions, this one "
            f"has pbc {atoms.pbc.tolist()}: leave out relax_cell (--relax-cell)"
        )
    if not relax_cell and (cell_mask is not None or pressure != 0):
        raise InputError(
            f"cell_mask {cell_mask} and pressure {pressure!r} GPa are for a cell that is relaxed: "
            "add relax_cell (--relax-cell)"
        )
    if cell_mask is not None and (len(cell_mask) != 6 or not set(cell_mask) <= {0, 1}):
        raise InputError(
            f"cell_mask {list(cell_mask)}: give 0 or 1 for each of xx, yy, zz, yz, xz, xy"
        )
    if not abs(pressure) < 1e4:
        raise InputError(f"pressure {pressure!r} GPa: must be finite, 0.0001 is one atmosphere")


def _symmetric(atoms: Atoms) -> Atoms:
    """A copy with its symmetry made exact and held by a constraint."""
    from ase.constraints import FixSymmetry

    if atoms.constraints or not atoms.pbc.all():
        raise InputError(
            f"symmetry can be kept in crystals without constraints; this structure has pbc "
            f"{atoms.pbc.tolist()} and {len(atoms.constraints)} constraints: leave out "
            "keep_symmetry (--keep-symmetry)"
        )
    copy = atoms.copy()
    try:
        copy.set_constraint(FixSymmetry(copy))
    except ImportError as error:
        raise InputError(
            "keeping symmetry needs spglib, which is not installed: pip install 'jmp-md[phonons]'"
        ) from error
    return copy
