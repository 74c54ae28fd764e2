"""The steps of a relaxation as an ASE trajectory that a killed run is continued from."""

from __future__ import annotations

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

_IDENTITY = "jmp_md_identity"


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
        self._frames = 0

    def start(self, index: int, given: Atoms) -> InProgress | None:
        """How far it has got; None where it begins.

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
        ends, self._frames = _read(self._path, self._identity) if self._restart else (None, 0)
        if ends is None:
            return None
        first, last = ends
        initial = float(first.get_potential_energy())
        return InProgress(last.positions, last.cell.array, self._frames - 1, initial)

    def see(self, moving: Sequence[Relaxation]) -> None:
        """Add the step of the one structure, with the constraints it was given."""
        from ase.io.trajectory import TrajectoryWriter

        for each in moving:
            if each.steps < self._frames:
                continue  # where it starts is there already
            frame = with_results(each.atoms)
            frame.set_constraint(self._constraints)
            with TrajectoryWriter(self._path, "a" if self._frames else "w") as writer:
                writer.set_description({_IDENTITY: self._identity})
                writer.write(frame)
            self._frames += 1

    def end(self, index: int, result: RelaxResult) -> None:
        """Nothing is left to be kept."""


def _read(path: Path, identity: dict[str, Any]) -> tuple[tuple[Atoms, Atoms] | None, int]:
    """First and last frame, and how many there are; a frame that a kill cut short is none."""
    from ase.io.trajectory import TrajectoryReader
    from ase.io.ulm import InvalidULMFileError

    if not path.exists() or not path.stat().st_size:
        return None, 0
    try:
        frames = TrajectoryReader(path)
        count = len(frames)
        ends = (frames[0], frames[-1]) if count else None
    except (InvalidULMFileError, OSError, ValueError) as error:
        raise InputError(
            f"cannot continue from {path}: {error}; give the .traj file of the run, or start again"
        ) from error
    if ends is not None:
        known = (frames.description or {}).get(_IDENTITY)
        if known is None:
            raise InputError(
                f"cannot continue from {path}: it does not say of which run it is; start again "
                "with another trajectory"
            )
        require_same(known, identity, path)
    return ends, count
