"""Neighbours of structures as they are given to modules that run without Python."""

import torch
from torch import Tensor

from jmp_md.graph.pairs import Pairs
from jmp_md.graph.search import search
from jmp_md.structures import centred


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


def wrap(positions: Tensor, structure: Tensor, complete: Tensor, pbc: Tensor) -> Tensor:
    """Positions (n_atoms, 3) moved by lattice vectors into the cells (n_structures, 3, 3)."""
    fraction = (positions.unsqueeze(1) @ torch.linalg.inv(complete)[structure]).squeeze(1)
    turns = torch.floor(fraction) * pbc[structure]
    return positions - (turns.unsqueeze(1) @ complete[structure]).squeeze(1)


def neighbours(
    positions: Tensor, structure: Tensor, cells: Tensor, pbc: Tensor, cutoff: float
) -> tuple[Pairs, Tensor]:
    """The pairs of structures, and positions they go with.

    Searched for anew at each call: what a scripted module remembers, all threads that call it
    would share.

    Args:
        positions: (n_atoms, 3) Å float64.
        structure: (n_atoms,) int64 structure of each atom, ascending.
        cells: (n_structures, 3, 3) Å float64; directions without pbc may hold anything.
        pbc: (n_structures, 3) bool.
        cutoff: Å.

    Returns:
        The pairs, none where a position is not finite, and the same structures (n_atoms, 3) within
        their cells and about the origin, where single precision is best.
    """
    complete = torch.stack([complete_cell(cells[i], pbc[i]) for i in range(cells.shape[0])])
    periodic = bool(pbc.any())
    wrapped = wrap(positions, structure, complete, pbc) if periodic else positions
    if bool(wrapped.isfinite().all()):
        pairs, _ = search(wrapped, structure, complete, pbc, periodic, cutoff)
    else:
        nothing = torch.zeros(0, dtype=torch.long, device=positions.device)
        pairs = Pairs(nothing, nothing, nothing.new_zeros(0, 3), nothing)
    return pairs, centred(wrapped, structure, cells.shape[0])
