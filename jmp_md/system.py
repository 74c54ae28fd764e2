"""One structure and its neighbours, for those that move together with others."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms

from jmp_md.batch import Item, make_item
from jmp_md.graph.neighbours import NeighbourCache
from jmp_md.graph.pairs import Pairs
from jmp_md.moving import usual_skin
from jmp_md.potential import Potential
from jmp_md.structures import single_structure
from jmp_md.validate import check_distances, check_structure, check_tags


class System:
    """One structure and its neighbours.

    Args:
        atoms: The structure; it is copied.
        potential: The model it is for.
        skin: Å by which neighbours are searched beyond the cutoff, to search less often.
        oc_tags: Whether the tags of ``atoms`` are OC20's; otherwise every atom gets tag 2.

    Raises:
        InputError: A structure the model cannot be used for.
    """

    def __init__(
        self, atoms: Atoms, potential: Potential, skin: float | None, oc_tags: bool
    ) -> None:
        self.positions = np.array(atoms.positions, dtype=np.float64)
        self.cell = np.array(atoms.cell.array, dtype=np.float64)
        self.numbers, self.pbc = atoms.numbers.copy(), atoms.pbc.copy()
        self.tags = atoms.get_tags() if oc_tags else np.full(len(self.numbers), 2)
        check_tags(self.tags)
        skin = usual_skin(potential) if skin is None else skin
        self.neighbours = NeighbourCache(potential.policy.cutoff, skin)
        self._potential = potential
        self._item: Item | None = None
        self.check()

    def check(self) -> None:
        """Refuse what the model cannot be used for."""
        about = self._potential.header, self._potential.head
        check_structure(self.positions, self.numbers, self.cell, self.pbc, *about)

    def item(self) -> Item:
        """The structure where its neighbours were last searched: here, unless they still hold.

        Raises:
            InputError: Atoms on top of each other.
        """
        pairs, _ = self._neighbours_here()
        if self._item is None or self._item.structures.pairs is not pairs:
            placed = self.neighbours.placed
            structures = single_structure(placed, self.numbers, self.cell, pairs, self.tags)
            self._item = make_item(structures, self.pbc, self._potential.policy)
        return self._item

    def item_here(self) -> Item:
        """The structure where it is now.

        Raises:
            InputError: Atoms on top of each other.
        """
        _, positions = self._neighbours_here()
        item, placed = self.item(), torch.from_numpy(positions.copy())
        return item._replace(structures=item.structures._replace(positions=placed))

    def _neighbours_here(self) -> tuple[Pairs, np.ndarray]:
        if not np.isfinite(self.positions).all():
            self.check()
        found = self.neighbours.update(self.positions, self.numbers, self.cell, self.pbc)
        check_distances(found[1], self.numbers, self.cell, self.neighbours.close)
        return found
