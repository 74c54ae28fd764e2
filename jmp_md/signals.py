"""Ctrl-C and SIGTERM: a run that is asked to stop saves what it has done, and then ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM, with which queues end a job: what an interrupt saves is saved."""


class StopRequest:
    """Whether a signal asks this process to stop, which code asks when it can.

    After the first signal both act as they did before: a second one interrupts at once.

    Attributes:
        signum: The signal that came; None where none did.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._before: dict[int, Any] = {}
        self._error: Callable[[int], BaseException] | None = None

    def came(self) -> bool:
        """Whether a signal has come."""
        return self.signum is not None

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Take the signals over while the block lasts; only a main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in SIGNALS}
        try:
            yield self
        finally:
            self._give_back()

    @contextmanager
    def raising(self, error: Callable[[int], BaseException] | None) -> Iterator[None]:
        """Raise an error where the signal comes, in code that can be left anywhere.

        Args:
            error: Makes it of the number of the signal; None goes on asking.
        """
        self._error = error
        try:
            yield
        finally:
            self._error = None

    def _take(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self._give_back()
        if self._error is not None:
            raise self._error(signum)

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise :class:`Terminated` on the first SIGTERM; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
