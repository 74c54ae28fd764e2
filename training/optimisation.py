"""Learning-rate schedule, averaged weights and gradient rules of the paper."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from jmp_md.nn.backbone import GemNetOC
from jmp_md.training.recipe import OptimiserSection


def make_optimiser(model: nn.Module, section: OptimiserSection) -> torch.optim.AdamW:
    """AdamW over all trainable parameters."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        parameters,
        lr=section.learning_rate,
        betas=section.betas,
        weight_decay=section.weight_decay,
        fused=True,
    )


def learning_rate_factor(step: int, steps_per_epoch: int, section: OptimiserSection) -> float:
    """Share of the full rate at a step: linear warm-up, then a cosine to ``final_factor``."""
    warmup = section.warmup_epochs * steps_per_epoch
    total = max(section.epochs * steps_per_epoch, 1)
    if step < warmup:
        return section.warmup_factor + (1 - section.warmup_factor) * step / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    low = section.final_factor
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))


def scale_shared_gradients(backbone: GemNetOC) -> None:
    """Divide gradients of projections all blocks share by the number of blocks (spec section 6)."""
    n_blocks = len(backbone.int_blocks)
    for name, parameter in backbone.bases.named_parameters():
        if parameter.grad is not None and name.startswith("mlp_"):
            parameter.grad.div_(n_blocks + 1 if name.startswith("mlp_rbf_out") else n_blocks)
