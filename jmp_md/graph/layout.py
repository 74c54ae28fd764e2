"""Edges of the four graphs and the padded layouts the network computes with.

Flat arrays over edges are sorted by target atom. Padded arrays give every atom the same number
of slots, the largest in-degree of the batch; ``slot`` is the place of a flat edge in them.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Edges(NamedTuple):
    """Directed edges s -> t of one graph, sorted by target.

    Attributes:
        source: (n_edges,) atom index s.
        target: (n_edges,) atom index t.
        slot: (n_edges,) place in a padded (n_atoms * slots) array.
        slots: Slots per atom.
        distance: (n_edges,) Å.
        unit: (n_edges, 3) unit vector from s to t.
        weight: (n_edges,) factor of every term this edge adds to a sum; 1 in official graphs.
    """

    source: Tensor
    target: Tensor
    slot: Tensor
    slots: int
    distance: Tensor
    unit: Tensor
    weight: Tensor


class Graph(NamedTuple):
    """The four graphs and how they meet.

    With n atoms and k, ka, kq slots of the main, atom-edge and quadruplet graphs:

    Attributes:
        swap: (n_main,) index of the reverse edge of each main edge.
        differ_main: (k, k) 0 on the diagonal, 1 elsewhere: b != c for two main edges.
        differ_atom_edge: (n, k, ka) 0 where both edges are the same pair of atoms and images.
        differ_quadruplet: (n, k, kq) the same for quadruplet edges.
        open_triplet: (n * kq, k) 0 where d -> b is the reverse of b -> a (d is a), 1 elsewhere.
        closing: (n * k * kq,) for main edge c -> a and quadruplet edge b -> a, the flat index
            into (n * kq, k) of the triplet c -> b -> a; 0 where there is none.
        is_closing: (n, k, kq) 1 where ``closing`` holds a triplet, else 0.
        smooth: Whether dihedrals fade in line.
        inline_sin2: sin^2 of the angle where they begin to.
        kept: Share of edges that edge dropout left, 1 outside training.
    """

    main: Edges
    atom_edge: Edges
    quadruplet: Edges
    atom_atom: Edges
    swap: Tensor
    differ_main: Tensor
    differ_atom_edge: Tensor
    differ_quadruplet: Tensor
    open_triplet: Tensor
    closing: Tensor
    is_closing: Tensor
    smooth: bool
    inline_sin2: float
    kept: float


def to_slots(x: Tensor, edges: Edges, n_atoms: int) -> Tensor:
    """Spread flat edge features over padded slots: (n_edges, ...) -> (n_atoms, slots, ...)."""
    shape = [n_atoms, edges.slots] + list(x.shape[1:])
    if x.shape[0] != n_atoms * edges.slots:  # else every slot is in use, in order
        padded = x.new_zeros([n_atoms * edges.slots] + list(x.shape[1:]))
        x = padded.index_put_([edges.slot], x)  # index_copy_ would hold x for its gradient
    return x.view(shape)


def from_slots(x: Tensor, edges: Edges) -> Tensor:
    """Pick the slots in use: (n_atoms * slots, ...) -> (n_edges, ...)."""
    if edges.slot.shape[0] == x.shape[0]:
        return x
    return x.index_select(0, edges.slot)


def source_slots(edges: Edges, n_atoms: int) -> Tensor:
    """Source atom of every slot, 0 in empty slots: (n_atoms * slots,)."""
    padded = torch.zeros(
        n_atoms * edges.slots, dtype=edges.source.dtype, device=edges.source.device
    )
    return padded.index_copy(0, edges.slot, edges.source)


def sum_to_target(x: Tensor, edges: Edges, n_atoms: int) -> Tensor:
    """Sum flat edge features over the edges into each atom: (n_edges, f) -> (n_atoms, f)."""
    target = edges.target.unsqueeze(1).expand_as(x)
    return x.new_zeros(n_atoms, x.shape[1]).scatter_add(0, target, x)  # index_add would hold x
