"""How much memory there is to compute with, and what becomes of freed memory."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import ClassVar

import torch

_UNKNOWN = 4 * 2**30
_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate", "cannot allocate")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEEPS: list[bool] = []
_CGROUPS, _OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def free_memory(device: torch.device) -> int:
    """Bytes free on a device; a careful guess where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        about = _numbers(Path("/proc/meminfo"))
        return min(1024 * about["MemAvailable"], _allowed()) + _kept_bytes()
    except (OSError, KeyError, ValueError):
        return _UNKNOWN


def _allowed() -> int:
    """Bytes that the limits on this process leave, as a container or a batch system sets them."""
    left = 2**62
    for line in _OWN_CGROUP.read_text().splitlines():
        number, controllers, own = line.split(":", 2)
        if number == "0":  # version 2
            root, names = _CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            root = _CGROUPS / "memory"
        else:
            continue
        folder = root / own.lstrip("/")
        while folder.is_relative_to(root):
            left = min(left, _left(folder, *names))
            folder = folder.parent
    return left


def _left(folder: Path, limit: str, usage: str, reclaimable: str) -> int:
    try:
        most, used = (folder / limit).read_text().strip(), (folder / usage).read_text()
        files = _numbers(folder / "memory.stat").get(reclaimable, 0)
        return 2**62 if most == "max" else max(int(most) - int(used) + files, 0)
    except (OSError, ValueError):
        return 2**62  # no limit here


def _numbers(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    pairs = (line.replace(":", " ").split()[:2] for line in path.read_text().splitlines())
    return {name: int(value) for name, value in pairs}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was short."""
    message = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in message for words in _OUT_OF_MEMORY
    )


def keep_freed_memory() -> bool:
    """Have the C library keep the memory of freed tensors for the next step, in this process.

    Left to itself, glibc gives large arrays back to the system when they are freed and fetches
    others page by page, which soon takes longer than to compute: a step of 5,184 atoms takes three
    times as long (docs/performance.md). Kept, the process stays as large as it once was, and grows
    up to a third larger, with lean memory up to 1.5 times as large. It is a setting of the whole
    process, so that libraries must not choose it: the command line does, and scripts may.

    Returns:
        Whether there is a glibc that took the settings.
    """
    try:
        libc = ctypes.CDLL(None)
        done = libc.mallopt(_M_MMAP_THRESHOLD, 2**30) and libc.mallopt(_M_TRIM_THRESHOLD, -1)
    except (AttributeError, OSError, TypeError):
        return False
    if done and not _KEEPS:
        _KEEPS.append(True)
    return bool(done)


class _Mallinfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc 2.33 and later."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in (
            [
                "arena",
                "ordblks",
                "smblks",
                "hblks",
                "hblkhd",
                "usmblks",
                "fsmblks",
                "uordblks",
                "fordblks",
                "keepcost",
            ]
        )
    ]


def _kept_bytes() -> int:
    """Freed memory that this process keeps because of :func:`keep_freed_memory`."""
    if not _KEEPS:
        return 0
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0
    mallinfo.restype = _Mallinfo
    return int(mallinfo().fordblks)


def give_back_freed_memory(gradient: torch.Tensor | None = None) -> None:
    """Have the C library return freed memory to the system; as a hook, where a gradient passes.

    Left to itself, glibc keeps freed arrays of up to 32 MiB in its heap, where small objects
    between them soon forbid to use them again: the process grows to several times what it needs.
    Does nothing where there is no glibc, and after :func:`keep_freed_memory`.
    """
    if _KEEPS:
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return
