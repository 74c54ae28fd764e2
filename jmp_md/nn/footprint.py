"""How much memory the network takes."""

from __future__ import annotations

import torch

from jmp_md.memory import free_memory
from jmp_md.nn.config import BackboneConfig

_FEW = 64 * 2**20  # bytes for which it is not worth to ask what is free


def fits(slots: int, sizes: BackboneConfig, weight: torch.Tensor, kernels: bool = False) -> bool:
    """Whether so many edge slots surely are few, or take no more than half of the free memory.

    Args:
        slots: Of the main graph.
        sizes: Of the network.
        weight: One of its weights, which tells the device and the type.
        kernels: Whether those of :mod:`jmp_md.nn.kernels` compute it.
    """
    of_slot = _bytes_in_kernels(sizes, weight) if kernels else _bytes_of_slot(sizes, weight)
    needed = slots * of_slot
    return needed <= _FEW or needed <= free_memory(weight.device) // 2


def edges_that_fit(sizes: BackboneConfig, weight: torch.Tensor) -> int:
    """Main-graph edge slots whose energy and forces take half of the free memory."""
    return edges_in(free_memory(weight.device) // 2, sizes, weight)


def edges_in(n_bytes: int, sizes: BackboneConfig, weight: torch.Tensor) -> int:
    """Main-graph edge slots whose energy and forces take so many bytes."""
    return n_bytes // _bytes_of_slot(sizes, weight)


def _bytes_of_slot(sizes: BackboneConfig, weight: torch.Tensor) -> int:
    """What an edge slot takes.

    A slot takes about 100 emb_size_edge + 2500 numbers in every interaction block where nothing
    is computed twice: half of it for the tensors that the backward pass needs, the rest for what
    an allocator holds back (measured for jmp-xs, jmp-s and jmp-l, docs/performance.md).
    """
    numbers = (100 * sizes.emb_size_edge + 2500) * sizes.num_blocks
    return numbers * weight.element_size()


def _bytes_in_kernels(sizes: BackboneConfig, weight: torch.Tensor) -> int:
    """The same where kernels compute: 37 emb_size_edge in a block, measured for jmp-xs.

    That is the peak of a process in a first step, with the graph; kernels alone keep 22 to 24.
    """
    return 40 * sizes.emb_size_edge * sizes.num_blocks * weight.element_size()
