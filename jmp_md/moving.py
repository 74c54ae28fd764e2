"""A structure that moves: what the network needs of it, made anew only where it must be."""

from __future__ import annotations

import numpy as np
import torch

from jmp_md.graph.neighbours import NeighbourCache
from jmp_md.graph.pairs import Pairs
from jmp_md.potential import Potential
from jmp_md.structures import Structures, single_structure
from jmp_md.validate import check_distances


class MovingStructure:
    """One structure, on the device of a model; only positions are new at most steps.

    For one driver in one thread: it remembers where the structure was.

    Args:
        potential: The model.
        skin: Å by which neighbours are searched beyond the cutoff, to search less often; None
            for :func:`usual_skin`.

    Attributes:
        neighbours: The neighbour list; another one may take its place at any time.
    """

    def __init__(self, potential: Potential, skin: float | None = None) -> None:
        skin = usual_skin(potential) if skin is None else skin
        self.neighbours = NeighbourCache(potential.policy.cutoff, skin)
        self._potential = potential
        self._known: Structures | None = None
        self._pairs: Pairs | None = None
        self._key: object = None

    @torch.inference_mode(False)
    def at(
        self,
        positions: np.ndarray,
        numbers: np.ndarray,
        cell: np.ndarray,
        pbc: np.ndarray,
        tags: np.ndarray | None = None,
    ) -> Structures:
        """The structure where it is now.

        Args:
            positions: (n_atoms, 3) Å, finite.
            numbers: (n_atoms,) atomic numbers.
            cell: (3, 3) Å, rows are lattice vectors; directions without pbc may hold anything.
            pbc: (3,) bool.
            tags: (n_atoms,) OC20 tags; None for 2.

        Raises:
            InputError: Atoms on top of each other.
        """
        weight = self._potential.embedding.weight
        pairs, placed = self.neighbours.update(positions, numbers, cell, pbc, weight.device)
        check_distances(placed, numbers, cell, self.neighbours.close)
        key = weight.device, weight.dtype, None if tags is None else tags.tobytes()
        if self._known is None or self._pairs is not pairs or self._key != key:
            # Where neighbours were searched, not where atoms are: moves are measured from there.
            known = single_structure(self.neighbours.placed, numbers, cell, pairs, tags)
            self._known = self._potential.prepare(known, self.neighbours.skin)
            self._pairs, self._key = pairs, key
        moved = torch.from_numpy(placed).to(weight.device, weight.dtype, copy=True)
        return self._known._replace(positions=moved)


def usual_skin(potential: Potential) -> float:
    """Å that cost least: edges beyond the cutoff on a processor, searches elsewhere."""
    return 0.3 if potential.embedding.weight.device.type == "cpu" else 1.0
