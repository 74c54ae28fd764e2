"""What all interaction blocks share: radial projections and angular coefficients.

The official network lists every triplet and quadruplet, weights each by radial and angular
functions, and does so again in every block. The weights are the same in all blocks, so here they
become dense coefficient blocks, computed once per structure:

- e2e:  y_ca = W vec(M), M[i] = sum_b C[c, i, b] x_b with
  C[c, i, b] = sum_l R[ca, i, l] Y_l(cos phi_cab): one small matrix product per atom and block.
- e2a:  the sum over both edges closes, so C[i, b] = sum_c,l R[ca, i, l] Y_l(cos phi_cab).
- quadruplets: with azimuths about the axis b -> a, the sum over d becomes a Fourier series
  A[m] = sum_d e^(i m alpha_d) x_d per edge b -> a, read out for c with e^(-i m alpha_c).

Every edge weight of the smooth graph is folded in here; the blocks never see it.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from jmp_md.graph.layout import Edges, Graph, source_slots, to_slots
from jmp_md.nn.angular import (
    azimuth_series,
    cosine_coefficients,
    orthogonal_frame,
    power_coefficients,
    powers,
)
from jmp_md.nn.config import BackboneConfig
from jmp_md.nn.layers import Dense, he_orthogonal_, scaled_silu


class BasisProjections(NamedTuple):
    """Per-structure inputs of every block. n atoms; k, ka, kq, kaa slots; E main edges.

    Attributes:
        rad_t, rad_q, rad_ea: (E, emb_rbf) radial filters of main edges.
        rad_ae: (E_ae, emb_rbf) radial filters of atom-edge edges.
        rad_h, rad_o: (E, emb_rbf) filters of atom update and energy output, edge-weighted.
        rad_f: (E, emb_rbf) the filter of the force output, not weighted.
        edge_to_edge: (n, k * emb_cbf, k) coefficients.
        atom_to_edge: (n, k * emb_cbf, ka) coefficients.
        edge_to_atom: (n, emb_cbf, k) coefficients.
        atom_to_atom: (n, emb_rbf, kaa) coefficients.
        atom_atom_sources: (n * kaa,) source atom of each slot.
        triplet: (n * kq, k, emb_cbf) radial-angular filter g of d -> b -> a.
        quad_sources: (n * kq,) atom b of each quadruplet slot.
        quad_in: (n * kq, 2S, k) azimuth series of d about b -> a.
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
    edge_to_edge: Tensor
    atom_to_edge: Tensor
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


class BasisWeight(nn.Module):
    """A bare weight that maps the radial basis to something, in the official layout."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*shape))
        with torch.no_grad():
            if len(shape) == 2:
                he_orthogonal_(self.weight)
            else:
                fan_in = shape[0] * shape[1]
                for i in range(shape[2]):
                    he_orthogonal_(self.weight[:, :, i], fan_in)


class EdgeEmbedding(nn.Module):
    """m_ca = sigma(W [h_c, h_a, phi(d_ca)]), evaluated by columns of W.

    The columns of atoms act on n_atoms rows, not n_edges, before they are gathered.
    """

    def __init__(self, emb_atom: int, n_edge_features: int, out_features: int) -> None:
        super().__init__()
        self.emb_atom = emb_atom
        self.dense = Dense(2 * emb_atom + n_edge_features, out_features)

    def forward(self, h: Tensor, edge_features: Tensor, edges: Edges) -> Tensor:
        weight = self.dense.linear.weight
        from_source = h @ weight[:, : self.emb_atom].t()
        from_target = h @ weight[:, self.emb_atom : 2 * self.emb_atom].t()
        total = edge_features @ weight[:, 2 * self.emb_atom :].t()
        total = total + from_source.index_select(0, edges.source)
        return scaled_silu(total + from_target.index_select(0, edges.target))


class Bases(nn.Module):
    """Projections of the bases (spec section 3) and the coefficients made from them."""

    power_series: Tensor
    cosine_series: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        c = config
        self.num_spherical = c.num_spherical
        self.emb_cbf, self.emb_sbf = c.emb_size_cbf, c.emb_size_sbf
        self.mlp_rbf_tint = Dense(c.num_radial, c.emb_size_rbf, activation=False)
        self.mlp_rbf_qint = Dense(c.num_radial, c.emb_size_rbf, activation=False)
        self.mlp_rbf_aeint = Dense(c.num_radial, c.emb_size_rbf, activation=False)
        self.mlp_rbf_eaint = Dense(c.num_radial, c.emb_size_rbf, activation=False)
        self.mlp_rbf_h = Dense(c.num_radial, c.emb_size_rbf, activation=False)
        self.mlp_rbf_out = Dense(c.num_radial, c.emb_size_rbf, activation=False)
        self.mlp_rbf_aint = BasisWeight(c.emb_size_rbf, c.num_radial)
        cbf_shape = (c.num_radial, c.num_spherical, c.emb_size_cbf)
        self.mlp_cbf_tint = BasisWeight(*cbf_shape)
        self.mlp_cbf_aeint = BasisWeight(*cbf_shape)
        self.mlp_cbf_eaint = BasisWeight(*cbf_shape)
        self.mlp_cbf_qint = BasisWeight(*cbf_shape)
        self.mlp_sbf_qint = BasisWeight(c.num_radial, c.num_spherical**2, c.emb_size_sbf)
        self.edge_emb = EdgeEmbedding(c.emb_size_atom, c.num_radial, c.emb_size_edge)
        # Constants of mathematics: kept in float64, cast on use, never saved.
        self.register_buffer("power_series", power_coefficients(c.num_spherical), persistent=False)
        self.register_buffer(
            "cosine_series", cosine_coefficients(c.num_spherical), persistent=False
        )

    def forward(self, radial: RadialFeatures, graph: Graph, n_atoms: int) -> BasisProjections:
        """Coefficients for all blocks of a structure or batch."""
        main, atom_edge = graph.main, graph.atom_edge
        main_basis = radial.main
        main_weight = main.weight.unsqueeze(-1)

        units = to_slots(main.unit, main, n_atoms)
        units_ae = to_slots(atom_edge.unit, atom_edge, n_atoms)
        weights = to_slots(main.weight, main, n_atoms)
        weights_ae = to_slots(atom_edge.weight, atom_edge, n_atoms)
        edge_to_edge = self._pair_coefficients(
            self._circular(self.mlp_cbf_tint.weight, main_basis, main, n_atoms),
            units @ units.transpose(1, 2),
            graph.differ_main.to(weights.dtype) * weights.unsqueeze(1),
        )
        cos_ae = units @ units_ae.transpose(1, 2)
        differ = graph.differ_atom_edge.to(weights.dtype)
        atom_to_edge = self._pair_coefficients(
            self._circular(self.mlp_cbf_aeint.weight, main_basis, main, n_atoms),
            cos_ae,
            differ * weights_ae.unsqueeze(1),
        )
        per_pair = self._pair_coefficients(
            self._circular(self.mlp_cbf_eaint.weight, radial.atom_edge, atom_edge, n_atoms),
            cos_ae.transpose(1, 2),
            (differ * weights_ae.unsqueeze(1)).transpose(1, 2) * weights.unsqueeze(1),
        )
        edge_to_atom = per_pair.view(n_atoms, atom_edge.slots, self.emb_cbf, main.slots).sum(dim=1)

        rad_aa = radial.atom_atom @ self.mlp_rbf_aint.weight.t()
        rad_aa = rad_aa * graph.atom_atom.weight.unsqueeze(-1)
        triplet, quad_in, quad_out, quad_closing = self._quadruplets(
            radial, units, weights, graph, n_atoms
        )
        rad_out = self.mlp_rbf_out(main_basis)
        return BasisProjections(
            rad_t=self.mlp_rbf_tint(main_basis),
            rad_q=self.mlp_rbf_qint(main_basis),
            rad_ae=self.mlp_rbf_aeint(radial.atom_edge),
            rad_ea=self.mlp_rbf_eaint(main_basis),
            rad_h=self.mlp_rbf_h(main_basis) * main_weight,
            rad_o=rad_out * main_weight,
            rad_f=rad_out,
            edge_to_edge=edge_to_edge,
            atom_to_edge=atom_to_edge,
            edge_to_atom=edge_to_atom,
            atom_to_atom=to_slots(rad_aa, graph.atom_atom, n_atoms).transpose(1, 2),
            atom_atom_sources=source_slots(graph.atom_atom, n_atoms),
            triplet=triplet,
            quad_sources=source_slots(graph.quadruplet, n_atoms),
            quad_in=quad_in,
            quad_out=quad_out,
            quad_closing=quad_closing,
        )

    def _circular(self, weight: Tensor, basis: Tensor, edges: Edges, n_atoms: int) -> Tensor:
        """Radial factors of a power series in the cosine: (n_atoms, slots, emb_cbf, S)."""
        # The official code flattens (radial, S, I) and reads it back as (radial, I, S).
        folded = weight.reshape(-1, self.num_spherical) @ self.power_series.to(weight.dtype)
        flat = basis @ folded.view(basis.shape[1], self.emb_cbf * self.num_spherical)
        slots = to_slots(flat, edges, n_atoms)
        return slots.view(n_atoms, edges.slots, self.emb_cbf, self.num_spherical)

    def _pair_coefficients(self, factors: Tensor, cosine: Tensor, weight: Tensor) -> Tensor:
        """C[c, i, b] = weight[c, b] sum_l R[c, i, l] Y_l(cos[c, b]).

        factors (n, kc, I, S), cosine and weight (n, kc, kb) -> (n, kc * I, kb).
        """
        n, kc, emb, _ = factors.shape
        kb = cosine.shape[2]
        series = powers(cosine, self.num_spherical) * weight.unsqueeze(2)
        return (factors @ series).view(n, kc * emb, kb)

    def _quadruplets(
        self,
        radial: RadialFeatures,
        units: Tensor,
        weights: Tensor,
        graph: Graph,
        n_atoms: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        main, quad = graph.main, graph.quadruplet
        S, k, kq = self.num_spherical, main.slots, quad.slots
        axis = to_slots(quad.unit, quad, n_atoms)
        frame = orthogonal_frame(axis)  # an empty slot's zero axis gives a harmless frame
        sources = source_slots(quad, n_atoms)

        # Input side: main edges d -> b seen from b -> a.
        units_d = units.index_select(0, sources).transpose(1, 2)
        cos_d = (axis.view(n_atoms * kq, 1, 3) @ units_d).squeeze(1)
        circular = self._circular(self.mlp_cbf_qint.weight, radial.quadruplet, quad, n_atoms)
        series_d = powers(cos_d, S).transpose(1, 2)
        triplet = series_d @ circular.view(n_atoms * kq, self.emb_cbf, S).transpose(1, 2)
        weight_d = weights.index_select(0, sources) * graph.open_triplet.to(weights.dtype)
        azimuth_d = azimuth_series(
            frame.view(n_atoms * kq, 2, 3) @ units_d, S, graph.inline_sin2, graph.smooth
        )
        quad_in = azimuth_d * weight_d.unsqueeze(1)

        # Output side: main edges c -> a seen from b -> a.
        cos_c = units @ axis.transpose(1, 2)
        weight_q = to_slots(quad.weight, quad, n_atoms)
        differ = graph.differ_quadruplet.to(weights.dtype) * weight_q.unsqueeze(1)
        series_c = powers(cos_c, S) * differ.unsqueeze(2)
        radial_c = to_slots(radial.main @ self._spherical_weight(), main, n_atoms)
        # (i, m) factors of each pair of edges c -> a, b -> a.
        factors = radial_c.view(n_atoms, k, self.emb_sbf * (S + 1), S) @ series_c
        factors = factors.view(n_atoms, k, self.emb_sbf, S + 1, kq)
        in_plane = frame.view(n_atoms, kq * 2, 3) @ units.transpose(1, 2)
        in_plane = in_plane.view(n_atoms, kq, 2, k).permute(0, 3, 2, 1)
        azimuth_c = azimuth_series(in_plane, S, graph.inline_sin2, graph.smooth)
        expanded = torch.cat([factors[:, :, :, :S], factors[:, :, :, 1:]], dim=3)
        quad_out = expanded * azimuth_c.unsqueeze(2)

        # d == c: the dihedral is 0, so all cosines are 1.
        switch_c = azimuth_c[:, :, 0]
        switch_d = azimuth_d[:, 0].reshape(-1).index_select(0, graph.closing).view(n_atoms, k, kq)
        weight_dc = weight_d.reshape(-1).index_select(0, graph.closing).view(n_atoms, k, kq)
        aligned = factors[:, :, :, :S].sum(dim=3) * (switch_c * switch_d).unsqueeze(2)
        quad_closing = (factors[:, :, :, S] + aligned) * (
            weight_dc * graph.is_closing.to(weights.dtype)
        ).unsqueeze(2)
        return (
            triplet,
            quad_in,
            quad_out.reshape(n_atoms, k * self.emb_sbf, 2 * S * kq),
            quad_closing.reshape(n_atoms * k, self.emb_sbf, kq),
        )

    def _spherical_weight(self) -> Tensor:
        """Weight of the spherical basis with both angular series folded in.

        (num_radial, emb_sbf * (S + 1) * S), the last index a power of cos phi.
        """
        S = self.num_spherical
        weight = self.mlp_sbf_qint.weight
        # As in _circular: flattened, then read back with the angular index last.
        series = weight.reshape(-1, S) @ self.cosine_series.to(weight.dtype)
        series = series.view(-1, S, S + 1).transpose(1, 2)
        return (series @ self.power_series.to(weight.dtype)).reshape(weight.shape[0], -1)
