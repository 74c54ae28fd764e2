"""One structure and its neighbours, for those that move together with others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from ase import Atoms

from jmp_md.batch import Item
from jmp_md.graph.found import at_once
from jmp_md.graph.neighbours import NeighbourCache, search_together
from jmp_md.graph.pairs import Pairs
from jmp_md.moving import usual_skin
from jmp_md.potential import Potential
from jmp_md.structures import single_structure
from jmp_md.validate import check_distances, check_structure, check_tags


class System:
    """One structure and its neighbours.

    Cell and numbers are not changed in place: another cell is assigned.

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
        self.cell = atoms.cell.array
        self.numbers, self.pbc = _constant(atoms.numbers), _constant(atoms.pbc)
        self.tags = atoms.get_tags() if oc_tags else np.full(len(self.numbers), 2)
        check_tags(self.tags)
        skin = usual_skin(potential) if skin is None else skin
        policy = potential.policy
        self.neighbours = NeighbourCache(policy.cutoff, skin, counted=policy.cutoffs[0])
        self._potential = potential
        self._item: Item | None = None
        self.check()

    @property
    def cell(self) -> np.ndarray:
        """(3, 3) Å, rows are lattice vectors."""
        return self._cell

    @cell.setter
    def cell(self, cell: np.ndarray) -> None:
        self._cell = _constant(np.asarray(cell, dtype=np.float64))

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
            degree = self.neighbours.degree
            most = self._potential.policy.counts[0] or degree
            self._item = Item(structures, self.pbc, min(degree, most))
        return self._item

    def item_here(self) -> Item:
        """The structure where it is now.

        Raises:
            InputError: Atoms on top of each other.
        """
        _, positions = self._neighbours_here()
        item, placed = self.item(), torch.from_numpy(positions.copy())
        return item._replace(structures=item.structures._replace(positions=placed))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._potential.embedding.weight.device

    def to_search(self) -> NeighbourCache | None:
        """The neighbours, placed, where they have to be searched and can be; None elsewhere."""
        here = self.positions, self.numbers, self.cell, self.pbc
        if not np.isfinite(self.positions).all():
            return None  # what is refused when it is asked for
        if self.neighbours.holds(*here):
            self.neighbours.bring(self.device)
            return None
        self.neighbours.place(*here)
        return self.neighbours

    def _neighbours_here(self) -> tuple[Pairs, np.ndarray]:
        if not np.isfinite(self.positions).all():
            self.check()
        found = self.neighbours.update(self.positions, self.numbers, self.cell, self.pbc)
        check_distances(found[1], self.numbers, self.cell, self.neighbours.close)
        return found


def _constant(array: np.ndarray) -> np.ndarray:
    """A copy that nobody changes."""
    copied = array.copy()
    copied.setflags(write=False)
    return copied


def search_systems(systems: Iterable[System]) -> None:
    """Search the neighbours of all systems of a model on a device at once, those that have to be.

    Systems of a model on a processor search their own when they are asked for.
    """
    due: dict[torch.device, list[NeighbourCache]] = {}
    for system in systems:
        if system.device.type != "cpu" and (cache := system.to_search()) is not None:
            due.setdefault(system.device, []).append(cache)
    for device, caches in due.items():
        search_together(caches, device)


def in_groups(systems: Mapping[int, System]) -> Iterator[list[int]]:
    """Keys of systems a few at a time, as many as :func:`search_systems` takes at once."""
    keys = list(systems)
    if keys:
        cutoff = systems[keys[0]].neighbours.reach.pairs
        for some in at_once([len(systems[key].numbers) for key in keys], cutoff):
            yield keys[some]
