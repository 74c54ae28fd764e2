"""The shipped network is the enumerating reference, on any small structure and any graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from network_oracle import (
    largest_errors,
    oracle_prediction,
    sensitive_potential,
    structures_of,
)

from jmp_md.graph.policy import GraphPolicy
from jmp_md.nn.layers import RadialBasis
from jmp_md.potential import Potential, Prediction
from jmp_md.structures import concatenate

TOLERANCE = 1e-10
ELEMENTS = [1, 6, 7, 8, 14]
# Not shrunk: structures come from seeds, of which none is simpler than another.
few = settings(max_examples=20, deadline=None, derandomize=True, phases=[Phase.generate])


def assert_same(got: Prediction, expected: Prediction, tolerance: float = TOLERANCE) -> None:
    errors = largest_errors(got, expected)
    assert max(errors.values()) < tolerance, errors


def assert_agrees_with_oracle(policy: GraphPolicy, atoms: Atoms) -> None:
    potential = sensitive_potential(policy, direct=True)
    s = structures_of(atoms, policy.cutoff)
    stress = bool(atoms.pbc.all())
    expected = oracle_prediction(potential, atoms, stress=stress)
    assert_same(potential.predict(s, stress=stress), expected)
    direct = oracle_prediction(potential, atoms, direct=True)
    assert_same(potential.predict(s, direct=True), direct)


# --- Random structures ----------------------------------------------------------------------


@st.composite
def molecules(draw: Any) -> Atoms:
    """1-8 atoms: a cloud, one with a part or an atom far away, or one on a straight line.

    Structure is drawn, coordinates are random numbers: no two distances are equal by accident.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 8))
    x = cloud(rng, n)
    shape = draw(st.sampled_from(["cloud", "cloud", "far atom", "fragments", "line", "z line"]))
    if shape == "far atom":
        x[0] += 40.0
    elif shape == "fragments":
        x[: n // 2] += [0.0, 30.0, 0.0]
    elif shape.endswith("line"):
        axis = np.array([0.0, 0.0, 1.0]) if shape == "z line" else rng.normal(size=3)
        on_line = rng.permutation(n)[: draw(st.integers(2, 4))]
        steps = 3.0 + np.cumsum(rng.uniform(0.9, 1.5, len(on_line)))  # beside the cloud
        x[on_line] = steps[:, None] * axis / np.linalg.norm(axis)
    tags = draw(st.sampled_from([None, [0] * n, rng.integers(0, 3, n)]))
    return Atoms(rng.choice(ELEMENTS, n), positions=x, tags=tags)


@st.composite
def crystals(draw: Any) -> Atoms:
    """1-4 atoms in a skewed cell shorter than the cutoff, periodic in 0-3 directions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 4))
    cell = np.diag(rng.uniform(2.4, 3.4, 3)) + np.tril(rng.uniform(-1.0, 1.0, (3, 3)), -1)
    cell = cell @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    scaled = 0.5 * sites(rng, n) + rng.uniform(-0.12, 0.12, (n, 3))
    scaled += rng.integers(-1, 2, (n, 3))  # atoms need not lie in the cell
    pbc = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()) | st.just((True,) * 3))
    tags = draw(st.sampled_from([None, rng.integers(0, 3, n)]))
    return Atoms(rng.choice(ELEMENTS, n), scaled_positions=scaled, cell=cell, pbc=pbc, tags=tags)


def cloud(rng: np.random.Generator, n: int) -> np.ndarray:
    return 1.4 * sites(rng, n) + rng.uniform(-0.3, 0.3, (n, 3))


def sites(rng: np.random.Generator, n: int) -> np.ndarray:
    """n corners of a cube, (n, 3)."""
    return np.stack(np.unravel_index(rng.permutation(8)[:n], (2, 2, 2)), axis=1).astype(float)


official = st.builds(
    GraphPolicy.official, st.sampled_from([2.5, 3.3, 4.0]), st.sampled_from([4, 6, 11, 30])
)
smooth = st.builds(
    GraphPolicy,
    st.just("smooth"),
    st.tuples(*(st.floats(1.5, high) for high in (3.6, 3.6, 3.0, 4.5))),
    st.just((None,) * 4) | st.tuples(*(st.integers(1, 9) | st.none() for _ in range(4))),
    st.floats(0.1, 0.9),
    st.floats(1.0, 6.0),
    st.floats(0.01, 0.5),
)


@few
@given(molecules(), official)
def test_molecules_agree_with_oracle(atoms: Atoms, policy: GraphPolicy) -> None:
    assert_agrees_with_oracle(policy, atoms)


@few
@given(crystals(), official)
def test_crystals_agree_with_oracle(atoms: Atoms, policy: GraphPolicy) -> None:
    assert_agrees_with_oracle(policy, atoms)


@few
@given(molecules(), smooth)
def test_smooth_molecules_agree_with_oracle(atoms: Atoms, policy: GraphPolicy) -> None:
    assert_agrees_with_oracle(policy, atoms)


@few
@given(crystals(), smooth)
def test_smooth_crystals_agree_with_oracle(atoms: Atoms, policy: GraphPolicy) -> None:
    assert_agrees_with_oracle(policy, atoms)


# --- Chosen structures ----------------------------------------------------------------------

POLICIES = {
    "official": GraphPolicy.official(6.0, 6),
    "smooth": GraphPolicy.smooth(main=6.0, quadruplet=4.0),
    "smooth with counts": GraphPolicy("smooth", (5.0, 5.0, 4.0, 6.0), (4, 3, 2, 5)),
}


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> GraphPolicy:
    return POLICIES[request.param]


@pytest.mark.parametrize("guest", [False, True])
@pytest.mark.parametrize("name", ["CO2", "N2O", "C2H2", "HCN"])
def test_linear_molecules_agree_with_oracle(name: str, guest: bool, policy: GraphPolicy) -> None:
    """Alone, all normals vanish; with a guest off the axis only those of in-line triples do."""
    atoms = molecule(name)
    if guest:
        atoms += Atoms("OH", positions=[[1.9, 0.3, 0.4], [2.2, 0.9, 1.1]])
    assert_agrees_with_oracle(policy, atoms)


@pytest.mark.parametrize("message", ["trip", "quad", "atom_edge", "edge_atom", "atom"])
def test_every_message_would_be_missed(message: str, policy: GraphPolicy) -> None:
    """Guards the tests of this file: no message is too weak for their tolerance to see."""
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=1)
    potential = sensitive_potential(policy)
    s = structures_of(atoms, policy.cutoff)
    whole = potential.predict(s)
    for name, factor in potential.named_buffers():
        if f".{message}_interaction." in name and name.endswith("_sum.scale_factor"):
            factor.zero_()
    assert largest_errors(potential.predict(s), whole)["forces"] > 1e-3


def test_energy_and_forces_turn_with_the_structure(policy: GraphPolicy) -> None:
    """The frame of azimuths jumps with orientation; nothing of it may show."""
    rng = np.random.default_rng(5)
    atoms = Atoms(rng.choice(ELEMENTS, 8), positions=cloud(rng, 8))
    potential = sensitive_potential(policy, direct=True)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned = atoms.copy()
    turned.positions = atoms.positions @ rotation
    for direct in (False, True):
        got, before = (
            potential.predict(structures_of(a, policy.cutoff), direct=direct)
            for a in (turned, atoms)
        )
        assert before.forces is not None
        expected = before._replace(forces=before.forces @ torch.from_numpy(rotation))
        assert_same(got, expected, 1e-12)


def test_a_structure_in_a_batch_is_as_if_alone(policy: GraphPolicy) -> None:
    rng = np.random.default_rng(2)
    cell = np.array([[2.9, 0.0, 0.0], [0.8, 3.0, 0.0], [-0.4, 0.5, 2.7]])
    batch = [
        Atoms("C", cell=cell, pbc=True),
        Atoms(rng.choice(ELEMENTS, 8), positions=cloud(rng, 8)),
        Atoms("H"),
        Atoms("SiO", scaled_positions=[[0, 0, 0], [0.5, 0.4, 0.55]], cell=cell, pbc=True),
    ]
    potential = sensitive_potential(policy, direct=True)
    parts = [structures_of(atoms, policy.cutoff) for atoms in batch]
    for direct in (False, True):
        together = potential.predict(concatenate(parts), direct=direct)
        alone = [potential.predict(part, direct=direct) for part in parts]
        expected = Prediction(
            torch.cat([p.energy for p in alone]),
            torch.cat([p.energies for p in alone]),
            torch.cat([p.forces for p in alone if p.forces is not None]),
            None,
        )
        assert_same(together, expected, 1e-12)


def test_single_precision_follows_double(policy: GraphPolicy) -> None:
    atoms = molecule("CH3CONH2")
    atoms.rattle(0.1, seed=1)
    s = structures_of(atoms, policy.cutoff)
    double = sensitive_potential(policy, direct=True)
    single: Potential = sensitive_potential(policy, direct=True).float()
    for direct in (False, True):
        got, expected = single.predict(s, direct=direct), double.predict(s, direct=direct)
        assert got.forces is not None
        assert got.forces.dtype == torch.float32
        assert_same(got, expected, 1e-4)


def test_gradients_of_a_force_loss_are_finite_on_a_line(policy: GraphPolicy) -> None:
    """Training differentiates forces by the weights: twice through undefined azimuths."""
    atoms = molecule("CO2") + Atoms("OH", positions=[[1.9, 0.3, 0.4], [2.2, 0.9, 1.1]])
    potential = sensitive_potential(policy).requires_grad_(True)
    s = structures_of(atoms, policy.cutoff)
    s = s._replace(positions=s.positions.requires_grad_())
    energy = potential.interaction_energy(s)
    (gradient,) = torch.autograd.grad(energy.sum(), s.positions, create_graph=True)
    (gradient.square().sum()).backward()
    gradients = [p.grad for p in potential.parameters() if p.grad is not None]
    assert len(gradients) > 50
    assert all(bool(g.isfinite().all()) for g in gradients)
    assert s.positions.grad is not None
    assert bool(s.positions.grad.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_gaussians_do_not_underflow(dtype: torch.dtype) -> None:
    """They are computed ten times as slowly then; their values do not matter."""
    d = torch.linspace(0.5, 10.0, 50, dtype=dtype)
    basis = RadialBasis(128, 12.0).to(dtype)(d)
    x = (d.double() / 12.0).unsqueeze(1)
    exact = (-((x - torch.linspace(0, 1, 128).double()) ** 2) * 0.5 * 127**2).exp()
    exact *= 1 - 21 * x**5 + 35 * x**6 - 15 * x**7
    torch.testing.assert_close(basis.double(), exact, rtol=0, atol=1e-5)  # places are in float32
    assert basis.min() > 1e3 * torch.finfo(torch.float32).tiny


def test_the_radial_basis_that_is_trained_has_the_derivatives_of_the_other() -> None:
    """Second and third ones as well: forces are trained, and their gradient by positions exists."""
    basis = RadialBasis(16, 5.0).double()
    d = torch.tensor([0.3, 1.7, 2.6, 4.999, 5.0, 5.2], dtype=torch.float64, requires_grad=True)
    weights = torch.linspace(-1.0, 1.0, 6 * 16, dtype=torch.float64).view(6, 16)
    ours, theirs = basis.trained(d), basis(d)
    assert torch.equal(ours, theirs)
    for _ in range(3):
        ours, theirs = (
            torch.autograd.grad((y.view(6, -1) * weights[:, : y.numel() // 6]).sum(), d,
                                create_graph=True)[0]
            for y in (ours, theirs)
        )  # fmt: skip
        assert float(theirs.detach().abs().max()) > 0.1
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_gradients_by_weights_go_through_the_slopes_of_the_radial_basis() -> None:
    basis = RadialBasis(8, 5.0).double()
    d = torch.tensor([0.5, 1.1, 3.3], dtype=torch.float64, requires_grad=True)
    weight = torch.linspace(0.2, 1.0, 8, dtype=torch.float64).requires_grad_()

    def force(form: Any, weight: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad((form(d) @ weight).tanh().sum(), d, create_graph=True)[0]

    found, expected = (
        torch.autograd.grad(force(form, weight).square().sum(), weight)[0]
        for form in (basis.trained, basis)
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
