"""Training of a part of a network: frozen blocks, and low-rank updates of dense layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from jmp_md.errors import InputError
from jmp_md.nn.backbone import GemNetOC
from jmp_md.training.sections import ModelSection


class LowRank(nn.Module):
    """W + B A in place of a weight W, which stays as it is (LoRA, arXiv 2106.09685, alpha = rank).

    B starts at zero, so that training starts from W.

    Args:
        weight: (n_out, n_in) W.
        rank: Rows of A and columns of B; no more than W has of either.
        rng: Draws A.
    """

    def __init__(self, weight: Tensor, rank: int, rng: torch.Generator) -> None:
        super().__init__()
        n_out, n_in = weight.shape
        rank = min(rank, n_out, n_in)
        first = torch.rand(rank, n_in, generator=rng) * 2 - 1
        self.a = nn.Parameter((first / math.sqrt(n_in)).to(weight))
        self.b = nn.Parameter(weight.new_zeros(n_out, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.b @ self.a


def adapt(model: nn.Module, section: ModelSection, seed: int) -> None:
    """Leave those parameters to training that a recipe wants to be trained.

    Args:
        model: Has an ``embedding``, a ``backbone`` and heads, which are always trained.
        section: ``freeze`` and ``lora`` say what else.
        seed: Of the updates.

    Raises:
        InputError: More blocks than there are, or a new network, of which nothing is to be kept.
    """
    if not section.freeze and section.lora is None:
        return
    backbone = model.backbone
    assert isinstance(backbone, GemNetOC)
    n_blocks = len(backbone.int_blocks)
    if section.base is None:
        raise InputError("model.freeze and model.lora keep what a base knows: give model.base")
    if section.freeze > n_blocks:
        raise InputError(
            f"model.freeze = {section.freeze}: the base has {n_blocks} blocks, so {n_blocks} is "
            "all of them and leaves the heads"
        )
    everything = section.lora is not None or section.freeze == n_blocks
    inputs = [model.embedding, backbone.bases, *backbone.out_blocks[: section.freeze + 1]]
    for part in [model.embedding, backbone] if everything else inputs:
        part.requires_grad_(False)
    backbone.int_blocks[: section.freeze].requires_grad_(False)
    if section.lora is not None:
        rng = torch.Generator().manual_seed(seed)
        trained = [*backbone.int_blocks[section.freeze :]]
        trained += backbone.out_blocks[section.freeze + 1 if section.freeze else 0 :]
        for block in trained:
            for layer in [m for m in block.modules() if isinstance(m, nn.Linear)]:
                update = LowRank(layer.weight, section.lora, rng)
                parametrize.register_parametrization(layer, "weight", update)


def merged(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model with its updates taken into the weights, under the names of these."""
    whole = {}
    for name, tensor in state.items():
        layer, parametrized, part = name.partition(".parametrizations.weight.")
        if not parametrized:
            whole[name] = tensor
        elif part == "original":
            a, b = (state[f"{layer}{parametrized}0.{factor}"] for factor in "ab")
            whole[f"{layer}.weight"] = tensor + b @ a
    return whole
