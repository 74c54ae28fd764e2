"""Reference graphs and index lists of GemNet-OC, by brute force (spec sections 1 and 4).

Slow on purpose: every image is tried, every triplet and quadruplet is listed. The factorised
network and the neighbour search of the package are tested against this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class OracleEdges:
    """Edges s -> t of one graph, with r_st = x_t - x_s - offset @ cell.

    Attributes:
        source: (E,) int64.
        target: (E,) int64.
        offset: (E, 3) int64, lattice units: the source sits in this image.
        weight: (E,) or None; multiplies every term the edge contributes to a sum over edges.
    """

    source: Tensor
    target: Tensor
    offset: Tensor
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Tensor) -> OracleEdges:
        """The edges selected by a mask or by indices."""
        weight = None if self.weight is None else self.weight[index]
        return OracleEdges(self.source[index], self.target[index], self.offset[index], weight)

    def weighted(self, x: Tensor) -> Tensor:
        """x (E, F), each row multiplied by the weight of its edge."""
        return x if self.weight is None else x * self.weight[:, None]


# --- Section 1: four graphs over the same atoms ---------------------------------------------


def lattice_images(positions: Tensor, cell: Tensor, pbc: Sequence[bool], cutoff: float) -> Tensor:
    """(M, 3) int64 offsets that can hold a neighbour within cutoff, in lexicographic order.

    With P the pseudo-inverse of the periodic lattice vectors, r P = (x_t - x_s) P - n bounds n.
    """
    periodic = torch.tensor([bool(p) for p in pbc], device=positions.device)
    limit = torch.zeros(3, dtype=torch.int64, device=positions.device)
    inverse = torch.linalg.pinv(cell[periodic])
    fractional = positions @ inverse
    spread = fractional.amax(0) - fractional.amin(0)
    # The small excess keeps an image that lies at the cutoff exactly.
    limit[periodic] = (spread + cutoff * inverse.norm(dim=0) + 1e-9).floor().long()
    axes = [torch.arange(-int(n), int(n) + 1, device=positions.device) for n in limit]
    return torch.cartesian_prod(*axes)


def pairs_within(
    positions: Tensor, cell: Tensor, pbc: Sequence[bool], cutoff: float
) -> OracleEdges:
    """All pairs with d <= cutoff, sorted by target, distance, source, offset."""
    positions, cell = positions.detach().double(), cell.detach().double()
    images = lattice_images(positions, cell, pbc, cutoff)
    shift = images.double() @ cell
    r = positions[None, :, None] - positions[:, None, None] - shift
    distance = r.norm(dim=-1)  # source, target, image
    inside = distance <= cutoff
    if any(pbc):
        inside &= distance >= 0.01
    else:
        inside[range(len(positions)), range(len(positions))] = False
    source, target, image = inside.nonzero(as_tuple=True)  # ordered by source, target, offset
    order = distance[inside].argsort(stable=True)
    order = order[target[order].argsort(stable=True)]
    return OracleEdges(source[order], target[order], images[image[order]])


def directed_graphs(
    positions: Tensor,
    cell: Tensor,
    pbc: Sequence[bool],
    tags: Tensor,
    cutoff: float,
    base: int,
) -> dict[str, OracleEdges]:
    """The four graphs before the main one is made symmetric; arguments as official_graphs."""
    pairs = pairs_within(positions, cell, pbc, cutoff)
    degree = torch.bincount(pairs.target, minlength=len(positions))
    rank = torch.arange(len(pairs), device=positions.device) - _starts(degree)[pairs.target]
    counts = {
        "main": base,
        "atom_edge": int(20 * base / 30),
        "quadruplet": int(8 * base / 30),
        "atom_atom": int(1000 * base / 30),
    }
    graphs = {name: pairs[rank < count] for name, count in counts.items()}
    quadruplet = graphs["quadruplet"]
    mobile = (tags == 1) | (tags == 2)
    graphs["quadruplet"] = quadruplet[mobile[quadruplet.source] | mobile[quadruplet.target]]
    return graphs


def official_graphs(
    positions: Tensor,
    cell: Tensor,
    pbc: Sequence[bool],
    tags: Tensor,
    cutoff: float,
    base: int,
) -> dict[str, OracleEdges]:
    """The four graphs of the official network.

    Args:
        positions: (N, 3) Å.
        cell: (3, 3) Å, rows are lattice vectors; rows without periodicity are ignored.
        pbc: Periodicity in the three directions.
        tags: (N,) OC20 tags.
        cutoff: Å.
        base: Neighbours per atom in the main graph; the other counts follow from it.

    Returns:
        ``main`` (symmetric), ``atom_edge``, ``quadruplet`` and ``atom_atom``.
    """
    graphs = directed_graphs(positions, cell, pbc, tags, cutoff, base)
    return graphs | {"main": symmetric(graphs["main"])}


def symmetric(edges: OracleEdges) -> OracleEdges:
    """Keep s < t (or s == t with a negative offset) and add each edge's reverse."""
    x, y, z = edges.offset.unbind(1)
    negative = (x < 0) | (x == 0) & ((y < 0) | (y == 0) & (z < 0))
    half = edges[(edges.source < edges.target) | (edges.source == edges.target) & negative]
    return OracleEdges(
        torch.cat([half.source, half.target]),
        torch.cat([half.target, half.source]),
        torch.cat([half.offset, -half.offset]),
    )


def swap_index(edges: OracleEdges) -> Tensor:
    """(E,) index of each edge's reverse.

    Raises:
        ValueError: An edge has no reverse, or is listed twice.
    """
    reverse = replace(edges, source=edges.target, target=edges.source, offset=-edges.offset)
    rows = torch.cat([_rows(edges), _rows(reverse)])
    _, key = rows.unique(dim=0, return_inverse=True)
    key, reverse_key = key[: len(edges)], key[len(edges) :]
    sorted_key, order = key.sort()
    if not torch.equal(sorted_key, reverse_key.sort().values) or len(key.unique()) < len(key):
        raise ValueError("the main graph is not symmetric: every edge needs exactly one reverse")
    return order[torch.searchsorted(sorted_key, reverse_key)]


def _rows(edges: OracleEdges) -> Tensor:
    return torch.cat([edges.source[:, None], edges.target[:, None], edges.offset], dim=1)


# --- Section 4: triplets and quadruplets as index lists -------------------------------------


@dataclass(frozen=True)
class PairList:
    """Pairs (out, in) of two lists, sorted by out, with the slot of each pair in a padded table.

    Attributes:
        out: (Q,) index of what is summed into, ascending.
        inp: (Q,) index of what is summed.
        n_out: Length of the list that out refers to.
        slot: (Q,) running number of the pair among those of the same out.
        width: Largest number of pairs of one out.
    """

    out: Tensor
    inp: Tensor
    n_out: int
    slot: Tensor
    width: int

    @classmethod
    def build(cls, out: Tensor, inp: Tensor, n_out: int) -> PairList:
        size = torch.bincount(out, minlength=n_out)
        slot = torch.arange(len(out), device=out.device) - _starts(size)[out]
        return cls(out, inp, n_out, slot, int(size.max()) if n_out else 0)

    def __len__(self) -> int:
        return len(self.out)

    def pad(self, x: Tensor) -> Tensor:
        """(Q, F) -> (n_out, width, F), zeros where an out has fewer pairs."""
        table = x.new_zeros(self.n_out * self.width, x.shape[1])
        table = table.index_copy(0, self.out * self.width + self.slot, x)
        return table.view(self.n_out, self.width, x.shape[1])


def join(out_key: Tensor, in_key: Tensor) -> tuple[Tensor, Tensor]:
    """All (i, j) with out_key[i] == in_key[j], sorted by i. Keys are integers >= 0."""
    n_keys = int(torch.cat([out_key, in_key, out_key.new_zeros(1)]).max()) + 1
    by_key = in_key.argsort(stable=True)
    size = torch.bincount(in_key, minlength=n_keys)
    matches = size[out_key]
    i = torch.arange(len(out_key), device=out_key.device).repeat_interleave(matches)
    nth = torch.arange(len(i), device=out_key.device) - _starts(matches)[i]
    return i, by_key[_starts(size)[out_key[i]] + nth]


def triplets(out: OracleEdges, inp: OracleEdges) -> PairList:
    """c->a in out with b->a in inp, b != c (atom and image)."""
    i, j = join(out.target, inp.target)
    same = (out.source[i] == inp.source[j]) & (out.offset[i] == inp.offset[j]).all(1)
    return PairList.build(i[~same], j[~same], len(out))


@dataclass(frozen=True)
class Quadruplets:
    """c->a main, b->a interaction, d->b main, with b != c, d != a, d != c (atom and image).

    Attributes:
        ca, ba: (T_out,) the output triplets: main edge c->a, interaction edge b->a.
        db, ba_in: (T_in,) the input triplets: main edge d->b, interaction edge b->a.
        pairs: Sum into main edges; ``pairs.inp`` numbers the input triplets.
        middle: (Q,) the output triplet of each quadruplet.
    """

    ca: Tensor
    ba: Tensor
    db: Tensor
    ba_in: Tensor
    pairs: PairList
    middle: Tensor

    @classmethod
    def build(cls, main: OracleEdges, inter: OracleEdges) -> Quadruplets:
        outer = triplets(main, inter)
        ca, ba = outer.out, outer.inp
        ba_in, db = join(inter.source, main.target)
        d_image = main.offset[db] + inter.offset[ba_in]  # seen from a's cell
        back = (main.source[db] == inter.target[ba_in]) & (d_image == 0).all(1)
        ba_in, db, d_image = ba_in[~back], db[~back], d_image[~back]
        t_out, t_in = join(ba, ba_in)
        c = ca[t_out]
        ring = (main.source[c] == main.source[db[t_in]]) & (main.offset[c] == d_image[t_in]).all(1)
        t_out, t_in = t_out[~ring], t_in[~ring]
        return cls(ca, ba, db, ba_in, PairList.build(ca[t_out], t_in, len(main)), t_out)


def _starts(size: Tensor) -> Tensor:
    """Where each group begins when groups of these sizes lie one after another."""
    return size.cumsum(0) - size
