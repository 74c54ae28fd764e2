"""Learning rates and averaged weights of the paper."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel

from jmp_md.errors import InputError
from jmp_md.training.sections import LayerFactors, OptimiserSection

Tensors = tuple[Tensor, ...] | list[Tensor]

# The paper's factors, by number of blocks (arXiv 2310.16802, appendix).
PAPER_FACTORS = {
    4: LayerFactors(embedding=0.30, blocks=(0.35, 0.40, 0.55, 0.625)),
    6: LayerFactors(embedding=0.30, blocks=(0.55, 0.40, 0.30, 0.40, 0.55, 0.625)),
}


def layer_groups(model: nn.Module, factors: LayerFactors) -> dict[float, list[nn.Parameter]]:
    """Trainable parameters by the share of the learning rate they take.

    Block i is ``int_blocks.i`` with ``out_blocks.i+1``, and ``out_blocks.0`` for the first;
    everything but blocks and embedding has 1.

    Raises:
        InputError: There are not as many factors as blocks.
    """
    n_blocks = sum(name.endswith(".dense_ca") for name, _ in model.named_modules())
    if factors.paper:
        factors = PAPER_FACTORS.get(n_blocks, factors)
    if factors.paper or (factors.blocks and len(factors.blocks) != n_blocks):
        raise InputError(
            f"optimiser.layer_factors does not fit a model of {n_blocks} blocks: give blocks a "
            "factor for each; the paper's are for 4 and 6"
        )
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(_factor(name, factors), []).append(parameter)
    return groups


def _factor(name: str, factors: LayerFactors) -> float:
    parts = name.split(".")
    if "embedding" in parts:
        return factors.embedding
    for kind, shift in (("int_blocks", 0), ("out_blocks", 1)):
        if kind in parts and factors.blocks:
            block = int(parts[parts.index(kind) + 1]) - shift
            return factors.blocks[max(block, 0)]
    return 1.0


def make_optimiser(
    groups: dict[float, list[nn.Parameter]], section: OptimiserSection
) -> torch.optim.AdamW:
    """AdamW with a group of parameters per learning rate."""
    return torch.optim.AdamW(
        [{"params": parameters} for parameters in groups.values()],
        lr=section.learning_rate,
        betas=section.betas,
        weight_decay=section.weight_decay,
        fused=True,
    )


class Schedule:
    """Warm-up and cosine by step, each group at its factor; then one rate, lowered on a plateau.

    Args:
        optimiser: Whose rates to set.
        factors: Share of the rate of each of its groups.
        section: The shape.
        steps_per_epoch: Steps in an epoch.
        interval: Steps between validations; by default an epoch.
    """

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        factors: list[float],
        section: OptimiserSection,
        steps_per_epoch: int,
        interval: int | None = None,
    ) -> None:
        self.optimiser = optimiser
        self.factors = factors
        self.section = section
        self.warmup = section.warmup_epochs * steps_per_epoch
        self.full_at = self.warmup
        if section.warmup_steps is not None:  # the paper's pre-training reaches it a step earlier
            self.warmup, self.full_at = section.warmup_steps, max(section.warmup_steps - 1, 1)
        epochs = section.epochs if section.cosine_epochs is None else section.cosine_epochs
        self.end = epochs * steps_per_epoch
        self.plateau = None
        if section.plateau_patience is not None:
            patience = section.plateau_patience * steps_per_epoch // (interval or steps_per_epoch)
            self.plateau = ReduceLROnPlateau(
                optimiser, factor=section.plateau_factor, patience=patience, eps=0.0
            )

    def before_step(self, step: int) -> None:
        """Set the rates of a step, counted from 0; after the cosine they stay as they are."""
        if step <= self.end:
            for group, factor in zip(self.optimiser.param_groups, self.factors, strict=True):
                group["lr"] = self.section.learning_rate * self.share(step, factor)

    def share(self, step: int, factor: float = 1.0) -> float:
        """Share of the full rate at a step up to the end of the cosine."""
        s = self.section
        if step < self.warmup:
            return factor * (s.warmup_factor + (1 - s.warmup_factor) * step / self.full_at)
        progress = min((step - self.warmup) / max(self.end - self.warmup, 1), 1.0)
        low = s.final_factor
        return low + (factor - low) * 0.5 * (1 + math.cos(math.pi * progress))

    def after_validation(self, step: int, metric: float) -> None:
        """Lower the rates where the metric no longer improves, once the cosine is over."""
        if self.plateau is not None and step >= self.end:
            self.plateau.step(metric)

    @property
    def rate(self) -> float:
        """The highest rate of any group."""
        return max(group["lr"] for group in self.optimiser.param_groups)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.plateau is None else self.plateau.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.plateau is not None:
            self.plateau.load_state_dict(state)


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights.

    The decay of update t is min(decay, (1 + t) / (10 + t)): weights drawn at random would
    otherwise be decay^t of a short run's average.
    """

    @torch.no_grad()
    def average(averages: Tensors, current: Tensors, t: Tensor | int) -> None:
        share = 1.0 - min(decay, (1.0 + float(t)) / (10.0 + float(t)))
        for own, new in zip(averages, current, strict=True):
            own.lerp_(new.to(own.dtype), share)

    return AveragedModel(model, multi_avg_fn=average).eval()
