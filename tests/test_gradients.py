"""Gradients are scaled, limited and kept from conflicting as their rules say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import random_potential
from torch import nn

from jmp_md.training.gradients import (
    LossScale,
    clip_gradients,
    reconciled,
    scale_shared_gradients,
    without_conflicts,
)
from jmp_md.training.sections import OptimiserSection


def test_shared_projections_get_the_mean_gradient_of_the_blocks() -> None:
    potential = random_potential(num_blocks=2).requires_grad_(True)
    for parameter in potential.parameters():
        parameter.grad = torch.ones_like(parameter)
    scale_shared_gradients(potential.backbone)
    for name, parameter in potential.backbone.named_parameters():
        shared = name.startswith("bases.mlp_")
        expected = 1.0 if not shared else 1 / 3 if "mlp_rbf_out" in name else 1 / 2
        assert torch.allclose(parameter.grad, torch.full_like(parameter, expected)), name


def test_gradients_are_clipped_by_value_and_by_norm() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, -4.0])
    section = OptimiserSection(clip_value=1.0, clip_norm=None)
    assert clip_gradients([parameter], section) == pytest.approx(5.0)
    assert parameter.grad.tolist() == [1.0, -1.0]
    clip_gradients([parameter], OptimiserSection(clip_norm=0.5))
    assert float(parameter.grad.norm()) == pytest.approx(0.5, rel=1e-4)


def test_conflicting_gradients_lose_what_opposes_the_others() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    found = without_conflicts(torch.stack([a, b]), np.random.default_rng(0))
    assert torch.allclose(found[0], torch.tensor([0.5, 0.5]))  # a + (1/2) b
    assert torch.allclose(found[1], torch.tensor([0.0, 1.0]))  # b + a
    agreeing = torch.tensor([[1.0, 0.2, 0.0], [0.3, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert torch.equal(without_conflicts(agreeing, np.random.default_rng(0)), agreeing)
    many = torch.randn(4, 3)
    found = without_conflicts(many, np.random.default_rng(0))
    assert not torch.allclose(found, many)
    last = np.random.default_rng(0).permutation(4)[-1]  # that the first was projected on last
    if last != 0:
        assert torch.dot(found[0], many[last]) > -1e-5


def test_parameters_of_one_task_keep_their_gradients() -> None:
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    head, last = torch.tensor([[5.0]]), torch.tensor([[-7.0]])
    found = reconciled(
        [[one, head, None, None], [other, None, last, None]],
        [True, False, False, False],
        np.random.default_rng(0),
    )
    assert found[0] is not None
    assert torch.allclose(found[0], torch.tensor([0.5, 1.5]))
    assert found[1:] == [head, last, None]


def test_the_loss_scale_follows_overflows() -> None:
    scale = LossScale(active=True)
    start = scale.value
    scale.after_step(finite=False)
    assert (scale.value, scale.overflowed) == (start / 2, True)
    for _ in range(scale.INTERVAL):
        scale.after_step(finite=True)
    assert (scale.value, scale.overflowed) == (start, False)
    again = LossScale(active=True)
    again.load_state_dict(scale.state_dict() | {"value": 1.0})
    again.after_step(finite=False)
    assert (again.value, again.overflowed) == (1.0, False)  # something else is wrong
    single = LossScale(active=False)
    single.after_step(finite=False)
    assert (single.value, single.overflowed) == (1.0, False)
