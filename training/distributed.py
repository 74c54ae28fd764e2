"""Training on several devices: torch.distributed, started by ``--devices`` or by torchrun.

Plain DistributedDataParallel is enough for the paper's models (at most 0.23 G parameters), copes
with the double backward of conservative forces, and adds no dependency.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing import ProcessExitedException, start_processes

from jmp_md.errors import InputError
from jmp_md.load import usable_device

T = TypeVar("T")

# The first process finishes models while the others wait for it.
PATIENCE = timedelta(hours=2)
_STORE = "JMP_MD_STORE"  # the file through which processes of one machine meet


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

    def gathered(self, value: T) -> list[T]:
        """What each process has, on all of them."""
        found: list[T] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(found, value)
        return found

    def shared(self, value: T) -> T:
        """What process 0 has; the others' values are passed over."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, device=self.device)
        return box[0]

    def first(self, make: Callable[[], T]) -> T:
        """What ``make`` gives on process 0, on all of them."""
        return self.shared(make()) if self.rank == 0 else self.shared(cast(T, None))


def join(device: str) -> Ranks:
    """Join the run this process was started for; alone where it was started by hand.

    Args:
        device: ``cpu``, ``cuda`` or one device; with ``cuda`` every process takes one of its own.

    Raises:
        InputError: There is no such device, or the processes do not find each other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks(0, 1, usable_device(device))
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    place = usable_device(device)
    if not dist.is_initialized():
        if place.type == "cuda":
            torch.cuda.set_device(place)
        backend = "nccl" if place.type == "cuda" else "gloo"
        store = os.environ.get(_STORE)
        url = "env://" if store is None else Path(store).as_uri()
        rank = int(os.environ["RANK"])
        try:
            dist.init_process_group(backend, url, PATIENCE, world_size=size, rank=rank)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"process {rank} of {size} does not find the others ({error}): on several "
                "machines, set GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME to their network interface"
            ) from error
    return Ranks(dist.get_rank(), dist.get_world_size(), place)


def leave() -> None:
    """End this process' part in the run, whose models the caller has dropped.

    A model of DistributedDataParallel that outlives the group ends its threads while it holds
    Python's lock, for which one of them may wait: the process hangs.
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def launch(command: Callable[[Sequence[str]], int], arguments: Sequence[str], devices: int) -> int:
    """Run a command with ``arguments`` in ``devices`` processes of this machine.

    The processes meet in a file and talk over the loopback interface. torchrun's rendezvous and
    gloo look up the machine's own name instead, which takes minutes where no name server answers.
    When one process fails the others are ended. SIGINT and SIGTERM go to all of them.

    Returns:
        The exit status.
    """
    with tempfile.TemporaryDirectory(prefix="jmp-md-") as folder:
        given = (command, list(arguments), devices, f"{folder}/store")
        context = start_processes(_process, given, devices, join=False, start_method="spawn")
        try:
            with _signals_for(context.pids()):
                while not context.join():
                    pass
        except ProcessExitedException as error:
            code = error.exit_code
            if code == -signal.SIGKILL:
                print(
                    f"process {error.error_index} of {devices} was killed, as systems do that run "
                    "out of memory: --restart goes on from the last validation",
                    file=sys.stderr,
                )
            return code if code >= 0 else 128 - code
    return 0


@contextmanager
def _signals_for(pids: Sequence[int]) -> Iterator[None]:
    """Pass signals that ask to stop on to the processes of a run, which save before they end."""

    def forward(signum: int, frame: object) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    before = {signum: signal.signal(signum, forward) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _process(
    rank: int, command: Callable[[Sequence[str]], int], arguments: list[str], size: int, store: str
) -> None:
    """One of the processes of a run; the environment is its own."""
    take_part(rank, size, store)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(torch.get_num_threads() // size, 1))
    sys.exit(command(arguments))


def take_part(rank: int, size: int, store: str) -> None:
    """Make this process, whose environment is its own, one of ``size`` that meet in ``store``.

    The store is a file that none has opened before: one that served another run may hang this one.
    """
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
    os.environ[_STORE] = store
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    if loopback:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback[0])


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
