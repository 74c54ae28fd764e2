"""The steps of a relaxation as an ASE trajectory that a killed run is continued from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError
from jmp_md.files import locked_file
from jmp_md.simulate.identity import require_same
from jmp_md.structure_files import with_results

if TYPE_CHECKING:
    from ase import Atoms


_IDENTITY = "jmp_md_identity"


class RelaxTrajectory:
    """A trajectory with one frame per step, which no other process writes to until it is closed.

    Args:
        path: File, ``.traj``.
        identity: Of the run, from :func:`jmp_md.simulate.identity.identity`; kept in the file.
        restart: Go on after its last frame, where there is one; otherwise it is written anew.

    Attributes:
        done: Steps that are in the file.

    Raises:
        InputError: A run is to be continued from a file that is not such a trajectory, or not of
            this run, or another process writes to it.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any], restart: bool) -> None:
        from ase.io.trajectory import TrajectoryWriter

        path = Path(path)
        with ExitStack() as stack:
            stack.enter_context(locked_file(path))
            self._ends, count = _read(path, identity) if restart else (None, 0)
            self.done = max(count - 1, 0)
            self._skip = count > 0  # an optimizer shows where it starts, which is there already
            self._writer = TrajectoryWriter(path, "a" if count else "w")
            self._writer.set_description({_IDENTITY: dict(identity)})
            stack.callback(self._writer.close)
            self._open = stack.pop_all()

    def restore(self, atoms: Atoms) -> float | None:
        """Put atoms and cell where the last frame has them.

        Returns:
            Energy in eV of the first frame; None where there is no frame.
        """
        if self._ends is None:
            return None
        first, last = self._ends
        atoms.set_cell(last.cell, apply_constraint=False)
        atoms.set_positions(last.positions, apply_constraint=False)
        return float(first.get_potential_energy())

    def write(self, atoms: Atoms, constraints: Sequence[Any]) -> None:
        """Add a step, with the constraints of the structure given."""
        if self._skip:
            self._skip = False
            return
        frame = with_results(atoms)
        frame.set_constraint(constraints)
        self._writer.write(frame)

    def close(self) -> None:
        """Close the file."""
        self._open.close()


def _read(path: Path, identity: Mapping[str, Any]) -> tuple[tuple[Atoms, Atoms] | None, int]:
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
