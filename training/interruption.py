"""Ctrl-C and SIGTERM during training: stop after the step, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jmp_md.errors import JMPError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedRunError(JMPError):
    """A run that was asked to stop, after it wrote its checkpoint.

    Attributes:
        signum: The signal, or None where another process of the run got it.
    """

    def __init__(self, message: str, signum: int | None) -> None:
        super().__init__(message)
        self.signum = signum


class Interruption:
    """Whether a signal asks this process to stop. The same signal again acts as it does elsewhere.

    Attributes:
        signum: The signal that came; None where none did.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._at_once = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals over while the block lasts; only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._before = {signum: signal.signal(signum, self._take) for signum in SIGNALS}
        try:
            yield
        finally:
            for signum, handler in self._before.items():
                signal.signal(signum, handler)

    @contextmanager
    def leaving_at_once(self, at_once: bool = True) -> Iterator[None]:
        """Leave by :class:`InterruptedRunError` where the signal comes, from what begins again."""
        self._at_once = at_once
        try:
            yield
        finally:
            self._at_once = False

    def _take(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        signal.signal(signum, self._before[signal.Signals(signum)])
        if self._at_once:
            raise InterruptedRunError("interrupted", signum)
