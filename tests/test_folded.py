"""The folded network computes what the plain one does, of the weights as they are."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from ase.build import molecule
from factories import random_potential
from network_oracle import largest_errors, sensitive_potential, structures_of
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils._python_dispatch import TorchDispatchMode

from jmp_md.graph.policy import GraphPolicy
from jmp_md.nn.activation import sigma
from jmp_md.potential import Potential
from jmp_md.step import FoldedStep

POLICY = GraphPolicy.smooth()
NO_LAYERS = {
    f"num_{name}": 0 for name in ("before_skip", "after_skip", "concat", "atom", "output_afteratom")
} | {"num_atom_emb_layers": 0, "num_global_out_layers": 0}


def folded(potential: Potential) -> Potential:
    copied = copy.deepcopy(potential)
    copied.step = FoldedStep(copied)
    return copied


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize(
    "potential",
    [
        sensitive_potential(POLICY),
        sensitive_potential(GraphPolicy.official(12.0, 4), direct=True),
        random_potential(**NO_LAYERS),
        random_potential(num_blocks=3, emb_size_atom=20, direct=True),  # as wide as edges
        random_potential(head={"repulsion": 0.8}),
        random_potential(head={"bias": True}),
    ],
)
def test_folding_changes_nothing(potential: Potential, lean: bool) -> None:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=0)
    s = structures_of(atoms, potential.policy.cutoff)
    other = folded(potential)
    other.memory = "lean" if lean else "fast"
    kinds = [{"direct": True}] if potential.force_head is not None else [{"stress": False}]
    for options in [{}, *kinds]:
        expected, got = (p.predict(s, **options) for p in (potential, other))
        assert max(largest_errors(got, expected).values()) < 1e-13


@pytest.mark.parametrize("direct", [False, True])
def test_folding_changes_nothing_in_bfloat16_but_rounding(direct: bool) -> None:
    potential = random_potential(direct=direct).float()
    potential.backbone.bf16 = True
    s = structures_of(molecule("CH3CH2OH"), POLICY.cutoff)
    exact = random_potential(direct=direct).predict(s, direct=direct).forces
    expected, got = (p.predict(s, direct=direct).forces for p in (potential, folded(potential)))
    assert exact is not None
    assert expected is not None
    assert got is not None
    assert (got - exact).norm() > 1e-4 * exact.norm()  # it is bfloat16
    assert (got - exact).norm() < 3.0 * (expected - exact).norm()


def test_radial_functions_beyond_the_cutoff_are_left_out() -> None:
    potential = random_potential(num_radial=120)
    network = potential.fold()
    radial = network.backbone.radial
    kept = len(radial.offset)
    assert kept < 0.65 * 120  # half of 12 Å, and their widths
    assert network.backbone.bases.main.shape[0] == kept
    left_out = potential.backbone.radial(torch.tensor([POLICY.cutoff]).double())[:, kept:]
    assert left_out.abs().max() < 1e-17
    widest = random_potential(num_radial=120, graph=GraphPolicy.official(12.0, 30))
    assert len(widest.fold().backbone.radial.offset) == 120


class Operations(TorchDispatchMode):
    """Counts what is computed; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def test_folding_leaves_out_operations() -> None:
    potential = random_potential()
    s = structures_of(molecule("CH3CH2OH"), POLICY.cutoff)
    counts = []
    for p in (potential, folded(potential)):
        p.predict(s)  # which folds
        with Operations() as operations:
            p.predict(s)
        counts.append(operations.count)
    assert counts[1] < 0.9 * counts[0]


def test_derivatives_of_the_activation_are_those_of_silu() -> None:
    x = torch.linspace(-30.0, 30.0, 601, dtype=torch.float64, requires_grad=True)

    def derivatives(y: torch.Tensor) -> list[torch.Tensor]:
        found = [y]
        for _ in range(3):
            found += torch.autograd.grad(found[-1].square().sum(), x, create_graph=True)
        return found

    for got, expected in zip(
        derivatives(sigma(x)), derivatives(functional.silu(x) / 0.6), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    assert torch.autograd.gradgradcheck(sigma, x.detach()[::20].requires_grad_())


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


def train_fused(potential: Potential) -> Potential:
    """A step of an optimiser that leaves no trace in the versions of weights."""
    potential.requires_grad_(True)
    energy(potential)
    optimiser = torch.optim.AdamW(potential.parameters(), lr=0.01, fused=True)
    structures = structures_of(molecule("CH3OH"), POLICY.cutoff)
    potential.interaction_energy(structures).sum().backward()
    optimiser.step()
    return potential


@torch.no_grad()
def from_a_vector(potential: Potential) -> Potential:
    weights = [p for p in potential.parameters() if p.dtype == torch.float64]
    vector_to_parameters(0.5 * parameters_to_vector(weights), weights)
    return potential


def another_head(potential: Potential) -> Potential:
    potential.energy_head = halved(potential.energy_head)
    return potential


@torch.no_grad()
def halved(module: torch.nn.Module) -> torch.nn.Module:
    module = copy.deepcopy(module)
    for parameter in module.parameters():
        parameter.mul_(0.5)
    return module


@pytest.mark.parametrize(
    "change",
    [
        train_fused,
        lambda p: train_fused(p).requires_grad_(False),
        from_a_vector,
        another_head,
        halve_in_place,
        load_others(assign=False),
        load_others(assign=True),
        fit,
        copy.deepcopy,
        lambda p: pickle.loads(pickle.dumps(p)),
        lambda p: halve_in_place(copy.deepcopy(p)),
        lambda p: p.requires_grad_(True),
    ],
)
def test_changed_weights_count_at_once(change: Callable[[Potential], Potential]) -> None:
    potential = folded(sensitive_potential(POLICY)).requires_grad_(False)
    energy(potential)  # folds
    potential = change(potential)
    assert potential.step is not None
    fresh = sensitive_potential(POLICY)
    fresh.load_state_dict(potential.state_dict())
    assert energy(potential) == pytest.approx(energy(fresh), rel=1e-12)


def test_a_copy_is_folded_from_its_own_weights() -> None:
    potential = folded(sensitive_potential(POLICY))
    before = energy(potential)
    halved = halve_in_place(copy.deepcopy(potential))
    assert energy(halved) != before
    assert energy(potential) == before


def test_a_change_of_type_counts_at_once() -> None:
    potential = folded(sensitive_potential(POLICY))
    expected = energy(potential)
    single = energy(potential.float())
    assert single == pytest.approx(expected, rel=1e-4)
    assert single != expected
    assert energy(potential.double()) == pytest.approx(single, rel=1e-4)


def test_weights_are_folded_once() -> None:
    potential = folded(sensitive_potential(POLICY)).requires_grad_(False)
    energy(potential)
    assert isinstance(potential.step, FoldedStep)
    network = potential.step.network
    energy(potential)
    assert potential.step.network is network
