"""Neighbour search in torch alone, for modules that run without Python.

Finds what :func:`jmp_md.graph.pairs.find_pairs` finds, in the same order, on any device.
"""

import torch
from torch import Tensor, nn

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
    turns = torch.floor(positions @ torch.linalg.inv(complete)) * pbc
    return positions - turns @ complete


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
    inverse = torch.linalg.inv(complete)
    fraction = positions @ inverse
    margin = reach * torch.linalg.norm(inverse, dim=0)  # over the distance of the cell's faces
    atom = torch.arange(positions.shape[0], device=positions.device)
    offset = torch.zeros(positions.shape[0], 3, dtype=torch.long, device=positions.device)
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


class NeighbourList(nn.Module):
    """Pairs of a moving structure: searched with a skin, reused until an atom has moved half of it.

    The scripted twin of :class:`jmp_md.graph.neighbours.NeighbourCache`; what it remembers is kept
    between calls of a scripted module.

    Args:
        cutoff: Å.
        skin: Å; 0 searches whenever an atom moves.
    """

    pairs: Pairs

    def __init__(self, cutoff: float, skin: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.skin = skin
        self.rebuilds = 0
        nothing = torch.zeros(0, dtype=torch.long)
        # Plain attributes, not buffers: they are no part of the model's state.
        self.pairs = Pairs(nothing, nothing, torch.zeros(0, 3, dtype=torch.long), nothing)
        self.given = torch.zeros(0, 3, dtype=torch.float64)
        self.placed = torch.zeros(0, 3, dtype=torch.float64)
        self.cell = torch.zeros(3, 3, dtype=torch.float64)
        self.pbc = torch.zeros(3, dtype=torch.bool)

    def forward(self, positions: Tensor, cell: Tensor, pbc: Tensor) -> tuple[Pairs, Tensor]:
        """Pairs for these positions, and the positions they go with.

        Args:
            positions: (n_atoms, 3) Å float64; atoms may have been moved by lattice vectors since
                the last call.
            cell: (3, 3) Å float64; directions without pbc may hold anything.
            pbc: (3,) bool.

        Returns:
            The pairs, and the same structure (n_atoms, 3) near the origin, where single precision
            is best.
        """
        complete = complete_cell(cell, pbc)
        same = self.given.shape == positions.shape and self.given.device == positions.device
        if same and torch.equal(self.cell, cell) and torch.equal(self.pbc, pbc):
            moved = positions - self.given
            turns = torch.round(moved @ torch.linalg.inv(complete)) * pbc
            moved = moved - turns @ complete
            if bool(4.0 * moved.square().sum(dim=1).max() <= self.skin**2):
                return self.pairs, self.placed + moved
        wrapped = wrap(positions, complete, pbc)
        self.pairs = search(wrapped, complete, pbc, self.cutoff + self.skin)
        self.placed = wrapped - wrapped.mean(dim=0)
        # Copies: callers reuse the memory they hand over.
        self.given = positions.clone()
        self.cell = cell.clone()
        self.pbc = pbc.clone()
        self.rebuilds += 1
        return self.pairs, self.placed
