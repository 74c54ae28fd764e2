"""The smooth network has the derivatives dynamics needs, where the official one jumps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from network_oracle import largest_errors, sensitive_potential, structures_of

from jmp_md.graph.policy import GRAPHS, GraphPolicy
from jmp_md.potential import Potential

BEYOND = 20.0  # Å, nothing reaches a cutoff this far


def derivatives(potential: Potential, atoms: Atoms, move: np.ndarray, t: float) -> torch.Tensor:
    """Energy and its first two derivatives along x + t move, (3,): eV, eV/Å, eV/Å²."""
    moved = atoms.copy()
    moved.positions += t * move
    s = structures_of(moved, potential.policy.cutoff)
    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    energy = potential.interaction_energy(
        s._replace(positions=s.positions + step * torch.from_numpy(move))
    ).sum()
    (slope,) = torch.autograd.grad(energy, step, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, step)
    return torch.stack([energy, slope, curvature]).detach()


def change(potential: Potential, atoms: Atoms, move: np.ndarray, size: float) -> torch.Tensor:
    """How much energy, slope and curvature change between t = -size and size, (3,)."""
    ahead, behind = (derivatives(potential, atoms, move, t) for t in (size, -size))
    return (ahead - behind).abs()


def assert_twice_differentiable(policy: GraphPolicy, atoms: Atoms, move: np.ndarray) -> None:
    """The energy and two derivatives change less over a shorter step, not by a jump."""
    potential = sensitive_potential(policy)
    wide, narrow = (change(potential, atoms, move, size) for size in (1e-4, 1e-5))
    assert (wide > 1e-9).any()
    assert (narrow < 0.5 * wide + 1e-11).all(), (wide, narrow)


def assert_jumps(policy: GraphPolicy, atoms: Atoms, move: np.ndarray) -> None:
    """A change of the energy that stays however short the step: what smooth rules cure."""
    potential = sensitive_potential(policy)
    wide, narrow = (change(potential, atoms, move, size)[0] for size in (1e-5, 1e-6))
    assert narrow > 0.8 * wide > 1e-8


# --- Across cutoffs, neighbour ranks and lines ----------------------------------------------


def at_cutoff(cutoff: float) -> tuple[Atoms, np.ndarray]:
    """Five atoms, the last on its way out of the cutoff of the first."""
    direction = np.array([0.6, 0.64, 0.48])
    x = [[0, 0, 0], [1.1, 0.1, -0.2], [-0.4, 1.2, 0.3], [0.2, 0.5, 1.3], cutoff * direction]
    move = np.zeros((5, 3))
    move[4] = direction
    return Atoms("COHNC", positions=x), move


def swapping_ranks() -> tuple[Atoms, np.ndarray]:
    """Two atoms at the same distance of the first, one coming and one going."""
    u, v = np.array([0.6, 0.8, 0.0]), np.array([-0.8, 0.0, 0.6])
    x = [[0, 0, 0], [0, -1.1, 0.2], 1.6 * u, 1.6 * v, [0.4, -0.6, -1.9], [2.2, 0.1, 1.0]]
    move = np.zeros((6, 3))
    move[2], move[3] = u, -v
    return Atoms("COHNCH", positions=x), move


def straightening() -> tuple[Atoms, np.ndarray]:
    """C-C-N in line at t = 0, the nitrogen moving across, two atoms off the axis."""
    x = [[0, 0, 0], [1.4, 0, 0], [2.6, 0, 0], [-0.5, 0.9, 0], [-0.4, -0.3, 0.9]]
    move = np.zeros((5, 3))
    move[2] = [0.0, 0.8, 0.6]
    return Atoms("CCNHH", positions=x), move


@pytest.mark.parametrize("count", [None, 2])
@pytest.mark.parametrize("graph", range(4), ids=GRAPHS)
def test_smooth_energy_has_two_derivatives_across_a_cutoff(graph: int, count: int | None) -> None:
    cutoffs = [BEYOND] * 4
    cutoffs[graph] = 3.5
    policy = GraphPolicy("smooth", tuple(cutoffs), (count,) * 4)  # type: ignore[arg-type]
    assert_twice_differentiable(policy, *at_cutoff(3.5))
    # ... and where it begins to fade.
    assert_twice_differentiable(policy, *at_cutoff(3.5 * (1 - policy.width)))


@pytest.mark.parametrize("graph", range(4), ids=GRAPHS)
def test_official_energy_jumps_at_a_cutoff(graph: int) -> None:
    cutoffs = [BEYOND] * 4
    cutoffs[graph] = 3.5
    policy = GraphPolicy("official", tuple(cutoffs), (30,) * 4)  # type: ignore[arg-type]
    assert_jumps(policy, *at_cutoff(3.5))


@pytest.mark.parametrize("graph", range(4), ids=GRAPHS)
def test_smooth_energy_has_two_derivatives_where_ranks_swap(graph: int) -> None:
    counts = [99] * 4
    counts[graph] = 2
    policy = GraphPolicy("smooth", (4.0,) * 4, tuple(counts))  # type: ignore[arg-type]
    atoms, move = swapping_ranks()
    assert_twice_differentiable(policy, atoms, move)
    # Both have rank 1.5 there: the fade ends with this width.
    assert_twice_differentiable(replace(policy, rank_width=0.5), atoms, move)
    # 0.25 Å apart, one has just begun to count for the other.
    atoms.positions += 0.125 * move
    assert_twice_differentiable(policy, atoms, move)


@pytest.mark.parametrize("graph", range(4), ids=GRAPHS)
def test_official_energy_jumps_where_ranks_swap(graph: int) -> None:
    counts = [99] * 4
    counts[graph] = 2
    policy = GraphPolicy("official", (4.0,) * 4, tuple(counts))  # type: ignore[arg-type]
    atoms, move = swapping_ranks()
    # Atoms last in order: a main edge follows the lower of its two atoms.
    last = [1, 2, 3, 4, 5, 0]
    assert_jumps(policy, atoms[last], move[last])


def test_smooth_energy_has_two_derivatives_through_a_line() -> None:
    policy = GraphPolicy.smooth(6.0, 6.0, 6.0, 6.0)
    atoms, move = straightening()
    assert_twice_differentiable(policy, atoms, move)
    potential = sensitive_potential(policy)
    on_line, near = (derivatives(potential, atoms, move, t) for t in (0.0, 1e-6))
    torch.testing.assert_close(on_line, near, rtol=1e-4, atol=1e-7)
    # The angle where dihedrals begin to fade, sin^2 = inline_sin2 at the middle atom.
    reach = 1.2 * np.tan(np.arcsin(np.sqrt(policy.inline_sin2)))
    atoms.positions += reach * move
    assert_twice_differentiable(policy, atoms, move)


def test_official_energy_jumps_through_a_line() -> None:
    assert_jumps(GraphPolicy.official(6.0, 30), *straightening())


# --- What does not change -------------------------------------------------------------------


def compact_molecule() -> Atoms:
    """Seven atoms within 4 Å, no three nearly in line."""
    x = [[0, 0, 0], [1.2, 0.3, 0.1], [1.9, -0.8, 0.7], [-0.5, 0.9, 0.6], [-0.6, -0.7, 0.5]]
    return Atoms("COCHHNH", positions=[*x, [2.2, 1.1, -0.6], [0.3, 0.4, -1.1]])


@pytest.mark.parametrize("counts", [(None,) * 4, (6, 6, 6, 6)])
def test_smooth_equals_official_where_nothing_fades(counts: tuple[int | None, ...]) -> None:
    atoms = compact_molecule()
    smooth = GraphPolicy("smooth", (12.0,) * 4, counts, inline_sin2=1e-3)  # type: ignore[arg-type]
    predictions = []
    for policy in (smooth, GraphPolicy.official(12.0, 30)):
        potential = sensitive_potential(policy, direct=True)
        s = structures_of(atoms, policy.cutoff)
        predictions += [potential.predict(s), potential.predict(s, direct=True)]
    for got, expected in zip(predictions[:2], predictions[2:], strict=True):
        assert max(largest_errors(got, expected).values()) < 1e-13


@pytest.mark.parametrize("counts", [(None,) * 4, (3, 2, 2, 4)])
def test_smooth_results_do_not_depend_on_atom_order(counts: tuple[int | None, ...]) -> None:
    policy = GraphPolicy("smooth", (3.0, 3.0, 2.5, 4.0), counts)  # type: ignore[arg-type]
    assert order_dependence(policy) < 1e-12


def test_official_results_depend_on_atom_order_when_truncated() -> None:
    """Why the test above is not trivial, and the smooth rule not a mere matter of taste."""
    assert order_dependence(GraphPolicy.official(4.0, 4)) > 1e-3
    assert order_dependence(GraphPolicy.official(4.0, 30)) < 1e-12


def order_dependence(policy: GraphPolicy) -> float:
    """Largest relative change of energies and forces over a few orders of atoms."""
    atoms = compact_molecule()
    atoms.cell, atoms.pbc = np.diag([4.0, 4.5, 5.0]), (True, True, False)
    potential = sensitive_potential(policy, direct=True)
    worst = 0.0
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(atoms))
        for direct in (False, True):
            here, there = (
                potential.predict(structures_of(a, policy.cutoff), direct=direct)
                for a in (atoms, atoms[order])
            )
            assert here.forces is not None
            expected = here._replace(energies=here.energies[order], forces=here.forces[order])
            worst = max(worst, *largest_errors(there, expected).values())
    return worst


def test_energies_of_far_fragments_add() -> None:
    atoms = compact_molecule()
    pair = atoms.copy()
    other = atoms[[3, 0, 5]]
    other.positions += [0.0, 40.0, 0.0]
    pair += other
    potential = sensitive_potential(GraphPolicy.smooth())
    whole, first, second = (
        potential.predict(structures_of(a, potential.policy.cutoff)) for a in (pair, atoms, other)
    )
    assert whole.forces is not None
    assert first.forces is not None
    assert second.forces is not None
    torch.testing.assert_close(whole.energy, first.energy + second.energy, rtol=1e-13, atol=0)
    torch.testing.assert_close(whole.forces, torch.cat([first.forces, second.forces]))
