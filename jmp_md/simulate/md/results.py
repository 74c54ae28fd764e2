"""What molecular dynamics gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class MDResult:
    """A finished run.

    Attributes:
        atoms: The structure at its end, with momenta and the calculator of the one given.
        trajectory: File of the frames, each with ``step`` and ``time_fs`` in ``info``.
        log: Table with the columns :data:`~jmp_md.simulate.md.COLUMNS` and, at constant pressure,
            :data:`~jmp_md.simulate.md.CELL_COLUMNS`; a line per frame.
        temperature: K, mean over the log.
        drift: meV per atom and ps, slope of the conserved energy; NaN where the log has fewer
            than two lines.
        volume: Å³, mean at constant pressure, else NaN.
        pressure: GPa, mean at constant pressure, else NaN.
        temperature_error: K, standard error of the mean, which counts how long the temperature is
            correlated; NaN where the log has fewer than two lines.
    """

    atoms: Atoms
    trajectory: Path
    log: Path
    temperature: float
    drift: float
    volume: float = float("nan")
    pressure: float = float("nan")
    temperature_error: float = float("nan")


@dataclass(frozen=True)
class ReplicaResult(MDResult):
    """One of many runs.

    Attributes:
        steps: Steps it got to.
        error: Why it was dropped there.
    """

    steps: int = 0
    error: str | None = None
