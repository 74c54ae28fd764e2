"""Relaxations end where analysis says, with the stress and pressure that it says."""

from __future__ import annotations

import numpy as np
import pytest
from argon import (
    CUTOFF,
    EPSILON,
    FCC,
    SIGMA,
    TRIANGLES,
    Pairs,
    energy_per_atom,
    lattice_sums,
    pressure_of,
)
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixBondLength, FixCartesian, Hookean
from factories import random_potential

from jmp_md.batch import Result
from jmp_md.calculators.ase import JMPCalculator
from jmp_md.errors import InputError
from jmp_md.evaluation import evaluate
from jmp_md.graph.policy import GraphPolicy
from jmp_md.simulate.relax import relax, relax_batched


@pytest.mark.parametrize("optimizer", ["BFGS", "LBFGS", "FIRE"])
@pytest.mark.parametrize("factor", [0.9, 1.2])
def test_a_dimer_ends_at_its_minimum(optimizer: str, factor: float) -> None:
    """r = 2^(1/6) σ, E = -ε."""
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, factor * SIGMA]], calculator=Pairs())
    end = relax(atoms, fmax=1e-5, optimizer=optimizer, steps=2000)
    assert end.converged
    assert end.atoms.get_distance(0, 1) == pytest.approx(2 ** (1 / 6) * SIGMA, abs=1e-3)
    assert end.energy == pytest.approx(-EPSILON, abs=1e-8)
    assert end.energy_change == pytest.approx(-EPSILON - atoms.get_potential_energy(), abs=1e-8)


def test_a_dimer_that_is_driven_apart_has_not_converged() -> None:
    """Beyond the inflection at (26/7)^(1/6) σ, LBFGS climbs: no forces at the end, no minimum."""
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 1.4 * SIGMA]], calculator=Pairs())
    with pytest.warns(UserWarning, match=r"the energy rose by 0\.00\d+ eV: .* FIRE"):
        end = relax(atoms, fmax=1e-5, optimizer="LBFGS", steps=2000)
    assert end.fmax < 1e-5
    assert end.energy_change > 1e-3
    assert not end.converged


@pytest.mark.parametrize("primitive", [True, False], ids=["primitive", "conventional"])
def test_argon_ends_at_the_minimum_of_its_lattice_sums(primitive: bool) -> None:
    atoms = bulk("Ar", "fcc", a=5.5, cubic=not primitive)
    atoms.calc = Pairs()
    end = relax(atoms, relax_cell=True, fmax=1e-6)
    d = (end.atoms.get_volume() / len(atoms) * np.sqrt(2)) ** (1 / 3)
    a12, a6 = lattice_sums(FCC, d)
    assert end.converged
    assert d == pytest.approx((2 * a12 / a6) ** (1 / 6) * SIGMA, abs=1e-4)
    assert end.energy / len(atoms) == pytest.approx(-EPSILON * a6**2 / (2 * a12), abs=1e-9)
    assert end.stress_left is not None
    assert end.stress_left < 1e-3


@pytest.mark.parametrize("pressure", [0.3, -0.1])
def test_a_pressed_crystal_has_the_least_enthalpy(pressure: float) -> None:
    """H = E + P V with P > 0 pressing: its minimum over the lattice, by scanning d."""
    atoms = bulk("Ar", "fcc", a=5.3)
    atoms.calc = Pairs()
    end = relax(atoms, relax_cell=True, pressure=pressure, fmax=1e-6)
    d = (end.atoms.get_volume() * np.sqrt(2)) ** (1 / 3)
    assert pressure_of(d) == pytest.approx(pressure, abs=1e-3)
    assert end.energy == pytest.approx(energy_per_atom(FCC, d), abs=1e-9)  # without P V
    zero = relax(atoms, relax_cell=True, fmax=1e-6).atoms.get_volume()
    assert (end.atoms.get_volume() < zero) == (pressure > 0)


@pytest.mark.parametrize("vacuum", [8.0, 20.0])
@pytest.mark.parametrize("tilted", [False, True])
def test_a_layer_relaxes_in_its_plane(vacuum: float, tilted: bool) -> None:
    """A triangular layer; what fills the third direction makes no difference."""
    cell = np.array([3.6 * TRIANGLES[0], 3.6 * TRIANGLES[1], [1.0 * tilted, 0.5 * tilted, vacuum]])
    atoms = Atoms("Ar", [[0.1, 0.2, vacuum / 2]], cell=cell, pbc=(True, True, False))
    atoms.calc = Pairs()
    end = relax(atoms, relax_cell=True, fmax=1e-7)
    assert end.converged
    lengths = end.atoms.cell.lengths()
    a12, a6 = lattice_sums(TRIANGLES, lengths[0])
    assert lengths[:2] == pytest.approx(np.full(2, (2 * a12 / a6) ** (1 / 6) * SIGMA), abs=1e-4)
    assert end.atoms.cell.angles()[2] == pytest.approx(60, abs=1e-3)
    assert end.energy == pytest.approx(-EPSILON * a6**2 / (2 * a12), abs=1e-9)
    assert end.atoms.cell.array[2, 2] == pytest.approx(vacuum, abs=1e-12)
    assert end.atoms.positions[0, 2] == pytest.approx(vacuum / 2, abs=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_chain_relaxes_along_itself(axis: int) -> None:
    """A12 = 2 ζ(12), A6 = 2 ζ(6) for a chain, here up to the cutoff."""
    cell, pbc = 15.0 * np.eye(3), [False] * 3
    cell[axis, axis], pbc[axis] = 3.5, True
    atoms = Atoms("Ar", cell=cell, pbc=pbc, calculator=Pairs())
    end = relax(atoms, relax_cell=True, fmax=1e-7)
    d = end.atoms.cell.lengths()[axis]
    a12, a6 = lattice_sums(np.eye(3)[:1], d)
    assert d == pytest.approx((2 * a12 / a6) ** (1 / 6) * SIGMA, abs=1e-4)
    others = [k for k in range(3) if k != axis]
    assert end.atoms.cell.lengths()[others].tolist() == [15.0, 15.0]


def test_cells_without_volume_or_along_no_axes_are_refused() -> None:
    layer = Atoms("Ar", cell=[3.6, 3.6, 0], pbc=(True, True, False), calculator=Pairs())
    with pytest.raises(InputError, match=r"no volume, by which stress is defined: set all"):
        relax(layer, relax_cell=True)
    turned = layer.copy()
    turned.cell[2] = [0, 0, 12.0]
    turned.calc = Pairs()
    with pytest.raises(InputError, match="has no volume of its own that pressure could act on"):
        relax(turned, relax_cell=True, pressure=1.0)
    with pytest.raises(InputError, match="asks for strains of directions that are not periodic"):
        relax(turned, relax_cell=True, cell_mask=(1, 1, 1, 0, 0, 0))
    turned.rotate(20, "x", rotate_cell=True)
    with pytest.raises(InputError, match="do not lie along as many of x, y and z: rotate"):
        relax(turned, relax_cell=True)
    zero = Atoms("Ar", pbc=True, calculator=Pairs())
    for options in ({}, {"relax_cell": True}, {"relax_cell": True, "keep_symmetry": True}):
        with pytest.raises(InputError, match="has no volume in its periodic directions"):
            relax(zero, **options)
    with pytest.raises(InputError, match="the structure has no atoms"):
        relax(Atoms(calculator=Pairs()))


def test_fixed_atoms_keep_their_places_in_a_cell_that_relaxes() -> None:
    """The end is stationary under strain with fixed fractions, which differences of energy show."""
    atoms = bulk("Ar", "fcc", a=5.5, cubic=True)
    atoms.positions[1] += [0.3, 0.1, 0.0]
    atoms.set_constraint(FixAtoms([0, 1]))
    atoms.calc = Pairs()
    before = atoms.get_scaled_positions()[:2]
    end = relax(atoms, relax_cell=True, fmax=1e-6, steps=2000)
    assert end.converged
    assert end.atoms.get_scaled_positions()[:2] == pytest.approx(before, abs=1e-9)
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        energies = []
        for sign in (-1, 1):
            strain = np.eye(3)
            strain[i, j] += sign * 5e-5
            strain[j, i] += sign * 5e-5
            copy = end.atoms.copy()
            copy.set_constraint()
            copy.set_cell(copy.cell.array @ strain, scale_atoms=True)
            copy.calc = Pairs()
            energies.append(copy.get_potential_energy())
        assert abs(energies[1] - energies[0]) / 2e-4 < 1e-5
    for constraint in (FixBondLength(0, 1), FixCartesian([0])):
        atoms.set_constraint(constraint)
        with pytest.raises(
            InputError, match=f"{type(constraint).__name__} does not hold in a cell"
        ):
            relax(atoms, relax_cell=True)


def test_forces_on_fixed_atoms_and_energies_of_springs_do_not_count() -> None:
    chain = Atoms("Ar3", [[0, 0, 0], [0, 0, 3.0], [0, 0, 7.2]], calculator=Pairs())
    chain.set_constraint(FixAtoms([0, 1]))
    end = relax(chain, fmax=1e-5)
    free = end.atoms.copy()
    free.set_constraint()
    free.calc = Pairs()
    assert end.converged
    assert np.abs(free.get_forces()[:2]).max() > 0.1
    assert end.fmax == pytest.approx(np.linalg.norm(free.get_forces()[2]), abs=1e-12)
    assert end.fmax < 1e-5
    pulled = Atoms("Ar2", [[0, 0, 0], [0, 0, 4.5]], calculator=Pairs())
    pulled.set_constraint(Hookean(0, 1, k=0.05, rt=3.0))
    end = relax(pulled, fmax=1e-5)
    r = end.atoms.get_distance(0, 1)
    assert r < 2 ** (1 / 6) * SIGMA
    assert end.energy == pytest.approx(4 * EPSILON * ((SIGMA / r) ** 12 - (SIGMA / r) ** 6))


def test_wrapped_and_unwrapped_twins_end_alike() -> None:
    atoms = bulk("Ar", "fcc", a=5.25, cubic=True)
    atoms.rattle(0.02, seed=1)
    twin = atoms.copy()
    twin.positions += np.array([[0, 0, 0], [2, -1, 0], [0, 3, 1], [-1, 0, 0]]) @ twin.cell.array
    ends = []
    for each in (atoms, twin):
        each.calc = Pairs()
        ends.append(relax(each, relax_cell=True, fmax=1e-6))
    assert ends[0].energy == pytest.approx(ends[1].energy, abs=1e-9)
    assert ends[0].atoms.cell.array == pytest.approx(ends[1].atoms.cell.array, abs=1e-4)
    moved = ends[1].atoms.positions - ends[0].atoms.positions
    fractions = moved @ np.linalg.inv(ends[0].atoms.cell.array)
    assert fractions == pytest.approx(np.round(fractions), abs=1e-4)


def test_the_energy_is_that_of_the_structure_given_back() -> None:
    atoms = bulk("Ar", "fcc", a=5.5, cubic=True)
    atoms.rattle(0.2, seed=1)
    atoms.calc = Pairs()
    for steps in (0, 1, 3):
        end = relax(atoms, fmax=1e-9, steps=steps)
        copy = end.atoms.copy()
        copy.calc = Pairs()
        assert not end.converged
        assert end.steps == steps
        assert end.energy == copy.get_potential_energy()
        assert end.fmax == pytest.approx(np.linalg.norm(copy.get_forces(), axis=1).max())


@pytest.fixture(scope="module")
def network() -> JMPCalculator:
    graph = GraphPolicy.smooth(3.5, 3.5, 2.2, 3.5)
    potential = random_potential(num_blocks=1, graph=graph)
    return JMPCalculator(potential, dtype="float64", device="cpu")


def slab(direction: int, tilted: bool) -> Atoms:
    """A layer that is periodic in all directions but one."""
    atoms = Atoms("CH2O", [[0, 0, 0], [0.9, 0.3, 0.4], [-0.7, 0.6, 0.3], [0.2, -1.0, 0.8]])
    cell = np.diag([3.1, 3.4, 3.7])
    cell[direction, direction] = 12.0
    if tilted:
        cell[direction, (direction + 1) % 3] = 1.3
        cell[(direction + 1) % 3, (direction + 2) % 3] = 0.4
    pbc = np.ones(3, dtype=bool)
    pbc[direction] = False
    return Atoms(atoms.symbols, atoms.positions + 1.0, cell=cell, pbc=pbc)


@pytest.mark.parametrize("direction", [0, 1, 2])
@pytest.mark.parametrize("tilted", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_stress_of_a_layer_is_the_slope_of_its_energy(
    network: JMPCalculator, direction: int, tilted: bool, turned: bool
) -> None:
    """Strains are those of its two vectors, along the plane they span, wherever that lies."""
    atoms = slab(direction, tilted)
    if turned:
        atoms.rotate(33, (1, 2, 3), rotate_cell=True)
    atoms.calc = network
    stress = atoms.get_stress(voigt=False)
    volume = atoms.get_volume()
    first, second = atoms.cell.array[atoms.pbc]
    u = first / np.linalg.norm(first)
    normal = np.cross(first, second) / np.linalg.norm(np.cross(first, second))
    v = np.cross(normal, u)
    h = 1e-4
    for strain in (np.outer(u, u), np.outer(v, v), 0.5 * (np.outer(u, v) + np.outer(v, u))):
        energies = []
        for sign in (-1, 1):
            copy = atoms.copy()
            copy.set_cell(copy.cell.array @ (np.eye(3) + sign * h * strain), scale_atoms=True)
            copy.calc = network
            energies.append(copy.get_potential_energy())
        slope = (energies[1] - energies[0]) / (2 * h)
        assert (stress * strain).sum() * volume == pytest.approx(slope, abs=2e-6)
    assert stress @ normal == pytest.approx(np.zeros(3), abs=1e-12)
    [found] = evaluate([atoms], network.potential, properties=("energy", "forces", "stress"))
    assert found.stress == pytest.approx(stress, abs=1e-10)
    roomy = atoms.copy()
    roomy.cell[direction] *= 1.5  # more vacuum: less stress, as much surface stress
    roomy.calc = network
    assert roomy.get_stress(voigt=False) * 1.5 == pytest.approx(stress, abs=1e-10)


def test_molecules_beside_crystals_and_layers_have_no_stress(network: JMPCalculator) -> None:
    crystal = slab(2, False)
    crystal.cell[2, 2] = 3.5
    crystal.pbc = True
    box = molecule("H2O", vacuum=3.0)
    flat = slab(2, False)
    flat.cell[2] = 0.0
    structures = [slab(2, False), box, crystal, flat]
    results: list[Result] = evaluate(
        structures, network.potential, properties=("energy", "forces", "stress")
    )
    assert [result.stress is None for result in results] == [False, True, False, True]
    assert results[3].energy == pytest.approx(results[0].energy, abs=1e-9)
    assert results[3].forces == pytest.approx(results[0].forces, abs=1e-9)


def test_a_layer_of_a_model_moves_within_its_plane(network: JMPCalculator) -> None:
    atoms = slab(2, False)
    atoms.calc = network
    end = relax(atoms, relax_cell=True, fmax=5e-3, steps=3)
    assert end.energy_change < 0
    assert end.atoms.cell.array[2].tolist() == [0, 0, 12.0]
    assert not np.allclose(end.atoms.cell.array[:2], atoms.cell.array[:2], atol=1e-4)


def test_results_of_a_batch_belong_to_their_structures(network: JMPCalculator) -> None:
    """Failures in between, several sizes, and structures that finish out of order."""
    structures = [molecule(name) for name in ("H2O", "CO2", "CH3OH", "H2", "H2CO", "H2O2")]
    for i, atoms in enumerate(structures):
        atoms.rattle(0.02 * i, seed=i)
    structures[1].positions[0] = np.nan
    structures[3].positions[1] = structures[3].positions[0]
    ends = relax_batched(structures, network, fmax=0.05, batch_size=2, steps=30)
    for i, (given, end) in enumerate(zip(structures, ends, strict=True)):
        assert end.atoms.get_chemical_formula() == given.get_chemical_formula()
        assert (end.error is not None) == (i in (1, 3))
        if end.error is None:
            own = end.atoms.copy()
            own.calc = network
            assert end.energy == pytest.approx(own.get_potential_energy(), abs=1e-9)
            assert end.atoms.get_forces() == pytest.approx(own.get_forces(), abs=1e-8)
            assert end.fmax == pytest.approx(np.linalg.norm(own.get_forces(), axis=1).max())
            assert end.converged == (end.fmax <= 0.05)
            given.calc = network
            change = own.get_potential_energy() - given.get_potential_energy()
            assert end.energy_change == pytest.approx(change, abs=1e-8)


def test_an_independent_program_has_the_same_energies() -> None:
    """ASE's Lennard-Jones against the sums of this file, where no cutoff matters."""
    atoms = molecule("C2H6")
    atoms.positions *= 3
    atoms.calc = LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=CUTOFF * 0.999, smooth=False)
    cluster = atoms.copy()
    cluster.calc = Pairs()
    shift = 4 * EPSILON * ((SIGMA / CUTOFF) ** 12 - (SIGMA / CUTOFF) ** 6)
    expected = cluster.get_potential_energy() - 28 * shift
    assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-6)
    assert atoms.get_forces() == pytest.approx(cluster.get_forces(), abs=1e-12)
