"""What all interaction blocks share: radial projections and angular coefficients.

The official network lists every triplet and quadruplet, weights each by radial and angular
functions, and does so again in every block. The weights are the same in all blocks, so here they
become dense coefficients, computed once per structure:

- e2e:  y_ca = W vec(M) with M[i] = sum_b,l R[ca, i, l] Y_l(cos phi_cab) x_b. As R knows
  nothing of b, M[i] = sum_l F[ca, i, l] T[l] with T[l] = sum_b f_l(cos phi_cab) x_b, where f_l is
  Y_l but for a constant: two small matrix products, one per atom and one per edge.
- e2a:  the sum over both edges closes, so C[i, b] = sum_c,l R[ca, i, l] Y_l(cos phi_cab).
- quadruplets: with azimuths about the axis b -> a, the sum over d becomes a Fourier series
  A[m] = sum_d e^(i m alpha_d) x_d per edge b -> a, read out for c with e^(-i m alpha_c).

Every edge weight of the smooth graph is folded in here; the blocks never see it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from jmp_md.graph.layout import Edges, Graph, source_slots, to_slots
from jmp_md.nn.angular import azimuth_series, orthogonal_frame, weighted_legendre


class Sizes(NamedTuple):
    """Angular functions, and widths of the projected bases."""

    spherical: int
    rbf: int
    cbf: int
    sbf: int


class BasisWeights(NamedTuple):
    """What multiplies the radial basis of the edges of each graph, (num_radial, ...).

    Attributes:
        main: Five filters of ``rbf`` columns, circular factors of e2e and a2e, spherical ones.
        atom_edge: A filter and circular factors.
        quadruplet: Circular factors.
        atom_atom: A filter.
    """

    main: Tensor
    atom_edge: Tensor
    quadruplet: Tensor
    atom_atom: Tensor


class BasisProjections(NamedTuple):
    """Per-structure inputs of every block. n atoms; k, ka, kq, kaa slots; E main edges.

    Attributes:
        rad_t, rad_q, rad_ea: (E, emb_rbf) radial filters of main edges.
        rad_ae: (E_ae, emb_rbf) radial filters of atom-edge edges.
        rad_h, rad_o: (E, emb_rbf) filters of atom update and energy output, edge-weighted.
        rad_f: (E, emb_rbf) the filter of the force output, not weighted.
        edge_to_edge: F (E, emb_cbf, S) and Legendre functions f (n, k * S, k).
        atom_to_edge: the same for edges of atoms, (E, emb_cbf, S) and (n, k * S, ka).
        edge_to_atom: (n, emb_cbf, k) coefficients.
        atom_to_atom: (n, emb_rbf, kaa) coefficients.
        atom_atom_sources: (n * kaa,) source atom of each slot.
        triplet: (n * kq, k, emb_cbf) radial-angular filter g of d -> b -> a.
        quad_sources: (n * kq,) atom b of each quadruplet slot.
        quad_in: (n * kq, 2S, k) azimuth series of d about b -> a, edge-weighted.
        quad_out: (n, k * emb_sbf, 2S * kq) coefficients of c about b -> a.
        quad_closing: (n * k, emb_sbf, kq) coefficients of the terms d == c, to be taken away.
    """

    rad_t: Tensor
    rad_q: Tensor
    rad_ae: Tensor
    rad_ea: Tensor
    rad_h: Tensor
    rad_o: Tensor
    rad_f: Tensor
    edge_to_edge: tuple[Tensor, Tensor]
    atom_to_edge: tuple[Tensor, Tensor]
    edge_to_atom: Tensor
    atom_to_atom: Tensor
    atom_atom_sources: Tensor
    triplet: Tensor
    quad_sources: Tensor
    quad_in: Tensor
    quad_out: Tensor
    quad_closing: Tensor


class RadialFeatures(NamedTuple):
    """phi of the edges of each graph, (n_edges, num_radial)."""

    main: Tensor
    atom_edge: Tensor
    quadruplet: Tensor
    atom_atom: Tensor


def distances(graph: Graph) -> Tensor:
    """Å, of the edges of all graphs, in the order of :class:`RadialFeatures`."""
    graphs = [graph.main, graph.atom_edge, graph.quadruplet, graph.atom_atom]
    return torch.cat([edges.distance for edges in graphs])


def radial_features(basis: Tensor, graph: Graph) -> RadialFeatures:
    """The radial basis of :func:`distances`, by graphs."""
    graphs = [graph.main, graph.atom_edge, graph.quadruplet, graph.atom_atom]
    parts = basis.split([edges.distance.shape[0] for edges in graphs])
    return RadialFeatures(parts[0], parts[1], parts[2], parts[3])


def basis_projections(
    weights: BasisWeights, sizes: Sizes, radial: RadialFeatures, graph: Graph, n_atoms: int
) -> BasisProjections:
    """Coefficients for all blocks of a structure or batch."""
    S, rbf, cbf, sbf = sizes
    n = n_atoms
    main, atom_edge, quad, near = graph[:4]
    k, ka, kq = main.slots, atom_edge.slots, quad.slots

    # One product with each radial basis.
    widths = [5 * rbf, 2 * cbf * S, sbf * (S + 1) * S]
    filters, circular, spherical = (radial.main @ weights.main).split(widths, dim=1)
    # Copied, so that the blocks do not hold on to the whole product.
    rad_t, rad_q, rad_ea, rad_h, rad_o = filters.contiguous().chunk(5, dim=1)
    factors_t, factors_ae = circular.contiguous().view(-1, 2, cbf, S).unbind(1)
    factors_q = to_slots(spherical, main, n)
    main_weight = main.weight.unsqueeze(1)
    rad_f, rad_o, rad_h = rad_o, rad_o * main_weight, rad_h * main_weight
    by_atom_edge = radial.atom_edge @ weights.atom_edge
    rad_ae, factors_ea = by_atom_edge.split([rbf, cbf * S], dim=1)
    factors_ea, units_ae, factor_ae = _slots(factors_ea, atom_edge, n)
    factors_d, axis, factor_q = _slots(radial.quadruplet @ weights.quadruplet, quad, n)
    _, units, factor = _slots(main.unit.new_zeros(main.unit.shape[0], 0), main, n)

    # f_l of the cosines between main edges c -> a and all edges b -> a, with weights of b.
    cosine = torch.bmm(units, torch.cat([units, units_ae, axis], dim=1).transpose(1, 2))
    differ = [graph.differ_main.expand(n, k, k), graph.differ_atom_edge]
    weight = torch.cat([factor, factor_ae, factor_q], dim=1).transpose(1, 2)
    weight = weight * torch.cat(differ + [graph.differ_quadruplet], dim=2).to(weight.dtype)
    series = weighted_legendre(cosine, weight, S).view(n * k, S, k + ka + kq)
    series_t, series_ae, series_q = series.split([k, ka, kq], dim=2)

    factors_ea = factors_ea.view(n, ka, cbf, S).permute(0, 3, 1, 2)
    edge_to_atom = torch.bmm(series_ae.reshape(n, k, S * ka), factors_ea.reshape(n, S * ka, cbf))
    edge_to_atom = (edge_to_atom * factor).transpose(1, 2)
    rad_aa = radial.atom_atom @ weights.atom_atom * near.weight.unsqueeze(1)
    atom_to_atom = to_slots(rad_aa, near, n).transpose(1, 2)

    sources = source_slots(quad, n)
    triplet, quad_in, azimuth_c = _azimuths(
        sizes, units, factor.squeeze(2), axis, factors_d, sources, graph
    )
    quad_out, quad_closing = _read_out(
        sizes, factors_q.reshape(n * k, sbf * (S + 1), S), series_q, azimuth_c, quad_in, graph
    )
    return BasisProjections(
        rad_t=rad_t,
        rad_q=rad_q,
        rad_ae=rad_ae,
        rad_ea=rad_ea,
        rad_h=rad_h,
        rad_o=rad_o,
        rad_f=rad_f,
        edge_to_edge=(factors_t, series_t.view(n, k * S, k)),
        atom_to_edge=(factors_ae, series_ae.view(n, k * S, ka)),
        edge_to_atom=edge_to_atom,
        atom_to_atom=atom_to_atom,
        atom_atom_sources=source_slots(near, n),
        triplet=triplet,
        quad_sources=sources,
        quad_in=quad_in,
        quad_out=quad_out.view(n, k * sbf, 2 * S * kq),
        quad_closing=quad_closing,
    )


def cast(bases: BasisProjections, dtype: torch.dtype) -> BasisProjections:
    """The same in another type."""
    return BasisProjections(
        rad_t=bases.rad_t.to(dtype),
        rad_q=bases.rad_q.to(dtype),
        rad_ae=bases.rad_ae.to(dtype),
        rad_ea=bases.rad_ea.to(dtype),
        rad_h=bases.rad_h.to(dtype),
        rad_o=bases.rad_o.to(dtype),
        rad_f=bases.rad_f.to(dtype),
        edge_to_edge=(bases.edge_to_edge[0].to(dtype), bases.edge_to_edge[1].to(dtype)),
        atom_to_edge=(bases.atom_to_edge[0].to(dtype), bases.atom_to_edge[1].to(dtype)),
        edge_to_atom=bases.edge_to_atom.to(dtype),
        atom_to_atom=bases.atom_to_atom.to(dtype),
        atom_atom_sources=bases.atom_atom_sources,
        triplet=bases.triplet.to(dtype),
        quad_sources=bases.quad_sources,
        quad_in=bases.quad_in.to(dtype),
        quad_out=bases.quad_out.to(dtype),
        quad_closing=bases.quad_closing.to(dtype),
    )


def _azimuths(
    sizes: Sizes,
    units: Tensor,
    weights: Tensor,
    axis: Tensor,
    factors: Tensor,
    sources: Tensor,
    graph: Graph,
) -> tuple[Tensor, Tensor, Tensor]:
    """Filter and azimuth series of d -> b seen from b -> a, and azimuth series of c -> a.

    Returns (n * kq, k, emb_cbf), (n * kq, 2S, k) and (n * k, 2S, kq).
    """
    (n, k, _), kq, S = units.shape, axis.shape[1], sizes.spherical
    frame = torch.cat([orthogonal_frame(axis), axis.unsqueeze(2)], dim=2)
    of_c = units.unsqueeze(1).expand(n, kq, k, 3)
    of_d = units.index_select(0, sources).view(n, kq, k, 3)
    both = torch.cat([of_c, of_d], dim=2).view(n * kq, 2 * k, 3)
    seen = torch.bmm(frame.view(n * kq, 3, 3), both.transpose(1, 2))
    in_plane, cosine = seen.split([2, 1], dim=1)
    azimuth = azimuth_series(in_plane, S, graph.inline_sin2, graph.smooth)
    azimuth_c, azimuth_d = azimuth.split([k, k], dim=2)
    azimuth_c = azimuth_c.view(n, kq, 2 * S, k).permute(0, 3, 2, 1)

    cosine_d = cosine.squeeze(1).narrow(1, k, k)
    series = weighted_legendre(cosine_d, torch.ones_like(cosine_d), S)
    factors = factors.view(n * kq, sizes.cbf, S)
    triplet = torch.bmm(series.transpose(1, 2), factors.transpose(1, 2))
    weight = weights.index_select(0, sources) * graph.open_triplet.to(weights.dtype)
    return (
        triplet,
        azimuth_d * weight.unsqueeze(1),
        azimuth_c.reshape(n * k, 2 * S, kq),
    )


def _read_out(
    sizes: Sizes, factors: Tensor, series: Tensor, azimuth_c: Tensor, quad_in: Tensor, graph: Graph
) -> tuple[Tensor, Tensor]:
    """Coefficients of c -> a that read out the Fourier series of b -> a, and those of d == c.

    From (n * k, emb_sbf * (S + 1), S) factors, (n * k, S, kq) Legendre functions and azimuth
    series (n * k, 2S, kq) of c and (n * kq, 2S, k) of d. Returns (n * k, emb_sbf, 2S, kq) and
    (n * k, emb_sbf, kq).
    """
    S, (rows, _, kq), k = sizes.spherical, series.shape, graph.main.slots
    dihedral = torch.bmm(factors, series).view(rows, sizes.sbf, S + 1, kq)
    first, others, constant = dihedral.split([1, S - 1, 1], dim=2)
    # cos(m alpha) and sin(m alpha) have the same coefficient.
    quad_out = torch.cat([dihedral, others], dim=2) * azimuth_c.unsqueeze(1)

    # d == c: the azimuths are the same, and squares of cosine and sine add up to one.
    azimuth_d = quad_in[:, ::S].transpose(1, 2).reshape(quad_in.shape[0] * k, 2)
    azimuth_d = azimuth_d.index_select(0, graph.closing).view(rows, kq, 2).transpose(1, 2)
    both = azimuth_c[:, ::S] * azimuth_d * graph.is_closing.view(rows, 1, kq).to(factors.dtype)
    cosines = first.squeeze(2) + others.sum(dim=2)
    closing = cosines * both[:, :1] + constant.squeeze(2) * both[:, 1:]
    return quad_out, closing


def _slots(features: Tensor, edges: Edges, n_atoms: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features (n_atoms, slots, f), unit vectors (..., 3) and weights (..., 1) by slots."""
    joined = torch.cat([features, edges.unit, edges.weight.unsqueeze(1)], dim=1)
    spread = to_slots(joined, edges, n_atoms)
    by_slots = spread.split([features.shape[1], 3, 1], dim=2)
    return by_slots[0], by_slots[1], by_slots[2]
