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
        measures = [x for edges in graph[:4] for x in (edges.distance, edges.unit, edges.weight)]
        gradient = torch.is_grad_enabled() and any(x.requires_grad for x in measures)
        with torch.no_grad():
            found = [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in measures]
            energies = self._run(numbers, graph, found if gradient else [])
        pairs = [(x, g) for x, g in zip(measures, found, strict=True) if x.requires_grad]
        roots, gradients = [x for x, _ in pairs], [g for _, g in pairs]
        if self._network.has_repulsion:
            known = self._network.repulsion(numbers, graph.main) / self._network.energy_scale
            energies = energies + known
            roots.append(known)
            gradients.append(torch.ones_like(known))
        return Outputs(energies, roots, gradients)

    @property
    def trained(self) -> list[Tensor]:
        """What :meth:`by_weights` gives gradients by, made of the weights of the potential."""
        return self._packed.trained

    @torch.no_grad()
    def by_weights(self, numbers: Tensor, graph: Graph, seeds: Tensor) -> list[Tensor]:
        """Gradients of the sum of energies times seeds (n_atoms,) by each of :attr:`trained`.

        They are the same bits each time where the number of threads is.
        """
        threads = torch.get_num_threads()
        found = seeds.new_zeros(threads, self._packed.size)
        self._run(numbers, graph, [], seeds.contiguous(), found)
        return self._packed.gradients(found.sum(dim=0) if threads > 1 else found[0])

    def _run(
        self,
        numbers: Tensor,
        graph: Graph,
        by_geometry: list[Tensor],
        seeds: Tensor | None = None,
        by_weights: Tensor | None = None,
    ) -> Tensor:
        """Energies; gradients go to what is given for them."""
        packed, known = self._packed, len(self._network.embedding.weight)
        lowest, highest = (int(number) for number in numbers.aminmax()) if len(numbers) else (1, 1)
        if lowest < 1 or highest > known:
            raise IndexError(f"atomic numbers from {lowest} to {highest}: 1 to {known} are known")
        energies = self._network.embedding.weight.new_empty(len(numbers))
        arrays, sizes = _arguments(numbers, graph, by_geometry)
        failed = self._function(
            packed.pointers,
            packed.offsets,
            packed.counts,
            packed.factors,
            (ctypes.c_void_p * len(arrays))(*[_pointer(x) for x in arrays]),
            (ctypes.c_int64 * len(sizes))(*sizes),
            ctypes.c_int(graph.smooth),
            ctypes.c_double(graph.inline_sin2),
            ctypes.c_int(torch.get_num_threads()),
            ctypes.c_int(bool(by_geometry)),
            ctypes.c_void_p(_pointer(by_weights)),
            ctypes.c_int64(packed.size),
            ctypes.c_void_p(_pointer(seeds)),
            ctypes.c_int64(_KEPT_BYTES),
            ctypes.c_void_p(energies.data_ptr()),
        )
        if failed:
            raise MemoryError("out of memory in the kernels of the network")
        return energies


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
    numbers: Tensor, graph: Graph, gradients: list[Tensor]
) -> tuple[list[Tensor | None], list[int]]:
    """Arrays and sizes in the order they are read."""
    arrays: list[Tensor | None] = [numbers]
    sizes = [len(numbers)]
    for i, edges in enumerate(graph[:4]):
        arrays += [edges.source, edges.target, edges.distance, edges.unit, edges.weight]
        arrays += gradients[3 * i : 3 * i + 3] or [None] * 3
        sizes += [len(edges.source), edges.slots]
    arrays += [graph.swap, graph.differ_atom_edge, graph.differ_quadruplet]
    arrays += [graph.open_triplet, graph.closing, graph.is_closing]
    return [None if x is None else x.contiguous() for x in arrays], sizes


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
