"""How much memory there is to compute with."""

from __future__ import annotations

import os

import torch

_UNKNOWN = 4 * 2**30


def free_memory(device: torch.device) -> int:
    """Bytes free on a device; a careful guess where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN
