"""From candidate pairs to the four weighted graphs of a structure or a batch."""

import torch
from torch import Tensor, nn

from jmp_md.graph.layout import Edges, Graph
from jmp_md.graph.neighbourhood import Neighbourhood
from jmp_md.graph.pairs import Pairs
from jmp_md.graph.policy import GraphPolicy
from jmp_md.graph.smooth import smoothstep
from jmp_md.graph.topology import Topology, find_topology, rank_in_target, select_pairs

_ROUNDING = 1e-4  # Å, more than single precision makes of a distance
# A processor gains nothing from a neighbourhood with more edges than this, compared with now.
_MORE_EDGES = 1.1


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

    def forward(
        self, positions: Tensor, cells: Tensor, structure: Tensor, tags: Tensor, pairs: Pairs
    ) -> Graph:
        """Build the graphs of the edges that have a weight now.

        Args:
            positions: (n_atoms, 3) Å.
            cells: (n_structures, 3, 3) Å.
            structure: (n_atoms,) index of the structure each atom belongs to.
            tags: (n_atoms,) OC20 tags; 2 everywhere but in slabs.
            pairs: All pairs within the largest cutoff; pairs beyond it are passed over.
        """
        with torch.no_grad():
            square = _pair_vectors(positions, cells, structure, pairs).square().sum(dim=-1)
            beyond = square > max(self.cutoffs) ** 2  # which what is not a number is not
            pairs, _ = select_pairs(pairs, ~beyond)
        vector = _pair_vectors(positions, cells, structure, pairs)
        distance = torch.linalg.norm(vector, dim=-1)
        n_atoms = positions.shape[0]
        directed, symmetric, kept = distance, distance, 1.0
        if self.training and self.edge_dropout > 0.0:
            kept = 1.0 - self.edge_dropout
            # A dropped pair is taken to be far beyond any cutoff.
            directed = distance.masked_fill(torch.rand_like(distance.detach()) >= kept, 1e6)
            symmetric = torch.where(_is_forward(pairs), directed, directed[pairs.reverse])
        if self.smooth:
            weights = self._smooth(directed, symmetric, pairs, n_atoms)
        else:
            weights = self._official(directed, pairs, rank_in_target(pairs.target, n_atoms))
        masks: list[Tensor] = []
        for weight in weights:
            masks.append(weight.detach() > 0)
        masks[2] = masks[2] & _touched(tags, pairs)
        topology = find_topology(masks, pairs, n_atoms)
        return self._graph(topology, vector, distance, weights, kept)

    @torch.no_grad()
    def neighbourhood(
        self,
        positions: Tensor,
        cells: Tensor,
        structure: Tensor,
        tags: Tensor,
        pairs: Pairs,
        margin: float,
    ) -> Neighbourhood | None:
        """All edges that can have a weight before an atom has moved half the margin.

        Args:
            positions: (n_atoms, 3) Å, as those that follow as for :meth:`forward`.
            cells: (n_structures, 3, 3) Å.
            structure: (n_atoms,).
            tags: (n_atoms,).
            pairs: All pairs within the largest cutoff and the margin.
            margin: Å.

        Returns:
            None where it is cheaper to build the graphs anew at each step.
        """
        if self.smooth and max(self.counts) > 0:
            return None  # only distances decide here, not how many are closer
        n_atoms = positions.shape[0]
        distance = torch.linalg.norm(_pair_vectors(positions, cells, structure, pairs), dim=-1)
        slack = margin + _ROUNDING
        masks = self._possible(distance, pairs, n_atoms, slack)
        if positions.device.type == "cpu":
            exact = self._possible(distance, pairs, n_atoms, 0.0)
            if int(masks[0].sum()) > _MORE_EDGES * int(exact[0].sum()):
                return None
        if not self.smooth:  # of a smooth graph, all pairs but a few can be edges
            near = masks[0] | masks[1] | masks[2] | masks[3]
            pairs, kept = select_pairs(pairs, near | near[pairs.reverse])
            masks = [mask[kept] for mask in masks]
        masks[2] = masks[2] & _touched(tags, pairs)  # the others have counted as nearer
        shift = pairs.offset.to(positions.dtype)
        return Neighbourhood(
            pairs=pairs,
            place=rank_in_target(pairs.target, n_atoms),
            shift=shift if bool(pairs.offset.any()) else shift[:0],
            owner=structure[pairs.target],
            topology=find_topology(masks, pairs, n_atoms),
        )

    def measure(self, positions: Tensor, cells: Tensor, known: Neighbourhood) -> Graph:
        """The graphs of a neighbourhood where atoms are now; nothing waits for the device.

        Args:
            positions: (n_atoms, 3) Å.
            cells: (n_structures, 3, 3) Å.
            known: From :meth:`neighbourhood`, of the same atoms.
        """
        vector = known.vectors(positions, cells)
        distance = torch.linalg.norm(vector, dim=-1)
        if self.smooth:
            weights = self._smooth(distance, distance, known.pairs, positions.shape[0])
        else:
            weights = self._official(distance, known.pairs, known.place)
        return self._graph(known.topology, vector, distance, weights, 1.0)

    def _graph(
        self,
        topology: Topology,
        vector: Tensor,
        distance: Tensor,
        weights: list[Tensor],
        kept: float,
    ) -> Graph:
        """A topology with what was measured of each pair; weights (n_pairs,) of each graph."""
        unit = vector / distance.unsqueeze(-1)
        sizes = [edges.source.shape[0] for edges in topology.edges]
        pair = topology.pair.split(sizes)
        distances = distance.index_select(0, topology.pair).split(sizes)
        units = unit.index_select(0, topology.pair).split(sizes)
        edges: list[Edges] = []
        for g, indices in enumerate(topology.edges):
            edges.append(
                Edges(
                    source=indices.source,
                    target=indices.target,
                    slot=indices.slot,
                    slots=indices.slots,
                    distance=distances[g],
                    unit=units[g],
                    weight=weights[g].index_select(0, pair[g]),
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

    def _official(self, distance: Tensor, pairs: Pairs, place: Tensor) -> list[Tensor]:
        """1 within the hard cutoff for the K nearest; main graph symmetric by atom order."""
        d = distance.detach()
        # Stable sorts leave ties in the order of pairs: by source, then offset.
        order = torch.argsort(d, stable=True)
        order = order[torch.argsort(pairs.target[order], stable=True)]
        rank = torch.empty_like(order).index_copy_(0, order, place)
        weights: list[Tensor] = []
        for g in range(4):
            mask = (d <= self.cutoffs[g]) & (rank < self.counts[g])
            if g == 0:
                mask = mask & _is_forward(pairs)
                mask = mask | mask[pairs.reverse]
            weights.append(mask.to(d.dtype))
        return weights

    def _smooth(
        self, directed: Tensor, symmetric: Tensor, pairs: Pairs, n_atoms: int
    ) -> list[Tensor]:
        """Weights that vanish at each cutoff and beyond each count (section 8.1).

        Distances are those of pairs after edge dropout; the main graph takes the symmetric ones.
        """
        weights: list[Tensor] = []
        for g in range(4):
            distance = symmetric if g == 0 else directed
            inverse = 1.0 / (self.width * self.cutoffs[g])
            weight = smoothstep((self.cutoffs[g] - distance) * inverse)
            if self.counts[g] > 0:
                rank = _soft_rank(distance, weight, pairs.target, n_atoms)
                fade = 1.0 - smoothstep((rank - (self.counts[g] - 1)) / self.rank_width)
                weight = weight * fade * fade[pairs.reverse]
            weights.append(weight)
        return weights

    def _possible(self, distance: Tensor, pairs: Pairs, n_atoms: int, slack: float) -> list[Tensor]:
        """Pairs of each graph that could be edges if distances changed by up to ``slack`` Å."""
        masks = [distance <= cutoff + slack for cutoff in self.cutoffs]
        if self.smooth:
            return masks
        # At least as many are closer as are closer now by what both distances may change.
        place = rank_in_target(pairs.target, n_atoms)
        most = int(place.max()) + 1 if place.shape[0] > 0 else 0
        slot = pairs.target * most + place
        by_atom = distance.new_full([n_atoms * most], float("inf")).index_copy(0, slot, distance)
        by_atom = by_atom.view(n_atoms, most)
        closer = torch.searchsorted(by_atom.sort(dim=1).values, by_atom - 2.0 * slack)
        rank = closer.flatten()[slot]
        masks = [mask & (rank < count) for mask, count in zip(masks, self.counts, strict=True)]
        masks[0] = masks[0] | masks[0][pairs.reverse]
        return masks


def _touched(tags: Tensor, pairs: Pairs) -> Tensor:
    """(n_pairs,) whether a pair has an atom that is not below a surface."""
    return (tags[pairs.source] > 0) | (tags[pairs.target] > 0)


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


def _soft_rank(distance: Tensor, weight: Tensor, target: Tensor, n_atoms: int) -> Tensor:
    """Weighted number of closer neighbours of the target, each counted over a soft step.

    A neighbour counts fully once it is 0.25 Å closer and not at all when 0.25 Å farther.
    """
    rank = rank_in_target(target, n_atoms)
    slots = int(rank.max()) + 1 if rank.numel() > 0 else 0
    place = target * slots + rank
    padded_d = distance.new_full([n_atoms * slots], 1e6).index_copy(0, place, distance)
    padded_w = weight.new_zeros(n_atoms * slots).index_copy(0, place, weight)
    gap = padded_d.view(n_atoms, slots, 1) - padded_d.view(n_atoms, 1, slots)
    closer = smoothstep((gap / 0.25 + 1.0) * 0.5) * padded_w.view(n_atoms, 1, slots)
    own = 0.5 * padded_w  # an edge is not closer than itself
    return (closer.sum(dim=2).view(-1) - own).index_select(0, place)
