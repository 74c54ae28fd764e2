"""What the 3D view of a report is given: frames, cells, words and modes, as JSON can hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

_MOST_FRAMES, _MOST_ATOMS = 200, 200_000  # what a browser turns without effort
_DIGITS = 4  # of Å


def view_data(
    frames: Sequence[Atoms],
    labels: Sequence[str] | None = None,
    modes: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Data of one view.

    Args:
        frames: Structures, of the same atoms or not.
        labels: What is said beside each.
        modes: Displacements (n_atoms, 3) of the first structure by name, which the view animates.
    """
    first = frames[0]
    symbols = [frame.get_chemical_symbols() for frame in frames]
    cells = [frame.cell.array for frame in frames]
    lattice = any(frame.pbc.any() and frame.cell.rank == 3 for frame in frames)
    return {
        "symbols": symbols[:1] if all(each == symbols[0] for each in symbols) else symbols,
        "frames": [_flat(frame.positions) for frame in frames],
        "cells": [_flat(c) for c in _once(cells)] if lattice else None,
        "pbc": [bool(periodic) for periodic in first.pbc],
        "labels": None if labels is None else list(labels),
        "modes": modes and [{"name": n, "vector": _flat(v)} for n, v in modes.items()],
    }


def frames_shown(frames: Sequence[Atoms]) -> list[int]:
    """The frames that a view shows, evenly spread from the first to the last."""
    largest = max(len(frame) for frame in frames)
    return evenly(len(frames), max(1, min(_MOST_FRAMES, _MOST_ATOMS // max(largest, 1))))


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` places, evenly spread from the first to the last."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / max(most - 1, 1)) for i in range(most)]


def _once(cells: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    return cells[:1] if all(np.array_equal(cell, cells[0]) for cell in cells) else cells


def _flat(array: np.ndarray) -> list[float]:
    found: list[float] = np.round(np.asarray(array, dtype=float), _DIGITS).ravel().tolist()
    return found
