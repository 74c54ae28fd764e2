"""GemNet-OC: atoms and edges in, atom and edge embeddings out."""

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from jmp_md.graph.layout import Graph, sum_to_target
from jmp_md.memory import give_back_freed_memory
from jmp_md.nn.bases import Bases, BasisProjections, RadialFeatures
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
)
from jmp_md.nn.layers import (
    Dense,
    Derived,
    Layers,
    RadialBasis,
    ResidualLayer,
    Scaled,
    ScaleFactor,
    joined,
    merge,
    plus,
    residual_stack,
    sigma,
    times,
    unscaled,
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
        self._on_edges = Derived()

    def forward(
        self, h_in: Tensor, m_in: Tensor, bases: BasisProjections, graph: Graph
    ) -> tuple[Tensor, Tensor]:
        h, m, n_atoms = Scaled(h_in, 1.0), Scaled(m_in, 1.0), h_in.shape[0]
        skip, m_t, m_q, m_ea = self._dense_on_edges(m)
        e2e = self.trip_interaction(m_t, bases, graph, n_atoms)
        quad = self.quad_interaction(m_q, bases, graph, n_atoms)
        a2e = self.atom_edge_interaction(h, bases, graph, n_atoms)
        x = times(plus(skip, symmetric(plus(plus(e2e, quad), a2e), graph)), 0.5)
        e2a = self.edge_atom_interaction(m_ea, bases, graph, n_atoms)
        a2a = self.atom_interaction(h, bases, graph, n_atoms)
        h = times(plus(h, plus(e2a, a2a)), 1.0 / math.sqrt(3.0))

        m = merge(m, self.layers_before_skip(x))
        m = self.layers_after_skip(m)
        h = self.atom_emb_layers(h)
        h = merge(h, self.atom_update(m, bases.rad_h, graph, n_atoms))
        m = merge(m, self.residual_m(self.concat_layer(h, m, graph.main)))
        return unscaled(h), unscaled(m)

    def _dense_on_edges(self, m: Scaled) -> tuple[Scaled, Scaled, Scaled, Scaled]:
        """``dense_ca`` and the first layers of three passes, which all act on m, in one product."""
        if torch.jit.is_scripting():
            weight = self._on_edges.kept
        else:
            layers = [
                self.dense_ca,
                self.trip_interaction.dense_ba,
                self.quad_interaction.dense_db,
                self.edge_atom_interaction.dense_ba,
            ]
            weight = self._on_edges.of(joined, [layer.linear.weight for layer in layers], m.gain)
        x = sigma(functional.linear(m.value, weight))
        parts = x.value.chunk(4, dim=1)
        return (
            Scaled(parts[0], x.gain),
            Scaled(parts[1], x.gain),
            Scaled(parts[2], x.gain),
            Scaled(parts[3], x.gain),
        )


def symmetric(up: Scaled, graph: Graph) -> Scaled:
    """(y_ca + y_ac of the reverse edge) / sqrt(2), from both side by side."""
    ca, ac = up.value.chunk(2, dim=1)
    return Scaled(ca + ac.index_select(0, graph.swap), up.gain / math.sqrt(2.0))


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
        filtered = m * self.dense_rbf.times(self.scale_sum.scale_factor, bases.rad_o)
        z = Scaled(sum_to_target(filtered, graph.main, h.shape[0]), 1.0 / graph.kept)
        z = self.layers(self.scale_sum(z, Scaled(m, 1.0)))
        z = self.seq_energy2(merge(z, Scaled(h, 1.0)))
        f = Scaled(m, 1.0)
        if self.direct_forces:
            f = self.seq_forces(f)
            filter_ = self.dense_rbf_F.times(self.scale_rbf_F.scale_factor, bases.rad_f)
            f = self.scale_rbf_F(Scaled(f.value * filter_, f.gain), f)
        return unscaled(z), unscaled(f)


class GlobalOutput(nn.Module):
    """Joins the features of all output blocks: one sigma dense, then residual layers."""

    def __init__(self, n_blocks: int, features: int, depth: int) -> None:
        super().__init__()
        self.out_mlp = Layers(
            Dense(n_blocks * features, features), *[ResidualLayer(features) for _ in range(depth)]
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        return unscaled(self.out_mlp(Scaled(torch.cat(features, dim=1), 1.0)))


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
        if torch.jit.is_scripting() or not self.recompute:
            m, bases = self._bases(h, graph)
        else:
            m, bases = checkpoint(self._bases, h, graph, use_reentrant=False)
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

    def _bases(self, h: Tensor, graph: Graph) -> tuple[Tensor, BasisProjections]:
        """First embeddings of main edges, and what all blocks share."""
        graphs = [graph.main, graph.atom_edge, graph.quadruplet, graph.atom_atom]
        basis = self.radial(torch.cat([edges.distance for edges in graphs]))
        parts = basis.split([edges.distance.shape[0] for edges in graphs])
        radial = RadialFeatures(parts[0], parts[1], parts[2], parts[3])
        m = self.bases.edge_emb(Scaled(h, 1.0), Scaled(radial.main, 1.0), graph.main)
        return unscaled(m), self.bases(radial, graph, h.shape[0])

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
                if m.requires_grad and not m.is_cuda:  # after the block, forward and backward
                    give_back_freed_memory()
                    m.register_hook(give_back_freed_memory)
            energy_features.append(z)
            force_features.append(f)
        z, f = self.out_blocks[-1](h, m, bases, graph)
        energy_features.append(z)
        force_features.append(f)
        return energy_features, force_features
