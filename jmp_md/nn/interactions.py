"""The five message passes of an interaction block (spec section 4).

Letters follow the papers: c -> a is the edge that is updated, b -> a an edge into the same atom,
d -> b an edge into b. Attribute names are those of the official checkpoints.

The first dense layers of the passes that read the edges act on the same input and are evaluated
together by the block, so these passes take the result.

Passes that end on edges return sigma(W_ca y) and sigma(W_ac y) side by side, (n_edges, 2 * emb):
the second belongs to the reverse edge, see :func:`symmetric`.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from jmp_md.graph.layout import Graph, sum_to_target, to_slots
from jmp_md.nn.activation import sigma
from jmp_md.nn.coefficients import BasisProjections
from jmp_md.nn.config import BackboneConfig
from jmp_md.nn.layers import Bilinear, Dense, ResidualLayer, ScaleFactor
from jmp_md.nn.sums import angular_sum, dihedral_sum


def together(layers: list[Dense], x: Tensor) -> Tensor:
    """What dense layers make of the same input, side by side: one product."""
    return sigma(functional.linear(x, torch.cat([layer.linear.weight for layer in layers])))


def symmetric(up: Tensor, graph: Graph) -> Tensor:
    """(y_ca + y_ac of the reverse edge) / sqrt(2), from both side by side."""
    ca, ac = up.chunk(2, dim=1)
    return (ca + ac.index_select(0, graph.swap)).mul_(1.0 / math.sqrt(2.0))


class EdgeToEdge(nn.Module):
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

    def forward(self, x_ba: Tensor, bases: BasisProjections, graph: Graph, n_atoms: int) -> Tensor:
        filtered = x_ba * self.mlp_rbf.times(self.scale_rbf.scale_factor, bases.rad_t)
        x = self.down_projection(self.scale_rbf(filtered, x_ba))
        message = angular_sum(bases.edge_to_edge, to_slots(x, graph.main, n_atoms), graph.main)
        y = self.mlp_cbf.times(self.scale_cbf_sum.scale_factor, message)
        y = self.scale_cbf_sum(y, x)
        return together([self.up_projection_ca, self.up_projection_ac], y)


class QuadrupletInteraction(nn.Module):
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

    def forward(self, x_db: Tensor, bases: BasisProjections, graph: Graph, n_atoms: int) -> Tensor:
        filtered = x_db * self.mlp_rbf.times(self.scale_rbf.scale_factor, bases.rad_q)
        x = self.down_projection(self.scale_rbf(filtered, x_db))
        x_d = to_slots(x, graph.main, n_atoms).index_select(0, bases.quad_sources)
        x_t = x_d * self.mlp_cbf.times(self.scale_cbf.scale_factor, bases.triplet)
        x_t = self.scale_cbf(x_t, x_d)
        message = dihedral_sum(bases, x_t, graph)
        y = self.mlp_sbf.times(self.scale_sbf_sum.scale_factor, message)
        y = self.scale_sbf_sum(y, x_t)
        return together([self.up_projection_ca, self.up_projection_ac], y)


class AtomToEdge(nn.Module):
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

    def forward(self, h: Tensor, bases: BasisProjections, graph: Graph, n_atoms: int) -> Tensor:
        x_ba = self.dense_ba(h).index_select(0, graph.atom_edge.source)
        filtered = x_ba * self.mlp_rbf.times(self.scale_rbf.scale_factor, bases.rad_ae)
        x = self.down_projection(self.scale_rbf(filtered, x_ba))
        message = angular_sum(bases.atom_to_edge, to_slots(x, graph.atom_edge, n_atoms), graph.main)
        y = self.mlp_cbf.times(self.scale_cbf_sum.scale_factor, message)
        y = self.scale_cbf_sum(y, x)
        return together([self.up_projection_ca, self.up_projection_ac], y)


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

    def forward(self, x_ba: Tensor, bases: BasisProjections, graph: Graph, n_atoms: int) -> Tensor:
        filtered = x_ba * self.mlp_rbf.times(self.scale_rbf.scale_factor, bases.rad_ea)
        x = self.down_projection(self.scale_rbf(filtered, x_ba))
        message = torch.bmm(bases.edge_to_atom, to_slots(x, graph.main, n_atoms))
        y = self.mlp_cbf.times(self.scale_cbf_sum.scale_factor, message)
        return self.up_projection_ca(self.scale_cbf_sum(y, x))


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

    def forward(self, h: Tensor, bases: BasisProjections, graph: Graph, n_atoms: int) -> Tensor:
        x = self.down_projection(h)
        x_b = x.index_select(0, bases.atom_atom_sources)
        x_b = x_b.view(n_atoms, graph.atom_atom.slots, x.shape[1])
        message = torch.bmm(bases.atom_to_atom, x_b).flatten(1)
        y = self.bilinear.times(self.scale_rbf_sum.scale_factor, message)
        return self.up_projection(self.scale_rbf_sum(y, x))


class AtomUpdate(nn.Module):
    """Sum of filtered edge embeddings into each atom (``atom_update``, output E part)."""

    def __init__(self, c: BackboneConfig, depth: int) -> None:
        super().__init__()
        self.dense_rbf = Dense(c.emb_size_rbf, c.emb_size_edge, activation=False)
        self.scale_sum = ScaleFactor()
        self.layers = energy_layers(c, depth)

    def forward(self, m: Tensor, rad: Tensor, graph: Graph, n_atoms: int) -> Tensor:
        filtered = m * self.dense_rbf.times(self.scale_sum.scale_factor, rad)
        z = self.scale_sum(sum_to_target(filtered, graph.main, n_atoms), m)
        y: Tensor = self.layers(z)
        return y


def energy_layers(c: BackboneConfig, depth: int) -> nn.Sequential:
    """Sigma dense from edge to atom width (absent when equal), then residual layers."""
    layers: list[nn.Module] = []
    if c.emb_size_edge != c.emb_size_atom:
        layers.append(Dense(c.emb_size_edge, c.emb_size_atom))
    layers += [ResidualLayer(c.emb_size_atom) for _ in range(depth)]
    return nn.Sequential(*layers)
