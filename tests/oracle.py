"""Reference GemNet-OC: the official algorithm, plainly, from the specification.

Every triplet and quadruplet is an index (see oracle_graphs), padded and multiplied. Works on a
state dict with the official names, in the dtype and on the device of the positions, and is
differentiable twice. Section numbers are those of the specification.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from oracle_graphs import (
    OracleEdges,
    PairList,
    Quadruplets,
    directed_graphs,
    official_graphs,
    swap_index,
    triplets,
)
from torch import Tensor

__all__ = [
    "OracleEdges",
    "direct_forces",
    "directed_graphs",
    "energy_head",
    "official_graphs",
    "oracle_forward",
    "strained",
]

Switch = Callable[[Tensor], Tensor]


# --- Layers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """The part of a state dict under a prefix, in the dtype and on the device of ``like``."""

    state: Mapping[str, Tensor]
    like: Tensor
    prefix: str = ""

    def __getitem__(self, name: str) -> Weights:
        return Weights(self.state, self.like, f"{self.prefix}{name}.")

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.state

    def tensor(self, name: str) -> Tensor:
        return self.state[self.prefix + name].to(self.like)


def sigma(x: Tensor) -> Tensor:
    return torch.nn.functional.silu(x) / 0.6


def linear(w: Weights, x: Tensor) -> Tensor:
    return x @ w.tensor("linear.weight").T


def dense(w: Weights, x: Tensor) -> Tensor:
    return sigma(linear(w, x))


def res(w: Weights, x: Tensor) -> Tensor:
    return (x + dense(w["dense_mlp.1"], dense(w["dense_mlp.0"], x))) / math.sqrt(2)


def stack(w: Weights, x: Tensor) -> Tensor:
    """Layers 0, 1, ... of a list, each a dense or a residual layer, as the names tell."""
    index = 0
    while True:
        layer = w[str(index)]
        if "linear.weight" in layer:
            x = dense(layer, x)
        elif "dense_mlp.0.linear.weight" in layer:
            x = res(layer, x)
        else:
            return x
        index += 1


def scale(w: Weights, x: Tensor) -> Tensor:
    """Multiply by the scale factor; 0 stands for one that was never fitted."""
    factor = w.tensor("scale_factor")
    return x * torch.where(factor == 0, torch.ones_like(factor), factor)


def mlp(w: Weights, x: Tensor) -> Tensor:
    """A head: linear layers 0, 2, 4, ... with sigma between them, biases where stored."""
    index = 0
    while True:
        x = x @ w.tensor(f"{index}.weight").T
        if f"{index}.bias" in w:
            x = x + w.tensor(f"{index}.bias")
        index += 2
        if f"{index}.weight" not in w:
            return x
        x = sigma(x)


# --- Section 2: bases -----------------------------------------------------------------------


@dataclass(frozen=True)
class Geometry:
    """Edges with their lengths d (E,) in Å and unit vectors V (E, 3) from source to target."""

    edges: OracleEdges
    distance: Tensor
    unit: Tensor

    @classmethod
    def of(cls, edges: OracleEdges, positions: Tensor, cell: Tensor) -> Geometry:
        shift = edges.offset.to(positions) @ cell
        r = positions[edges.target] - positions[edges.source] - shift
        distance = r.norm(dim=1)
        return cls(edges, distance, r / distance[:, None])


def radial_basis(w: Weights, distance: Tensor, basis_cutoff: float) -> Tensor:
    """phi_r(d), (E, num_radial), with the stored centres and widths."""
    x = (distance / basis_cutoff)[:, None]
    envelope = torch.where(x < 1, 1 - 21 * x**5 + 35 * x**6 - 15 * x**7, torch.zeros_like(x))
    return envelope * torch.exp(-w.tensor("rbf.temps").abs() * (x - w.tensor("rbf.offset")) ** 2)


def angular_basis(z: Tensor, num_spherical: int) -> Tensor:
    """Y_l(z) = sqrt((2l+1)/(4 pi)) P_l(z), (..., num_spherical).

    Cosines are not clamped: rounding beyond 1 is harmless in a polynomial, and a clamp would
    cut the second derivative of triples exactly in line.
    """
    legendre = [torch.ones_like(z), z]
    for n in range(1, num_spherical - 1):
        legendre.append(((2 * n + 1) * z * legendre[n] - n * legendre[n - 1]) / (n + 1))
    norm = [math.sqrt((2 * n + 1) / (4 * math.pi)) for n in range(num_spherical)]
    return torch.stack([c * p for c, p in zip(norm, legendre, strict=False)], dim=-1)


def cos_dihedral(p: Tensor, q: Tensor, degenerate: float) -> Tensor:
    """cos of the angle between normals p and q (Q, 3); 0 without gradient where one vanishes."""
    lost = torch.minimum(p.detach().norm(dim=1), q.detach().norm(dim=1)) < degenerate
    axis_1, axis_2 = torch.eye(3, dtype=p.dtype, device=p.device)[:2]
    p = torch.where(lost[:, None], axis_1, p)
    q = torch.where(lost[:, None], axis_2, q)
    return (p * q).sum(1) / (p.norm(dim=1) * q.norm(dim=1))


# --- Section 3: shared projections ----------------------------------------------------------


def project_basis(w: Weights, phi: Tensor) -> Tensor:
    """R (E, I, S) from a weight (num_radial, S, I): flattened, multiplied, *reshaped*."""
    weight = w.tensor("weight")
    return (phi @ weight.flatten(1)).view(len(phi), weight.shape[2], weight.shape[1])


@dataclass(frozen=True)
class Bases:
    """Everything that depends on geometry alone, computed once for all blocks."""

    rad_t: Tensor
    rad_q: Tensor
    rad_ae: Tensor
    rad_ea: Tensor
    rad_h: Tensor
    rad_o: Tensor
    R_aa: Tensor
    R_t: Tensor
    R_ae: Tensor
    R_ea: Tensor
    R_qs: Tensor
    g_t: Tensor
    Y_t: Tensor
    Y_ae: Tensor
    Y_ea: Tensor
    Y_q: Tensor


@dataclass(frozen=True)
class Structure:
    """The four graphs with their geometry, and the index lists."""

    main: Geometry
    atom_edge: Geometry
    quadruplet: Geometry
    atom_atom: Geometry
    n_atoms: int
    swap: Tensor
    e2e: PairList
    a2e: PairList
    e2a: PairList
    quads: Quadruplets

    @classmethod
    def of(cls, positions: Tensor, cell: Tensor, graphs: Mapping[str, OracleEdges]) -> Structure:
        main, atom_edge, inter = (graphs[k] for k in ("main", "atom_edge", "quadruplet"))
        return cls(
            *(Geometry.of(e, positions, cell) for e in (main, atom_edge, inter)),
            Geometry.of(graphs["atom_atom"], positions, cell),
            len(positions),
            swap_index(main),
            triplets(main, main),
            triplets(main, atom_edge),
            triplets(atom_edge, main),
            Quadruplets.build(main, inter),
        )


def triplet_basis(pairs: PairList, out: Geometry, inp: Geometry, num_spherical: int) -> Tensor:
    """Y_s(V_ca . V_ba), padded to (E_out, width, S)."""
    cosine = (out.unit[pairs.out] * inp.unit[pairs.inp]).sum(1)
    return pairs.pad(angular_basis(cosine, num_spherical))


def quadruplet_basis(
    s: Structure, num_spherical: int, degenerate: float, switch: Switch | None
) -> Tensor:
    """Y_l1(cos phi_cab) Y_l2(cos theta_cabd), padded to (E_main, width, S * S)."""
    quads, V, V_ba = s.quads, s.main.unit, s.quadruplet.unit
    cos_cab = (V[quads.ca] * V_ba[quads.ba]).sum(1)[quads.middle]
    p = torch.linalg.cross(V[quads.ca], V_ba[quads.ba])
    q = torch.linalg.cross(V[quads.db], V_ba[quads.ba_in])
    t_out, t_in = quads.middle, quads.pairs.inp
    Y_theta = angular_basis(cos_dihedral(p[t_out], q[t_in], degenerate), num_spherical)
    if switch is not None:  # section 8, item 3
        s_c, s_d = switch((p * p).sum(1)), switch((q * q).sum(1))
        Y_zero = angular_basis(Y_theta.new_zeros(()), num_spherical)
        Y_theta = Y_zero + (s_c[t_out] * s_d[t_in])[:, None] * (Y_theta - Y_zero)
    Y_phi = quads.pairs.pad(angular_basis(cos_cab, num_spherical))
    return (Y_phi[..., :, None] * quads.pairs.pad(Y_theta)[..., None, :]).flatten(2)


def bases(w: Weights, s: Structure, config: Any, degenerate: float, switch: Switch | None) -> Bases:
    def phi(name: str, graph: Geometry) -> Tensor:
        return radial_basis(w[name], graph.distance, config.basis_cutoff)

    S, quads = config.num_spherical, s.quads
    main = phi("radial_basis", s.main)
    R_qc = project_basis(w["mlp_cbf_qint"], phi("cbf_basis_qint.radial_basis", s.quadruplet))
    cos_abd = (s.quadruplet.unit[quads.ba_in] * s.main.unit[quads.db]).sum(1)
    return Bases(
        rad_t=linear(w["mlp_rbf_tint"], main),
        rad_q=linear(w["mlp_rbf_qint"], main),
        rad_ae=linear(w["mlp_rbf_aeint"], phi("radial_basis_aeaint", s.atom_edge)),
        rad_ea=linear(w["mlp_rbf_eaint"], main),
        rad_h=linear(w["mlp_rbf_h"], main),
        rad_o=linear(w["mlp_rbf_out"], main),
        R_aa=phi("radial_basis_aint", s.atom_atom) @ w.tensor("mlp_rbf_aint.weight").T,
        R_t=project_basis(w["mlp_cbf_tint"], phi("cbf_basis_tint.radial_basis", s.main)),
        R_ae=project_basis(w["mlp_cbf_aeint"], phi("cbf_basis_aeint.radial_basis", s.main)),
        R_ea=project_basis(w["mlp_cbf_eaint"], phi("cbf_basis_eaint.radial_basis", s.atom_edge)),
        R_qs=project_basis(w["mlp_sbf_qint"], phi("sbf_basis_qint.radial_basis", s.main)),
        g_t=torch.einsum("til,tl->ti", R_qc[quads.ba_in], angular_basis(cos_abd, S)),
        Y_t=triplet_basis(s.e2e, s.main, s.main, S),
        Y_ae=triplet_basis(s.a2e, s.main, s.atom_edge, S),
        Y_ea=triplet_basis(s.e2a, s.atom_edge, s.main, S),
        Y_q=quadruplet_basis(s, S, degenerate, switch),
    )


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
