"""Structures as the network sees them: one or several, atoms in one row."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jmp_md.graph.neighbourhood import Neighbourhood
from jmp_md.graph.pairs import Pairs


class Structures(NamedTuple):
    """A batch of structures. All index tensors are int64.

    Attributes:
        positions: (n_atoms, 3) Å.
        numbers: (n_atoms,) atomic numbers.
        tags: (n_atoms,) OC20 tags (0 sub-surface, 1 surface, 2 adsorbate); 2 for anything else.
        structure: (n_atoms,) index of the structure each atom belongs to, ascending.
        cells: (n_structures, 3, 3) Å, rows are lattice vectors; zero without periodicity.
        pairs: Pairs of atoms at least as far as the largest graph cutoff.
        known: What of the graphs has been found before; None where they are built from the pairs.
    """

    positions: Tensor
    numbers: Tensor
    tags: Tensor
    structure: Tensor
    cells: Tensor
    pairs: Pairs
    known: Neighbourhood | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> "Structures":
        """Move to a device; floating-point tensors also change type, and indices become int64.

        Tensors made in inference mode are copied, as none of them can take part in a gradient.
        """
        return Structures(
            _usable(self.positions).to(device, dtype),
            _usable(self.numbers).to(device, torch.long),
            _usable(self.tags).to(device, torch.long),
            _usable(self.structure).to(device, torch.long),
            _usable(self.cells).to(device, dtype),
            Pairs(*(_usable(p).to(device, torch.long) for p in self.pairs)),
            self.known,
        )


def _usable(x: Tensor) -> Tensor:
    return x.clone() if x.is_inference() else x


def single_structure(
    positions: np.ndarray,
    numbers: np.ndarray,
    cell: np.ndarray,
    pairs: Pairs,
    tags: np.ndarray | None = None,
) -> Structures:
    """One structure in float64 on the CPU."""
    n = len(numbers)
    return Structures(
        positions=torch.from_numpy(np.array(positions, dtype=np.float64)),
        numbers=torch.from_numpy(np.array(numbers, dtype=np.int64)),
        tags=torch.from_numpy(np.array(tags if tags is not None else np.full(n, 2), np.int64)),
        structure=torch.zeros(n, dtype=torch.long),
        cells=torch.from_numpy(np.array(cell, dtype=np.float64).reshape(1, 3, 3)),
        pairs=pairs,
    )


def has_stress(cell: np.ndarray, pbc: np.ndarray) -> bool:
    """Whether a structure is periodic and its cell has a volume, by which stress is defined.

    Args:
        cell: (3, 3) Å, rows are lattice vectors.
        pbc: (3,) bool.
    """
    return bool(np.any(pbc)) and int(np.linalg.matrix_rank(cell)) == 3


def periodic_stress(stress: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """The part of a stress that belongs to strains within the periodic directions.

    Stress is dE/dstrain divided by the volume of the whole cell, vacuum included, as in ASE; times
    the length of the cell across a slab it is the surface stress, in eV/Å². Directions without
    periodicity have no strain: their components are zero.

    Args:
        stress: (3, 3) eV/Å³.
        cell: (3, 3) Å, rows are lattice vectors.
        pbc: (3,) bool.
    """
    if np.all(pbc):
        return stress
    basis, _ = np.linalg.qr(cell[np.asarray(pbc, dtype=bool)].T)
    within = basis @ basis.T
    projected: np.ndarray = within @ stress @ within
    return projected


def centred(positions: Tensor, structure: Tensor, n_structures: int) -> Tensor:
    """Positions about the mean position of each structure, where low precision is best.

    Args:
        positions: (n_atoms, 3) Å.
        structure: (n_atoms,) int64 structure of each atom.
        n_structures: How many there are, with atoms or without.

    Returns:
        (n_atoms, 3) Å.
    """
    ones = torch.ones_like(positions[:, :1])
    count = ones.new_zeros(n_structures, 1).index_add(0, structure, ones)
    mean = positions.new_zeros(n_structures, 3).index_add(0, structure, positions) / count
    return positions - mean[structure]


def strained(s: Structures, strain: Tensor) -> Structures:
    """Positions and cells under a symmetric strain (n_structures, 3, 3)."""
    symmetric = 0.5 * (strain + strain.transpose(1, 2))
    moved = s.positions.unsqueeze(1) @ symmetric.index_select(0, s.structure)
    return s._replace(positions=s.positions + moved.squeeze(1), cells=s.cells + s.cells @ symmetric)


def concatenate(parts: Sequence[Structures]) -> Structures:
    """Join structures into one batch, in order."""
    atoms, cells, pairs = np.array(
        [[len(p.numbers), len(p.cells), len(p.pairs.source)] for p in parts], dtype=np.int64
    ).T
    columns = zip(*(p.pairs for p in parts), strict=True)
    source, target, offset, reverse = (torch.cat(column) for column in columns)
    structure = torch.cat([p.structure for p in parts])
    first_atom = _sum_before(atoms, pairs, source.device)
    return Structures(
        positions=torch.cat([p.positions for p in parts]),
        numbers=torch.cat([p.numbers for p in parts]),
        tags=torch.cat([p.tags for p in parts]),
        structure=structure + _sum_before(cells, atoms, structure.device),
        cells=torch.cat([p.cells for p in parts]),
        pairs=Pairs(
            source=source + first_atom,
            target=target + first_atom,
            offset=offset,
            reverse=reverse + _sum_before(pairs, pairs, source.device),
        ),
    )


def _sum_before(sizes: np.ndarray, repeats: np.ndarray, device: torch.device) -> Tensor:
    """Sum of all sizes before each part, as often as it is repeated."""
    table = torch.from_numpy(np.stack([np.cumsum(sizes) - sizes, repeats])).to(device)
    return torch.repeat_interleave(table[0], table[1], output_size=int(repeats.sum()))
