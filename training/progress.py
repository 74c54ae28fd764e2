"""What a run knows of itself, besides tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jmp_md.errors import InputError


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epoch, step: Done.
        seconds: Spent on steps and validations.
        best: Lowest error in a validation.
        best_step: Step of that validation.
        skipped: Batches that were not finite.
        loss, losses: Sum and number of the losses since the last validation.
        history: Rows of the log.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best: float = float("inf")
    best_step: int = 0
    skipped: int = 0
    loss: float = 0.0
    losses: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def from_dict(cls, values: dict[str, Any], path: Path) -> Progress:
        """What ``dataclasses.asdict`` gave, from the checkpoint ``path``.

        Raises:
            InputError: Another version of this package wrote it.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise InputError(
                f"{path} is of another version of jmp-md: resume with that one, or start again in "
                "another --output"
            ) from error

    @property
    def validated(self) -> int:
        """Step of the last validation."""
        return int(self.history[-1]["step"]) if self.history else 0
