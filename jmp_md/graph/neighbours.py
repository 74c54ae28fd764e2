"""Pairs of a structure that moves: searched with a skin, reused while it holds."""

from __future__ import annotations

import numpy as np
import torch

from jmp_md.errors import InputError
from jmp_md.graph.pairs import CLOSEST, Pairs, complete_cell, find_pairs, pair_distances


class NeighbourCache:
    """Finds pairs up to ``cutoff + skin`` and reuses them until an atom has moved ``skin / 2``.

    Pairs keep their order whatever the skin, so that sums over those within the cutoff do not
    depend on when the search was done.

    Args:
        cutoff: Å.
        skin: Å; 0 searches whenever an atom moves.

    Attributes:
        rebuilds: Searches so far.
        searched: (n_atoms, 3) Å, where atoms were at the last search.
        placed: (n_atoms, 3) Å, the same near the origin.
        inverse: (3, 3) 1/Å, which turns positions into numbers of lattice vectors.
        periodic: (3, 3) Å, the lattice vectors; zero without periodicity.
        close: Those of the pairs that could come to lie on top of each other before the next
            search: few, and all that :func:`~jmp_md.validate.check_distances` needs.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        if not 0 <= skin < np.inf:
            raise InputError(f"neighbour skin {skin!r} Å: must be 0 or more, 1 is usual")
        self.cutoff = cutoff
        self.skin = skin
        self.rebuilds = 0
        self._key: tuple[bytes, bytes, bytes] | None = None

    def update(
        self, positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> tuple[Pairs, np.ndarray]:
        """Pairs for these positions, searched for only where need be.

        Args:
            positions: (n_atoms, 3) Å; atoms may have been moved by lattice vectors since the last
                call.
            numbers: (n_atoms,) atomic numbers.
            cell: (3, 3) Å, rows are lattice vectors; directions without pbc may hold anything.
            pbc: (3,) bool.

        Returns:
            The pairs and the positions (n_atoms, 3) Å they go with: the same structure, shifted
            as a whole and atom by atom by lattice vectors, near the origin, where single
            precision is best.
        """
        key = (np.asarray(numbers).tobytes(), np.asarray(cell).tobytes(), np.asarray(pbc).tobytes())
        if key == self._key:
            moved = positions - self.searched
            moved = moved - self._lattice_vectors(np.rint(moved @ self.inverse))
            if 4.0 * np.square(moved).sum(axis=1).max() <= self.skin**2:
                return self._pairs, self.placed + moved
        self._search(positions, cell, np.asarray(pbc, dtype=bool))
        self._key = key
        return self._pairs, self.placed

    def forget(self) -> None:
        """Search at the next call, wherever atoms are."""
        self._key = None

    def _search(self, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> None:
        complete = complete_cell(cell, pbc)
        self.inverse = np.linalg.inv(complete)
        self.periodic = np.where(pbc[:, None], complete, 0.0)
        self.searched = np.array(positions, dtype=np.float64)
        wrapped = self.searched - self._lattice_vectors(np.floor(self.searched @ self.inverse))
        self.placed = wrapped - wrapped.mean(axis=0)
        self._pairs = find_pairs(self.placed, cell, pbc, self.cutoff + self.skin)
        self.close = self._within(cell, self.skin + CLOSEST)
        self.rebuilds += 1

    def _lattice_vectors(self, n: np.ndarray) -> np.ndarray:
        """Sum of n lattice vectors of the periodic directions: (n_atoms, 3) Å."""
        return n @ self.periodic

    def _within(self, cell: np.ndarray, distance: float) -> Pairs:
        source, target, offset, reverse = self._pairs
        found = pair_distances(self.placed, cell, source.numpy(), target.numpy(), offset.numpy())
        near = torch.from_numpy(found <= distance)
        renumbered = near.cumsum(0) - 1
        return Pairs(source[near], target[near], offset[near], renumbered[reverse[near]])
