"""The five message passes of an interaction block (spec section 4).

Letters follow the papers: c -> a is the edge that is updated, b -> a an edge into the same atom,
d -> b an edge into b. Attribute names are those of the official checkpoints.
"""

import math

from torch import Tensor, nn

from jmp_md.graph.layout import Graph, from_slots, sum_to_target, to_slots
from jmp_md.nn.bases import BasisProjections
from jmp_md.nn.config import BackboneConfig
from jmp_md.nn.layers import Bilinear, Dense, ResidualLayer, ScaleFactor


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
        self.emb_cbf = c.emb_size_cbf

    def forward(self, m: Tensor, bases: BasisProjections, graph: Graph, n_atoms: int) -> Tensor:
        x = self.dense_ba(m)
        x = self.down_projection(self.scale_rbf(x * self.mlp_rbf(bases.rad_t), x))
        message = bases.edge_to_edge @ to_slots(x, graph.main, n_atoms)
        message = message.view(n_atoms * graph.main.slots, self.emb_cbf, x.shape[1])
        y = self.scale_cbf_sum(self.mlp_cbf(from_slots(message, graph.main)), x)
        from_swap = self.up_projection_ac(y).index_select(0, graph.swap)
        return (self.up_projection_ca(y) + from_swap) / math.sqrt(2.0)


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
        self.emb_sbf = c.emb_size_sbf
        self.n_series = 2 * c.num_spherical

    def forward(self, m: Tensor, bases: BasisProjections, graph: Graph, n_atoms: int) -> Tensor:
        x = self.dense_db(m)
        x = self.down_projection(self.scale_rbf(x * self.mlp_rbf(bases.rad_q), x))
        k, kq, emb = graph.main.slots, graph.quadruplet.slots, x.shape[1]
        x_db = to_slots(x, graph.main, n_atoms).index_select(0, bases.quad_sources)
        x_t = self.scale_cbf(x_db * self.mlp_cbf(bases.triplet), x_db)

        series = (bases.quad_in @ x_t).view(n_atoms, kq, self.n_series, emb)
        series = series.transpose(1, 2).reshape(n_atoms, self.n_series * kq, emb)
        message = (bases.quad_out @ series).view(n_atoms * k, self.emb_sbf, emb)
        aligned = x_t.reshape(n_atoms * kq * k, emb).index_select(0, graph.closing)
        message = message - bases.quad_closing @ aligned.view(n_atoms * k, kq, emb)

        y = self.scale_sbf_sum(self.mlp_sbf(from_slots(message, graph.main)), x_t)
        from_swap = self.up_projection_ac(y).index_select(0, graph.swap)
        return (self.up_projection_ca(y) + from_swap) / math.sqrt(2.0)


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
        self.emb_cbf = c.emb_size_cbf

    def forward(self, h: Tensor, bases: BasisProjections, graph: Graph, n_atoms: int) -> Tensor:
        x = self.dense_ba(h).index_select(0, graph.atom_edge.source)
        x = self.down_projection(self.scale_rbf(x * self.mlp_rbf(bases.rad_ae), x))
        message = bases.atom_to_edge @ to_slots(x, graph.atom_edge, n_atoms)
        message = message.view(n_atoms * graph.main.slots, self.emb_cbf, x.shape[1])
        y = self.scale_cbf_sum(self.mlp_cbf(from_slots(message, graph.main)), x)
        from_swap = self.up_projection_ac(y).index_select(0, graph.swap)
        return (self.up_projection_ca(y) + from_swap) / math.sqrt(2.0)


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

    def forward(self, m: Tensor, bases: BasisProjections, graph: Graph, n_atoms: int) -> Tensor:
        x = self.dense_ba(m)
        x = self.down_projection(self.scale_rbf(x * self.mlp_rbf(bases.rad_ea), x))
        message = bases.edge_to_atom @ to_slots(x, graph.main, n_atoms)
        return self.up_projection_ca(self.scale_cbf_sum(self.mlp_cbf(message), x))


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
        message = bases.atom_to_atom @ x_b.view(n_atoms, graph.atom_atom.slots, x.shape[1])
        return self.up_projection(self.scale_rbf_sum(self.bilinear(message.flatten(1)), x))


class AtomUpdate(nn.Module):
    """Sum of filtered edge embeddings into each atom (``atom_update``, output E part)."""

    def __init__(self, c: BackboneConfig, depth: int) -> None:
        super().__init__()
        self.dense_rbf = Dense(c.emb_size_rbf, c.emb_size_edge, activation=False)
        self.scale_sum = ScaleFactor()
        self.layers = energy_layers(c, depth)

    def forward(self, m: Tensor, rad: Tensor, graph: Graph, n_atoms: int) -> Tensor:
        z = sum_to_target(m * self.dense_rbf(rad), graph.main, n_atoms)
        return self.layers(self.scale_sum(z, m))


def energy_layers(c: BackboneConfig, depth: int) -> nn.Sequential:
    """Sigma dense from edge to atom width (absent when equal), then residual layers."""
    layers: list[nn.Module] = []
    if c.emb_size_edge != c.emb_size_atom:
        layers.append(Dense(c.emb_size_edge, c.emb_size_atom))
    layers += [ResidualLayer(c.emb_size_atom) for _ in range(depth)]
    return nn.Sequential(*layers)
