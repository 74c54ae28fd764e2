"""The steps of a relaxation as an ASE trajectory that a killed run is continued from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError
from jmp_md.simulate.identity import identity, require_same
from jmp_md.simulate.relax.cell import strains
from jmp_md.simulate.relax.relaxation import InProgress
from jmp_md.structure_files import with_results

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.options import RelaxOptions
    from jmp_md.simulate.relax.relaxation import Relaxation, RelaxResult

_IDENTITY, _INITIAL = "jmp_md_identity", "jmp_md_initial_energy"


class RelaxTrajectory:
    """A trajectory with one frame per step; no other process may write to it meanwhile.

    It is open while a frame is written only, so that any number of them can grow together.

    Args:
        path: File, ``.traj``.
        calculator: What computes.
        options: Of the relaxation; what relaxes is kept in the file with the identity of the run.
        restart: Go on after its last frame, where there is one; otherwise it is written anew.
    """

    def __init__(
        self, path: str | Path, calculator: Calculator, options: RelaxOptions, restart: bool
    ) -> None:
        self._path, self._calculator = Path(path), calculator
        self._options, self._restart = options, restart
        self._begun, self._next = False, 0  # whether there is a frame, and step of the next one

    def start(self, index: int, given: Atoms, left: InProgress | None = None) -> InProgress | None:
        """How far it has got; None where it begins.

        Args:
            index: Number of the structure.
            given: The structure.
            left: Where a run without the file was left; where that is further, it goes on from
                there, and a warning says which steps the file lacks.

        Raises:
            InputError: The file is not such a trajectory, or not of this run.
        """
        options = self._options
        about = {
            "cell": strains(given, options),
            "pressure": options.pressure,
            "keep_symmetry": options.keep_symmetry,
        }
        self._identity = identity(self._calculator, about, [given])
        self._constraints = given.copy().constraints
        known = _read(self._path, self._identity) if self._restart else None
        self._begun, self._next = known is not None, 0 if known is None else known.steps + 1
        if left is not None and left.steps >= self._next:
            if left.steps > self._next:
                warnings.warn(
                    f"{self._path} lacks the steps {self._next} to {left.steps - 1}, which were "
                    "taken without it",
                    stacklevel=2,
                )
            self._next = left.steps
            return left
        return known

    def see(self, moving: Sequence[Relaxation]) -> None:
        """Add the step of the one structure, with the constraints it was given."""
        from ase.io.trajectory import TrajectoryWriter

        for each in moving:
            if each.steps < self._next:
                continue  # where it starts is there already
            frame = with_results(each.atoms, step=each.steps)
            frame.set_constraint(self._constraints)
            with TrajectoryWriter(self._path, "a" if self._begun else "w") as writer:
                about = {_IDENTITY: self._identity, _INITIAL: each.progress.initial}
                writer.set_description(about)
                writer.write(frame)
            self._begun, self._next = True, each.steps + 1

    def end(self, index: int, result: RelaxResult) -> None:
        """Nothing is left to be kept."""


def _read(path: Path, identity: dict[str, Any]) -> InProgress | None:
    """Where it was left, None where it holds no frame; one that a kill cut short is none."""
    from ase.io.trajectory import TrajectoryReader
    from ase.io.ulm import InvalidULMFileError

    if not path.exists() or not path.stat().st_size:
        return None
    try:
        frames = TrajectoryReader(path)
        if not len(frames):
            return None
        first, last = frames[0], frames[-1]
    except (InvalidULMFileError, OSError, ValueError) as error:
        raise InputError(
            f"cannot continue from {path}: {error}; give the .traj file of the run, or start again"
        ) from error
    about = frames.description or {}
    if _IDENTITY not in about:
        raise InputError(
            f"cannot continue from {path}: it does not say of which run it is; start again with "
            "another trajectory"
        )
    require_same(about[_IDENTITY], identity, path)
    if _INITIAL in about:
        steps, initial = last.info["step"], about[_INITIAL]
    else:  # of an older version, in whose files no step is left out
        steps, initial = len(frames) - 1, first.get_potential_energy()
    return InProgress(last.positions, last.cell.array, int(steps), float(initial))
