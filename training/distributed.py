"""Training on several devices: torch.distributed, started by torchrun.

Plain DistributedDataParallel is enough for the paper's models (at most 0.23 G parameters), copes
with the double backward of conservative forces, and adds no dependency.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from jmp_md.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        rank: Its number; 0 writes files.
        size: How many there are.
        device: Where it computes.
    """

    rank: int
    size: int
    device: torch.device

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def shared(self, value: T) -> T:
        """What process 0 has; the others' values are passed over."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, device=self.device)
        return box[0]


def join(device: str) -> Ranks:
    """Join the run torchrun started this process for; alone without torchrun.

    Args:
        device: ``cpu``, ``cuda`` or one device; with ``cuda`` every process takes one of its own.

    Raises:
        InputError: There is no such device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1 and device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {device!r} cannot be used ({str(error).splitlines()[0]}): choose cpu, or "
            "cuda and no more --devices than there are GPUs"
        ) from error
    if size == 1:
        return Ranks(0, 1, place)
    if not dist.is_initialized():
        if place.type == "cuda":
            torch.cuda.set_device(place)
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    return Ranks(dist.get_rank(), dist.get_world_size(), place)


def leave() -> None:
    """End this process' part in the run."""
    if dist.is_initialized():
        dist.destroy_process_group()


def launch(arguments: Sequence[str], devices: int) -> int:
    """Run ``jmp-md`` with ``arguments`` in ``devices`` processes of this machine.

    Returns:
        The exit status.
    """
    # By name, a machine may take minutes to find its own address.
    local = ["--standalone", "--local-addr=localhost"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *local]
    command = [*torchrun, f"--nproc-per-node={devices}", "-m", "jmp_md.cli.main", *arguments]
    return subprocess.run(command, check=False).returncode


def share(sizes: Sequence[int], ranks: int) -> list[list[int]]:
    """Positions of a batch for each process, about the same number of atoms for all.

    Args:
        sizes: Atoms of each structure of the batch.
        ranks: Processes.

    Returns:
        Ascending positions by process: the largest structure left always goes to the process
        that has the fewest atoms.
    """
    parts: list[list[int]] = [[] for _ in range(ranks)]
    atoms = [0] * ranks
    for position in np.argsort(-np.asarray(sizes), kind="stable"):
        poorest = min(range(ranks), key=lambda r: (atoms[r], r))
        parts[poorest].append(int(position))
        atoms[poorest] += sizes[position]
    return [sorted(part) for part in parts]
