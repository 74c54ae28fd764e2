"""What a neighbour search finds: by matscipy on a processor, in torch on any other device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from jmp_md.graph.pairs import Pairs, find_pairs, pair_distances
from jmp_md.graph.search import search

_PAIRS_AT_ONCE = 4_000_000  # of one search on a device, some 300 bytes each
_DENSITY = 0.1  # atoms per Å³, that of water


class Place(NamedTuple):
    """Where a structure is searched.

    Attributes:
        positions: (n_atoms, 3) Å, about the origin.
        cell: (3, 3) Å, rows are lattice vectors.
        complete: (3, 3) Å, the same with unit vectors in directions without periodicity.
        pbc: (3,) bool.
    """

    positions: np.ndarray
    cell: np.ndarray
    complete: np.ndarray
    pbc: np.ndarray


class Reach(NamedTuple):
    """How far to search, in Å.

    Attributes:
        pairs: Distance of pairs.
        close: Of those that are told apart as close.
        counted: Of those that count for degrees.
    """

    pairs: float
    close: float
    counted: float


class Found(NamedTuple):
    """Pairs of one structure.

    Attributes:
        pairs: All of them, on the device.
        close: The close ones, on the host.
        degree: Largest number of pairs into one atom, of those that count.
    """

    pairs: Pairs
    close: Pairs
    degree: int


def find_here(place: Place, reach: Reach) -> Found:
    """What a search on the processor finds."""
    pairs = find_pairs(place.positions, place.cell, place.pbc, reach.pairs)
    source, target, offset, reverse = pairs
    columns = source.numpy(), target.numpy(), offset.numpy()
    distance = pair_distances(place.positions, place.cell, *columns)
    near = torch.from_numpy(distance <= reach.close)
    renumbered = near.cumsum(0) - 1
    close = Pairs(source[near], target[near], offset[near], renumbered[reverse[near]])
    counted = columns[1][distance <= reach.counted]
    return Found(pairs, close, int(np.bincount(counted, minlength=1).max()))


@torch.inference_mode(False)
def find_on_device(places: Sequence[Place], reach: Reach, device: torch.device) -> list[Found]:
    """What searches on a device find, of all structures at once."""
    sizes = np.array([len(place.positions) for place in places])
    starts = np.cumsum(sizes) - sizes
    owner = np.repeat(np.arange(len(sizes)), sizes)
    reals = np.concatenate([p.positions for p in places] + [p.complete for p in places])
    whole = np.concatenate([owner, starts[owner], np.array([p.pbc for p in places]).ravel()])
    real, integer = (torch.from_numpy(x).to(device) for x in (reals, whole))
    n_atoms, n = len(owner), len(sizes)
    structure, start = integer[:n_atoms], integer[n_atoms : 2 * n_atoms]
    pairs, distance = search(
        real[:n_atoms],
        structure,
        real[n_atoms:].view(n, 3, 3),
        integer[2 * n_atoms :].view(n, 3) > 0,
        any(place.pbc.any() for place in places),
        reach.pairs,
    )
    own = structure[pairs.target]
    count = _counted(own, torch.ones_like(own), n)
    degrees = _counted(pairs.target, (distance <= reach.counted).long(), n_atoms)
    degree = torch.zeros_like(count).scatter_reduce(0, structure, degrees, "amax")
    close = (distance <= reach.close).nonzero().squeeze(1)

    before = (count.cumsum(0) - count)[own]
    local = Pairs(
        pairs.source - start[pairs.target],
        pairs.target - start[pairs.target],
        pairs.offset,
        pairs.reverse - before,
    )
    back = torch.searchsorted(close, pairs.reverse[close])
    near = [local.source[close], local.target[close], own[close], back]
    told = torch.cat([count, degree, *near, local.offset[close].flatten()]).cpu()
    counts, told_degrees = told[: 2 * n].view(2, n).tolist()
    columns, offset = told[2 * n :].split([4 * len(close), 3 * len(close)])
    each_close = _close_of_each(columns.view(4, -1), offset.view(-1, 3), n)
    parts = zip(*(column.split(counts) for column in local), strict=True)
    return [
        Found(Pairs(*part), few, most)
        for part, few, most in zip(parts, each_close, told_degrees, strict=True)
    ]


def at_once(sizes: Sequence[int], cutoff: float) -> Iterator[slice]:
    """Structures that are searched in one go, for as little memory as a search may take.

    Args:
        sizes: Numbers of atoms.
        cutoff: Å.
    """
    most = _PAIRS_AT_ONCE / (1.0 + _DENSITY * 4.2 * cutoff**3)
    first, atoms = 0, 0
    for i, size in enumerate(sizes):
        if i > first and atoms + size > most:
            yield slice(first, i)
            first, atoms = i, 0
        atoms += size
    yield slice(first, len(sizes))


def _counted(index: Tensor, number: Tensor, n: int) -> Tensor:
    """Sum of numbers by index: (n,) int64."""
    return number.new_zeros(n).index_add(0, index, number)


def _close_of_each(columns: Tensor, offset: Tensor, n: int) -> list[Pairs]:
    """Close pairs of each of n structures, from source, target, owner and reverse, (4, n_close)."""
    source, target, owner, reverse = columns.unbind(0)
    sizes = torch.bincount(owner, minlength=n)
    reverse = reverse - (sizes.cumsum(0) - sizes)[owner]
    parts = (column.split(sizes.tolist()) for column in (source, target, offset, reverse))
    return [Pairs(*part) for part in zip(*parts, strict=True)]
