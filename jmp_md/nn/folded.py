"""The network for inference: constant factors are part of its weights, layers of one input are one.

The plain network is full of constants: 1/0.6 of every activation, 1/sqrt(2) of every sum, fitted
scale factors. A pass over all edges for each costs as much as a small layer. Here an embedding x
is held as x / gain, with a gain known when the network is folded, and the next weight takes it in.
Every class folds what it is given and says the gain of what it returns; the names are those of
:mod:`jmp_md.nn.backbone` and :mod:`jmp_md.nn.interactions`.

No postponed annotations in this file: TorchScript reads them as they are.
"""

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from jmp_md.graph.layout import Graph, sum_to_target, to_slots
from jmp_md.nn import backbone as plain
from jmp_md.nn import interactions as passes
from jmp_md.nn.activation import GAIN
from jmp_md.nn.coefficients import BasisProjections
from jmp_md.nn.edge_embedding import EdgeEmbedding, by_columns
from jmp_md.nn.folded_layers import HALF, FoldedLayers, linear, weight_of
from jmp_md.nn.sums import angular_sum, dihedral_sum


class FoldedEdgeEmbedding(nn.Module):
    """:class:`~jmp_md.nn.edge_embedding.EdgeEmbedding`, with a gain of its own for h and x."""

    on_atoms: Tensor
    on_edges: Tensor

    def __init__(
        self,
        layer: EdgeEmbedding,
        h_gain: float,
        x_gain: float,
        half: torch.dtype | None,
        keep: Tensor | None = None,
    ) -> None:
        super().__init__()
        atoms, edges = layer.columns()
        edges = edges if keep is None else edges[:, keep]
        half = half or atoms.dtype
        self.register_buffer("on_atoms", (atoms * h_gain).to(half))
        self.register_buffer("on_edges", (edges * x_gain).to(half).contiguous())

    def forward(self, h: Tensor, x: Tensor, graph: Graph) -> Tensor:
        dtype = self.on_atoms.dtype
        y = by_columns(h.to(dtype), x.to(dtype), self.on_atoms, self.on_edges, graph.main)
        return functional.silu(y)


class FoldedEdgePass(nn.Module):
    """The end of a pass: sum over neighbours, bilinear layer, both up-projections."""

    def __init__(
        self,
        layer: passes.EdgeToEdge | passes.QuadrupletInteraction | passes.AtomToEdge,
        half: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.mlp_rbf = linear(weight_of(layer.mlp_rbf, layer.scale_rbf), half)
        self.down = linear(weight_of(layer.down_projection, GAIN), half)
        up = [layer.up_projection_ca.linear.weight, layer.up_projection_ac.linear.weight]
        self.up = linear(torch.cat(up), half)
        if isinstance(layer, passes.QuadrupletInteraction):
            bilinear = weight_of(layer.mlp_sbf.bilinear, GAIN, layer.scale_sbf_sum)
        else:
            bilinear = weight_of(layer.mlp_cbf.bilinear, GAIN, layer.scale_cbf_sum)
        self.bilinear = linear(bilinear, half)

    def downwards(self, x: Tensor, rad: Tensor) -> Tensor:
        """The filtered input, projected."""
        return functional.silu(self.down(x * self.mlp_rbf(rad)))

    def upwards(self, message: Tensor) -> Tensor:
        """From (E, n_coefficients, emb) to both sides of each edge, side by side."""
        return functional.silu(self.up(self.bilinear(message.flatten(1))))


class FoldedEdgeToEdge(FoldedEdgePass):
    def forward(self, x: Tensor, bases: BasisProjections, graph: Graph, n_atoms: int) -> Tensor:
        x = to_slots(self.downwards(x, bases.rad_t), graph.main, n_atoms)
        return self.upwards(angular_sum(bases.edge_to_edge, x, graph.main))


class FoldedQuadruplet(FoldedEdgePass):
    def __init__(self, layer: passes.QuadrupletInteraction, half: torch.dtype | None) -> None:
        super().__init__(layer, half)
        self.mlp_cbf = linear(weight_of(layer.mlp_cbf, layer.scale_cbf), half)

    def forward(self, x: Tensor, bases: BasisProjections, graph: Graph, n_atoms: int) -> Tensor:
        x = to_slots(self.downwards(x, bases.rad_q), graph.main, n_atoms)
        x = x.index_select(0, bases.quad_sources) * self.mlp_cbf(bases.triplet)
        return self.upwards(dihedral_sum(bases, x, graph))


class FoldedAtomToEdge(FoldedEdgePass):
    def forward(self, x: Tensor, bases: BasisProjections, graph: Graph, n_atoms: int) -> Tensor:
        x = self.downwards(x.index_select(0, graph.atom_edge.source), bases.rad_ae)
        x = to_slots(x, graph.atom_edge, n_atoms)
        return self.upwards(angular_sum(bases.atom_to_edge, x, graph.main))


class FoldedEdgeToAtom(nn.Module):
    """:class:`~jmp_md.nn.interactions.EdgeToAtom`; two linear layers in a row are one."""

    def __init__(self, layer: passes.EdgeToAtom, half: torch.dtype | None) -> None:
        super().__init__()
        self.mlp_rbf = linear(weight_of(layer.mlp_rbf, layer.scale_rbf), half)
        self.down = linear(weight_of(layer.down_projection, GAIN), half)
        bilinear = weight_of(layer.mlp_cbf.bilinear, GAIN, layer.scale_cbf_sum)
        self.up = linear(layer.up_projection_ca.linear.weight @ bilinear, half)

    def forward(self, x: Tensor, bases: BasisProjections, graph: Graph, n_atoms: int) -> Tensor:
        x = functional.silu(self.down(x * self.mlp_rbf(bases.rad_ea)))
        message = torch.bmm(bases.edge_to_atom, to_slots(x, graph.main, n_atoms))
        return functional.silu(self.up(message.flatten(1)))


class FoldedAtomToAtom(nn.Module):
    """:class:`~jmp_md.nn.interactions.AtomToAtom` from its down-projection on, likewise."""

    def __init__(self, layer: passes.AtomToAtom, half: torch.dtype | None) -> None:
        super().__init__()
        bilinear = weight_of(layer.bilinear, GAIN, layer.scale_rbf_sum)
        self.up = linear(layer.up_projection.linear.weight @ bilinear, half)

    def forward(self, x: Tensor, bases: BasisProjections, graph: Graph, n_atoms: int) -> Tensor:
        x_b = x.index_select(0, bases.atom_atom_sources)
        x_b = x_b.view(n_atoms, graph.atom_atom.slots, x.shape[1])
        return functional.silu(self.up(torch.bmm(bases.atom_to_atom, x_b).flatten(1)))


class FoldedSum(nn.Module):
    """Sum of filtered edge embeddings into each atom, and the layers that follow."""

    def __init__(
        self,
        layer: passes.AtomUpdate | plain.OutputBlock,
        gain: float,
        half: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.dense_rbf = linear(weight_of(layer.dense_rbf, layer.scale_sum), half)
        self.layers = FoldedLayers(layer.layers, gain, half)

    def forward(self, m: Tensor, rad: Tensor, graph: Graph, n_atoms: int) -> Tensor:
        y: Tensor = self.layers(sum_to_target(m * self.dense_rbf(rad), graph.main, n_atoms))
        return y


class FoldedInteraction(nn.Module):
    """:class:`~jmp_md.nn.backbone.InteractionBlock` on h / h_gain and m / m_gain.

    Attributes:
        h_gain: Of the embeddings of atoms that it returns.
        m_gain: Of those of edges.
    """

    def __init__(
        self,
        block: plain.InteractionBlock,
        h_gain: float,
        m_gain: float,
        half: torch.dtype | None,
    ) -> None:
        super().__init__()
        on_edges = [
            block.dense_ca,
            block.trip_interaction.dense_ba,
            block.quad_interaction.dense_db,
            block.edge_atom_interaction.dense_ba,
        ]
        on_atoms = [
            block.atom_edge_interaction.dense_ba,
            block.atom_interaction.down_projection,
        ]
        self.on_edges = linear(torch.cat([weight_of(x, m_gain) for x in on_edges]), half)
        self.on_atoms = linear(torch.cat([weight_of(x, h_gain) for x in on_atoms]), half)
        self.widths = [layer.linear.out_features for layer in on_atoms]
        self.e2e = FoldedEdgeToEdge(block.trip_interaction, half)
        self.quad = FoldedQuadruplet(block.quad_interaction, half)
        self.a2e = FoldedAtomToEdge(block.atom_edge_interaction, half)
        self.e2a = FoldedEdgeToAtom(block.edge_atom_interaction, half)
        self.a2a = FoldedAtomToAtom(block.atom_interaction, half)
        self.h_share = GAIN / h_gain
        h_gain /= math.sqrt(3.0)
        self.before_skip = FoldedLayers(block.layers_before_skip, 0.5 * GAIN, half)
        self.m_share = self.before_skip.gain / m_gain
        self.after_skip = FoldedLayers(block.layers_after_skip, m_gain * HALF, half)
        m_gain = self.after_skip.gain
        self.atom_layers = FoldedLayers(block.atom_emb_layers, h_gain, half)
        self.update = FoldedSum(block.atom_update, m_gain, half)
        self.update_share = self.update.layers.gain / self.atom_layers.gain
        self.h_gain = self.atom_layers.gain * HALF
        self.concat = FoldedEdgeEmbedding(block.concat_layer, self.h_gain, m_gain, half)
        self.residual_m = FoldedLayers(block.residual_m, GAIN, half)
        self.residual_share = self.residual_m.gain / m_gain
        self.m_gain = m_gain * HALF

    def forward(
        self, h: Tensor, m: Tensor, bases: BasisProjections, graph: Graph
    ) -> tuple[Tensor, Tensor]:
        n_atoms = h.shape[0]
        skip, m_t, m_q, m_ea = functional.silu(self.on_edges(m)).chunk(4, dim=1)
        h_ae, h_aa = functional.silu(self.on_atoms(h)).split(self.widths, dim=1)
        up = self.e2e(m_t, bases, graph, n_atoms) + self.quad(m_q, bases, graph, n_atoms)
        ca, ac = (up + self.a2e(h_ae, bases, graph, n_atoms)).chunk(2, dim=1)
        x = torch.add(skip, ca + ac.index_select(0, graph.swap), alpha=math.sqrt(0.5))
        e2a = self.e2a(m_ea, bases, graph, n_atoms)
        h = torch.add(h, e2a + self.a2a(h_aa, bases, graph, n_atoms), alpha=self.h_share)

        m = self.after_skip(torch.add(m, self.before_skip(x), alpha=self.m_share))
        h = self.atom_layers(h)
        h = torch.add(h, self.update(m, bases.rad_h, graph, n_atoms), alpha=self.update_share)
        y = self.residual_m(self.concat(h, m, graph))
        return h, torch.add(m, y, alpha=self.residual_share)


class FoldedOutput(nn.Module):
    """:class:`~jmp_md.nn.backbone.OutputBlock` on h / h_gain and m / m_gain.

    Attributes:
        energy_gain: Of the features of atoms.
        force_gain: Of those of edges.
    """

    direct_forces: Final[bool]

    def __init__(
        self, block: plain.OutputBlock, h_gain: float, m_gain: float, half: torch.dtype | None
    ) -> None:
        super().__init__()
        self.sum = FoldedSum(block, m_gain, half)
        self.share = h_gain / self.sum.layers.gain
        self.energy = FoldedLayers(block.seq_energy2, self.sum.layers.gain * HALF, half)
        self.energy_gain, self.force_gain = self.energy.gain, 1.0
        self.direct_forces = block.direct_forces
        self.force: nn.Module = nn.Identity()
        self.dense_rbf_F: nn.Module = nn.Identity()
        if block.direct_forces:
            self.force = FoldedLayers(block.seq_forces, m_gain, half)
            self.dense_rbf_F = linear(weight_of(block.dense_rbf_F, block.scale_rbf_F), half)
            self.force_gain = self.force.gain

    def forward(
        self, h: Tensor, m: Tensor, bases: BasisProjections, graph: Graph
    ) -> tuple[Tensor, Tensor]:
        z = self.sum(m, bases.rad_o, graph, h.shape[0])
        z = self.energy(torch.add(z, h, alpha=self.share))
        f = m
        if self.direct_forces:
            f = self.force(m) * self.dense_rbf_F(bases.rad_f)
        return z, f
