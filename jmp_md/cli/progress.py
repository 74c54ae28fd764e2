"""How far a run is: one line that moves on a terminal, sparse lines elsewhere."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

_REFRESH = 0.1  # s between changes of the line on a terminal
_SPARSE = 60.0  # s between lines in a file, where none of the tenths of a run is reached


class Progress:
    """Reports steps of a run with their rate and the time that is left.

    Args:
        total: Steps of the run, counted from its start.
        timestep: fs of a step of dynamics, for ns/day; None elsewhere.
        what: What is counted.
    """

    def __init__(self, total: int, timestep: float | None = None, what: str = "step") -> None:
        self._total, self._timestep, self._what = total, timestep, what
        self._terminal = sys.stdout.isatty()
        self._first: tuple[float, int] | None = None
        self._last = (0.0, -1)
        self._open = False

    def show(self, step: int, text: str) -> None:
        """Report a step.

        Args:
            step: Its number.
            text: What there is to say of it.
        """
        now = time.monotonic()
        if self._first is None:
            self._first = now, step
        if not self._due(now, step):
            return
        self._last = now, step
        line = (
            f"  {self._what} {step:>{len(str(self._total))}}/{self._total}  {text}"
            f"{self._rate(now, step)}"
        )
        if self._terminal:
            print(f"\r{line}\033[K", end="", flush=True)
            self._open = True
        else:
            print(line, flush=True)
        if step >= self._total:
            self.close()

    def close(self) -> None:
        """End the line on a terminal."""
        if self._open:
            print(flush=True)
        self._open = False

    def _due(self, now: float, step: int) -> bool:
        then, before = self._last
        if before < 0 or step >= self._total:
            return True
        if self._terminal:
            return now - then >= _REFRESH
        tenths = 10 * step // self._total > 10 * before // self._total
        return tenths or now - then >= _SPARSE

    def _rate(self, now: float, step: int) -> str:
        assert self._first is not None
        then, first = self._first
        if step <= first or now <= then:
            return ""
        rate = (step - first) / (now - then)
        left = timedelta(seconds=round((self._total - step) / rate))
        speed = f"  {rate:.3g} steps/s"
        if self._timestep is not None:
            speed += f"  {rate * self._timestep * 86400e-6:.3g} ns/day"
        return f"{speed}  {left} left" if step < self._total else speed
