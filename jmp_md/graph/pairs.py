"""Candidate pairs of atoms: what a neighbour search finds, before any graph is chosen."""

from typing import NamedTuple

import numpy as np
import torch
from matscipy.neighbours import neighbour_list
from torch import Tensor

CLOSEST = 0.01  # Å; atoms nearer than this share a place by mistake
_MARGIN = 1e-6  # Å searched beyond the cutoff, more than distances are rounded by


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
    """Pairs at most ``cutoff`` apart in one structure, images of the same atom included.

    Args:
        positions: (n_atoms, 3) Å; atoms may lie outside the cell.
        cell: (3, 3) Å, rows are lattice vectors; directions without pbc may hold anything.
        pbc: (3,) bool.
        cutoff: Å.
    """
    positions, cell = np.asarray(positions, dtype=np.float64), np.asarray(cell, dtype=np.float64)
    pbc = np.asarray(pbc, dtype=bool)
    reach = cutoff + _MARGIN
    box, moved = _search_box(positions, cell, pbc, reach)
    # matscipy: D = r_j - r_i + S . cell. With target i and source j, r_st = -D, so n = S.
    target, source, offset = neighbour_list(
        "ijS", positions=moved, cell=box, pbc=pbc.tolist(), cutoff=reach
    )
    near = pair_distances(positions, cell, source, target, offset) <= cutoff
    target, source, offset = target[near], source[near], offset[near]
    order = np.lexsort((*offset.T[::-1], source, target))
    target, source, offset = target[order], source[order], offset[order]
    # The k-th pair in the order of reversed pairs is the reverse of the k-th pair.
    back = np.lexsort((*-offset.T[::-1], target, source))
    reverse = np.empty_like(back)
    reverse[back] = np.arange(len(back))
    return Pairs(*(torch.from_numpy(a.astype(np.int64)) for a in (source, target, offset, reverse)))


def near_origin(positions: np.ndarray, inverse: np.ndarray, periodic: np.ndarray) -> np.ndarray:
    """The same structure wrapped into its cell and about the origin, where low precision is best.

    Args:
        positions: (n_atoms, 3) Å.
        inverse: (3, 3) 1/Å of the complete cell, see :func:`complete_cell`.
        periodic: (3, 3) Å, its vectors; zero without periodicity.
    """
    wrapped = positions - np.floor(positions @ inverse) @ periodic
    centred: np.ndarray = wrapped - wrapped.mean(axis=0)
    return centred


def pair_distances(
    positions: np.ndarray,
    cell: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    offset: np.ndarray,
) -> np.ndarray:
    """(n_pairs,) Å, to the last bit the same for a pair and its reverse."""
    vector = positions[target] - positions[source]
    for axis in range(3):  # a matrix product may round rows differently
        vector -= offset[:, axis, None] * cell[axis]
    return np.sqrt(np.square(vector).sum(axis=1))


def complete_cell(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """The cell with unit vectors, normal to all others, in the directions without periodicity."""
    if not pbc.any():
        return np.eye(3)
    complete = np.array(cell, dtype=np.float64)
    if pbc.all():
        return complete
    q, _ = np.linalg.qr(complete[pbc].T, mode="complete")
    complete[~pbc] = q[:, int(pbc.sum()) :].T
    return complete


def _search_box(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """A cell that holds all atoms in its open directions, and the positions in it.

    Gaps wider than ``reach`` shrink to it: the search takes time and memory by volume.
    """
    box, moved = complete_cell(cell, pbc), positions.copy()
    for axis in np.flatnonzero(~pbc):
        height = positions @ box[axis]
        order = np.argsort(height)
        gaps = np.minimum(np.diff(height[order], prepend=height[order[0]]), reach)
        packed = np.empty_like(height)
        packed[order] = np.cumsum(gaps)
        moved += (packed - height)[:, None] * box[axis]
        box[axis] *= packed.max() + reach
    return box, moved
