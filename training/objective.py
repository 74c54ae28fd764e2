"""What a training run minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from jmp_md.training.distributed import Ranks


class Objective(nn.Module, ABC):
    """A model, its loss on a batch, and the errors that choose the best epoch.

    Attributes:
        model: What is trained; it has a ``backbone``.
        weights: Weight of each term of the loss.
        monitor: Name of the error to lower.
        tasks: Tasks whose gradients are not to conflict, which then can be evaluated one by one;
            empty where there is one gradient of all.
        gradient_scale: Factor of energies while forces are taken from them, see
            :class:`~jmp_md.training.gradients.LossScale`.
    """

    model: nn.Module
    weights: tuple[float, ...]
    monitor: str
    tasks: tuple[str, ...] = ()
    gradient_scale: float = 1.0

    @abstractmethod
    def forward(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Sum and number of the errors in each term: two tensors (n_terms,).

        Sums and numbers, not means, so that several processes add up to the mean of all.
        """

    @abstractmethod
    def measure(self, model: nn.Module, ranks: Ranks) -> dict[str, float]:
        """Validation errors of ``model``, which is built like the one that is trained.

        The processes in ``ranks`` share the frames; all of them get the errors over all frames.
        """

    @abstractmethod
    def export(
        self,
        model: nn.Module,
        path: Path,
        metrics: dict[str, float],
        training: dict[str, Any],
        weights: str,
    ) -> None:
        """Write ``model`` as a file, with its errors and how it was trained.

        Args:
            model: Built like the one that is trained.
            path: File to write.
            metrics: Its errors.
            training: How it was trained.
            weights: ``"ema"`` for averaged ones, ``"raw"`` for those of the last step.
        """
