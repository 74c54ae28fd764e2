"""Relaxation of atoms and, where asked for, of the cell."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError
from jmp_md.options import with_options
from jmp_md.simulate.options import RelaxOptions

if TYPE_CHECKING:  # the command line reads this module's defaults without ASE's import time
    from ase import Atoms

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
    error: InputError | None = None
    stress_left: float | None = None


@with_options(RelaxOptions)
def relax(
    atoms: Atoms,
    options: RelaxOptions | None = None,
    *,
    trajectory: str | Path | None = None,
    restart: bool = False,
    log: str | Path | None = None,
    progress: Callable[[int, float, float], None] | None = None,
    observer: Callable[[int, Atoms], None] | None = None,
    **changes: Any,
) -> RelaxResult:
    """Relax a structure with its ASE calculator; the given one is left as it is.

    Constraints hold. With ``relax_cell`` the cell moves along the logarithm of its deformation
    (ASE's ``FrechetCellFilter``), and its gradient, in eV/Å per atom, counts in ``fmax``. Atoms
    under ``FixAtoms`` then keep their places relative to the cell. Of a structure that is periodic
    in one or two directions, only strains within these relax.

    Forces that vanish by symmetry hold a structure at a saddle point as well as at a minimum;
    frequencies tell which it is.

    Args:
        atoms: Structure with a calculator, of any kind.
        options: See :class:`~jmp_md.simulate.options.RelaxOptions`; None for the defaults.
        trajectory: ASE trajectory of all steps.
        restart: Go on from the last step in ``trajectory``, where there is one, with an optimizer
            that has forgotten how it came there; ``steps`` counts from the start. The model, the
            structure and what relaxes must be those it was started with.
        log: Text file ASE's optimizer appends its log to.
        progress: Called with step, energy in eV and largest force in eV/Å, from step 0 on.
        observer: Called with step and the structure on its way, likewise.
        changes: Options by name, in place of those of ``options``.

    Raises:
        InputError: No calculator, no atoms, a cell without volume, or an option that does not
            exist or does not fit.
    """
    options = (options or RelaxOptions()).changed(changes)
    pressure = options.pressure
    if atoms.calc is None:
        raise InputError("the structure has no calculator: set atoms.calc = JMPCalculator(...)")
    if restart and trajectory is None:
        raise InputError("restart goes on from a trajectory: give one (--trajectory)")
    if len(atoms) == 0:
        raise InputError("the structure has no atoms: check how it was read or built")

    import ase.optimize
    import numpy as np
    from ase.filters import FrechetCellFilter
    from ase.units import GPa

    from jmp_md.simulate.identity import identity
    from jmp_md.simulate.relax_trajectory import RelaxTrajectory
    from jmp_md.validate import check_cell

    check_cell(atoms.cell.array, atoms.pbc)
    if options.relax_cell:
        _check_cell_options(atoms, pressure)

    relaxed = _symmetric(atoms) if options.keep_symmetry else atoms.copy()
    relaxed.calc = atoms.calc
    mask = _strains(atoms, options.cell_mask) if options.relax_cell else None
    file = None
    if trajectory is not None:
        about = {"cell": mask, "pressure": pressure, "keep_symmetry": options.keep_symmetry}
        file = RelaxTrajectory(trajectory, identity(atoms.calc, about, [atoms]), restart)
    done = 0 if file is None else file.done
    first = None if file is None else file.restore(relaxed)
    moving = relaxed
    if options.relax_cell:
        moving = FrechetCellFilter(relaxed, mask=mask, scalar_pressure=pressure * GPa)

    def objective() -> float:
        """eV, what is to become least: with springs and the work of pressure."""
        volume = relaxed.cell.volume if options.relax_cell else 0.0
        return float(relaxed.get_potential_energy()) + pressure * GPa * volume

    def state() -> tuple[float, float]:
        """Energy, without that of constraints such as springs, and the largest force."""
        forces = moving.get_forces()
        energy = relaxed.get_potential_energy(apply_constraint=False)
        return float(energy), float(np.linalg.norm(forces, axis=1).max())

    try:
        initial = state()[0] if first is None else first
        before = objective()
        with getattr(ase.optimize, options.optimizer or "BFGS")(moving, logfile=log) as run:
            if file is not None:
                run.attach(lambda: file.write(relaxed, atoms.constraints))
            if progress is not None:
                run.attach(lambda: progress(done + run.nsteps, *state()))
            if observer is not None:
                run.attach(lambda: observer(done + run.nsteps, relaxed))
            converged = bool(run.run(fmax=options.fmax, steps=max(options.steps - done, 0)))
    finally:
        if file is not None:
            file.close()
    energy, largest = state()
    converged = converged and not has_risen(before, objective())
    left = None
    if mask is not None:
        stress = relaxed.get_stress() / GPa + np.array([pressure] * 3 + [0.0] * 3)
        left = float(np.abs(stress * mask).max())
    relaxed.set_constraint(atoms.constraints)  # without that of symmetry
    return RelaxResult(
        relaxed, converged, done + run.nsteps, energy, energy - initial, largest, stress_left=left
    )


def has_risen(before: float, after: float) -> bool:
    """Whether a relaxation went uphill, with a warning: forces may vanish there, but not in a
    minimum that belongs to the start. Energies are in eV."""
    rise = after - before
    if rise > _RISE:
        warnings.warn(
            f"the energy rose by {rise:.4f} eV: the optimizer has left the minimum of the "
            "structure given; start nearer to it, or with optimizer FIRE (--optimizer FIRE)",
            stacklevel=3,
        )
    return rise > _RISE


def _check_cell_options(atoms: Atoms, pressure: float) -> None:
    if not atoms.pbc.any():
        raise InputError(
            f"the structure has no cell to relax, pbc {atoms.pbc.tolist()}: leave out relax_cell "
            "(--relax-cell)"
        )
    if pressure != 0 and not atoms.pbc.all():
        raise InputError(
            f"pressure {pressure!r} GPa on a structure with pbc {atoms.pbc.tolist()}: it has no "
            "volume of its own that pressure could act on; leave out pressure (--pressure)"
        )
    for constraint in atoms.constraints:
        if type(constraint).__name__ != "FixAtoms":
            raise InputError(
                f"{type(constraint).__name__} does not hold in a cell that is relaxed, FixAtoms "
                "does: take it out, or leave out relax_cell (--relax-cell)"
            )


def _strains(atoms: Atoms, given: Sequence[int] | None) -> list[int]:
    """Which of xx, yy, zz, yz, xz, xy are strains within the periodic directions, and relax.

    Raises:
        InputError: A vector of the cell is not set, the periodic ones do not lie along as many of
            x, y and z, or the mask given asks for other strains.
    """
    import numpy as np

    if atoms.cell.rank < 3:
        raise InputError(
            f"the cell {atoms.cell.array.tolist()} has no volume, by which stress is defined: set "
            "all of its vectors, e.g. with atoms.center(vacuum=10, axis=2)"
        )
    periodic = atoms.cell.array[atoms.pbc]
    along = (np.abs(periodic) > 1e-6 * np.linalg.norm(periodic, axis=1, keepdims=True)).any(axis=0)
    if along.sum() != len(periodic):
        raise InputError(
            f"the periodic vectors of the cell {atoms.cell.array.tolist()} (pbc "
            f"{atoms.pbc.tolist()}) do not lie along as many of x, y and z: rotate the structure "
            "with its cell"
        )
    pairs = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
    within = [int(along[i] and along[j]) for i, j in pairs]
    if given is None:
        return within
    if any(asked and not has for asked, has in zip(given, within, strict=True)):
        raise InputError(
            f"cell_mask {list(given)} asks for strains of directions that are not periodic (pbc "
            f"{atoms.pbc.tolist()}): {within} are those there are"
        )
    return [int(asked) for asked in given]


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
