"""Layers, bases and shared projections of the reference GemNet-OC (spec sections 2 and 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from oracle_graphs import OracleEdges, PairList, Quadruplets, swap_index, triplets
from torch import Tensor

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


def plane_normal(v: Tensor, axis: Tensor, degenerate: float) -> tuple[Tensor, Tensor]:
    """Unit vectors along v x axis (T, 3), and sin^2 of the angle between them (T,).

    cos theta = p . q of two such normals. One of a triple in line is the zero vector without
    gradient, which makes cos theta zero too; atan2 of the specification gives the same numbers.
    """
    normal = torch.linalg.cross(v, axis)
    sin2 = (normal * normal).sum(1)
    lost = (sin2.detach() < degenerate**2)[:, None]
    safe = torch.where(lost, torch.ones_like(normal), normal)
    unit = torch.where(lost, torch.zeros_like(normal), safe / safe.norm(dim=1, keepdim=True))
    return unit, sin2


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
            main=Geometry.of(main, positions, cell),
            atom_edge=Geometry.of(atom_edge, positions, cell),
            quadruplet=Geometry.of(inter, positions, cell),
            atom_atom=Geometry.of(graphs["atom_atom"], positions, cell),
            n_atoms=len(positions),
            swap=swap_index(main),
            e2e=triplets(main, main),
            a2e=triplets(main, atom_edge),
            e2a=triplets(atom_edge, main),
            quads=Quadruplets.build(main, inter),
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
    t_out, t_in = quads.middle, quads.pairs.inp
    Y_phi = angular_basis((V[quads.ca] * V_ba[quads.ba]).sum(1), num_spherical)
    p, sin2_c = plane_normal(V[quads.ca], V_ba[quads.ba], degenerate)
    q, sin2_d = plane_normal(V[quads.db], V_ba[quads.ba_in], degenerate)
    Y_theta = angular_basis((p[t_out] * q[t_in]).sum(1), num_spherical)
    if switch is not None:  # section 8, item 3
        s_cd = switch(sin2_c)[t_out] * switch(sin2_d)[t_in]
        Y_zero = angular_basis(Y_theta.new_zeros(()), num_spherical)
        Y_theta = Y_zero + s_cd[:, None] * (Y_theta - Y_zero)
    Y_phi, Y_theta = quads.pairs.pad(Y_phi[t_out]), quads.pairs.pad(Y_theta)
    return (Y_phi[..., :, None] * Y_theta[..., None, :]).flatten(2)


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
