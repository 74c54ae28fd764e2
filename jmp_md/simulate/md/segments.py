"""Structures whose atoms stand in one row: sums over each, and values of each for its atoms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Segments:
    """Which atoms belong to which structure.

    Args:
        counts: (n_structures,) atoms of each, 1 or more.
    """

    def __init__(self, counts: Sequence[int] | np.ndarray) -> None:
        self.counts = np.asarray(counts, dtype=int)
        self._ends = np.cumsum(self.counts)
        self._starts = self._ends - self.counts
        self._owner = np.repeat(np.arange(len(self.counts)), self.counts)

    def __len__(self) -> int:
        return len(self.counts)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums of (n_atoms, ...) values over each structure."""
        sums: np.ndarray = np.add.reduceat(values, self._starts, axis=0)
        return sums

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Values (n_structures, ...) of the structures, for each of their atoms."""
        return values[self._owner]

    def slices(self) -> list[slice]:
        """The atoms of each structure."""
        return [slice(a, b) for a, b in zip(self._starts, self._ends, strict=True)]

    def keep(self, kept: np.ndarray) -> Segments:
        """Some of the structures: (n_structures,) bool."""
        return Segments(self.counts[kept])
