"""What is made from frozen weights and kept follows every change of the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from ase.build import molecule
from network_oracle import sensitive_potential, structures_of
from torch import Tensor

from jmp_md.graph.policy import GraphPolicy
from jmp_md.nn.layers import Dense, Derived, Scaled, joined
from jmp_md.potential import Potential

POLICY = GraphPolicy.smooth()


def energy(potential: Potential) -> float:
    return float(potential.predict(structures_of(molecule("CH3OH"), POLICY.cutoff)).energy)


@torch.no_grad()
def halve_in_place(potential: Potential) -> Potential:
    for parameter in potential.backbone.parameters():
        parameter.mul_(0.5)
    return potential


def load_others(assign: bool) -> Callable[[Potential], Potential]:
    def change(potential: Potential) -> Potential:
        state = {name: 0.5 * value for name, value in potential.state_dict().items()}
        potential.load_state_dict(state, assign=assign)
        return potential.requires_grad_(False)

    return change


def fit(potential: Potential) -> Potential:
    potential.backbone.int_blocks[0].trip_interaction.scale_rbf.scale_factor.fill_(3.0)
    return potential


@pytest.mark.parametrize(
    "change",
    [
        halve_in_place,
        load_others(assign=False),
        load_others(assign=True),
        fit,
        copy.deepcopy,
        lambda p: halve_in_place(copy.deepcopy(p)),
        lambda p: p.requires_grad_(True),
    ],
)
def test_changed_weights_count_at_once(change: Callable[[Potential], Potential]) -> None:
    potential = sensitive_potential(POLICY)
    energy(potential)  # makes and keeps
    potential = change(potential)
    fresh = sensitive_potential(POLICY)
    fresh.load_state_dict(potential.state_dict())
    assert energy(potential) == pytest.approx(energy(fresh), rel=1e-12)


def test_a_change_of_type_counts_at_once() -> None:
    potential = sensitive_potential(POLICY)
    expected = energy(potential)
    single = energy(potential.float())
    assert single == pytest.approx(expected, rel=1e-4)
    assert single != expected
    assert energy(potential.double()) == pytest.approx(single, rel=1e-4)


def test_frozen_weights_are_joined_once_and_others_each_time() -> None:
    calls = 0

    def make(weights: list[Tensor], gain: float) -> Tensor:
        nonlocal calls
        calls += 1
        return joined(weights, gain)

    derived, weight = Derived(), torch.nn.Parameter(torch.eye(2), requires_grad=False)
    assert derived.of(make, [weight], 2.0) is derived.of(make, [weight], 2.0)
    assert calls == 1
    assert torch.equal(derived.of(make, [weight], 3.0), 3.0 * weight)
    weight.requires_grad_()
    assert derived.of(make, [weight], 3.0).requires_grad
    assert calls == 3


def test_gain_is_the_factor_that_is_left_out() -> None:
    dense = Dense(3, 4)
    x = torch.randn(5, 3)
    y = dense(Scaled(x, 0.7))
    expected = torch.nn.functional.silu(0.7 * x @ dense.linear.weight.t()) / 0.6
    torch.testing.assert_close(y.value * y.gain, expected)
