"""Signals that ask a command to stop, which it answers when it has saved what it has done."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class signals_as_question:  # noqa: N801 - a context manager, named as one reads it
    """While this lasts, Ctrl-C and SIGTERM do not end the process but make :meth:`asked` true.

    A second one of them interrupts at once. Outside of the main thread, which alone receives
    signals, nothing changes.

    Attributes:
        received: Number of the first signal; None before.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._old: dict[int, object] = {}

    def asked(self) -> bool:
        """Whether a signal has come."""
        return self.received is not None

    def __enter__(self) -> signals_as_question:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number
