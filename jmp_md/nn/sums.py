"""Sums over triplets and quadruplets with the coefficients of :mod:`jmp_md.nn.coefficients`."""

import torch
from torch import Tensor

from jmp_md.graph.layout import Edges, Graph, from_slots
from jmp_md.nn.coefficients import BasisProjections


def angular_sum(coefficients: tuple[Tensor, Tensor], x: Tensor, edges: Edges) -> Tensor:
    """M[i] = sum_l F[ca, i, l] sum_b f_l(cos phi_cab) x_b.

    Args:
        coefficients: F (E, emb_cbf, S) and weighted functions f (n, k * S, slots).
        x: (n, slots, emb) by edges b -> a.
        edges: c -> a, of k slots.

    Returns:
        (E, emb_cbf, emb) by edges c -> a.
    """
    factors, functions = coefficients
    sums = torch.bmm(functions, x).view(-1, factors.shape[2], x.shape[2])
    return torch.bmm(factors, from_slots(sums, edges))


def dihedral_sum(bases: BasisProjections, x: Tensor, graph: Graph) -> Tensor:
    """The sum over d -> b -> a <- c by the azimuth about b -> a, without the terms d == c.

    Args:
        bases: Holds the coefficients.
        x: (n * kq, k, emb) by triplets d -> b -> a.
        graph: Says which triplets to leave out.

    Returns:
        (E, emb_sbf, emb) by edges c -> a.
    """
    k, kq, emb = graph.main.slots, graph.quadruplet.slots, x.shape[2]
    n, n_series = bases.quad_out.shape[0], bases.quad_in.shape[1]
    series = torch.bmm(bases.quad_in, x).view(n, kq, n_series, emb)
    series = series.transpose(1, 2).reshape(n, n_series * kq, emb)
    message = torch.bmm(bases.quad_out, series).view(n * k, bases.quad_closing.shape[1], emb)
    closing = x.view(n * kq * k, emb).index_select(0, graph.closing).view(n * k, kq, emb)
    message = torch.baddbmm(message, bases.quad_closing, closing, alpha=-1.0)
    return from_slots(message, graph.main)
