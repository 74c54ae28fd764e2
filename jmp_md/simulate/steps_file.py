"""The steps of a relaxation as an ASE trajectory that a killed run is continued from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jmp_md.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms


class StepsFile:
    """A trajectory with one frame per step.

    Args:
        path: File, ``.traj``.
        restart: Go on after its last frame, where there is one; otherwise it is written anew.

    Attributes:
        done: Steps that are in the file.

    Raises:
        InputError: A run is to be continued from a file that is not such a trajectory.
    """

    def __init__(self, path: str | Path, restart: bool) -> None:
        from ase.io.trajectory import TrajectoryWriter

        self._ends, count = _read(Path(path)) if restart else (None, 0)
        self.done = max(count - 1, 0)
        self._skip = count > 0  # an optimizer shows where it starts, which is there already
        self._writer = TrajectoryWriter(path, "a" if count else "w")

    def restore(self, atoms: Atoms) -> float | None:
        """Put atoms and cell where the last frame has them.

        Returns:
            Energy in eV of the first frame; None where there is no frame.

        Raises:
            InputError: The file is of another structure.
        """
        if self._ends is None:
            return None
        first, last = self._ends
        if not np.array_equal(last.numbers, atoms.numbers):
            raise InputError(
                f"the steps to continue are of other atoms, {last.numbers.tolist()}: give the "
                "structure they were started with, or choose another trajectory"
            )
        atoms.set_cell(last.cell, apply_constraint=False)
        atoms.set_positions(last.positions, apply_constraint=False)
        return float(first.get_potential_energy())

    def write(self, atoms: Atoms) -> None:
        """Add a step."""
        if self._skip:
            self._skip = False
        else:
            self._writer.write(atoms)

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def _read(path: Path) -> tuple[tuple[Atoms, Atoms] | None, int]:
    """First and last frame, and how many there are; a frame that a kill cut short is none."""
    from ase.io.trajectory import TrajectoryReader
    from ase.io.ulm import InvalidULMFileError

    if not path.exists() or not path.stat().st_size:
        return None, 0
    try:
        frames = TrajectoryReader(path)
        count = len(frames)
        return ((frames[0], frames[-1]) if count else None), count
    except (InvalidULMFileError, OSError, ValueError) as error:
        raise InputError(
            f"cannot continue from {path}: {error}; give the .traj file of the run, or start again"
        ) from error
