"""From candidate pairs to the four weighted graphs of a structure or a batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from jmp_md.graph.layout import Edges, Graph, source_slots, to_slots
from jmp_md.graph.pairs import Pairs
from jmp_md.graph.policy import GraphPolicy
from jmp_md.nn.angular import smoothstep


class Topology(NamedTuple):
    """All of a :class:`Graph` that consists of indices, which few steps of a simulation change.

    Attributes:
        pairs: Of each graph, the pairs that are its edges.
        edges: Of each graph, its edges without distances, unit vectors and weights.
    """

    pairs: list[Tensor]
    edges: list[Edges]
    swap: Tensor
    differ_main: Tensor
    differ_atom_edge: Tensor
    differ_quadruplet: Tensor
    open_triplet: Tensor
    closing: Tensor
    is_closing: Tensor


class Recalled:
    """The last result of a function of index tensors, for as long as they stay the same."""

    def __init__(self) -> None:
        self._last: tuple[list[Tensor], int, Any] | None = None

    def __call__(
        self, function: Callable[[list[Tensor], int], Any], tensors: list[Tensor], n_atoms: int
    ) -> Any:
        """``function(tensors, n_atoms)``."""
        if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
            return function(tensors, n_atoms)
        if self._last is not None:
            known, known_n_atoms, result = self._last
            if n_atoms == known_n_atoms and all(map(_same, tensors, known)):
                return result
        result = function(tensors, n_atoms)
        self._last = (tensors, n_atoms, result)
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> "Recalled":
        return Recalled()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Recalled, ()


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.device == b.device and torch.equal(a, b))


class GraphBuilder(nn.Module):
    """Selects edges by a :class:`GraphPolicy` and lays them out for the network.

    Distances, unit vectors and weights are differentiable in positions and cells; which edges
    exist is not.

    Attributes:
        edge_dropout: Probability with which a directed pair is dropped in training mode, before
            anything else (spec section 5). As for ``nn.Dropout``, torch's generator decides.
    """

    cutoffs: list[float]
    counts: list[int]

    def __init__(self, policy: GraphPolicy) -> None:
        super().__init__()
        self.smooth = policy.kind == "smooth"
        self.cutoffs = list(policy.cutoffs)
        self.counts = [-1 if c is None else c for c in policy.counts]
        self.width = policy.width
        self.rank_width = policy.rank_width
        self.inline_sin2 = policy.inline_sin2
        self.edge_dropout = 0.0
        self._near_pairs, self._topology = Recalled(), Recalled()

    def forward(
        self, positions: Tensor, cells: Tensor, structure: Tensor, tags: Tensor, pairs: Pairs
    ) -> Graph:
        """Build the graphs.

        Args:
            positions: (n_atoms, 3) Å.
            cells: (n_structures, 3, 3) Å.
            structure: (n_atoms,) index of the structure each atom belongs to.
            tags: (n_atoms,) OC20 tags; 2 everywhere but in slabs.
            pairs: All pairs within the largest cutoff; pairs beyond it are passed over.
        """
        pairs, vector, distance = self._near(positions, cells, structure, pairs)
        n_atoms = positions.shape[0]
        unit = vector / distance.unsqueeze(-1)
        directed, symmetric, kept = distance, distance, 1.0
        if self.training and self.edge_dropout > 0.0:
            kept = 1.0 - self.edge_dropout
            # A dropped pair is taken to be far beyond any cutoff.
            directed = distance.masked_fill(torch.rand_like(distance.detach()) >= kept, 1e6)
            symmetric = torch.where(_is_forward(pairs), directed, directed[pairs.reverse])
        if self.smooth:
            masks, weights = self._smooth(directed, symmetric, pairs, n_atoms)
        else:
            masks, weights = self._official(directed, pairs, n_atoms)
        touched = (tags[pairs.source] > 0) | (tags[pairs.target] > 0)
        masks[2] = masks[2] & touched

        tensors = masks + [pairs.source, pairs.target, pairs.offset, pairs.reverse]
        if torch.jit.is_scripting():
            topology = _join(tensors, n_atoms)
        else:
            topology = self._topology(_join, tensors, n_atoms)
        edges: list[Edges] = []
        for g in range(4):
            pair, indices = topology.pairs[g], topology.edges[g]
            edges.append(
                Edges(
                    source=indices.source,
                    target=indices.target,
                    slot=indices.slot,
                    slots=indices.slots,
                    distance=distance.index_select(0, pair),
                    unit=unit.index_select(0, pair),
                    weight=weights[g].index_select(0, pair),
                )
            )
        return Graph(
            main=edges[0],
            atom_edge=edges[1],
            quadruplet=edges[2],
            atom_atom=edges[3],
            swap=topology.swap,
            differ_main=topology.differ_main,
            differ_atom_edge=topology.differ_atom_edge,
            differ_quadruplet=topology.differ_quadruplet,
            open_triplet=topology.open_triplet,
            closing=topology.closing,
            is_closing=topology.is_closing,
            smooth=self.smooth,
            inline_sin2=self.inline_sin2,
            kept=kept,
        )

    def _near(
        self, positions: Tensor, cells: Tensor, structure: Tensor, pairs: Pairs
    ) -> tuple[Pairs, Tensor, Tensor]:
        """Pairs within the largest cutoff now, with their vectors and distances."""
        with torch.no_grad():
            square = _pair_vectors(positions, cells, structure, pairs).square().sum(dim=-1)
            near = square <= max(self.cutoffs) ** 2
            tensors = [near, pairs.source, pairs.target, pairs.offset, pairs.reverse]
            if torch.jit.is_scripting():
                pairs = _only(tensors, positions.shape[0])
            else:
                pairs = self._near_pairs(_only, tensors, positions.shape[0])
        vector = _pair_vectors(positions, cells, structure, pairs)
        return pairs, vector, torch.linalg.norm(vector, dim=-1)

    def _official(
        self, distance: Tensor, pairs: Pairs, n_atoms: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Hard cutoff and K nearest; the main graph made symmetric by atom order (section 1)."""
        d = distance.detach()
        # Stable sorts leave ties in the order of pairs: by source, then offset.
        order = torch.argsort(d, stable=True)
        order = order[torch.argsort(pairs.target[order], stable=True)]
        rank = torch.empty_like(order)
        rank[order] = _rank_in_target(pairs.target[order], n_atoms)

        masks: list[Tensor] = []
        for g in range(4):
            masks.append((d <= self.cutoffs[g]) & (rank < self.counts[g]))
        main = masks[0] & _is_forward(pairs)
        masks[0] = main | main[pairs.reverse]
        ones = torch.ones_like(d)
        return masks, [ones, ones, ones, ones]

    def _smooth(
        self, directed: Tensor, symmetric: Tensor, pairs: Pairs, n_atoms: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Weights that vanish at each cutoff and beyond each count (section 8.1).

        Distances are those of pairs after edge dropout; the main graph takes the symmetric ones.
        """
        masks: list[Tensor] = []
        weights: list[Tensor] = []
        for g in range(4):
            distance = symmetric if g == 0 else directed
            inverse = 1.0 / (self.width * self.cutoffs[g])
            weight = smoothstep((self.cutoffs[g] - distance) * inverse)
            if self.counts[g] > 0:
                rank = _soft_rank(distance, weight, pairs.target, n_atoms)
                fade = 1.0 - smoothstep((rank - (self.counts[g] - 1)) / self.rank_width)
                weight = weight * fade * fade[pairs.reverse]
            masks.append(weight.detach() > 0)
            weights.append(weight)
        return masks, weights


def _only(tensors: list[Tensor], n_atoms: int) -> Pairs:
    """The pairs of a mask, from the mask and the fields of all pairs."""
    mask, source, target = tensors[0], tensors[1], tensors[2]
    offset, reverse = tensors[3], tensors[4]
    renumbered = mask.cumsum(0) - 1
    return Pairs(source[mask], target[mask], offset[mask], renumbered[reverse[mask]])


def _join(tensors: list[Tensor], n_atoms: int) -> Topology:
    """Find where edges of different graphs are the same pair of atoms and images.

    From the masks of the four graphs and the fields of the pairs.
    """
    masks = tensors[:4]
    pairs = Pairs(tensors[4], tensors[5], tensors[6], tensors[7])
    chosen: list[Tensor] = []
    edges: list[Edges] = []
    for mask in masks:
        chosen.append(mask.nonzero().squeeze(1))
        edges.append(_edges(chosen[-1], pairs, n_atoms))
    main, atom_edge, quad = edges[0], edges[1], edges[2]
    k, kq = main.slots, quad.slots
    in_main = masks[0].cumsum(0) - 1
    back = pairs.reverse[chosen[2]]  # a -> b for each quadruplet edge b -> a

    # d -> b with d == a, where a -> b is in the main graph: not a triplet.
    is_main = masks[0][back]
    row, column = quad.slot[is_main], main.slot[in_main[back[is_main]]] % max(k, 1)
    open_triplet = torch.ones(n_atoms * kq * k, dtype=torch.bool, device=row.device)
    open_triplet[row * k + column] = False
    open_triplet = open_triplet.view(n_atoms * kq, k)

    closing, is_closing = _closing_triplets(
        main, quad, pairs.offset[chosen[0]], pairs.offset[chosen[2]], open_triplet, n_atoms
    )
    return Topology(
        pairs=chosen,
        edges=edges,
        swap=in_main[pairs.reverse[chosen[0]]],
        differ_main=~torch.eye(k, dtype=torch.bool, device=row.device),
        differ_atom_edge=_differ(main, atom_edge, masks[0], masks[1], n_atoms),
        differ_quadruplet=_differ(main, quad, masks[0], masks[2], n_atoms),
        open_triplet=open_triplet,
        closing=closing,
        is_closing=is_closing.view(n_atoms, k, kq),
    )


def _is_forward(pairs: Pairs) -> Tensor:
    """One of each pair and its reverse: s < t, or the same atom and a negative offset."""
    x, y, z = pairs.offset.unbind(1)
    negative = (x < 0) | ((x == 0) & ((y < 0) | ((y == 0) & (z < 0))))
    return (pairs.source < pairs.target) | ((pairs.source == pairs.target) & negative)


def _pair_vectors(positions: Tensor, cells: Tensor, structure: Tensor, pairs: Pairs) -> Tensor:
    """r_st = x_t - x_s - n . cell for every pair: (n_pairs, 3) Å."""
    vector = positions.index_select(0, pairs.target) - positions.index_select(0, pairs.source)
    cell = cells.index_select(0, structure.index_select(0, pairs.target))
    shift = (pairs.offset.to(positions.dtype).unsqueeze(1) @ cell).squeeze(1)
    return vector - shift


def _rank_in_target(target: Tensor, n_atoms: int) -> Tensor:
    """Place of each entry among those of its target, for sorted targets."""
    count = torch.bincount(target, minlength=n_atoms)
    start = count.cumsum(0) - count
    return torch.arange(target.shape[0], device=target.device) - start[target]


def _soft_rank(distance: Tensor, weight: Tensor, target: Tensor, n_atoms: int) -> Tensor:
    """Weighted number of closer neighbours of the target, each counted over a soft step.

    A neighbour counts fully once it is 0.25 Å closer and not at all when 0.25 Å farther.
    """
    rank = _rank_in_target(target, n_atoms)
    slots = int(rank.max()) + 1 if rank.numel() > 0 else 0
    place = target * slots + rank
    padded_d = distance.new_full([n_atoms * slots], 1e6).index_copy(0, place, distance)
    padded_w = weight.new_zeros(n_atoms * slots).index_copy(0, place, weight)
    gap = padded_d.view(n_atoms, slots, 1) - padded_d.view(n_atoms, 1, slots)
    closer = smoothstep((gap / 0.25 + 1.0) * 0.5) * padded_w.view(n_atoms, 1, slots)
    own = 0.5 * padded_w  # an edge is not closer than itself
    return (closer.sum(dim=2).view(-1) - own).index_select(0, place)


def _edges(chosen: Tensor, pairs: Pairs, n_atoms: int) -> Edges:
    """Edges from the indices of their pairs, without distances, unit vectors and weights."""
    target = pairs.target[chosen]
    rank = _rank_in_target(target, n_atoms)
    slots = int(rank.max()) + 1 if chosen.shape[0] > 0 else 0
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


def _differ(
    main: Edges, other: Edges, main_mask: Tensor, other_mask: Tensor, n_atoms: int
) -> Tensor:
    """(n, main slots, other slots) False where both slots hold the same pair, True elsewhere."""
    differ = torch.ones(
        n_atoms * main.slots * other.slots, dtype=torch.bool, device=main.source.device
    )
    both = main_mask & other_mask
    in_main = main_mask.cumsum(0) - 1
    in_other = other_mask.cumsum(0) - 1
    row, column = main.slot[in_main[both]], other.slot[in_other[both]]
    if other.slots > 0:
        differ[row * other.slots + column % other.slots] = False
    return differ.view(n_atoms, main.slots, other.slots)


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

    reach = 2 * max(int(main_offset.abs().max()), int(quad_offset.abs().max()))
    known = _pair_key(main.target, main.source, main_offset, n_atoms, reach)
    triplet = exists.flatten().nonzero().squeeze(1)
    wanted = _pair_key(
        a.flatten()[triplet], d.flatten()[triplet], offset.flatten(0, 1)[triplet], n_atoms, reach
    )
    place = torch.searchsorted(known, wanted).clamp(max=known.shape[0] - 1)
    found = known[place] == wanted
    triplet, edge = triplet[found], place[found]
    quad_slot = (triplet // k) % kq
    where = main.slot[edge] * kq + quad_slot
    closing[where] = triplet
    is_closing[where] = True
    return closing, is_closing


def _pair_key(target: Tensor, source: Tensor, offset: Tensor, n_atoms: int, reach: int) -> Tensor:
    """One integer per pair and image, in the sort order of pairs."""
    m = 2 * reach + 1
    key = target * n_atoms + source
    for axis in range(3):
        key = key * m + offset[:, axis] + reach
    return key
