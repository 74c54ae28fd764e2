"""Judgements of a result, each with what was measured, what was asked, and why that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Whether a result stands in one respect.

    Attributes:
        subject: What is judged, e.g. ``"convergence"``.
        holds: Whether it stands; None where that cannot be said.
        measured: The number with its unit.
        asked: The threshold with its unit.
        reason: Why that threshold: a formula, a source, or what asks for it.
        doubt: Where it does not stand, what follows and what to do, in one sentence.
    """

    subject: str
    holds: bool | None
    measured: str
    asked: str
    reason: str
    doubt: str = ""


def doubts(verdicts: Iterable[Verdict]) -> tuple[str, ...]:
    """What speaks against a result: one sentence for each respect in which it does not stand."""
    return tuple(verdict.doubt for verdict in verdicts if verdict.holds is False)
