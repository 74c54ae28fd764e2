"""Labels beside predictions, for parity plots."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Pair(NamedTuple):
    """Labels and predictions of one kind, (n,) each."""

    label: np.ndarray
    predicted: np.ndarray


class Parity:
    """Gathers labels and predictions, as many of each kind as a plot can show."""

    LIMIT = 20_000

    def __init__(self) -> None:
        self._pairs: dict[str, list[Pair]] = {}

    def add(self, kind: str, label: np.ndarray, predicted: np.ndarray) -> None:
        """Add values of any equal shape; what is not finite is left out.

        Args:
            kind: What they are, with the unit, e.g. ``force (eV/Å)``.
            label: Labels.
            predicted: Predictions.
        """
        known = np.isfinite(label) & np.isfinite(predicted)
        pairs = self._pairs.setdefault(kind, [])
        room = self.LIMIT - sum(len(pair.label) for pair in pairs)
        if room > 0 and known.any():
            pairs.append(Pair(label[known][:room], predicted[known][:room]))

    def __add__(self, other: Parity) -> Parity:
        """What both gathered."""
        total = Parity()
        for part in (self, other):
            for kind, pair in part.pairs().items():
                total.add(kind, *pair)
        return total

    def pairs(self) -> dict[str, Pair]:
        """All that was gathered, by kind; kinds without labels are left out."""
        return {
            kind: Pair(*(np.concatenate(values) for values in zip(*pairs, strict=True)))
            for kind, pairs in self._pairs.items()
            if pairs
        }
