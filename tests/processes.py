"""Tests in processes of their own, for what must not happen in that of pytest."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any


def run_alone(function: Callable[..., None], *arguments: Any, seconds: float = 120) -> None:
    """Call a function of a test module in a new process, which has none of this one's threads.

    Raises:
        TimeoutError: It did not end in time; whatever it started is ended.
        RuntimeError: It failed; its traceback is on the standard error.
    """
    process = get_context("spawn").Process(target=_lead, args=(function, arguments))
    process.start()
    process.join(seconds)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        raise TimeoutError(f"{function.__name__} did not end in {seconds} s")
    if process.exitcode != 0:
        raise RuntimeError(f"{function.__name__} failed with exit code {process.exitcode}")


def _lead(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.setsid()  # so that the processes that it starts end with it
    function(*arguments)
