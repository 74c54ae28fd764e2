"""The five message passes of an interaction block (spec section 4).

Letters follow the papers: c -> a is the edge that is updated, b -> a an edge into the same atom,
d -> b an edge into b. Attribute names are those of the official checkpoints.

The first dense layers of all passes that read the edges act on the same input and are evaluated
together by the block, so these passes take the result.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from jmp_md.graph.layout import Graph, from_slots, sum_to_target, to_slots
from jmp_md.nn.bases import BasisProjections
from jmp_md.nn.config import BackboneConfig
from jmp_md.nn.layers import (
    Bilinear,
    Dense,
    Derived,
    Layers,
    ResidualLayer,
    Scaled,
    ScaleFactor,
    joined,
    sigma,
)


class EdgePass(nn.Module):
    """A pass that ends on edges: sigma(W_ca y) for the edge c -> a, sigma(W_ac y) for a -> c."""

    def __init__(self) -> None:
        super().__init__()
        self._up = Derived()

    def up(self, y: Scaled, ca: Tensor, ac: Tensor) -> Scaled:
        """Both side by side, (n_edges, 2 * emb_edge), from the two weights."""
        if torch.jit.is_scripting():
            weight = self._up.kept
        else:
            weight = self._up.of(joined, [ca, ac], y.gain)
        return sigma(functional.linear(y.value, weight))


def angular_sum(coefficients: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    """M[i] = sum_l F[ca, i, l] sum_b f_l(cos phi_cab) x_b of :mod:`jmp_md.nn.bases`.

    Args:
        coefficients: F (n * k, emb_cbf, S) and weighted functions f (n, k * S, slots).
        x: (n, slots, emb) by edges b -> a.

    Returns:
        (n * k, emb_cbf, emb) by edges c -> a.
    """
    factors, functions = coefficients
    sums = torch.bmm(functions, x).view(factors.shape[0], factors.shape[2], x.shape[2])
    return torch.bmm(factors, sums)


class EdgeToEdge(EdgePass):
    """Triplets: edges b -> a act on the edge c -> a (``trip_interaction``)."""

    def __init__(self, c: BackboneConfig) -> None:
        super().__init__()
        self.dense_ba = Dense(c.emb_size_edge, c.emb_size_edge)
        self.mlp_rbf = Dense(c.emb_size_rbf, c.emb_size_edge, activation=False)
        self.scale_rbf = ScaleFactor()
        self.mlp_cbf = Bilinear(c.emb_size_cbf, c.emb_size_trip_in, c.emb_size_trip_out)
        self.scale_cbf_sum = ScaleFactor()
        self.down_projection = Dense(c.emb_size_edge, c.emb_size_trip_in)
        self.up_projection_ca = Dense(c.emb_size_trip_out, c.emb_size_edge)
        self.up_projection_ac = Dense(c.emb_size_trip_out, c.emb_size_edge)

    def forward(self, x_ba: Scaled, bases: BasisProjections, graph: Graph, n_atoms: int) -> Scaled:
        filtered = x_ba.value * self.mlp_rbf.times(self.scale_rbf.scale_factor, bases.rad_t)
        x = self.down_projection(self.scale_rbf(Scaled(filtered, x_ba.gain), x_ba))
        message = angular_sum(bases.edge_to_edge, to_slots(x.value, graph.main, n_atoms))
        y = self.mlp_cbf.times(self.scale_cbf_sum.scale_factor, from_slots(message, graph.main))
        y_ca = self.scale_cbf_sum(Scaled(y, x.gain), x)
        ca, ac = self.up_projection_ca.linear.weight, self.up_projection_ac.linear.weight
        return self.up(y_ca, ca, ac)


class QuadrupletInteraction(EdgePass):
    """Quadruplets d -> b -> a <- c by the azimuth about b -> a (``quad_interaction``)."""

    def __init__(self, c: BackboneConfig) -> None:
        super().__init__()
        self.dense_db = Dense(c.emb_size_edge, c.emb_size_edge)
        self.mlp_rbf = Dense(c.emb_size_rbf, c.emb_size_edge, activation=False)
        self.scale_rbf = ScaleFactor()
        self.mlp_cbf = Dense(c.emb_size_cbf, c.emb_size_quad_in, activation=False)
        self.scale_cbf = ScaleFactor()
        self.mlp_sbf = Bilinear(c.emb_size_sbf, c.emb_size_quad_in, c.emb_size_quad_out)
        self.scale_sbf_sum = ScaleFactor()
        self.down_projection = Dense(c.emb_size_edge, c.emb_size_quad_in)
        self.up_projection_ca = Dense(c.emb_size_quad_out, c.emb_size_edge)
        self.up_projection_ac = Dense(c.emb_size_quad_out, c.emb_size_edge)
        self.emb_sbf = c.emb_size_sbf
        self.n_series = 2 * c.num_spherical

    def forward(self, x_db: Scaled, bases: BasisProjections, graph: Graph, n_atoms: int) -> Scaled:
        filtered = x_db.value * self.mlp_rbf.times(self.scale_rbf.scale_factor, bases.rad_q)
        x = self.down_projection(self.scale_rbf(Scaled(filtered, x_db.gain), x_db))
        k, kq, emb = graph.main.slots, graph.quadruplet.slots, x.value.shape[1]
        x_d = to_slots(x.value, graph.main, n_atoms).index_select(0, bases.quad_sources)
        x_t = x_d * self.mlp_cbf.times(self.scale_cbf.scale_factor, bases.triplet)
        x_t = self.scale_cbf(Scaled(x_t, x.gain), Scaled(x_d, x.gain)).value

        series = torch.bmm(bases.quad_in, x_t).view(n_atoms, kq, self.n_series, emb)
        series = series.transpose(1, 2).reshape(n_atoms, self.n_series * kq, emb)
        message = torch.bmm(bases.quad_out, series).view(n_atoms * k, self.emb_sbf, emb)
        closing = x_t.view(n_atoms * kq * k, emb).index_select(0, graph.closing)
        closing = closing.view(n_atoms * k, kq, emb)
        message = torch.baddbmm(message, bases.quad_closing, closing, alpha=-1.0)

        y = self.mlp_sbf.times(self.scale_sbf_sum.scale_factor, from_slots(message, graph.main))
        y_ca = self.scale_sbf_sum(Scaled(y, x.gain), Scaled(x_t, x.gain))
        ca, ac = self.up_projection_ca.linear.weight, self.up_projection_ac.linear.weight
        return self.up(y_ca, ca, ac)


class AtomToEdge(EdgePass):
    """Atoms b near a act on the edge c -> a (``atom_edge_interaction``)."""

    def __init__(self, c: BackboneConfig) -> None:
        super().__init__()
        self.dense_ba = Dense(c.emb_size_atom, c.emb_size_atom)
        self.mlp_rbf = Dense(c.emb_size_rbf, c.emb_size_atom, activation=False)
        self.scale_rbf = ScaleFactor()
        self.mlp_cbf = Bilinear(c.emb_size_cbf, c.emb_size_trip_in, c.emb_size_trip_out)
        self.scale_cbf_sum = ScaleFactor()
        self.down_projection = Dense(c.emb_size_atom, c.emb_size_trip_in)
        self.up_projection_ca = Dense(c.emb_size_trip_out, c.emb_size_edge)
        self.up_projection_ac = Dense(c.emb_size_trip_out, c.emb_size_edge)

    def forward(self, h: Scaled, bases: BasisProjections, graph: Graph, n_atoms: int) -> Scaled:
        x_b = self.dense_ba(h)
        x_ba = Scaled(x_b.value.index_select(0, graph.atom_edge.source), x_b.gain)
        filtered = x_ba.value * self.mlp_rbf.times(self.scale_rbf.scale_factor, bases.rad_ae)
        x = self.down_projection(self.scale_rbf(Scaled(filtered, x_ba.gain), x_ba))
        message = angular_sum(bases.atom_to_edge, to_slots(x.value, graph.atom_edge, n_atoms))
        y = self.mlp_cbf.times(self.scale_cbf_sum.scale_factor, from_slots(message, graph.main))
        y_ca = self.scale_cbf_sum(Scaled(y, x.gain), x)
        ca, ac = self.up_projection_ca.linear.weight, self.up_projection_ac.linear.weight
        return self.up(y_ca, ca, ac)


class EdgeToAtom(nn.Module):
    """Edges b -> a act on the atom a through its neighbours c (``edge_atom_interaction``)."""

    def __init__(self, c: BackboneConfig) -> None:
        super().__init__()
        self.dense_ba = Dense(c.emb_size_edge, c.emb_size_edge)
        self.mlp_rbf = Dense(c.emb_size_rbf, c.emb_size_edge, activation=False)
        self.scale_rbf = ScaleFactor()
        self.mlp_cbf = Bilinear(c.emb_size_cbf, c.emb_size_trip_in, c.emb_size_trip_out)
        self.scale_cbf_sum = ScaleFactor()
        self.down_projection = Dense(c.emb_size_edge, c.emb_size_trip_in)
        self.up_projection_ca = Dense(c.emb_size_trip_out, c.emb_size_atom)

    def forward(self, x_ba: Scaled, bases: BasisProjections, graph: Graph, n_atoms: int) -> Scaled:
        filtered = x_ba.value * self.mlp_rbf.times(self.scale_rbf.scale_factor, bases.rad_ea)
        x = self.down_projection(self.scale_rbf(Scaled(filtered, x_ba.gain), x_ba))
        message = torch.bmm(bases.edge_to_atom, to_slots(x.value, graph.main, n_atoms))
        y = self.mlp_cbf.times(self.scale_cbf_sum.scale_factor, message)
        return self.up_projection_ca(self.scale_cbf_sum(Scaled(y, x.gain), x))


class AtomToAtom(nn.Module):
    """Atoms b act on the atom a by distance alone (``atom_interaction``)."""

    def __init__(self, c: BackboneConfig) -> None:
        super().__init__()
        self.bilinear = Dense(
            c.emb_size_rbf * c.emb_size_aint_in, c.emb_size_aint_out, activation=False
        )
        self.scale_rbf_sum = ScaleFactor()
        self.down_projection = Dense(c.emb_size_atom, c.emb_size_aint_in)
        self.up_projection = Dense(c.emb_size_aint_out, c.emb_size_atom)

    def forward(self, h: Scaled, bases: BasisProjections, graph: Graph, n_atoms: int) -> Scaled:
        x = self.down_projection(h)
        x_b = x.value.index_select(0, bases.atom_atom_sources)
        x_b = x_b.view(n_atoms, graph.atom_atom.slots, x.value.shape[1])
        message = torch.bmm(bases.atom_to_atom, x_b).flatten(1)
        y = self.bilinear.times(self.scale_rbf_sum.scale_factor, message)
        return self.up_projection(self.scale_rbf_sum(Scaled(y, x.gain), x))


class AtomUpdate(nn.Module):
    """Sum of filtered edge embeddings into each atom (``atom_update``, output E part)."""

    def __init__(self, c: BackboneConfig, depth: int) -> None:
        super().__init__()
        self.dense_rbf = Dense(c.emb_size_rbf, c.emb_size_edge, activation=False)
        self.scale_sum = ScaleFactor()
        self.layers = energy_layers(c, depth)

    def forward(self, m: Scaled, rad: Tensor, graph: Graph, n_atoms: int) -> Scaled:
        filtered = m.value * self.dense_rbf.times(self.scale_sum.scale_factor, rad)
        z = Scaled(sum_to_target(filtered, graph.main, n_atoms), m.gain)
        return self.layers(self.scale_sum(z, m))


def energy_layers(c: BackboneConfig, depth: int) -> Layers:
    """Sigma dense from edge to atom width (absent when equal), then residual layers."""
    layers: list[nn.Module] = []
    if c.emb_size_edge != c.emb_size_atom:
        layers.append(Dense(c.emb_size_edge, c.emb_size_atom))
    layers += [ResidualLayer(c.emb_size_atom) for _ in range(depth)]
    return Layers(*layers)
