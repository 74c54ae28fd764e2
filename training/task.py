"""One head and what it learns from: what every kind of run is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jmp_md.header import HeadInfo
from jmp_md.training.data.frame import Dataset
from jmp_md.training.loss import NO_MARGINS, UNSCALED, Scales


@dataclass(frozen=True)
class TaskData:
    """Frames of one task.

    Attributes:
        train: To train on.
        validation: To validate on; of other systems.
        references, scales: Energies of the elements, eV by atomic number, and scales of the labels,
            where they need not be fitted.
    """

    train: Dataset
    validation: Dataset
    references: Mapping[int, float] | None = None
    scales: Scales | None = None


@dataclass(frozen=True)
class Task:
    """One head and what it learns from.

    Attributes:
        head: What the head is: graphs, scale, references, elements, level of theory.
        train, validation: Its frames.
        scales: What errors are divided by.
        terms: Which labels it learns from, of ``energy``, ``forces`` and ``stress``.
        margins: Errors that count as none.
        force_weight: Weight of the force error of an atom or structure, beside other tasks.
        start: Head of the base whose weights it starts from; None draws them anew.
        shift: When its references take up what the network misses of its energies: ``before`` the
            first step and at the ``end``, at the ``end`` alone, or ``never``.
        prior: eV by atomic number, what references stay near to at a shift before the first step.
        weights: Name of the number that weighs a frame in the loss, if any.
        seen: What its training frames hold, see :func:`jmp_md.domain.seen`.
        about: Further entries of the header's ``training``.
    """

    head: HeadInfo
    train: Dataset
    validation: Dataset
    scales: Scales = UNSCALED
    terms: tuple[str, ...] = ("energy", "forces")
    margins: Scales = NO_MARGINS
    force_weight: float = 1.0
    start: str | None = None
    shift: str = "end"
    prior: Mapping[int, float] | None = None
    weights: str | None = None
    seen: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """That of its head."""
        return self.head.name


def training_about(tasks: list[Task]) -> dict[str, Any]:
    """What the header's ``training`` says of the data of tasks."""
    about: dict[str, Any] = {}
    for task in tasks:
        about |= task.about
    known = {task.name: task.seen for task in tasks if task.seen}
    if known:
        about["seen"] = known[tasks[0].name] if len(tasks) == 1 else {"heads": known}
    return about
