"""Systems that are computed in one batch for as long as what is known of their graphs holds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from jmp_md.batch import Item
from jmp_md.graph.pairs import CLOSEST
from jmp_md.potential import Potential
from jmp_md.structures import Structures, concatenate
from jmp_md.system import System


class Together:
    """A batch on the device of a model; only positions are new at most steps.

    Args:
        potential: The model.
        systems: Systems by key, whose neighbours have been searched.
        items: The same, as packed.

    Attributes:
        items: As given.
    """

    def __init__(
        self, potential: Potential, systems: Mapping[int, System], items: Mapping[int, Item]
    ) -> None:
        self.items = dict(items)
        self._systems = [systems[key] for key in items]
        caches = [system.neighbours for system in self._systems]
        self._caches = caches
        self._searches = [cache.rebuilds for cache in caches]
        self._cells = [system.cell for system in self._systems]
        self._skin = min(cache.skin for cache in caches)
        joined = concatenate([item.structures for item in items.values()])
        self._structures = potential.prepare(joined, self._skin)

        sizes = [len(cache.placed) for cache in caches]
        self._searched = np.concatenate([cache.searched for cache in caches])
        self._placed = np.concatenate([cache.placed for cache in caches])
        self._periodic = any(system.pbc.any() for system in self._systems)
        if self._periodic:
            self._inverse = np.repeat([cache.inverse for cache in caches], sizes, axis=0)
            self._lattice = np.repeat([cache.periodic for cache in caches], sizes, axis=0)
        close = [cache.close for cache in caches]
        owner = np.repeat(np.arange(len(close)), [len(pairs.source) for pairs in close])
        first = np.cumsum([0, *sizes[:-1]])[owner]
        self._source = torch.cat([pairs.source for pairs in close]).numpy() + first
        self._target = torch.cat([pairs.target for pairs in close]).numpy() + first
        offset = torch.cat([pairs.offset for pairs in close]).numpy()
        self._shift = np.einsum("pi,pij->pj", offset, np.array(self._cells)[owner])

    def here(self) -> Structures | None:
        """The structures where the systems are now; None where their neighbours do not hold."""
        if [cache.rebuilds for cache in self._caches] != self._searches:
            return None  # somebody else has searched
        if any(s.neighbours is not c for s, c in zip(self._systems, self._caches, strict=True)):
            return None
        if any(s.cell is not c for s, c in zip(self._systems, self._cells, strict=True)):
            return None
        moved = np.concatenate([system.positions for system in self._systems]) - self._searched
        if self._periodic:
            turns = np.rint(np.einsum("ai,aij->aj", moved, self._inverse))
            moved -= np.einsum("ai,aij->aj", turns, self._lattice)
        if not 4.0 * np.square(moved).sum(axis=1).max() <= self._skin**2:  # or not finite
            return None
        placed = self._placed + moved
        if len(self._source):
            vector = placed[self._target] - placed[self._source] - self._shift
            if np.square(vector).sum(axis=1).min() < CLOSEST**2:
                return None
        known = self._structures.positions
        now = torch.from_numpy(placed).to(known.device, known.dtype)
        return self._structures._replace(positions=now)

    def forget(self) -> None:
        """Let the neighbours of all systems be searched anew, as those of one have to be."""
        for cache in self._caches:
            cache.forget()
