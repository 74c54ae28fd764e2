"""A step of the folded network by the C++ code: energies, and gradients by the geometry."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from jmp_md.graph.layout import Graph
from jmp_md.nn.fold import FoldedNetwork
from jmp_md.nn.kernels.library import load
from jmp_md.nn.kernels.pack import Packed

_KEPT_BYTES = 2**28  # of a thread's memory, from one step to the next
_UP_TO = 128  # columns of the embeddings of edges; wider products are for a library


class Outputs(NamedTuple):
    """What a step gives.

    Attributes:
        energies: (n_atoms,) as :meth:`~jmp_md.nn.fold.FoldedNetwork.forward` gives them, detached
            but for the repulsion.
        roots: Tensors of the graph that have a gradient.
        gradients: Gradient of the total energy by each of them.
    """

    energies: Tensor
    roots: list[Tensor]
    gradients: list[Tensor]


class Kernels:
    """A folded network on a processor.

    Threads may share it: what a step needs is its own.

    Args:
        network: Whose weights to use, as they are now.
        folder: Where compiled code is kept.

    Attributes:
        problem: Why it cannot be used; empty where it can.
    """

    def __init__(self, network: FoldedNetwork, folder: Path) -> None:
        self._network = network
        self.problem = _unfit(network)
        if not self.problem:
            bases = network.backbone.bases
            found = load(folder, network.embedding.weight.dtype, bases.sizes.spherical)
            if isinstance(found, str):
                self.problem = found
            else:
                self._function, self._packed = found, Packed(network)

    def __call__(self, numbers: Tensor, graph: Graph) -> Outputs:
        """Energies, and gradients where they are enabled."""
        weight = self._network.embedding.weight
        measures = [x for edges in graph[:4] for x in (edges.distance, edges.unit, edges.weight)]
        gradient = torch.is_grad_enabled() and any(x.requires_grad for x in measures)
        energies = weight.new_empty(len(numbers))
        with torch.no_grad():
            found = [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in measures]
            arrays, sizes = _arguments(numbers, graph, measures, found)
        pointers = (ctypes.c_void_p * len(arrays))(*[x.data_ptr() for x in arrays])
        failed = self._function(
            self._packed.pointers,
            self._packed.counts,
            self._packed.factors,
            pointers,
            (ctypes.c_int64 * len(sizes))(*sizes),
            ctypes.c_int(graph.smooth),
            ctypes.c_double(graph.inline_sin2),
            ctypes.c_int(torch.get_num_threads()),
            ctypes.c_int(gradient),
            ctypes.c_int64(_KEPT_BYTES),
            ctypes.c_void_p(energies.data_ptr()),
        )
        if failed:
            raise MemoryError("out of memory in the kernels of the network")
        pairs = [(x, g) for x, g in zip(measures, found, strict=True) if x.requires_grad]
        roots, gradients = [x for x, _ in pairs], [g for _, g in pairs]
        if self._network.has_repulsion:
            known = self._network.repulsion(numbers, graph.main) / self._network.energy_scale
            energies = energies + known
            roots.append(known)
            gradients.append(torch.ones_like(known))
        return Outputs(energies, roots, gradients)


def _unfit(network: FoldedNetwork) -> str:
    """Why kernels are not for a network."""
    weight, width = network.embedding.weight, network.backbone.bases.edge_emb.on_edges.shape[0]
    if weight.device.type != "cpu":
        return f"kernels are for processors, not for {weight.device.type}"
    if network.backbone.reduced is not None:
        return f"there are no kernels for {network.backbone.reduced}"
    if width > _UP_TO:
        return f"embeddings of edges have {width} columns, more than {_UP_TO}"
    return ""


def _arguments(
    numbers: Tensor, graph: Graph, measures: list[Tensor], gradients: list[Tensor]
) -> tuple[list[Tensor], list[int]]:
    """Arrays and sizes in the order they are read."""
    arrays, sizes = [numbers], [len(numbers)]
    for i, edges in enumerate(graph[:4]):
        own = slice(3 * i, 3 * i + 3)
        arrays += [edges.source, edges.target, *measures[own], *gradients[own]]
        sizes += [len(edges.source), edges.slots]
    arrays += [graph.swap, graph.differ_atom_edge, graph.differ_quadruplet]
    arrays += [graph.open_triplet, graph.closing, graph.is_closing]
    return [x.contiguous() for x in arrays], sizes
