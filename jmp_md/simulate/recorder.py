"""What a molecular dynamics run leaves behind: its trajectory and its log, in step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.simulate.frames import TextFile, open_frames, snapshot

if TYPE_CHECKING:
    from jmp_md.simulate.dynamics import Dynamics

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
LOG = "log.csv"


class Recorder:
    """Trajectory and log of a run.

    Args:
        folder: Where they are.
        trajectory: Format, one of :data:`jmp_md.simulate.frames.FORMATS`.
        timestep: fs.
        marks: Where to continue, from :meth:`marks`; None starts them anew.

    Raises:
        InputError: A file holds less than when the marks were made.
    """

    def __init__(
        self, folder: Path, trajectory: str, timestep: float, marks: Mapping[str, Any] | None = None
    ) -> None:
        old = marks or {}
        self.frames = open_frames(folder / f"trajectory.{trajectory}", old.get("frames"))
        self.log = TextFile(folder / LOG, old.get("log"))
        self._timestep = timestep
        if marks is None:
            self.log.write(",".join(COLUMNS) + "\n")

    def record(self, run: Dynamics) -> dict[str, float]:
        """Add a frame and a line, which is returned, by column."""
        line = _line(run, self._timestep)
        frame = snapshot(run.atoms, step=run.step, time_fs=line["time_fs"])
        if run.centred:  # a constraint of the integrator, not of the structure
            frame.set_constraint()
        self.frames.write(frame)
        self.log.write(",".join(repr(line[column]) for column in COLUMNS) + "\n")
        return line

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


def _line(run: Dynamics, timestep: float) -> dict[str, float]:
    atoms = run.atoms
    potential, kinetic = float(atoms.get_potential_energy()), float(atoms.get_kinetic_energy())
    values = (
        run.step,
        round(run.step * timestep, 9),
        potential,
        kinetic,
        potential + kinetic,
        run.conserved_energy(),
        run.temperature(),
        float(atoms.get_volume()) if atoms.pbc.all() else float("nan"),
    )
    return dict(zip(COLUMNS, values, strict=True))


def drift(log: Path, n_atoms: int) -> tuple[float, float]:
    """Mean temperature in K and slope of the conserved energy in meV per atom and ps.

    Args:
        log: File of a :class:`Recorder`.
        n_atoms: Number of atoms.

    Returns:
        NaN where there is nothing to take them from; the slope is for Langevin dynamics, too.
    """
    import numpy as np

    lines = log.read_text(encoding="utf-8").splitlines()[1:] if log.exists() else []
    if not lines:
        return float("nan"), float("nan")
    table = np.loadtxt(lines, delimiter=",", ndmin=2)
    time_ps = table[:, COLUMNS.index("time_fs")] / 1000
    conserved = table[:, COLUMNS.index("conserved_eV")]
    slope = float("nan")
    if len(table) > 1 and np.isfinite(conserved).all():
        slope = float(1000 * np.polyfit(time_ps, conserved, 1)[0] / n_atoms)
    return float(table[:, COLUMNS.index("temperature_K")].mean()), slope
