"""Folding of a trained network into one for inference, see :mod:`jmp_md.nn.folded`.

No postponed annotations in this file: TorchScript reads them as they are.
"""

from copy import deepcopy
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from jmp_md.graph.layout import Graph
from jmp_md.nn.activation import GAIN
from jmp_md.nn.backbone import GemNetOC, GlobalOutput, InteractionBlock, OutputBlock
from jmp_md.nn.bases import Bases
from jmp_md.nn.coefficients import (
    BasisProjections,
    BasisWeights,
    RadialFeatures,
    Sizes,
    basis_projections,
    cast,
    distances,
    radial_features,
)
from jmp_md.nn.folded import FoldedEdgeEmbedding, FoldedInteraction, FoldedOutput
from jmp_md.nn.folded_layers import FoldedLayers, Linear, LinearOfHead, Table
from jmp_md.nn.layers import Dense, RadialBasis
from jmp_md.nn.recompute import propagate, recomputed
from jmp_md.nn.repulsion import NuclearRepulsion

_NOTHING = 40.0  # exp(-40) is nothing beside 1, in double precision, too


class FoldedNetwork(nn.Module):
    """From a graph to raw energies and direct forces, with nothing to train of its own.

    Args:
        embedding: Of the elements.
        backbone: The network.
        energy_head: See :func:`jmp_md.nn.layers.mlp_head`.
        force_head: The same for edges, or None.
        repulsion: Of nuclei, or None.
        energy_scale: eV by which the repulsion is divided.
        cutoff: Å, that no edge of any graph is longer than.
        half: Type of dense layers and messages of the blocks, in place of that of the weights.
        trained: Keep what the gradient by the weights needs; they are constants otherwise.
    """

    has_force_head: Final[bool]
    has_repulsion: Final[bool]
    energy_scale: Final[float]

    def __init__(
        self,
        embedding: nn.Embedding,
        backbone: GemNetOC,
        energy_head: nn.Sequential,
        force_head: nn.Sequential | None,
        repulsion: NuclearRepulsion | None,
        *,
        energy_scale: float,
        cutoff: float,
        half: torch.dtype | None = None,
        trained: bool = False,
    ) -> None:
        super().__init__()
        with torch.set_grad_enabled(trained):
            self.embedding = Table(embedding)
            self.backbone = FoldedBackbone(backbone, cutoff, half)
            self.energy_head = _folded_head(energy_head, self.backbone.energy_gain)
            self.has_force_head = force_head is not None
            self.force_head: nn.Module = nn.Identity()
            if force_head is not None:
                self.force_head = _folded_head(force_head, self.backbone.force_gain)
        self.has_repulsion = repulsion is not None
        self.repulsion: nn.Module = deepcopy(repulsion) or nn.Identity()
        self.energy_scale = energy_scale
        self.eval()

    def forward(self, numbers: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        """Energies per atom (n_atoms,) and direct forces (n_atoms, 3), or none (0, 3)."""
        x_e, x_f = self.backbone(self.embedding(numbers - 1), graph)
        return self.outputs(numbers, graph, x_e, x_f)

    def lean(self, numbers: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        """The same, computing each block again in the backward pass. Not in TorchScript."""
        x_e, x_f = self.backbone.lean(self.embedding(numbers - 1), graph)
        return self.outputs(numbers, graph, x_e, x_f)

    def outputs(
        self, numbers: Tensor, graph: Graph, x_e: Tensor, x_f: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the heads make of the features of atoms and edges."""
        forces = x_e.new_zeros(0, 3)
        if self.has_force_head:
            main = graph.main
            along = self.force_head(x_f) * main.unit * main.weight.unsqueeze(-1)
            forces = x_e.new_zeros(x_e.shape[0], 3).index_add(0, main.target, along)
        energies = self.energy_head(x_e).squeeze(-1)
        if self.has_repulsion:
            energies = energies + self.repulsion(numbers, graph.main) / self.energy_scale
        return energies, forces


class FoldedBackbone(nn.Module):
    """:class:`~jmp_md.nn.backbone.GemNetOC` but for the gains of what it returns.

    Attributes:
        reduced: Type of dense layers and messages, if not that of the weights.
        energy_gain: Of the features of atoms.
        force_gain: Of those of edges.
    """

    direct_forces: Final[bool]

    def __init__(self, network: GemNetOC, cutoff: float, half: torch.dtype | None) -> None:
        super().__init__()
        self.reduced = half
        keep = _columns(network.radial, cutoff)
        self.radial = deepcopy(network.radial)
        self.radial.offset, self.radial.temps = self.radial.offset[keep], self.radial.temps[keep]
        self.bases = FoldedBases(network.bases, keep)
        h_gain, m_gain = 1.0, GAIN
        blocks: list[FoldedInteraction] = []
        outputs: list[FoldedOutput] = []
        for i, out_block in enumerate(network.out_blocks):
            assert isinstance(out_block, OutputBlock)
            outputs.append(FoldedOutput(out_block, h_gain, m_gain, half))
            if i < len(network.int_blocks):
                block = network.int_blocks[i]
                assert isinstance(block, InteractionBlock)
                blocks.append(FoldedInteraction(block, h_gain, m_gain, half))
                h_gain, m_gain = blocks[-1].h_gain, blocks[-1].m_gain
        self.int_blocks, self.out_blocks = nn.ModuleList(blocks), nn.ModuleList(outputs)
        out_mlp = FoldedGlobal(network.out_mlp_E, [x.energy_gain for x in outputs])
        self.out_mlp_E, self.energy_gain = out_mlp, out_mlp.gain
        self.direct_forces = network.direct_forces
        self.out_mlp_F: nn.Module = nn.Identity()
        self.force_gain = 1.0
        if network.direct_forces:
            out_mlp = FoldedGlobal(network.out_mlp_F, [x.force_gain for x in outputs])
            self.out_mlp_F, self.force_gain = out_mlp, out_mlp.gain

    def forward(self, h: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        """As :meth:`~jmp_md.nn.backbone.GemNetOC.forward`, but for the gains."""
        m, bases = self.begin(h, graph)
        energies: list[Tensor] = []
        forces: list[Tensor] = []
        # One output block more than interaction blocks: the last is left over by zip.
        for block, out_block in zip(self.int_blocks, self.out_blocks):  # noqa: B905
            z, f = out_block(h, m, bases, graph)
            h, m = block(h, m, bases, graph)
            energies.append(z)
            forces.append(f)
        z, f = self.out_blocks[-1](h, m, bases, graph)
        energies.append(z)
        forces.append(f)
        return self.finish(energies, forces)

    def lean(self, h: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        """The same, computing each block again in the backward pass. Not in TorchScript."""
        m, bases = recomputed(self.begin)(h, graph)
        return self.finish(*propagate(self, h, m, bases, graph, recompute=True))

    def begin(self, h: Tensor, graph: Graph) -> tuple[Tensor, BasisProjections]:
        """First embeddings of main edges, and what all blocks share."""
        radial = radial_features(self.radial(distances(graph)), graph)
        bases = self.bases(radial, graph, h.shape[0])
        if self.reduced is not None:
            bases = cast(bases, self.reduced)
        return self.bases.edge_emb(h, radial.main, graph), bases

    def finish(self, energies: list[Tensor], forces: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Features of all output blocks, joined."""
        x_e = self.out_mlp_E(energies)
        x_f = self.out_mlp_F(forces) if self.direct_forces else x_e.new_zeros(0, x_e.shape[1])
        return x_e, x_f


class FoldedBases(nn.Module):
    """:class:`~jmp_md.nn.bases.Bases` on some columns of the radial basis."""

    main: Tensor
    atom_edge: Tensor
    quadruplet: Tensor
    atom_atom: Tensor
    sizes: Sizes

    def __init__(self, bases: Bases, keep: Tensor) -> None:
        super().__init__()
        self.sizes = bases.sizes
        self.edge_emb = FoldedEdgeEmbedding(bases.edge_emb, 1.0, 1.0, None, keep)
        for name, weight in bases.weights()._asdict().items():
            self.register_buffer(name, weight[keep].contiguous())

    def forward(self, radial: RadialFeatures, graph: Graph, n_atoms: int) -> BasisProjections:
        """Coefficients for all blocks of a structure or batch."""
        weights = BasisWeights(self.main, self.atom_edge, self.quadruplet, self.atom_atom)
        return basis_projections(weights, self.sizes, radial, graph, n_atoms)


class FoldedGlobal(nn.Module):
    """:class:`~jmp_md.nn.backbone.GlobalOutput` on features with gains.

    Attributes:
        gain: Of what it returns.
    """

    def __init__(self, output: GlobalOutput, gains: list[float]) -> None:
        super().__init__()
        dense, *residual = output.out_mlp
        assert isinstance(dense, Dense)
        parts = dense.linear.weight.chunk(len(gains), dim=1)
        self.dense = Linear(torch.cat([w * g for w, g in zip(parts, gains, strict=True)], dim=1))
        self.layers = FoldedLayers(nn.Sequential(*residual), GAIN, None)
        self.gain = self.layers.gain

    def forward(self, features: list[Tensor]) -> Tensor:
        y: Tensor = self.layers(functional.silu(self.dense(torch.cat(features, dim=1))))
        return y


def _folded_head(head: nn.Sequential, gain: float) -> nn.Sequential:
    """A head of linear layers and sigma, on x / gain."""
    layers: list[nn.Module] = []
    for layer in head:
        if isinstance(layer, nn.Linear):
            layers.append(LinearOfHead(layer, gain))
            gain = GAIN
        else:
            layers.append(nn.SiLU())
    return nn.Sequential(*layers)


def _columns(radial: RadialBasis, cutoff: float) -> Tensor:
    """Which Gaussians are not zero for all distances up to a cutoff in Å: (num_radial,) bool."""
    beyond = (radial.offset - cutoff / radial.cutoff).clamp(min=0.0)
    return radial.temps.abs() * beyond * beyond < _NOTHING
