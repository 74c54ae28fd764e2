"""Structures that relax together end where analysis and ASE by itself say, cells too."""

from __future__ import annotations

from collections.abc import Sequence

import ase.optimize
import numpy as np
import pytest
from argon import EPSILON, FCC, SIGMA, Pairs, energy_per_atom, lattice_sums, pressure_of
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.units import GPa
from factories import random_potential

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.graph.policy import GraphPolicy
from jmp_md.simulate.relax import RelaxResult, relax_batched


def crystals() -> list[Atoms]:
    """Argon in cells of several sizes and shapes, out of its minimum."""
    found = [bulk("Ar", a=5.5), bulk("Ar", a=5.2) * (2, 1, 1), bulk("Ar", a=5.3)]
    for i, atoms in enumerate(found):
        atoms.rattle(0.03, seed=i)
    return found


def spacing(atoms: Atoms) -> float:
    return float((atoms.get_volume() / len(atoms) * np.sqrt(2)) ** (1 / 3))


@pytest.mark.parametrize("pressure", [0.0, 0.3])
def test_crystals_end_at_the_minimum_of_their_lattice_sums(pressure: float) -> None:
    options = {"relax_cell": True, "pressure": pressure, "fmax": 1e-6, "optimizer": "BFGS"}
    ends = relax_batched([*crystals(), molecule("CO")], Pairs(), batch_size=4, **options)
    for atoms, end in zip(crystals(), ends, strict=False):
        d = spacing(end.atoms)
        a12, a6 = lattice_sums(FCC, d)
        assert end.converged
        assert len(end.atoms) == len(atoms)
        assert pressure_of(d) == pytest.approx(pressure, abs=1e-3)
        assert end.energy / len(atoms) == pytest.approx(energy_per_atom(FCC, d), abs=1e-9)
        if pressure == 0:
            assert d == pytest.approx((2 * a12 / a6) ** (1 / 6) * SIGMA, abs=1e-4)
            assert end.energy / len(atoms) == pytest.approx(-EPSILON * a6**2 / (2 * a12), abs=1e-9)
        assert end.stress_left is not None
        assert end.stress_left < 1e-3
    assert "the structure has no cell to relax" in str(ends[3].error)
    assert not ends[3].converged


def test_metals_have_the_volume_of_their_equation_of_state() -> None:
    """And under pressure the one at which its slope is that pressure, P = -dE/dV."""
    names = ("Cu", "Al")
    for pressure in (0.0, 8.0):
        structures = [bulk(name, cubic=i == 1) for i, name in enumerate(names)]
        ends = relax_batched(
            structures, EMT(), relax_cell=True, pressure=pressure, fmax=1e-5, batch_size=2
        )
        for end in ends:
            shares = np.linspace(0.985, 1.015, 7)
            energies = [energy_at(end.atoms, share) for share in shares]
            volumes = shares * end.atoms.get_volume()
            slope = np.polynomial.Polynomial.fit(volumes, energies, 4).deriv()
            assert end.converged
            assert -slope(end.atoms.get_volume()) / GPa == pytest.approx(pressure, abs=5e-3)
            if pressure == 0:
                minimum = EquationOfState(volumes, energies).fit()[0]
                assert end.atoms.get_volume() == pytest.approx(minimum, rel=1e-4)


def energy_at(atoms: Atoms, share: float) -> float:
    """eV, in a cell of that share of the volume."""
    copy = atoms.copy()
    copy.set_cell(copy.cell.array * share ** (1 / 3), scale_atoms=True)
    copy.calc = EMT()
    return float(copy.get_potential_energy())


@pytest.fixture(scope="module")
def network() -> JMPCalculator:
    graph = GraphPolicy.smooth(3.5, 3.5, 2.2, 3.5)
    return JMPCalculator(random_potential(graph=graph), dtype="float64", device="cpu")


def of_the_network() -> list[Atoms]:
    """Crystals of several sizes that random weights hold together."""
    found = [bulk("Cu") * (2, 1, 1), bulk("Fe"), bulk("Ti")]
    for atoms in found:
        atoms.rattle(0.03, seed=1)
    return found


def by_ase(
    structures: Sequence[Atoms], calculator: JMPCalculator, pressure: float
) -> list[tuple[Atoms, int]]:
    """Relaxed one by one by ASE alone, with the steps it took."""
    ends = []
    for atoms in structures:
        atoms.calc = calculator
        moving = FrechetCellFilter(atoms, scalar_pressure=pressure * GPa)
        with ase.optimize.BFGS(moving, logfile=None) as run:
            assert run.run(fmax=3e-4, steps=60)
        ends.append((atoms, run.nsteps))
    return ends


def test_a_batch_of_a_model_ends_where_ase_ends_alone(network: JMPCalculator) -> None:
    pressure = 1.0
    options = {"relax_cell": True, "pressure": pressure, "fmax": 3e-4, "optimizer": "BFGS"}
    broken = molecule("CO", vacuum=2.0, pbc=True)
    broken.positions[1] = broken.positions[0]
    given = [*of_the_network(), broken]
    ends = relax_batched(given, network, batch_size=2, **options)
    for (alone, steps), end in zip(by_ase(of_the_network(), network, pressure), ends, strict=False):
        assert end.converged
        assert end.steps == steps
        assert end.energy == pytest.approx(alone.get_potential_energy(), abs=1e-6)
        assert end.atoms.cell.array == pytest.approx(alone.cell.array, abs=1e-6)
        assert end.atoms.positions == pytest.approx(alone.positions, abs=1e-6)
        assert pressure_by_differences(end, network) == pytest.approx(pressure, abs=0.02)
    assert ends[3].error is not None
    assert max(end.steps for end in ends) > 10


def pressure_by_differences(end: RelaxResult, calculator: JMPCalculator) -> float:
    """GPa, -dE/dV from energies alone."""
    energies, volumes = [], []
    for scale in (1 - 1e-4, 1 + 1e-4):
        copy = end.atoms.copy()
        copy.set_cell(copy.cell.array * scale, scale_atoms=True)
        copy.calc = calculator
        energies.append(copy.get_potential_energy())
        volumes.append(copy.get_volume())
    return float(-(energies[1] - energies[0]) / (volumes[1] - volumes[0]) / GPa)


def test_masks_and_fixed_atoms_hold_in_a_batch_of_a_model(network: JMPCalculator) -> None:
    given = of_the_network()
    for atoms in given:
        atoms.set_constraint(FixAtoms([0]))
    options = {"relax_cell": True, "cell_mask": (0, 0, 1, 0, 0, 0), "fmax": 1e-9, "steps": 4}
    for atoms, end in zip(given, relax_batched(given, network, **options), strict=True):
        strain = np.linalg.solve(atoms.cell.array, end.atoms.cell.array)
        stretch = strain[2, 2]
        assert strain == pytest.approx(np.diag([1, 1, stretch]), abs=1e-12)
        assert abs(stretch - 1) > 1e-4
        before, after = (each.get_scaled_positions()[0] for each in (atoms, end.atoms))
        assert after == pytest.approx(before, abs=1e-12)
        assert [type(c).__name__ for c in end.atoms.constraints] == ["FixAtoms"]


def test_symmetry_is_kept_in_a_batch_of_a_model(network: JMPCalculator) -> None:
    spglib = pytest.importorskip("spglib")

    def group(atoms: Atoms) -> int:
        cell = atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers
        return int(spglib.get_symmetry_dataset(cell, symprec=1e-6).number)

    given = [bulk("Cu", "hcp", a=2.6, c=4.1), bulk("C"), bulk("Si", cubic=True)]
    sloppy = [atoms.copy() for atoms in given]
    for i, atoms in enumerate(sloppy):
        atoms.rattle(0.001, seed=i)
    options = {"relax_cell": True, "keep_symmetry": True, "fmax": 1e-9, "steps": 4}
    for exact, end in zip(given, relax_batched(sloppy, network, **options), strict=True):
        assert group(end.atoms) == group(exact)
        assert end.steps == 4
        assert end.atoms.constraints == []
