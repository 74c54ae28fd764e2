"""Rules for gradients: scales, limits, and tasks that pull in opposite directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from jmp_md.nn.backbone import GemNetOC
from jmp_md.training.sections import OptimiserSection


class LossScale:
    """Factor that keeps gradients within the range of fp16; 1 in other precisions.

    It is halved when a gradient overflows, and doubled after :attr:`INTERVAL` steps without.
    Trainers multiply the loss with it, and the energies whose gradients are the forces: both
    backward passes go through fp16.

    Args:
        active: Whether to compute in fp16.
    """

    START, INTERVAL = 2.0**12, 2000

    def __init__(self, active: bool) -> None:
        self.active = active
        self.value = self.START if active else 1.0
        self.good = 0
        self.overflowed = False

    def after_step(self, finite: bool) -> None:
        """Adapt; ``overflowed`` then tells whether the scale may be why a step failed."""
        self.overflowed = self.active and not finite and self.value > 1.0
        if self.overflowed:
            self.value, self.good = self.value / 2, 0
        elif self.active and finite:
            self.good += 1
            if self.good == self.INTERVAL:
                self.value, self.good = self.value * 2, 0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "good": self.good}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.good = state.get("value", self.value), state.get("good", 0)


def scale_shared_gradients(backbone: GemNetOC) -> None:
    """Divide gradients of projections all blocks share by the number of blocks (spec section 6)."""
    n_blocks = len(backbone.int_blocks)
    for name, parameter in backbone.bases.named_parameters():
        if parameter.grad is not None and name.startswith("mlp_"):
            parameter.grad.div_(n_blocks + 1 if name.startswith("mlp_rbf_out") else n_blocks)


def clip_gradients(parameters: list[nn.Parameter], section: OptimiserSection) -> Tensor:
    """Limit gradients by value, then by norm; returns their norm before that."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if section.clip_value is not None:
        torch.nn.utils.clip_grad_value_(parameters, section.clip_value)
    if section.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(parameters, section.clip_norm)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def reconciled(
    by_task: list[list[Tensor | None]], shared: list[bool], rng: np.random.Generator
) -> list[Tensor | None]:
    """The sum of the tasks' gradients once those that conflict are projected (PCGrad).

    Each task's gradient, in random order of the others, loses its component along every other
    task's gradient with which its product is negative (arXiv 2001.06782, algorithm 1). Parameters
    of one task alone keep their gradients.

    Args:
        by_task: Gradient of each parameter by task, None where the task does not use it.
        shared: Whether all tasks share the parameter.
        rng: Of the order.
    """
    present = [gradients for gradients in by_task if any(g is not None for g in gradients)]
    if not present:
        return [None] * len(shared)
    total = [_sum([gradients[k] for gradients in present]) for k in range(len(shared))]
    places = [k for k, is_shared in enumerate(shared) if is_shared and total[k] is not None]
    vectors = []
    for gradients in present:
        parts = []
        for k in places:
            gradient, like = gradients[k], total[k]
            assert like is not None
            parts.append((torch.zeros_like(like) if gradient is None else gradient).flatten())
        vectors.append(torch.cat(parts))
    summed = without_conflicts(torch.stack(vectors), rng).sum(dim=0)
    for k in places:
        like = total[k]
        assert like is not None
        total[k], summed = summed[: like.numel()].view_as(like), summed[like.numel() :]
    return total


def without_conflicts(gradients: Tensor, rng: np.random.Generator) -> Tensor:
    """Projected gradients (n_tasks, n_parameters); see :func:`reconciled`."""
    result = gradients.clone()
    for i in range(len(gradients)):
        for j in rng.permutation(len(gradients)):
            if j != i:
                other = gradients[j]
                product = torch.dot(result[i], other).clamp(max=0)
                size = torch.dot(other, other)
                # Equal zero where they do not conflict, and where the other is zero.
                result[i] -= product / size.clamp(min=torch.finfo(size.dtype).tiny) * other
    return result


def _sum(tensors: list[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(present).sum(dim=0) if present else None
