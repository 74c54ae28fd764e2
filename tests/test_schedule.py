"""Learning rates follow the paper's shape, layer by layer, step by step."""

from __future__ import annotations

import math

import pytest
import torch
from factories import random_potential
from torch import nn

from jmp_md.errors import InputError
from jmp_md.training.optimisation import Schedule, layer_groups, make_optimiser
from jmp_md.training.sections import LayerFactors, OptimiserSection


def schedule(
    section: OptimiserSection, factors: list[float], steps_per_epoch: int = 10
) -> Schedule:
    groups = {factor: [nn.Parameter(torch.zeros(1))] for factor in factors}
    return Schedule(make_optimiser(groups, section), factors, section, steps_per_epoch)


def rates(s: Schedule, step: int) -> list[float]:
    s.before_step(step)
    return [group["lr"] for group in s.optimiser.param_groups]


def test_fine_tuning_rates_start_apart_and_end_together() -> None:
    section = OptimiserSection(
        learning_rate=8e-5, warmup_epochs=5, warmup_factor=0.1, cosine_epochs=32, final_factor=0.1,
        epochs=500, plateau_patience=1,
    )  # fmt: skip
    s = schedule(section, [0.3, 1.0])
    assert rates(s, 0) == pytest.approx([0.3 * 8e-6, 8e-6])
    assert rates(s, 25) == pytest.approx([0.3 * 0.55 * 8e-5, 0.55 * 8e-5])
    assert rates(s, 50) == pytest.approx([0.3 * 8e-5, 8e-5])
    middle = 50 + (320 - 50) // 2
    assert rates(s, middle) == pytest.approx([(0.1 + 0.2 / 2) * 8e-5, (0.1 + 0.9 / 2) * 8e-5])
    assert rates(s, 320) == pytest.approx([8e-6, 8e-6])
    assert rates(s, 4000) == pytest.approx([8e-6, 8e-6])


def test_rates_fall_on_a_plateau_only_after_the_cosine() -> None:
    section = OptimiserSection(
        learning_rate=1e-3, cosine_epochs=2, final_factor=0.1, plateau_patience=1,
        plateau_factor=0.1,
    )  # fmt: skip
    s = schedule(section, [0.5, 1.0])
    rates(s, 19)
    for _ in range(5):
        s.after_validation(19, 1.0)
    assert rates(s, 20) == pytest.approx([1e-4, 1e-4])
    found = []
    for epoch, metric in enumerate([1.0, 0.5, 0.6, 0.6, 0.6, 0.6]):
        s.after_validation(20 + 10 * epoch, metric)
        found.append(rates(s, 30 + 10 * epoch))
    expected = [1e-4, 1e-4, 1e-4, 1e-5, 1e-5, 1e-6]
    assert found == [pytest.approx([rate, rate]) for rate in expected]


def test_a_restored_schedule_goes_on_where_it_was() -> None:
    section = OptimiserSection(warmup_epochs=0, cosine_epochs=1, plateau_patience=1)
    first, second = schedule(section, [1.0]), schedule(section, [1.0])
    for s in (first, second):
        s.before_step(10)
    first.after_validation(20, 0.5)
    first.after_validation(30, 0.6)
    second.load_state_dict(first.state_dict())
    for s in (first, second):
        s.after_validation(40, 0.7)
    assert second.rate == first.rate == pytest.approx(1e-6)


def test_pretraining_warms_up_and_decays_by_step() -> None:
    """Linear to the full rate at step W - 1, then eta + (lr - eta)(1 + cos) / 2 to step M."""
    lr, eta, w, m = 3e-4, 3e-5, 8, 40
    section = OptimiserSection(
        learning_rate=lr, warmup_steps=w, warmup_factor=0.2, final_factor=0.1, epochs=4
    )
    s = schedule(section, [1.0])
    assert rates(s, 0)[0] == pytest.approx(0.2 * lr)
    assert rates(s, w - 1)[0] == pytest.approx(lr)
    for t in (w, 20, m - 1):
        cosine = eta + (lr - eta) * (1 + math.cos(math.pi * (t - w) / (m - w))) / 2
        assert rates(s, t)[0] == pytest.approx(cosine)


def test_layer_factors_reach_the_blocks_they_are_meant_for() -> None:
    potential = random_potential(num_blocks=4).requires_grad_(True)
    groups = layer_groups(potential, LayerFactors(paper=True))
    by_parameter = {id(p): factor for factor, group in groups.items() for p in group}
    found = {name: by_parameter[id(p)] for name, p in potential.named_parameters()}
    assert found["embedding.weight"] == 0.30
    blocks = (0.35, 0.40, 0.55, 0.625)
    for i, factor in enumerate(blocks):
        assert found[f"backbone.int_blocks.{i}.dense_ca.linear.weight"] == factor
        assert found[f"backbone.out_blocks.{i + 1}.dense_rbf.linear.weight"] == factor
    assert found["backbone.out_blocks.0.dense_rbf.linear.weight"] == blocks[0]
    for rest in ("energy_head.0.weight", "backbone.out_mlp_E.out_mlp.0.linear.weight",
                 "backbone.bases.mlp_rbf_h.linear.weight"):  # fmt: skip
        assert found[rest] == 1.0
    with pytest.raises(InputError, match="does not fit a model of 4 blocks"):
        layer_groups(potential, LayerFactors(blocks=(0.5,)))
    with pytest.raises(InputError, match="does not fit a model of 2 blocks"):
        layer_groups(random_potential(), LayerFactors(paper=True))
