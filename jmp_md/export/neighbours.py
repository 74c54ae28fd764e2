"""Neighbour search in torch alone, for modules that run without Python.

Finds what :func:`jmp_md.graph.pairs.find_pairs` finds, in the same order, on any device.
"""

import torch
from torch import Tensor

from jmp_md.graph.pairs import Pairs


def complete_cell(cell: Tensor, pbc: Tensor) -> Tensor:
    """The cell with unit vectors, normal to all others, in the directions without periodicity."""
    if bool(pbc.all()):
        return cell
    complete = torch.eye(3, dtype=cell.dtype, device=cell.device)
    if bool(pbc.any()):
        q, _ = torch.linalg.qr(cell[pbc].t(), mode="complete")
        complete[pbc] = cell[pbc]
        complete[~pbc] = q[:, int(pbc.sum()) :].t()
    return complete


def wrap(positions: Tensor, complete: Tensor, pbc: Tensor) -> Tensor:
    """Positions (n_atoms, 3) moved by lattice vectors into the cell."""
    if not bool(pbc.any()):
        return positions
    turns = torch.floor(positions @ torch.linalg.inv(complete)) * pbc
    return positions - turns @ complete


def neighbours(positions: Tensor, cell: Tensor, pbc: Tensor, cutoff: float) -> tuple[Pairs, Tensor]:
    """The pairs of one structure, and positions they go with.

    Searched for anew at each call: what a scripted module remembers, all threads that call it
    would share.

    Args:
        positions: (n_atoms, 3) Å float64.
        cell: (3, 3) Å float64; directions without pbc may hold anything.
        pbc: (3,) bool.
        cutoff: Å.

    Returns:
        The pairs, none where a position is not finite, and the same structure (n_atoms, 3) within
        the cell and about the origin, where single precision is best.
    """
    complete = complete_cell(cell, pbc)
    wrapped = wrap(positions, complete, pbc)
    return search(wrapped, complete, pbc, cutoff), wrapped - wrapped.mean(dim=0)


def search(positions: Tensor, complete: Tensor, pbc: Tensor, cutoff: float) -> Pairs:
    """All pairs at most ``cutoff`` apart in one structure, images of the same atom included.

    The time grows with the number of atoms, not with its square, once there are many.

    Args:
        positions: (n_atoms, 3) Å float64, within the cell in periodic directions.
        complete: (3, 3) Å float64, from :func:`complete_cell`.
        pbc: (3,) bool.
        cutoff: Å.

    Returns:
        The pairs; none where a position is not finite.
    """
    if not bool(positions.isfinite().all()):
        nothing = torch.zeros(0, dtype=torch.long, device=positions.device)
        return Pairs(nothing, nothing, nothing.new_zeros(0, 3), nothing)
    n_atoms = positions.shape[0]
    reach = cutoff + 1e-6  # further by more than distances are rounded
    atom, offset = _images(positions, complete, pbc, reach)
    image = positions[atom] + offset.to(positions.dtype) @ complete
    if n_atoms * image.shape[0] <= 500_000:  # beyond, bins pay off
        gap = positions.unsqueeze(1) - image.unsqueeze(0)
        near = gap.square().sum(dim=-1) <= reach**2
        target, place = near.nonzero().unbind(1)
    else:
        target, place = _near_by_bins(positions, image, reach)
    source, offset = atom[place], offset[place]
    # Computed so that a pair and its reverse agree to the last bit, and are kept together.
    vector = positions[target] - positions[source]
    for axis in range(3):
        vector = vector - offset[:, axis].unsqueeze(1) * complete[axis]
    kept = torch.sqrt(vector.square().sum(dim=1)) <= cutoff
    kept = kept & ((source != target) | (offset != 0).any(dim=1))
    source, target, offset = source[kept], target[kept], offset[kept]
    key, order = torch.sort(_pair_key(source, target, offset, n_atoms))
    source, target, offset = source[order], target[order], offset[order]
    reverse = torch.searchsorted(key, _pair_key(target, source, -offset, n_atoms))
    return Pairs(source, target, offset, reverse)


def _images(
    positions: Tensor, complete: Tensor, pbc: Tensor, reach: float
) -> tuple[Tensor, Tensor]:
    """Atoms and their periodic images within reach of the cell: atom and cell offset of each."""
    atom = torch.arange(positions.shape[0], device=positions.device)
    offset = torch.zeros(positions.shape[0], 3, dtype=torch.long, device=positions.device)
    if not bool(pbc.any()):
        return atom, offset
    inverse = torch.linalg.inv(complete)
    fraction = positions @ inverse
    margin = reach * torch.linalg.norm(inverse, dim=0)  # over the distance of the cell's faces
    for axis in range(3):
        if bool(pbc[axis]):
            along = fraction[:, axis]
            low, high = along.min() - margin[axis], along.max() + margin[axis]
            most = int(torch.ceil(high - low))
            steps = torch.arange(-most, most + 1, device=positions.device)
            place = along[atom].unsqueeze(1) + steps
            image, step = ((place >= low) & (place <= high)).nonzero().unbind(1)
            atom, offset = atom[image], offset[image]
            offset[:, axis] = steps[step]
    return atom, offset


def _near_by_bins(positions: Tensor, image: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Atoms and images at most ``reach`` apart: indices of both, through bins of half of it."""
    width = 0.5 * reach
    origin = image.min(dim=0).values
    bins = torch.floor((image - origin) / width).to(torch.long) + 2
    size = bins.max(dim=0).values + 3
    key, order = torch.sort((bins[:, 0] * size[1] + bins[:, 1]) * size[2] + bins[:, 2])
    home = torch.floor((positions - origin) / width).to(torch.long) + 2
    atoms = torch.arange(positions.shape[0], device=positions.device)
    targets: list[Tensor] = []
    images: list[Tensor] = []
    for x in range(-2, 3):
        for y in range(-2, 3):
            # Bins along z have consecutive keys: one range of images per atom and column.
            column = ((home[:, 0] + x) * size[1] + home[:, 1] + y) * size[2] + home[:, 2]
            start = torch.searchsorted(key, column - 2)
            count = torch.searchsorted(key, column + 2, right=True) - start
            target = torch.repeat_interleave(atoms, count)
            first = torch.repeat_interleave(start - (count.cumsum(0) - count), count)
            place = order[first + torch.arange(target.shape[0], device=atoms.device)]
            gap = positions[target] - image[place]
            near = gap.square().sum(dim=1) <= reach**2
            targets.append(target[near])
            images.append(place[near])
    return torch.cat(targets), torch.cat(images)


def _pair_key(source: Tensor, target: Tensor, offset: Tensor, n_atoms: int) -> Tensor:
    """One integer per pair and image, ordered by target, source and offset."""
    reach = int(offset.abs().max()) if offset.shape[0] > 0 else 0
    key = target * n_atoms + source
    for axis in range(3):
        key = key * (2 * reach + 1) + offset[:, axis] + reach
    return key
