"""What a molecular dynamics run leaves behind: its trajectory and its log, in step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.simulate.trajectory.append_only import TextFile
from jmp_md.simulate.trajectory.formats import open_frames

if TYPE_CHECKING:
    from ase import Atoms

COLUMNS = (
    "step",
    "time_fs",
    "potential_eV",
    "kinetic_eV",
    "total_eV",
    "conserved_eV",
    "temperature_K",
    "volume_A3",
)
# At constant pressure also these.
CELL_COLUMNS = (
    "pressure_GPa",
    "a_A",
    "b_A",
    "c_A",
    "alpha_deg",
    "beta_deg",
    "gamma_deg",
)
LOG = "log.csv"


class Recorder:
    """Trajectory and log of a run.

    Args:
        folder: Where they are; created if need be.
        trajectory: Format, one of :data:`jmp_md.simulate.trajectory.formats.FORMATS`.
        columns: Of the log.
        marks: Where to continue, from :meth:`marks`; None starts them anew.

    Raises:
        InputError: A file holds less than when the marks were made.
    """

    def __init__(
        self,
        folder: Path,
        trajectory: str,
        columns: tuple[str, ...] = COLUMNS,
        marks: Mapping[str, Any] | None = None,
    ) -> None:
        old = marks or {}
        folder.mkdir(parents=True, exist_ok=True)
        self.frames = open_frames(folder / f"trajectory.{trajectory}", old.get("frames"))
        self.log = TextFile(folder / LOG, old.get("log"))
        self._columns = columns
        if marks is None:
            self.log.write(",".join(columns) + "\n")

    def record(self, frame: Atoms, line: Mapping[str, float]) -> None:
        """Add a frame, which does not change any more, and a line of the log, by column."""
        self.frames.write(frame)
        self._write(line)

    def record_end(self, frame: Atoms, line: Mapping[str, float]) -> dict[str, Any]:
        """Add a last frame out of turn; a run that goes on from the marks returned undoes it."""
        marks = {"frames": self.frames.write_end(frame), "log": self.log.mark()}
        self._write(line)
        return marks

    def marks(self) -> dict[str, Any]:
        """Where both are now, to be saved with the state of the run; then :meth:`commit`."""
        return {"frames": self.frames.mark(), "log": self.log.mark()}

    def commit(self) -> None:
        """The marks have been saved."""
        self.frames.commit()

    def close(self) -> None:
        """Close both."""
        self.frames.close()
        self.log.close()

    def _write(self, line: Mapping[str, float]) -> None:
        self.log.write(",".join(repr(line[column]) for column in self._columns) + "\n")
