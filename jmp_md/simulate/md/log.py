"""Logs of any length, read in pieces: what figures need, and sums over all of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

_PIECE = 50_000  # lines read at a time


@dataclass(frozen=True)
class Log:
    """A log.

    Attributes:
        rows: (n, n_columns) some lines, evenly spread, with the first and the last.
        columns: Their names.
        count: Lines in all.
        means: (n_columns,) over all lines.
        deviations: (n_columns,) standard deviations over all lines.
        slope: eV/ps, of the straight line of least squares through the conserved energy of all
            lines; NaN where there are fewer than two.
    """

    rows: np.ndarray
    columns: tuple[str, ...]
    count: int
    means: np.ndarray
    deviations: np.ndarray
    slope: float

    def __getitem__(self, column: str) -> np.ndarray:
        values: np.ndarray = self.rows[:, self.columns.index(column)]
        return values

    def mean(self, column: str) -> float:
        """Mean over all lines; NaN where there is no such column."""
        return float(self.means[self.columns.index(column)]) if self._has(column) else float("nan")

    def deviation(self, column: str) -> float:
        """Standard deviation over all lines; NaN where there is no such column."""
        index = self.columns.index(column) if self._has(column) else None
        return float("nan") if index is None else float(self.deviations[index])

    def _has(self, column: str) -> bool:
        return column in self.columns and self.count > 0


def read_log(path: Path, most: int = 2000) -> Log:
    """Read a log.

    Args:
        path: ``log.csv`` of a run; one that is missing has no lines.
        most: Lines to keep, about; memory does not depend on the length of the log otherwise.
    """
    if not path.exists():
        return Log(np.zeros((0, 0)), (), 0, np.zeros(0), np.zeros(0), float("nan"))
    with path.open(encoding="utf-8") as file:
        columns = tuple(file.readline().strip().split(","))
        time, energy = columns.index("time_fs"), columns.index("conserved_eV")
        count, stride, kept = 0, 1, np.zeros((0, len(columns)))
        shift = sums = squares = np.zeros(len(columns))
        moments = np.zeros(4)  # Σt, Σt², Σe, Σte, of what is shifted by the first line
        last = kept
        while lines := list(islice(file, _PIECE)):
            table = np.loadtxt(lines, delimiter=",", ndmin=2)
            if count == 0:
                shift = np.nan_to_num(table[0])
            moved = table - shift
            sums, squares = sums + moved.sum(axis=0), squares + (moved**2).sum(axis=0)
            t, e = moved[:, time] / 1000, moved[:, energy]
            moments = moments + [t.sum(), t @ t, e.sum(), t @ e]
            numbers = np.arange(count, count + len(table))
            count += len(table)
            kept = np.concatenate([kept, table[numbers % stride == 0]])
            while len(kept) > 2 * most:
                stride, kept = 2 * stride, kept[::2]
            last = table[-1:]
    if count == 0:
        return Log(kept, columns, 0, sums, sums, float("nan"))
    if (count - 1) % stride:
        kept = np.concatenate([kept, last])
    means = sums / count
    variances = np.maximum(squares / count - means**2, 0.0)
    return Log(kept, columns, count, means + shift, np.sqrt(variances), _slope(count, moments))


def _slope(count: int, moments: np.ndarray) -> float:
    t, tt, e, te = moments / count
    spread = tt - t * t
    return float((te - t * e) / spread) if count > 1 and spread > 0 else float("nan")
