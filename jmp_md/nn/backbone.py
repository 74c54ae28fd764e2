"""GemNet-OC: atoms and edges in, atom and edge embeddings out."""

import math

import torch
from torch import Tensor, nn

from jmp_md.graph.layout import Graph, sum_to_target
from jmp_md.nn.bases import Bases
from jmp_md.nn.coefficients import BasisProjections, distances, radial_features
from jmp_md.nn.config import BackboneConfig
from jmp_md.nn.edge_embedding import EdgeEmbedding
from jmp_md.nn.interactions import (
    AtomToAtom,
    AtomToEdge,
    AtomUpdate,
    EdgeToAtom,
    EdgeToEdge,
    QuadrupletInteraction,
    energy_layers,
    symmetric,
    together,
)
from jmp_md.nn.layers import Dense, RadialBasis, ResidualLayer, ScaleFactor, merge, residual_stack
from jmp_md.nn.recompute import propagate, recomputed


class InteractionBlock(nn.Module):
    """One round of message passing (spec section 4)."""

    def __init__(self, c: BackboneConfig) -> None:
        super().__init__()
        self.dense_ca = Dense(c.emb_size_edge, c.emb_size_edge)
        self.trip_interaction = EdgeToEdge(c)
        self.quad_interaction = QuadrupletInteraction(c)
        self.atom_edge_interaction = AtomToEdge(c)
        self.edge_atom_interaction = EdgeToAtom(c)
        self.atom_interaction = AtomToAtom(c)
        self.layers_before_skip = residual_stack(c.emb_size_edge, c.num_before_skip)
        self.layers_after_skip = residual_stack(c.emb_size_edge, c.num_after_skip)
        self.atom_emb_layers = residual_stack(c.emb_size_atom, c.num_atom_emb_layers)
        self.atom_update = AtomUpdate(c, c.num_atom)
        self.concat_layer = EdgeEmbedding(c.emb_size_atom, c.emb_size_edge, c.emb_size_edge)
        self.residual_m = residual_stack(c.emb_size_edge, c.num_concat)

    def forward(
        self, h: Tensor, m: Tensor, bases: BasisProjections, graph: Graph
    ) -> tuple[Tensor, Tensor]:
        n_atoms = h.shape[0]
        on_edges = [
            self.dense_ca,
            self.trip_interaction.dense_ba,
            self.quad_interaction.dense_db,
            self.edge_atom_interaction.dense_ba,
        ]
        skip, m_t, m_q, m_ea = together(on_edges, m).chunk(4, dim=1)
        e2e = self.trip_interaction(m_t, bases, graph, n_atoms)
        quad = self.quad_interaction(m_q, bases, graph, n_atoms)
        a2e = self.atom_edge_interaction(h, bases, graph, n_atoms)
        x = (skip + symmetric(e2e + quad + a2e, graph)).mul_(0.5)
        e2a = self.edge_atom_interaction(m_ea, bases, graph, n_atoms)
        a2a = self.atom_interaction(h, bases, graph, n_atoms)
        h = (h + e2a + a2a) / math.sqrt(3.0)

        m = merge(m, self.layers_before_skip(x))
        m = self.layers_after_skip(m)
        h = self.atom_emb_layers(h)
        h = merge(h, self.atom_update(m, bases.rad_h, graph, n_atoms))
        m = merge(m, self.residual_m(self.concat_layer(h, m, graph.main)))
        return h, m


class OutputBlock(nn.Module):
    """Energy features of atoms and, with direct forces, force features of edges (section 5)."""

    def __init__(self, c: BackboneConfig) -> None:
        super().__init__()
        self.dense_rbf = Dense(c.emb_size_rbf, c.emb_size_edge, activation=False)
        self.scale_sum = ScaleFactor()
        self.layers = energy_layers(c, c.num_output_afteratom)
        self.seq_energy2 = residual_stack(c.emb_size_atom, c.num_output_afteratom)
        self.direct_forces = c.direct_forces
        if c.direct_forces:
            self.seq_forces = residual_stack(c.emb_size_edge, c.num_output_afteratom)
            self.dense_rbf_F = Dense(c.emb_size_rbf, c.emb_size_edge, activation=False)
            self.scale_rbf_F = ScaleFactor()

    def forward(
        self, h: Tensor, m: Tensor, bases: BasisProjections, graph: Graph
    ) -> tuple[Tensor, Tensor]:
        filtered = m * self.dense_rbf.times(self.scale_sum.scale_factor, bases.rad_o)
        z = sum_to_target(filtered, graph.main, h.shape[0])
        if graph.kept != 1.0:
            z = z / graph.kept
        z = self.layers(self.scale_sum(z, m))
        z = self.seq_energy2(merge(z, h))
        f = m
        if self.direct_forces:
            f = self.seq_forces(m)
            filter_ = self.dense_rbf_F.times(self.scale_rbf_F.scale_factor, bases.rad_f)
            f = self.scale_rbf_F(f * filter_, f)
        return z, f


class GlobalOutput(nn.Module):
    """Joins the features of all output blocks: one sigma dense, then residual layers."""

    def __init__(self, n_blocks: int, features: int, depth: int) -> None:
        super().__init__()
        self.out_mlp = nn.Sequential(
            Dense(n_blocks * features, features), *[ResidualLayer(features) for _ in range(depth)]
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        y: Tensor = self.out_mlp(torch.cat(features, dim=1))
        return y


class GemNetOC(nn.Module):
    """The backbone of JMP (arXiv 2204.02782 as trained in arXiv 2310.16802).

    Initialised as the paper does (He-orthogonal, arXiv 2106.08903), with scale factors of one;
    a new model needs its scale factors fitted.

    Attributes:
        recompute: Keep only the inputs of blocks and bases for the backward pass and compute
            the rest again there: more time, less memory.
        bf16: Dense layers and messages of the blocks in bfloat16; geometry, bases and heads
            keep the type of the weights.
        fp16: The same in float16, for training with scaled gradients.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        c = config
        self.direct_forces = c.direct_forces
        self.recompute = False
        self.bf16 = False
        self.fp16 = False
        self.radial = RadialBasis(c.num_radial, c.basis_cutoff)
        self.bases = Bases(c)
        self.int_blocks = nn.ModuleList([InteractionBlock(c) for _ in range(c.num_blocks)])
        self.out_blocks = nn.ModuleList([OutputBlock(c) for _ in range(c.num_blocks + 1)])
        n_out, depth = c.num_blocks + 1, c.num_global_out_layers
        self.out_mlp_E = GlobalOutput(n_out, c.emb_size_atom, depth)
        if c.direct_forces:
            self.out_mlp_F = GlobalOutput(n_out, c.emb_size_edge, depth)

    def forward(self, h: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        """Embed a structure or a batch of them.

        Args:
            h: (n_atoms, emb_size_atom) embeddings of the elements.
            graph: The four graphs; they decide which atoms know of each other.

        Returns:
            X_E (n_atoms, emb_size_atom) and X_F (n_main_edges, emb_size_edge); X_F is empty
            without direct forces.
        """
        begin = recomputed(self.begin) if self.recompute else self.begin
        m, bases = begin(h, graph)
        if self.bf16 or self.fp16:
            with torch.autocast(h.device.type, torch.float16 if self.fp16 else torch.bfloat16):
                energies, forces = propagate(self, h, m, bases, graph, self.recompute)
            energies, forces = ([x.to(h.dtype) for x in xs] for xs in (energies, forces))
        else:
            energies, forces = propagate(self, h, m, bases, graph, self.recompute)
        x_f = self.out_mlp_F(forces) if self.direct_forces else m.new_zeros(0, m.shape[1])
        return self.out_mlp_E(energies), x_f

    def begin(self, h: Tensor, graph: Graph) -> tuple[Tensor, BasisProjections]:
        """First embeddings of main edges, and what all blocks share."""
        radial = radial_features(self.radial.trained(distances(graph)), graph)
        m = self.bases.edge_emb(h, radial.main, graph.main)
        return m, self.bases(radial, graph, h.shape[0])
