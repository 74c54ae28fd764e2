"""Which atoms are bonded, and whether two structures are the same molecule.

Bonds are pairs of atoms nearer than a multiple of the sum of their covalent radii (Cordero et al.,
Dalton Trans. 2832 (2008), as ASE lists them).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols, covalent_radii

if TYPE_CHECKING:
    from ase import Atoms

REACH = 1.25  # times the sum of covalent radii, up to where atoms count as bonded
# At 500 K bonds of organic molecules stretch to 1.25 and the nearest atoms without one come to 1.4:
# between these two a pair can be either.
SURE, POSSIBLE = 1.15, 1.4
NEAR = 3.0  # Å to which distances are looked at, bonded or not


class Contacts:
    """Pairs of near atoms of a structure, images across the cell included, each in both orders.

    Args:
        atoms: Structure with finite positions and, where periodic, a cell.
        cutoff: Å; None takes what bonds need, and 3 Å at least.

    Attributes:
        numbers: (n_atoms,) atomic numbers.
        first: (n_pairs,) index of an atom in the cell.
        second: (n_pairs,) index of the other.
        offset: (n_pairs, 3) in lattice vectors, that of the second's image.
        distance: (n_pairs,) Å.
        ratio: (n_pairs,) distance in sums of covalent radii.
    """

    def __init__(self, atoms: Atoms, cutoff: float | None = None) -> None:
        from jmp_md.graph.pairs import find_pairs, pair_distances  # takes torch along

        self.numbers = atoms.numbers
        radii = covalent_radii[self.numbers]
        if cutoff is None:
            cutoff = max(NEAR, POSSIBLE * 2 * float(radii.max(initial=0.0)))
        cell = atoms.cell.array
        pairs = find_pairs(atoms.positions, cell, atoms.pbc, cutoff)
        self.first, self.second = pairs.target.numpy(), pairs.source.numpy()
        self.offset = pairs.offset.numpy()
        self.distance = pair_distances(atoms.positions, cell, self.second, self.first, self.offset)
        self.ratio = self.distance / (radii[self.first] + radii[self.second])

    def coordination(self, reach: float = REACH) -> np.ndarray:
        """Bonded neighbours of every atom: (n_atoms,)."""
        return np.bincount(self.first[self.ratio <= reach], minlength=len(self.numbers))

    def bonds(self, reach: float = REACH) -> np.ndarray:
        """(n_bonds, 2) the atoms of each bond, the lower index first, images not told apart."""
        near = (self.ratio <= reach) & (self.first < self.second)
        return np.unique(np.stack([self.first[near], self.second[near]], axis=1), axis=0)

    def molecules(self, reach: float = REACH) -> np.ndarray:
        """(n_atoms,) the number of the molecule each atom belongs to, from 0."""
        from scipy.sparse.csgraph import connected_components

        found: np.ndarray = connected_components(
            _adjacency(self.bonds(reach), len(self.numbers)), directed=False
        )[1]
        return found

    @cached_property
    def _unwrapping(self) -> tuple[np.ndarray, np.ndarray]:
        """Lattice vectors to add to each atom so that bonds cross no border, and its molecule."""
        from scipy.sparse.csgraph import breadth_first_order

        n = len(self.numbers)
        bonded = np.flatnonzero(self.ratio <= REACH)
        graph = _adjacency(np.stack([self.first[bonded], self.second[bonded]], axis=1), n)
        across = dict(
            zip(
                zip(self.first[bonded].tolist(), self.second[bonded].tolist(), strict=True),
                self.offset[bonded],
                strict=True,
            )
        )
        shift = np.zeros((n, 3), dtype=np.int64)
        molecule = self.molecules()
        for start in np.unique(molecule, return_index=True)[1]:
            order, before = breadth_first_order(graph, start, directed=False)
            for atom in order[1:].tolist():
                shift[atom] = shift[before[atom]] + across[int(before[atom]), atom]
        return shift, molecule

    def to_own_images(self, reach: float) -> np.ndarray:
        """(n_pairs,) whether a pair up to ``reach`` Å is of a molecule and an image of itself."""
        shift, molecule = self._unwrapping
        same = molecule[self.first] == molecule[self.second]
        inside = (shift[self.first] + self.offset == shift[self.second]).all(axis=1)
        return same & ~inside & (self.distance <= reach)

    @cached_property
    def is_network(self) -> bool:
        """Whether bonds go on from cell to cell: a crystal, a surface or a polymer."""
        if not self.offset.any():
            return False
        return bool((self.to_own_images(np.inf) & (self.ratio <= REACH)).any())


def count_bonds(numbers: np.ndarray, bonds: np.ndarray) -> dict[str, int]:
    """How many bonds there are of each pair of elements, e.g. ``{"C-H": 6}``."""
    kinds = Counter(pair_name(*numbers[bond].tolist()) for bond in bonds)
    return dict(sorted(kinds.items()))


def pair_name(first: int, second: int) -> str:
    """A pair of elements by atomic numbers, e.g. ``"C-H"``."""
    return "-".join(sorted((chemical_symbols[first], chemical_symbols[second])))


def graph_hash(numbers: np.ndarray, bonds: np.ndarray) -> str:
    """A name of a molecule by elements and bonds, the same for any order of its atoms.

    Colours are refined by those of neighbours (Weisfeiler and Lehman 1968), from each atom's
    element and how many bonds away which elements are; the distances tell apart what neighbours
    alone do not, such as decalin and bicyclopentyl. Mirror images and conformers are the same.

    Args:
        numbers: (n_atoms,) atomic numbers.
        bonds: (n_bonds, 2) indices of atoms.
    """
    return _graph_hash(tuple(np.asarray(numbers).tolist()), tuple(map(tuple, bonds.tolist())))


def same_molecule(contacts: Contacts, known: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether some reach of bonds makes a structure one of the molecules that are known.

    Args:
        contacts: Of the structure.
        known: By :func:`graph_hash`, the bonds of each as :func:`count_bonds` gives them.
    """
    unsure = contacts.ratio[(contacts.ratio > SURE) & (contacts.ratio <= POSSIBLE)]
    for reach in (REACH, SURE, *np.unique(unsure).tolist()):
        bonds = contacts.bonds(reach)
        counts = count_bonds(contacts.numbers, bonds)
        if counts in known.values() and graph_hash(contacts.numbers, bonds) in known:
            return True
    return False


@lru_cache(maxsize=256)
def _graph_hash(numbers: tuple[int, ...], bonds: tuple[tuple[int, int], ...]) -> str:
    from scipy.sparse.csgraph import shortest_path

    n = len(numbers)
    graph = _adjacency(np.array(bonds, dtype=np.int64).reshape(-1, 2), n)
    apart = shortest_path(graph, directed=False, unweighted=True)
    steps = np.where(np.isfinite(apart), apart, -1).astype(int).tolist()
    neighbours: list[list[int]] = [[] for _ in numbers]
    for i, j in bonds:
        neighbours[i].append(j)
        neighbours[j].append(i)
    colours = [_digest((z, sorted(zip(row, numbers, strict=True))))
               for z, row in zip(numbers, steps, strict=True)]  # fmt: skip
    for _ in numbers:
        finer = [_digest((colours[i], sorted(colours[j] for j in neighbours[i])))
                 for i in range(n)]  # fmt: skip
        settled = len(set(finer)) == len(set(colours))
        colours = finer
        if settled:
            break
    return _digest(sorted(colours))


def _digest(value: object) -> str:
    return sha256(repr(value).encode()).hexdigest()[:16]


def _adjacency(bonds: np.ndarray, n: int) -> object:
    from scipy.sparse import csr_array

    ones = np.ones(len(bonds), dtype=np.int8)
    return csr_array((ones, (bonds[:, 0], bonds[:, 1])), shape=(n, n))
