"""Edges of the four graphs by index, and how the graphs meet: all that has no derivative."""

from typing import NamedTuple

import torch
from torch import Tensor

from jmp_md.graph.layout import Edges, source_slots, to_slots
from jmp_md.graph.pairs import Pairs


class Topology(NamedTuple):
    """All of a :class:`Graph` that consists of indices, which few steps of a simulation change.

    Attributes:
        pair: (n_edges,) the pair that each edge is, of the four graphs one after the other.
        edges: Of each graph, its edges without distances, unit vectors and weights.
    """

    pair: Tensor
    edges: list[Edges]
    swap: Tensor
    differ_main: Tensor
    differ_atom_edge: Tensor
    differ_quadruplet: Tensor
    open_triplet: Tensor
    closing: Tensor
    is_closing: Tensor


def select_pairs(pairs: Pairs, chosen: Tensor) -> tuple[Pairs, Tensor]:
    """The pairs of a mask (n_pairs,) bool that holds the reverse of each, and their indices."""
    renumbered = chosen.cumsum(0) - 1
    kept = chosen.nonzero().squeeze(1)  # a mask would be waited for at each use
    selected = Pairs(
        pairs.source[kept],
        pairs.target[kept],
        pairs.offset[kept],
        renumbered[pairs.reverse[kept]],
    )
    return selected, kept


def find_topology(masks: list[Tensor], pairs: Pairs, n_atoms: int) -> Topology:
    """Find where edges of different graphs are the same pair of atoms and images.

    Args:
        masks: Of each graph, which pairs are its edges, (n_pairs,) bool; the first holds the
            reverse of each pair it holds.
        pairs: Sorted by target.
        n_atoms: Number of atoms.
    """
    every = torch.stack(masks)
    degree = torch.zeros(len(masks), n_atoms, dtype=torch.long, device=every.device)
    degree = degree.scatter_add(1, pairs.target.expand_as(every), every.long())
    # One list of both numbers, for which the host waits once.
    sizes: list[int] = torch.cat([degree.sum(dim=1), degree.amax(dim=1)]).cpu().tolist()
    pair = every.nonzero()[:, 1].contiguous()
    chosen = pair.split(sizes[: len(masks)])
    edges: list[Edges] = []
    for g, places in enumerate(chosen):
        edges.append(_edges(places, pairs, sizes[len(masks) + g], n_atoms))
    main, atom_edge, quad = edges[0], edges[1], edges[2]
    k, kq = main.slots, quad.slots
    in_main = masks[0].cumsum(0) - 1
    # Of a pair that is no main edge, any slot.
    main_slot = torch.cat([main.slot, main.slot.new_zeros(1)])[in_main]
    back = pairs.reverse[chosen[2]]  # a -> b for each quadruplet edge b -> a

    # d -> b with d == a, where a -> b is in the main graph: not a triplet.
    place = quad.slot * k + main_slot[back] % max(k, 1)
    open_triplet = _all_but(place, masks[0][back], n_atoms * kq * k).view(n_atoms * kq, k)

    differ: list[Tensor] = []
    for other, same in ((atom_edge, chosen[1]), (quad, chosen[2])):
        place = main_slot[same] * other.slots + other.slot % max(other.slots, 1)
        unlike = _all_but(place, masks[0][same], n_atoms * k * other.slots)
        differ.append(unlike.view(n_atoms, k, other.slots))

    closing, is_closing = _closing_triplets(
        main, quad, pairs.offset[chosen[0]], pairs.offset[chosen[2]], open_triplet, n_atoms
    )
    return Topology(
        pair=pair,
        edges=edges,
        swap=in_main[pairs.reverse[chosen[0]]],
        differ_main=~torch.eye(k, dtype=torch.bool, device=every.device),
        differ_atom_edge=differ[0],
        differ_quadruplet=differ[1],
        open_triplet=open_triplet,
        closing=closing,
        is_closing=is_closing.view(n_atoms, k, kq),
    )


def rank_in_target(target: Tensor, n_atoms: int) -> Tensor:
    """Place of each entry among those of its target, for sorted targets."""
    count = target.new_zeros(n_atoms).index_add(0, target, torch.ones_like(target))
    start = count.cumsum(0) - count
    return torch.arange(target.shape[0], device=target.device) - start[target]


def _edges(chosen: Tensor, pairs: Pairs, slots: int, n_atoms: int) -> Edges:
    """Edges from the indices of their pairs, without distances, unit vectors and weights."""
    target = pairs.target[chosen]
    rank = rank_in_target(target, n_atoms)
    none = torch.zeros(0, device=chosen.device)
    return Edges(
        source=pairs.source[chosen],
        target=target,
        slot=target * slots + rank,
        slots=slots,
        distance=none,
        unit=none,
        weight=none,
    )


def _all_but(place: Tensor, holds: Tensor, size: int) -> Tensor:
    """(size,) bool, False at the places that hold: the others go to a spare one, unwaited for."""
    everywhere = torch.ones(size + 1, dtype=torch.bool, device=place.device)
    return everywhere.index_fill_(0, torch.where(holds, place, size), False)[:size]


def _closing_triplets(
    main: Edges,
    quad: Edges,
    main_offset: Tensor,
    quad_offset: Tensor,
    open_triplet: Tensor,
    n_atoms: int,
) -> tuple[Tensor, Tensor]:
    """Triplets d -> b -> a whose d is also a main neighbour c -> a, by (c -> a, b -> a).

    Returns the flat index into (n * kq, k) for every (n, k, kq), and whether there is one.
    """
    k, kq = main.slots, quad.slots
    closing = torch.zeros(n_atoms * k * kq, dtype=torch.long, device=main.source.device)
    is_closing = torch.zeros(n_atoms * k * kq, dtype=torch.bool, device=main.source.device)
    if k == 0 or kq == 0:
        return closing, is_closing
    # Every triplet (quadruplet slot, main slot of b) as the pair d -> a it would close.
    b = source_slots(quad, n_atoms)
    filled = to_slots(torch.ones_like(main.source), main, n_atoms) > 0
    filled_q = to_slots(torch.ones_like(quad.source), quad, n_atoms).view(-1, 1) > 0
    exists = open_triplet & filled.index_select(0, b) & filled_q
    d = source_slots(main, n_atoms).view(n_atoms, k).index_select(0, b)
    offset_d = to_slots(main_offset, main, n_atoms).index_select(0, b)
    offset = offset_d + to_slots(quad_offset, quad, n_atoms).view(-1, 1, 3)
    a = (torch.arange(n_atoms * kq, device=b.device) // kq).view(-1, 1).expand_as(d)

    reach = 2 * torch.maximum(main_offset.abs().amax(), quad_offset.abs().amax())
    known = _pair_key(main.target, main.source, main_offset, n_atoms, reach)
    triplet = exists.flatten().nonzero().squeeze(1)
    wanted = _pair_key(
        a.flatten()[triplet], d.flatten()[triplet], offset.flatten(0, 1)[triplet], n_atoms, reach
    )
    place = torch.searchsorted(known, wanted).clamp(max=known.shape[0] - 1)
    found = known[place] == wanted
    found = found.nonzero().squeeze(1)
    triplet, edge = triplet[found], place[found]
    quad_slot = (triplet // k) % kq
    where = main.slot[edge] * kq + quad_slot
    closing[where] = triplet
    is_closing[where] = True
    return closing, is_closing


def _pair_key(
    target: Tensor, source: Tensor, offset: Tensor, n_atoms: int, reach: Tensor
) -> Tensor:
    """One integer per pair and image, in the sort order of pairs."""
    m = 2 * reach + 1
    key = target * n_atoms + source
    for axis in range(3):
        key = key * m + offset[:, axis] + reach
    return key
