"""Weights of a folded network as the C++ code reads them: widths filled up with zeros.

Zeros cost nothing here: silu(0) is 0, so that columns of zeros stay zero from layer to layer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jmp_md.nn.angular import legendre_factors
from jmp_md.nn.fold import FoldedNetwork
from jmp_md.nn.folded import FoldedEdgePass, FoldedInteraction, FoldedOutput
from jmp_md.nn.folded_layers import FoldedLayers, FoldedResidual, Linear, LinearOfHead

WIDTH = 16  # numbers, a multiple of those in a vector


class Packed:
    """A network as arrays of C: matrices, counts and factors, in the order they are read.

    Args:
        network: With energies alone or with direct forces, which are left out.

    Attributes:
        trained: What has a gradient, as it is packed; empty where the network is a constant.
        size: Numbers of all weights, one after the other.
    """

    def __init__(self, network: FoldedNetwork) -> None:
        self.size = 0
        self._weights: list[Tensor] = []
        self._tensors: list[Tensor] = []  # keeps alive what the pointers point to
        self._offsets: list[int] = []
        self._counts: list[int] = []
        self._factors: list[float] = []
        with torch.enable_grad():
            self._network(network)
        self.trained = [weight for weight in self._weights if weight.requires_grad]
        pointers = [tensor.data_ptr() for tensor in self._tensors]
        self.pointers = (ctypes.c_void_p * len(pointers))(*pointers)
        self.offsets = (ctypes.c_int64 * len(pointers))(*self._offsets)
        self.counts = (ctypes.c_int64 * len(self._counts))(*self._counts)
        self.factors = (ctypes.c_double * len(self._factors))(*self._factors)

    def gradients(self, flat: Tensor) -> list[Tensor]:
        """Those of :attr:`trained`, from those by all weights in a row."""
        parts = zip(flat.split([w.numel() for w in self._weights]), self._weights, strict=True)
        return [part.view(w.shape) for part, w in parts if w.requires_grad]

    def _add(self, weight: Tensor, *others: Tensor) -> None:
        """A weight, and what is made of it for reading in another order."""
        self._offsets += [self.size, *[0 for _ in others]]
        self.size += weight.numel()
        self._weights.append(weight)
        self._tensors += [x.detach().contiguous() for x in (weight, *others)]

    def _network(self, network: FoldedNetwork) -> None:
        backbone = network.backbone
        bases, radial = backbone.bases, backbone.radial
        sizes, block = bases.sizes, backbone.int_blocks[0]
        assert isinstance(block, FoldedInteraction)
        atom, edge = network.embedding.weight.shape[1], bases.edge_emb.on_edges.shape[0]
        trip, quad = (x.down.weight.shape[0] for x in (block.e2e, block.quad))
        aint = block.widths[1]
        self._counts += [_up(x) for x in (atom, edge, trip, quad, aint, sizes.rbf)]
        self._counts += [sizes.cbf, sizes.sbf, len(radial.offset)]
        self._factors.append(radial.cutoff)
        table = network.embedding.weight
        self._add(_fill(table, [len(table)], [atom])[: len(table)])
        self._add(_fill_vector(radial.offset))
        self._add(_fill_vector(radial.temps.abs()))
        self._bases(network)
        self._linear(bases.edge_emb.on_atoms, rows=[edge, edge])
        n_filters, circular = 5 * _up(sizes.rbf), _up(sizes.cbf * sizes.spherical)
        spherical = _up((sizes.spherical + 1) * _up(sizes.sbf, 8) * sizes.spherical)
        starts = [n_filters, n_filters + circular, n_filters + 2 * circular]
        self._counts += [*starts, starts[-1] + spherical]
        self._counts.append(len(backbone.int_blocks))
        for each in backbone.int_blocks:
            assert isinstance(each, FoldedInteraction)
            self._block(each, sizes.rbf, sizes.cbf, sizes.sbf)
        for output in backbone.out_blocks:
            assert isinstance(output, FoldedOutput)
            self._linear(output.sum.dense_rbf.weight)
            self._layers(output.sum.layers, atom)
            self._layers(output.energy, atom)
            self._factors.append(output.share)
        self._linear(backbone.out_mlp_E.dense.weight, columns=[atom] * len(backbone.out_blocks))
        self._layers(backbone.out_mlp_E.layers, atom)
        linears = [layer for layer in network.energy_head if isinstance(layer, LinearOfHead)]
        self._counts.append(len(linears))
        for layer in linears:
            self._linear(layer.weight)
            self._add(_fill_vector(layer.bias))

    def _bases(self, network: FoldedNetwork) -> None:
        """What multiplies the radial basis; factors of Legendre functions stand by degree."""
        bases = network.backbone.bases
        S, rbf, cbf, sbf = bases.sizes
        # The sums here are over Legendre polynomials themselves.
        scale = legendre_factors(S).to(bases.main).reciprocal()
        parts = bases.main.split([rbf] * 5 + [cbf * S] * 2 + [sbf * (S + 1) * S], dim=1)
        circular = [(w.view(-1, cbf, S) * scale).flatten(1) for w in parts[5:7]]
        spherical = parts[7].view(-1, sbf, S + 1, S) * scale
        filled = spherical.new_zeros(len(spherical), S, S + 1, _up(sbf, 8))
        filled[..., :sbf] = spherical.permute(0, 3, 2, 1)
        columns = [*parts[:5], *circular, filled.flatten(1), bases.edge_emb.on_edges.t()]
        self._radial(*columns)
        radial, factors = bases.atom_edge.split([rbf, cbf * S], dim=1)
        self._radial(radial, *_by_degree(factors, cbf, scale))
        self._radial(*_by_degree(bases.quadruplet, cbf, scale))
        self._radial(bases.atom_atom)

    def _radial(self, *columns: Tensor) -> None:
        """(num_radial, n) each, side by side."""
        filled = [nn.functional.pad(x, (0, _up(x.shape[1]) - x.shape[1])) for x in columns]
        weight = torch.cat(filled, dim=1)
        self._counts += list(weight.shape)
        self._add(weight, weight)  # there is no gradient by radial functions

    def _block(self, block: FoldedInteraction, rbf: int, cbf: int, sbf: int) -> None:
        edge = block.e2e.up.weight.shape[0] // 2
        trip, quad = block.e2e.down.weight.shape[0], block.quad.down.weight.shape[0]
        self._linear(block.on_edges.weight, rows=[edge] * 4)
        self._linear(block.on_atoms.weight, rows=block.widths)
        self._pass(block.e2e, [trip] * cbf)
        self._pass(block.quad, [quad] * sbf)
        self._pass(block.a2e, [trip] * cbf)
        self._linear(block.quad.mlp_cbf.weight)
        self._linear(block.e2a.mlp_rbf.weight)
        self._linear(block.e2a.down.weight)
        self._linear(block.e2a.up.weight, columns=[trip] * cbf)
        self._linear(block.a2a.up.weight, columns=[block.widths[1]] * rbf, columns_up_to=_up(rbf))
        atom = block.on_atoms.weight.shape[1]
        self._layers(block.before_skip, edge)
        self._layers(block.after_skip, edge)
        self._layers(block.atom_layers, atom)
        self._layers(block.residual_m, edge)
        self._linear(block.update.dense_rbf.weight)
        self._layers(block.update.layers, atom)
        self._linear(block.concat.on_atoms, rows=[edge, edge])
        self._linear(block.concat.on_edges)
        self._factors += [block.h_share, block.m_share, block.update_share, block.residual_share]

    def _pass(self, part: FoldedEdgePass, columns: Sequence[int]) -> None:
        self._linear(part.mlp_rbf.weight)
        self._linear(part.down.weight)
        self._linear(part.bilinear.weight, columns=columns)
        edge = part.up.weight.shape[0] // 2
        self._linear(part.up.weight, rows=[edge, edge])

    def _layers(self, layers: FoldedLayers, width: int) -> None:
        self._counts += [_up(width), int(layers.has_dense)]
        if layers.has_dense:
            assert isinstance(layers.dense, Linear)
            self._linear(layers.dense.weight)
        self._counts.append(len(layers.residual))
        for layer in layers.residual:
            assert isinstance(layer, FoldedResidual)
            self._linear(layer.inner.weight)
            self._linear(layer.outer.weight)
            self._factors.append(layer.share)

    def _linear(
        self,
        weight: Tensor,
        *,
        rows: Sequence[int] = (),
        columns: Sequence[int] = (),
        columns_up_to: int = 0,
    ) -> None:
        """A weight (out, in) of parts side by side, each filled up."""
        columns = columns or weight.shape[1:]
        filled = _fill(weight, rows or weight.shape[:1], columns)
        missing = max(columns_up_to - len(columns), 0) * _up(columns[0])
        filled = nn.functional.pad(filled, (0, missing))
        self._counts += [filled.shape[1], filled.shape[0]]
        self._add(filled.t(), filled)


def _up(width: int, multiple: int = WIDTH) -> int:
    return -(-width // multiple) * multiple


def _fill(weight: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """A weight of parts, each filled up to a multiple of :data:`WIDTH`."""
    for dim, sizes in enumerate((rows, columns)):
        parts = []
        for part in weight.split(list(sizes), dim=dim):
            shape = list(part.shape)
            shape[dim] = _up(shape[dim]) - shape[dim]
            parts += [part, part.new_zeros(shape)]
        weight = torch.cat(parts, dim=dim)
    return weight


def _fill_vector(x: Tensor) -> Tensor:
    return nn.functional.pad(x, (0, _up(len(x)) - len(x)))


def _by_degree(factors: Tensor, cbf: int, scale: Tensor) -> list[Tensor]:
    """(num_radial, cbf * S) -> S times (num_radial, cbf)."""
    return list((factors.view(len(factors), cbf, -1) * scale).unbind(2))
