"""How much memory there is to compute with, and how much the network takes."""

from __future__ import annotations

import ctypes
import os

import torch

from jmp_md.nn.config import BackboneConfig

_UNKNOWN = 4 * 2**30


def free_memory(device: torch.device) -> int:
    """Bytes free on a device; a careful guess where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN


def edges_that_fit(sizes: BackboneConfig, weight: torch.Tensor) -> int:
    """Main-graph edge slots whose energy and forces take half of the free memory.

    A slot takes about 100 emb_size_edge + 2500 numbers in every interaction block where nothing
    is computed twice: half of it for the tensors that the backward pass needs, the rest for what
    an allocator holds back (measured for jmp-xs, jmp-s and jmp-l, docs/performance.md).
    """
    numbers = (100 * sizes.emb_size_edge + 2500) * sizes.num_blocks
    return free_memory(weight.device) // 2 // (numbers * weight.element_size())


def give_back_freed_memory(gradient: torch.Tensor | None = None) -> None:
    """Have the C library return freed memory to the system; as a hook, where a gradient passes.

    Left to itself, glibc keeps freed arrays of up to 32 MiB in its heap, where small objects
    between them soon forbid to use them again: the process grows to several times what it needs.
    Does nothing where there is no glibc.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return
