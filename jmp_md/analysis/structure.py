"""Distances between atoms: bonds, and radial distribution functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jmp_md.domain import bonded_pairs
from jmp_md.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

MOST_REACH = 8.0  # Å, of radial distribution functions that are given none


@dataclass(frozen=True)
class RadialDistribution:
    """Radial distribution functions.

    Attributes:
        distances: (bins,) Å, the middles of shells.
        total: (bins,) of all atoms; 1 in an ideal gas.
        pairs: The same of each pair of elements, e.g. ``"H-O"``.
    """

    distances: np.ndarray
    total: np.ndarray
    pairs: dict[str, np.ndarray]


def radial_distribution(
    frames: Sequence[Atoms], reach: float | None = None, bins: int = 150
) -> RadialDistribution:
    """Mean radial distribution functions of periodic structures.

    g(r) = V n(r) / (N (N - 1) v(r)) with n(r) ordered pairs in a shell of volume v(r); between two
    elements N_a N_b stands in place of N (N - 1) (Allen and Tildesley, Computer Simulation of
    Liquids, 2nd edition, section 2.6).

    Args:
        frames: Of one trajectory, periodic in three directions.
        reach: Largest distance in Å; None takes half the least height of the cells, at most 8.
        bins: Shells.

    Raises:
        InputError: A structure that is not periodic in three directions, or a reach beyond half a
            height, where an atom would meet an image of its own neighbour twice.
    """
    from matscipy.neighbours import neighbour_list

    first = frames[0]
    if not all(frame.pbc.all() for frame in frames) or len(first) < 2:
        raise InputError(
            f"radial distributions are of two atoms or more in a periodic cell; this structure "
            f"has {len(first)} atoms and pbc {first.pbc.tolist()}"
        )
    heights = [1.0 / np.linalg.norm(frame.cell.reciprocal(), axis=1) for frame in frames]
    half = 0.5 * float(np.min(heights))
    reach = min(MOST_REACH, half) if reach is None else reach
    if not 0 < reach <= half:
        raise InputError(
            f"reach {reach!r} Å: must be positive and at most {half:.3f} Å, half the least height "
            "of the cell"
        )
    edges = np.linspace(0.0, reach, bins + 1)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    symbols = np.array(first.get_chemical_symbols())
    kinds, which = np.unique(symbols, return_inverse=True)
    found = np.zeros((len(kinds), len(kinds), bins))
    for frame in frames:
        i, j, distances = neighbour_list("ijd", frame, reach)
        shell = np.clip(np.searchsorted(edges, distances, side="right") - 1, 0, bins - 1)
        counts = np.zeros_like(found)
        np.add.at(counts, (which[i], which[j], shell), 1.0)
        found += counts * frame.cell.volume
    found /= len(frames) * shells
    each = np.bincount(which)
    number = len(first)
    pairs = {
        f"{kinds[a]}-{kinds[b]}": found[a, b] / (each[a] * (each[b] - (a == b)))
        for a in range(len(kinds))
        for b in range(a, len(kinds))
        if each[a] * (each[b] - (a == b)) > 0
    }
    middles = 0.5 * (edges[1:] + edges[:-1])
    return RadialDistribution(middles, found.sum(axis=(0, 1)) / (number * (number - 1)), pairs)


def bond_lengths(
    frames: Sequence[Atoms],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Lengths in Å of the bonds of the first frame, by elements: in all frames, in the first.

    Bonds are those of :func:`jmp_md.domain.bonded_pairs`.

    Args:
        frames: Of one trajectory.
    """
    from ase.geometry import find_mic

    first = frames[0]
    i, j = bonded_pairs(first)
    i, j = np.unique(np.stack([i, j])[:, i < j], axis=1)
    lengths = np.array(
        [find_mic(f.positions[j] - f.positions[i], f.cell, f.pbc)[1] for f in frames]
    )
    symbols = np.array(first.get_chemical_symbols())
    kinds = np.array(["-".join(sorted(pair)) for pair in zip(symbols[i], symbols[j], strict=True)])
    names = sorted(set(kinds.tolist()))
    return (
        {name: lengths[:, kinds == name].ravel() for name in names},
        {name: lengths[0, kinds == name] for name in names},
    )
