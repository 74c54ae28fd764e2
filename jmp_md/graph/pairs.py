"""Candidate pairs of atoms: what a neighbour search finds, before any graph is chosen."""

from typing import NamedTuple

import numpy as np
import torch
from matscipy.neighbours import neighbour_list
from torch import Tensor


class Pairs(NamedTuple):
    """All directed pairs s -> t within a search radius, sorted by (target, source, offset).

    Attributes:
        source: (n_pairs,) int64.
        target: (n_pairs,) int64.
        offset: (n_pairs, 3) int64, cell offset n of the source image in lattice units:
            r_st = x_t - x_s - n . cell.
        reverse: (n_pairs,) int64, index of the pair t -> s with offset -n.
    """

    source: Tensor
    target: Tensor
    offset: Tensor
    reverse: Tensor


def find_pairs(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> Pairs:
    """Pairs closer than ``cutoff`` in one structure, images of the same atom included.

    Args:
        positions: (n_atoms, 3) Å; atoms may lie outside the cell.
        cell: (3, 3) Å, rows are lattice vectors; directions without pbc may be zero.
        pbc: (3,) bool.
        cutoff: Å.
    """
    if pbc.any():
        box, shifted = cell, positions
        for axis in np.flatnonzero(~pbc):
            box, shifted = _open_direction(box, shifted, int(axis), pbc, cutoff)
    else:
        box = np.diag(np.ptp(positions, axis=0) + 2.0)
        shifted = positions - positions.min(axis=0) + 1.0
    # matscipy: D = r_j - r_i + S . cell. With target i and source j, r_st = -D, so n = S.
    target, source, offset = neighbour_list(
        "ijS", positions=shifted, cell=box, pbc=pbc.tolist(), cutoff=cutoff
    )
    keep = _has_reverse(target, source, offset)
    target, source, offset = target[keep], source[keep], offset[keep]
    order = np.lexsort((*offset.T[::-1], source, target))
    target, source, offset = target[order], source[order], offset[order]
    # The k-th pair in the order of reversed pairs is the reverse of the k-th pair.
    back = np.lexsort((*-offset.T[::-1], target, source))
    reverse = np.empty_like(back)
    reverse[back] = np.arange(len(back))
    return Pairs(*(torch.from_numpy(a.astype(np.int64)) for a in (source, target, offset, reverse)))


def _has_reverse(target: np.ndarray, source: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """False where rounding at the search radius found s -> t but not t -> s."""
    if not len(target):
        return np.ones(0, dtype=bool)
    n, reach = int(target.max()) + 1, int(np.abs(offset).max())
    m = 2 * reach + 1

    def key(t: np.ndarray, s: np.ndarray, o: np.ndarray) -> np.ndarray:
        o = o.astype(np.int64) + reach
        return (((t.astype(np.int64) * n + s) * m + o[:, 0]) * m + o[:, 1]) * m + o[:, 2]

    return np.isin(key(source, target, -offset), key(target, source, offset))


def _open_direction(
    cell: np.ndarray, positions: np.ndarray, axis: int, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray]:
    """Give a direction without periodicity a lattice vector normal to the others, long enough.

    Returns the new cell and the positions moved into it along that direction.
    """
    cell = cell.copy()
    others = [cell[i] for i in range(3) if i != axis]
    normal = np.cross(*others)
    if np.linalg.norm(normal) < 1e-12:  # the other open direction is still zero
        base = next(cell[i] for i in range(3) if pbc[i])
        normal = np.cross(base, np.eye(3)[np.argmin(np.abs(base))])
    normal = normal / np.linalg.norm(normal)
    height = positions @ normal
    cell[axis] = normal * (np.ptp(height) + cutoff + 1.0)
    return cell, positions - normal * (height.min() - 0.5)
