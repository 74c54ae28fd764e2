"""Pairs of a structure that moves: searched with a skin, reused while it holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from jmp_md.errors import InputError
from jmp_md.graph.found import Found, Place, Reach, at_once, find_here, find_on_device
from jmp_md.graph.pairs import CLOSEST, Pairs, complete_cell, near_origin

_HOST = torch.device("cpu")


class NeighbourCache:
    """Finds pairs up to ``cutoff + skin`` and reuses them until an atom has moved ``skin / 2``.

    Pairs keep their order whatever the skin, so that sums over those within the cutoff do not
    depend on when the search was done.

    Args:
        cutoff: Å.
        skin: Å; 0 searches whenever an atom moves.
        counted: Å within which pairs count for :attr:`degree`; None for the cutoff.

    Attributes:
        reach: How far it searches.
        rebuilds: Searches so far.
        at: What was searched last, or will be next.
        searched: (n_atoms, 3) Å, where atoms were at the last search.
        placed: (n_atoms, 3) Å, the same near the origin.
        inverse: (3, 3) 1/Å, which turns positions into numbers of lattice vectors.
        periodic: (3, 3) Å, the lattice vectors; zero without periodicity.
        close: Those of the pairs that could come to lie on top of each other before the next
            search: few, on the host, and all that :func:`~jmp_md.validate.check_distances` needs.
        degree: Largest number of counted pairs into one atom, where atoms were then.
    """

    def __init__(self, cutoff: float, skin: float, counted: float | None = None) -> None:
        if not 0 <= skin < np.inf:
            raise InputError(f"neighbour skin {skin!r} Å: must be 0 or more, 1 is usual")
        self.cutoff = cutoff
        self.skin = skin
        self.reach = Reach(cutoff + skin, skin + CLOSEST, cutoff if counted is None else counted)
        self.rebuilds = 0
        self._key: _Key | None = None  # of the structure that pairs belong to

    def update(
        self,
        positions: np.ndarray,
        numbers: np.ndarray,
        cell: np.ndarray,
        pbc: np.ndarray,
        device: torch.device = _HOST,
    ) -> tuple[Pairs, np.ndarray]:
        """Pairs for these positions, searched for only where need be.

        Args:
            positions: (n_atoms, 3) Å; atoms may have been moved by lattice vectors since the last
                call.
            numbers: (n_atoms,) atomic numbers.
            cell: (3, 3) Å, rows are lattice vectors; directions without pbc may hold anything.
            pbc: (3,) bool.
            device: Where to search, if at all.

        Returns:
            The pairs and the positions (n_atoms, 3) Å they go with: the same structure, shifted
            as a whole and atom by atom by lattice vectors, near the origin, where single
            precision is best.
        """
        moved = self._moved(positions, _key(numbers, cell, pbc))
        if moved is not None:
            return self._pairs, self.placed + moved
        self.place(positions, numbers, cell, pbc)
        search_together([self], device)
        return self._pairs, self.placed

    def holds(
        self, positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> bool:
        """Whether :meth:`update` would search for nothing."""
        return self._moved(positions, _key(numbers, cell, pbc)) is not None

    def forget(self) -> None:
        """Search at the next call, wherever atoms are."""
        self._key = None

    def place(
        self, positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray
    ) -> None:
        """Say where :func:`search_together` has to search."""
        self._key, self._next = None, _key(numbers, cell, pbc)
        pbc = np.asarray(pbc, dtype=bool)
        complete = complete_cell(cell, pbc)
        self.inverse = np.linalg.inv(complete)
        self.periodic = np.where(pbc[:, None], complete, 0.0)
        self.searched = np.array(positions, dtype=np.float64)
        self.placed = near_origin(self.searched, self.inverse, self.periodic)
        self.at = Place(self.placed, np.asarray(cell, dtype=np.float64), complete, pbc)

    def take(self, found: Found) -> None:
        """Take what was found where the structure was placed."""
        self._pairs, self.close, self.degree = found
        self.rebuilds += 1
        self._key = self._next

    def bring(self, device: torch.device) -> None:
        """Have pairs that were found elsewhere on a device."""
        if self._pairs.source.device != device:
            self._pairs = Pairs(*(column.to(device) for column in self._pairs))

    def _moved(self, positions: np.ndarray, key: _Key) -> np.ndarray | None:
        """What atoms have moved by, (n_atoms, 3) Å; None where pairs do not hold."""
        if key != self._key:
            return None
        moved = positions - self.searched
        if self.periodic.any():
            moved = moved - self._lattice_vectors(np.rint(moved @ self.inverse))
        within = 4.0 * np.square(moved).sum(axis=1).max() <= self.skin**2
        return moved if within else None

    def _lattice_vectors(self, n: np.ndarray) -> np.ndarray:
        """Sum of n lattice vectors of the periodic directions: (n_atoms, 3) Å."""
        return n @ self.periodic


def search_together(caches: Sequence[NeighbourCache], device: torch.device) -> None:
    """Search for the neighbours of structures that have been placed.

    Args:
        caches: One of each structure.
        device: Where to: one after the other on a processor, at once on other devices.
    """
    if device.type == "cpu":
        for cache in caches:
            cache.take(find_here(cache.at, cache.reach))
        return
    alike: dict[Reach, list[NeighbourCache]] = {}
    for cache in caches:
        alike.setdefault(cache.reach, []).append(cache)
    for reach, group in alike.items():
        for some in at_once([len(cache.placed) for cache in group], reach.pairs):
            found = find_on_device([cache.at for cache in group[some]], reach, device)
            for cache, each in zip(group[some], found, strict=True):
                cache.take(each)


_Key = tuple[bytes, bytes, bytes]


def _key(numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> _Key:
    """What tells structures apart but for positions."""
    return np.asarray(numbers).tobytes(), np.asarray(cell).tobytes(), np.asarray(pbc).tobytes()
