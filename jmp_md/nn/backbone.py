"""GemNet-OC: atoms and edges in, atom and edge embeddings out."""

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from jmp_md.graph.layout import Graph, sum_to_target
from jmp_md.nn.bases import Bases, BasisProjections, EdgeEmbedding, RadialFeatures
from jmp_md.nn.config import BackboneConfig
from jmp_md.nn.interactions import (
    AtomToAtom,
    AtomToEdge,
    AtomUpdate,
    EdgeToAtom,
    EdgeToEdge,
    QuadrupletInteraction,
    energy_layers,
)
from jmp_md.nn.layers import (
    Dense,
    RadialBasis,
    ResidualLayer,
    ScaleFactor,
    residual_stack,
)


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
        x = self.dense_ca(m)
        x = x + self.trip_interaction(m, bases, graph, n_atoms)
        x = x + self.quad_interaction(m, bases, graph, n_atoms)
        x = (x + self.atom_edge_interaction(h, bases, graph, n_atoms)) * 0.5
        h_new = h + self.edge_atom_interaction(m, bases, graph, n_atoms)
        h = (h_new + self.atom_interaction(h, bases, graph, n_atoms)) / math.sqrt(3.0)

        m = (m + self.layers_before_skip(x)) / math.sqrt(2.0)
        m = self.layers_after_skip(m)
        h = self.atom_emb_layers(h)
        h = (h + self.atom_update(m, bases.rad_h, graph, n_atoms)) / math.sqrt(2.0)
        m_new = self.residual_m(self.concat_layer(h, m, graph.main))
        return h, (m + m_new) / math.sqrt(2.0)


class OutputBlock(nn.Module):
    """Energy features of atoms and, with direct forces, force features of edges (section 5)."""

    direct_forces: Final[bool]

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
        z = sum_to_target(m * self.dense_rbf(bases.rad_o), graph.main, h.shape[0]) / graph.kept
        z = (self.layers(self.scale_sum(z, m)) + h) / math.sqrt(2.0)
        z = self.seq_energy2(z)
        f = m
        if self.direct_forces:
            f = self.seq_forces(m)
            f = self.scale_rbf_F(f * self.dense_rbf_F(bases.rad_f), f)
        return z, f


class GlobalOutput(nn.Module):
    """Joins the features of all output blocks: one sigma dense, then residual layers."""

    def __init__(self, n_blocks: int, features: int, depth: int) -> None:
        super().__init__()
        self.out_mlp = nn.Sequential(
            Dense(n_blocks * features, features), *[ResidualLayer(features) for _ in range(depth)]
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.out_mlp(torch.cat(features, dim=1))


class GemNetOC(nn.Module):
    """The backbone of JMP (arXiv 2204.02782 as trained in arXiv 2310.16802).

    Initialised as the paper does (He-orthogonal, arXiv 2106.08903), with scale factors of one;
    a new model needs its scale factors fitted.

    Attributes:
        recompute: Keep only the inputs of blocks and bases for the backward pass and compute
            the rest again there: more time, less memory. Not in TorchScript.
        bf16: Dense layers and messages of the blocks in bfloat16; geometry, bases and heads
            keep the type of the weights. Not in TorchScript.
        fp16: The same in float16, for training with scaled gradients.
    """

    direct_forces: Final[bool]
    recompute: bool
    bf16: bool
    fp16: bool

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
        radial = RadialFeatures(
            self.radial(graph.main.distance),
            self.radial(graph.atom_edge.distance),
            self.radial(graph.quadruplet.distance),
            self.radial(graph.atom_atom.distance),
        )
        if torch.jit.is_scripting() or not self.recompute:
            bases = self.bases(radial, graph, h.shape[0])
        else:
            bases = checkpoint(self.bases, radial, graph, h.shape[0], use_reentrant=False)
        m = self.bases.edge_emb(h, radial.main, graph.main)
        if torch.jit.is_scripting() or not (self.bf16 or self.fp16):
            energy_features, force_features = self._propagate(h, m, bases, graph)
        else:
            half = torch.float16 if self.fp16 else torch.bfloat16
            with torch.autocast(h.device.type, half):
                energy_features, force_features = self._propagate(h, m, bases, graph)
            energy_features = [z.to(h.dtype) for z in energy_features]
            force_features = [f.to(h.dtype) for f in force_features]
        x_f = m.new_zeros(0, m.shape[1])
        if self.direct_forces:
            x_f = self.out_mlp_F(force_features)
        return self.out_mlp_E(energy_features), x_f

    def _propagate(
        self, h: Tensor, m: Tensor, bases: BasisProjections, graph: Graph
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Alternate output and interaction blocks; returns the features of all output blocks."""
        energy_features: list[Tensor] = []
        force_features: list[Tensor] = []
        # One output block more than interaction blocks: the last is left over by zip.
        for block, out_block in zip(self.int_blocks, self.out_blocks):  # noqa: B905
            if torch.jit.is_scripting() or not self.recompute:
                z, f = out_block(h, m, bases, graph)
                h, m = block(h, m, bases, graph)
            else:
                z, f = checkpoint(out_block, h, m, bases, graph, use_reentrant=False)
                h, m = checkpoint(block, h, m, bases, graph, use_reentrant=False)
            energy_features.append(z)
            force_features.append(f)
        z, f = self.out_blocks[-1](h, m, bases, graph)
        energy_features.append(z)
        force_features.append(f)
        return energy_features, force_features
