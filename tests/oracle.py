"""Reference GemNet-OC: the official algorithm, plainly, from the specification.

Every triplet and quadruplet is an index (see oracle_graphs), padded and multiplied. Works on a
state dict with the official names, in the dtype and on the device of the positions, and is
differentiable twice. Section numbers are those of the specification; 2 and 3 are in
oracle_bases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from oracle_bases import (
    Bases,
    Structure,
    Switch,
    Weights,
    bases,
    dense,
    linear,
    mlp,
    radial_basis,
    scale,
    stack,
)
from oracle_graphs import OracleEdges, PairList, directed_graphs, official_graphs
from torch import Tensor

__all__ = [
    "OracleEdges",
    "Switch",
    "direct_forces",
    "directed_graphs",
    "energy_head",
    "official_graphs",
    "oracle_forward",
    "strained",
]


# --- Section 4: one interaction block -------------------------------------------------------


def contract(basis: Tensor, pairs: PairList, x: Tensor) -> Tensor:
    """M (E_out, S, F): sum over the pairs of basis (padded) times x (F per input)."""
    return basis.transpose(1, 2) @ pairs.pad(x[pairs.inp])


def sum_to_atoms(x: Tensor, target: Tensor, n_atoms: int) -> Tensor:
    return x.new_zeros(n_atoms, *x.shape[1:]).index_add(0, target, x)


def edge_input(w: Weights, dense_name: str, m: Tensor, rad: Tensor) -> Tensor:
    x = scale(w["scale_rbf"], dense(w[dense_name], m) * linear(w["mlp_rbf"], rad))
    return dense(w["down_projection"], x)


def sym(w: Weights, y: Tensor, swap: Tensor) -> Tensor:
    ca = dense(w["up_projection_ca"], y)
    ac = dense(w["up_projection_ac"], y)
    return (ca + ac[swap]) / math.sqrt(2)


def edge_to_edge(w: Weights, s: Structure, b: Bases, m: Tensor) -> Tensor:
    x = s.main.edges.weighted(edge_input(w, "dense_ba", m, b.rad_t))
    M = contract(b.Y_t, s.e2e, x)
    y = linear(w["mlp_cbf.bilinear"], (b.R_t @ M).flatten(1))
    return sym(w, scale(w["scale_cbf_sum"], y), s.swap)


def quadruplet(w: Weights, s: Structure, b: Bases, m: Tensor) -> Tensor:
    x = s.main.edges.weighted(edge_input(w, "dense_db", m, b.rad_q))
    x_t = scale(w["scale_cbf"], x[s.quads.db] * linear(w["mlp_cbf"], b.g_t))
    x_t = s.quadruplet.edges[s.quads.ba_in].weighted(x_t)
    M = contract(b.Y_q, s.quads.pairs, x_t)
    y = linear(w["mlp_sbf.bilinear"], (b.R_qs @ M).flatten(1))
    return sym(w, scale(w["scale_sbf_sum"], y), s.swap)


def atom_to_edge(w: Weights, s: Structure, b: Bases, h: Tensor) -> Tensor:
    edges = s.atom_edge.edges
    x = dense(w["dense_ba"], h)[edges.source] * linear(w["mlp_rbf"], b.rad_ae)
    x = edges.weighted(dense(w["down_projection"], scale(w["scale_rbf"], x)))
    M = contract(b.Y_ae, s.a2e, x)
    y = linear(w["mlp_cbf.bilinear"], (b.R_ae @ M).flatten(1))
    return sym(w, scale(w["scale_cbf_sum"], y), s.swap)


def edge_to_atom(w: Weights, s: Structure, b: Bases, m: Tensor) -> Tensor:
    edges = s.atom_edge.edges
    x = s.main.edges.weighted(edge_input(w, "dense_ba", m, b.rad_ea))
    M = contract(b.Y_ea, s.e2a, x)
    total = sum_to_atoms(edges.weighted((b.R_ea @ M).flatten(1)), edges.target, s.n_atoms)
    y = scale(w["scale_cbf_sum"], linear(w["mlp_cbf.bilinear"], total))
    return dense(w["up_projection_ca"], y)


def atom_to_atom(w: Weights, s: Structure, b: Bases, h: Tensor) -> Tensor:
    edges = s.atom_atom.edges
    x = dense(w["down_projection"], h)
    outer = (b.R_aa[:, :, None] * x[edges.source][:, None, :]).flatten(1)
    total = sum_to_atoms(edges.weighted(outer), edges.target, s.n_atoms)
    y = scale(w["scale_rbf_sum"], linear(w["bilinear"], total))
    return dense(w["up_projection"], y)


def atom_sum(w: Weights, s: Structure, m: Tensor, rad: Tensor) -> Tensor:
    """z_a = scale_sum * sum over main c->a of m_ca * (dense_rbf rad)."""
    x = s.main.edges.weighted(m * linear(w["dense_rbf"], rad))
    return scale(w["scale_sum"], sum_to_atoms(x, s.main.edges.target, s.n_atoms))


def interaction_block(
    w: Weights, s: Structure, b: Bases, h: Tensor, m: Tensor
) -> tuple[Tensor, Tensor]:
    x = (
        dense(w["dense_ca"], m)
        + edge_to_edge(w["trip_interaction"], s, b, m)
        + quadruplet(w["quad_interaction"], s, b, m)
        + atom_to_edge(w["atom_edge_interaction"], s, b, h)
    ) / 2
    h = (
        h
        + edge_to_atom(w["edge_atom_interaction"], s, b, m)
        + atom_to_atom(w["atom_interaction"], s, b, h)
    ) / math.sqrt(3)
    m = (m + stack(w["layers_before_skip"], x)) / math.sqrt(2)
    m = stack(w["layers_after_skip"], m)
    h = stack(w["atom_emb_layers"], h)
    update = stack(w["atom_update.layers"], atom_sum(w["atom_update"], s, m, b.rad_h))
    h = (h + update) / math.sqrt(2)
    m2 = dense(w["concat_layer.dense"], edge_concat(s, h, m))
    m = (m + stack(w["residual_m"], m2)) / math.sqrt(2)
    return h, m


def edge_concat(s: Structure, h: Tensor, x: Tensor) -> Tensor:
    """[h_c, h_a, x] of the main edges c->a."""
    return torch.cat([h[s.main.edges.source], h[s.main.edges.target], x], dim=1)


# --- Section 5: output blocks ---------------------------------------------------------------


def output_energy(w: Weights, s: Structure, b: Bases, h: Tensor, m: Tensor) -> Tensor:
    z = stack(w["seq_energy_pre"], atom_sum(w, s, m, b.rad_o))
    return stack(w["seq_energy2"], (z + h) / math.sqrt(2))


def output_force(w: Weights, b: Bases, m: Tensor) -> Tensor:
    f = stack(w["seq_forces"], m) * linear(w["dense_rbf_F"], b.rad_o)
    return scale(w["scale_rbf_F"], f)


def oracle_forward(
    state: Mapping[str, Tensor],
    config: Any,
    numbers: Tensor,
    positions: Tensor,
    cell: Tensor,
    graphs: Mapping[str, OracleEdges],
    *,
    inline_switch: Switch | None = None,
    degenerate: float = 1e-7,
) -> dict[str, Any]:
    """Run the backbone on one structure.

    Args:
        state: Official-named tensors (``backbone.*`` and the embedding).
        config: Has num_blocks, num_spherical, basis_cutoff and direct_forces.
        numbers: (N,) atomic numbers.
        positions: (N, 3) Å; may require grad. Its dtype and device are used throughout.
        cell: (3, 3) Å, rows are lattice vectors; may require grad.
        graphs: As from official_graphs; any graphs will do whose main graph is symmetric.
        inline_switch: s(sin^2 phi) of spec section 8, item 3; None for the official network.
        degenerate: A dihedral normal shorter than this gives cos theta = 0 without gradient.

    Returns:
        ``X_E`` (N, emb_atom), ``X_F`` (E, emb_edge) or None, and for the main edges
        ``unit_vectors`` (E, 3), ``target`` (E,) and ``weight`` (E,) or None.
    """
    w = Weights(state, positions)["backbone"]
    s = Structure.of(positions, cell, graphs)
    b = bases(w["bases"], s, config, degenerate, inline_switch)
    h = _embedding(state).to(positions)[numbers - 1]
    phi = radial_basis(w["bases.radial_basis"], s.main.distance, config.basis_cutoff)
    m = dense(w["bases.edge_emb.dense"], edge_concat(s, h, phi))
    energies, forces = [], []
    for k in range(config.num_blocks + 1):
        if k > 0:
            h, m = interaction_block(w[f"int_blocks.{k - 1}"], s, b, h, m)
        energies.append(output_energy(w[f"out_blocks.{k}"], s, b, h, m))
        if config.direct_forces:
            forces.append(output_force(w[f"out_blocks.{k}"], b, m))
    return {
        "X_E": stack(w["out_mlp_E.out_mlp"], torch.cat(energies, dim=1)),
        "X_F": stack(w["out_mlp_F.out_mlp"], torch.cat(forces, dim=1)) if forces else None,
        "unit_vectors": s.main.unit,
        "target": s.main.edges.target,
        "weight": s.main.edges.weight,
    }


def _embedding(state: Mapping[str, Tensor]) -> Tensor:
    pretrained = "embedding.atom_embedding.weight"
    return state[pretrained if pretrained in state else "embedding.weight"]


# --- Section 6: heads -----------------------------------------------------------------------


def energy_head(state: Mapping[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    """(N,) network energies per atom from X_E; prefix ``output.out_energy.t`` or ``out_energy``."""
    return mlp(Weights(state, x)[prefix], x)[:, 0]


def direct_forces(state: Mapping[str, Tensor], prefix: str, output: Mapping[str, Any]) -> Tensor:
    """(N, 3) direct forces; prefix ``output.out_forces.t`` or ``out_forces``.

    Args:
        output: What oracle_forward returned.
    """
    size = mlp(Weights(state, output["X_F"])[prefix], output["X_F"])
    if output["weight"] is not None:
        size = size * output["weight"][:, None]
    return sum_to_atoms(size * output["unit_vectors"], output["target"], len(output["X_E"]))


def strained(positions: Tensor, cell: Tensor, strain: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and cell under x -> x (1 + strain); stress is dE/dstrain at 0 over volume."""
    return positions + positions @ strain, cell + cell @ strain
