"""The loop over the blocks of a network, with or without keeping what its backward pass needs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from jmp_md.graph.layout import Graph
from jmp_md.memory import give_back_freed_memory
from jmp_md.nn.coefficients import BasisProjections


def recomputed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that keeps only its inputs and computes the rest again in the backward pass."""
    return partial(checkpoint, function, use_reentrant=False)


def propagate(
    network: Any, h: Tensor, m: Tensor, bases: BasisProjections, graph: Graph, recompute: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Alternate output and interaction blocks.

    Args:
        network: Has ``int_blocks``, and ``out_blocks``, one more.
        h: (n_atoms, emb_atom) embeddings of atoms.
        m: (n_edges, emb_edge) embeddings of main edges.
        bases: What all blocks share.
        graph: The four graphs.
        recompute: Whether blocks are computed again in the backward pass.

    Returns:
        The features of atoms, and those of edges, of all output blocks.
    """
    energies: list[Tensor] = []
    forces: list[Tensor] = []
    *before, last = network.out_blocks
    for block, out_block in zip(network.int_blocks, before, strict=True):
        if recompute:
            block, out_block = recomputed(block), recomputed(out_block)
        z, f = out_block(h, m, bases, graph)
        h, m = block(h, m, bases, graph)
        if recompute and m.requires_grad and not m.is_cuda:  # after it, forward and backward
            give_back_freed_memory()
            m.register_hook(give_back_freed_memory)
        energies.append(z)
        forces.append(f)
    z, f = last(h, m, bases, graph)
    return [*energies, z], [*forces, f]
