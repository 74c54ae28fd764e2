"""The end of a training run that a signal asked to stop: after the step, with a checkpoint."""

from __future__ import annotations

from jmp_md.errors import JMPError


class InterruptedRunError(JMPError):
    """A run that was asked to stop, after it wrote its checkpoint.

    Attributes:
        signum: The signal, or None where another process of the run got it.
    """

    def __init__(self, message: str, signum: int | None) -> None:
        super().__init__(message)
        self.signum = signum


def interrupted(signum: int | None) -> InterruptedRunError:
    """The error of a signal."""
    return InterruptedRunError("interrupted", signum)
