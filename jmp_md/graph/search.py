"""Neighbour search in torch alone, on any device and in modules that run without Python.

Finds what :func:`jmp_md.graph.pairs.find_pairs` finds, in the same order, in many structures at
once. The host waits for the device a few times, however many structures there are.
"""

import torch
from torch import Tensor

from jmp_md.graph.pairs import Pairs


def search(
    positions: Tensor,
    structure: Tensor,
    cells: Tensor,
    pbc: Tensor,
    periodic: bool,
    cutoff: float,
    few: int = 50_000,
    at_once: int = 2_000_000,
) -> tuple[Pairs, Tensor]:
    """All pairs at most ``cutoff`` apart, images of the same atom included.

    Time and memory grow with the number of atoms, not with its square, once there are many.

    Args:
        positions: (n_atoms, 3) Å float64, finite, within the cells in periodic directions.
        structure: (n_atoms,) int64 structure of each atom, ascending.
        cells: (n_structures, 3, 3) Å float64, rows are lattice vectors and, in directions without
            periodicity, unit vectors normal to all others.
        pbc: (n_structures, 3) bool.
        periodic: Whether any of it holds, which the host would wait for.
        cutoff: Å.
        few: Candidates for pairs, of all atoms and images of a structure, for which bins do not
            pay; nor do they for a thousandth of it per atom.
        at_once: Candidates to look at in one go, some 200 bytes each.

    Returns:
        The pairs, and their distances (n_pairs,) Å.
    """
    n_atoms, reach = positions.shape[0], cutoff + 1e-6  # further by more than distances are rounded
    atom = home = torch.arange(n_atoms, device=positions.device)
    offset, owner, image = structure.new_zeros(n_atoms, 3), structure, positions
    if periodic:
        atom, offset, home = _images(positions, structure, cells, pbc, reach)
        owner = structure[atom]
        image = positions[atom] + (offset.to(cells.dtype).unsqueeze(1) @ cells[owner]).squeeze(1)
    # Images lie in the order of atoms, and so of structures.
    start = torch.searchsorted(owner, structure).unsqueeze(1)
    count = torch.searchsorted(owner, structure, right=True).unsqueeze(1) - start
    total = int(count.sum())
    if total > max(few, few * n_atoms // 1000):
        start, count, order = _bins(image, owner, home, reach)
        total = int(count.sum())
        target, place = _near(positions, image[order], start, count, total, reach, at_once)
        place = order[place]
    else:
        target, place = _near(positions, image, start, count, total, reach, at_once)
    source, offset = atom[place], offset[place]
    # Computed so that a pair and its reverse agree to the last bit, and are kept together.
    vector, cell = positions[target] - positions[source], cells[structure[target]]
    for axis in range(3):
        vector = vector - offset[:, axis].unsqueeze(1) * cell[:, axis]
    distance = torch.sqrt(vector.square().sum(dim=1))
    kept = (distance <= cutoff) & ((source != target) | (offset != 0).any(dim=1))
    kept = kept.nonzero().squeeze(1)
    source, target, offset = source[kept], target[kept], offset[kept]
    most = offset.abs().amax() if offset.shape[0] > 0 else offset.new_zeros([])
    key, order = torch.sort(_pair_key(source, target, offset, most, n_atoms))
    source, target, offset = source[order], target[order], offset[order]
    reverse = torch.searchsorted(key, _pair_key(target, source, -offset, most, n_atoms))
    return Pairs(source, target, offset, reverse), distance[kept][order]


def _images(
    positions: Tensor, structure: Tensor, cells: Tensor, pbc: Tensor, reach: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Atoms and their periodic images within reach of the atoms' box along the cell.

    Returns:
        Atom (n_images,) and cell offset (n_images, 3) of each image, in the order of atoms, and
        (n_atoms,) which of them is the atom itself.
    """
    inverse = torch.linalg.inv_ex(cells)[0]
    fraction = (positions.unsqueeze(1) @ inverse[structure]).squeeze(1)
    margin = reach * torch.linalg.norm(inverse, dim=1)  # over the distance of the cell's faces
    of_axis = structure.unsqueeze(1).expand(-1, 3)
    low = torch.zeros_like(margin).scatter_reduce(0, of_axis, fraction, "amin", include_self=False)
    high = torch.zeros_like(margin).scatter_reduce(0, of_axis, fraction, "amax", include_self=False)
    along = pbc[structure]
    first = torch.ceil((low - margin)[structure] - fraction).to(torch.long) * along
    last = torch.floor((high + margin)[structure] - fraction).to(torch.long) * along
    steps = last - first + 1
    count = steps.prod(dim=1)
    atom, number = _expanded(count, int(count.sum()))
    home = count.cumsum(0) - count
    for axis in range(3):
        home = home - first[:, axis] * steps[:, axis + 1 :].prod(dim=1)
    steps, first = steps[atom], first[atom]
    z = number % steps[:, 2]
    number = torch.div(number, steps[:, 2], rounding_mode="floor")
    y = number % steps[:, 1]
    x = torch.div(number, steps[:, 1], rounding_mode="floor")
    return atom, torch.stack([x, y, z], dim=1) + first, home


def _bins(
    image: Tensor, owner: Tensor, home: Tensor, reach: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Where images that may be near each atom are, sorted by bins half as wide as the reach.

    Returns:
        Start and number of 25 ranges of sorted images per atom, (n_atoms, 25), and their order.
    """
    unit = 1e-5  # Å; whole numbers of it add up exactly, and in the same way every time
    width = int(0.5 * reach / unit) + 3  # more than half of the reach, rounded places considered
    places = [_packed(image[:, axis], owner, unit, 4 * width) for axis in range(3)]
    bins = torch.div(torch.stack(places, dim=1), width, rounding_mode="floor") + 2
    size = bins.amax(dim=0) + 3
    key, order = torch.sort((bins[:, 0] * size[1] + bins[:, 1]) * size[2] + bins[:, 2])
    # Bins along z have consecutive keys: one range of images for each of 5 x 5 columns.
    steps = torch.arange(-2, 3, device=image.device)
    columns = ((steps.unsqueeze(1) * size[1] + steps) * size[2]).flatten()
    own = bins[home]
    column = (own[:, 0] * size[1] + own[:, 1]) * size[2] + own[:, 2]
    column = column.unsqueeze(1) + columns
    start = torch.searchsorted(key, column - 2)
    return start, torch.searchsorted(key, column + 2, right=True) - start, order


def _packed(place: Tensor, owner: Tensor, unit: float, widest: int) -> Tensor:
    """Places along an axis, in units, with structures side by side and no gap that is wider.

    Bins go by space: without this, a few atoms far apart would have more than can be numbered.
    """
    along = torch.round((place - place.amin()) / unit).to(torch.long)
    along = along + owner * (along.amax() + widest)
    ordered, order = torch.sort(along)
    gaps = torch.zeros_like(along)
    gaps[1:] = (ordered[1:] - ordered[:-1]).clamp(max=widest)
    return torch.empty_like(along).index_copy_(0, order, gaps.cumsum(0))


def _near(
    positions: Tensor,
    image: Tensor,
    start: Tensor,
    count: Tensor,
    total: int,
    reach: float,
    at_once: int,
) -> tuple[Tensor, Tensor]:
    """Atoms and images at most ``reach`` apart: indices of both.

    Args:
        positions: (n_atoms, 3) Å.
        image: (n_images, 3) Å.
        start: (n_atoms, n_ranges) first of each range of images to look at.
        count: (n_atoms, n_ranges) number of images in it.
        total: Sum of the numbers.
        reach: Å.
        at_once: Candidates in one go.
    """
    targets: list[Tensor] = []
    places: list[Tensor] = []
    n_atoms, n_ranges = start.shape[0], start.shape[1]
    atoms = n_atoms
    if total > at_once:
        atoms = max(at_once // int(count.sum(dim=1).amax()), 1)
    for first in range(0, n_atoms, atoms):
        starts = start[first : first + atoms].reshape(-1)
        counts = count[first : first + atoms].reshape(-1)
        row, number = _expanded(counts, total if atoms == n_atoms else int(counts.sum()))
        target = torch.div(row, n_ranges, rounding_mode="floor") + first
        place = starts[row] + number
        gap = positions[target] - image[place]
        near = (gap.square().sum(dim=1) <= reach**2).nonzero().squeeze(1)
        targets.append(target[near])
        places.append(place[near])
    return torch.cat(targets), torch.cat(places)


def _expanded(count: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Each index as often as it is counted, ``total`` in all, and which time it is."""
    index = torch.repeat_interleave(count, output_size=total)
    before = count.cumsum(0) - count
    return index, torch.arange(total, device=count.device) - before[index]


def _pair_key(source: Tensor, target: Tensor, offset: Tensor, most: Tensor, n_atoms: int) -> Tensor:
    """One integer per pair and image, ordered by target, source and offset, of up to ``most``."""
    key = target * n_atoms + source
    for axis in range(3):
        key = key * (2 * most + 1) + offset[:, axis] + most
    return key
