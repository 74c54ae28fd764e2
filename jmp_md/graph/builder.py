"""From candidate pairs to the four weighted graphs of a structure or a batch."""

import torch
from torch import Tensor, nn

from jmp_md.graph.layout import Edges, Graph
from jmp_md.graph.pairs import Pairs
from jmp_md.graph.policy import GraphPolicy
from jmp_md.graph.topology import Recalled, find_topology, rank_in_target, select_pairs
from jmp_md.nn.angular import smoothstep


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
            topology = find_topology(tensors, n_atoms)
        else:
            topology = self._topology(find_topology, tensors, n_atoms)
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
                pairs = select_pairs(tensors, positions.shape[0])
            else:
                pairs = self._near_pairs(select_pairs, tensors, positions.shape[0])
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
        rank[order] = rank_in_target(pairs.target[order], n_atoms)

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
