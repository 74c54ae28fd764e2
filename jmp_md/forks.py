"""Processes that a fork made without the threads that OpenMP waits for."""

from __future__ import annotations

import os
import threading

import torch
from torch import nn

from jmp_md.errors import InputError

# Torch shares out an operation on more elements than this (at::internal::GRAIN_SIZE).
_SHARED_OUT = 32_768

# OpenMP keeps threads for each thread that has computed: here, in which process it did.
_THREADS = threading.local()


def expect_threads() -> None:
    """To be called before computing on the processor, which may start threads of OpenMP.

    Raises:
        InputError: As :func:`refuse_lost_threads` does.
    """
    refuse_lost_threads()
    if torch.get_num_threads() > 1:
        _THREADS.process = os.getpid()


def refuse_lost_threads(whatever_number: bool = False) -> None:
    """Refuse to compute in a process that would wait for ever for threads of its parent.

    Args:
        whatever_number: Also with one thread, for code that was compiled for more.

    Raises:
        InputError: This thread was forked after it had computed with several threads.
    """
    lost = getattr(_THREADS, "process", None) not in (None, os.getpid())
    if lost and (whatever_number or torch.get_num_threads() > 1):
        raise InputError(
            "this process was forked from one that had computed with several threads, for which it "
            "would wait for ever: start processes with multiprocessing.get_context('spawn'), or "
            "call torch.set_num_threads(1) first in each new process, or set OMP_NUM_THREADS=1"
        )


def expect_threads_of(model: nn.Module) -> None:
    """The same for a model that was read or copied: large tensors are shared out."""
    if any(p.numel() > _SHARED_OUT and p.is_cpu for p in model.parameters()):
        expect_threads()
