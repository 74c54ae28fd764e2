"""Structures of ASE and topologies of OpenMM: no atom, mass or box is lost on the way."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from factories import random_potential

openmm = pytest.importorskip("openmm")

from openmm import app, unit  # noqa: E402
from openmm_systems import (  # noqa: E402
    KJ,
    context_of,
    crystal,
    empty_system,
    energy_of,
    forces_of,
    topology_of,
)

from jmp_md import InputError, JMPCalculator  # noqa: E402
from jmp_md.calculators.openmm import (  # noqa: E402
    add_jmp_force,
    create_system,
    jmp_force,
    topology_from_ase,
    turned_for_openmm,
)
from jmp_md.calculators.openmm_box import openmm_box  # noqa: E402
from jmp_md.calculators.openmm_python import has_python_force  # noqa: E402
from jmp_md.graph.policy import GraphPolicy  # noqa: E402

if not has_python_force(subset=True):
    pytest.skip("PythonForce of subsets needs OpenMM 8.6", allow_module_level=True)

EXACT: dict[str, Any] = {"dtype": "float64", "device": "cpu", "backend": "python"}


def small_potential() -> Any:
    return random_potential(num_blocks=1, graph=GraphPolicy.smooth(4.0, 4.0, 2.5, 4.5))


def masses_of(system: openmm.System) -> list[float]:
    return [system.getParticleMass(k)._value for k in range(system.getNumParticles())]


def pdb_of(atoms: Atoms, names: list[str]) -> app.PDBFile:
    """A PDB file without the column of elements."""
    rows = "".join(
        f"HETATM{k + 1:5d} {name:<4s} MOL A   1    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00\n"
        for k, (name, (x, y, z)) in enumerate(zip(names, atoms.positions, strict=True))
    )
    return app.PDBFile(io.StringIO(rows + "END\n"))


def test_atoms_whose_element_is_not_known_are_refused_by_name() -> None:
    atoms = molecule("CH3OH")
    topology = pdb_of(atoms, ["C1", "O1", "1HA", "Q2", "Q3", "Q4"]).topology
    message = r"element of particle 3 \(Q2 of MOL 1\), 4 \(Q3 of MOL 1\), 5 \(Q4 of MOL 1\), and"
    system = empty_system(atoms)
    for make in (
        lambda: create_system(topology, small_potential(), **EXACT),
        lambda: add_jmp_force(system, topology, small_potential(), **EXACT),
        lambda: jmp_force(small_potential(), topology, **EXACT),
    ):
        with pytest.raises(InputError, match=message):
            make()
    named = pdb_of(atoms, ["C1", "O1", "H1", "H2", "H3", "H4"])
    context = context_of(create_system(named.topology, small_potential(), **EXACT), named.positions)
    atoms.positions = np.round(atoms.positions, 3)
    atoms.calc = JMPCalculator(small_potential(), dtype="float64", device="cpu")
    assert energy_of(context) == pytest.approx(atoms.get_potential_energy() * KJ, rel=1e-10)


def test_particles_that_are_no_atoms_are_chosen_away_or_known_from_the_system() -> None:
    atoms = molecule("H2O") + Atoms("X", positions=[[0.0, 0.0, 0.0]])
    topology = topology_of(atoms)
    real = atoms[:3]
    real.calc = JMPCalculator(small_potential(), dtype="float64", device="cpu")
    expected = real.get_potential_energy() * KJ
    chosen = create_system(topology, small_potential(), atoms=range(3), **EXACT)
    site, drude = empty_system(atoms), empty_system(atoms)
    site.setParticleMass(3, 0.0)
    site.setVirtualSite(3, openmm.ThreeParticleAverageSite(0, 1, 2, 0.6, 0.2, 0.2))
    drude.setParticleMass(3, 0.4)
    force = openmm.DrudeForce()
    force.addParticle(3, 0, -1, -1, -1, 0.0, 1.0, 1.0, 1.0)
    drude.addForce(force)
    for system in (site, drude):
        add_jmp_force(system, topology, small_potential(), **EXACT)
    for system in (chosen, site, drude):
        energy = energy_of(context_of(system, atoms.positions))
        assert energy == pytest.approx(expected, rel=1e-11)


def test_numbers_alone_do_not_decide_whether_there_is_a_box() -> None:
    atoms = crystal()
    with pytest.raises(InputError, match="give periodic=True or periodic=False"):
        jmp_force(small_potential(), atoms.numbers, **EXACT)
    system = empty_system(atoms)
    system.addForce(jmp_force(small_potential(), atoms.numbers, periodic=True, **EXACT))
    atoms.calc = JMPCalculator(small_potential(), dtype="float64", device="cpu")
    expected = atoms.get_potential_energy() * KJ
    assert energy_of(context_of(system, atoms.positions)) == pytest.approx(expected, rel=1e-11)


def test_isotopes_keep_their_mass_in_the_system_and_in_copies_of_the_topology() -> None:
    atoms = molecule("CH3OH")
    masses = atoms.get_masses()
    masses[atoms.numbers == 1] = 2.014
    masses[0] = 13.0034
    atoms.set_masses(masses)
    topology = topology_from_ase(atoms)
    modeller = app.Modeller(topology, atoms.positions * unit.angstrom)
    for each in (topology, copy.deepcopy(topology), modeller.topology):
        made = masses_of(create_system(each, small_potential(), **EXACT))
        assert made == pytest.approx(masses, rel=5e-5)
        assert [a.element.symbol for a in each.atoms()] == list(atoms.symbols)
    assert app.Element.getBySymbol("H").mass._value == pytest.approx(1.008, rel=1e-3)
    assert app.Element.getByAtomicNumber(6).mass._value == pytest.approx(12.011, rel=1e-3)
    # Newton: the first step's momentum is force times time.
    context = context_of(create_system(topology, small_potential(), **EXACT), atoms.positions)
    forces = forces_of(context)
    context.setVelocities(np.zeros((6, 3)))
    context.getIntegrator().step(1)
    velocities = context.getState(velocities=True).getVelocities(asNumpy=True)._value
    assert velocities * masses[:, None] == pytest.approx(forces * 0.0002, rel=1e-3, abs=1e-6)
    masses[2] = 0.0
    atoms.set_masses(masses)
    with pytest.raises(InputError, match=r"atom 2 \(H\) has the mass 0"):
        topology_from_ase(atoms)


def test_the_placeholder_of_a_box_is_no_box() -> None:
    atoms = molecule("H2O")
    topology = topology_of(atoms)
    topology.setPeriodicBoxVectors(np.eye(3) * unit.angstrom)
    with pytest.raises(InputError, match=r"vector of 1 Å, .* placeholder"):
        create_system(topology, small_potential(), **EXACT)


def test_constraints_of_ase_are_said_to_be_left_behind() -> None:
    atoms = molecule("H2O")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        topology_from_ase(atoms)
    atoms.set_constraint(FixAtoms([0]))
    with pytest.warns(UserWarning, match="do not reach OpenMM"):
        topology_from_ase(atoms)


def rock_salt(cubic: bool = True) -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=cubic)
    atoms.rattle(0.05, seed=1)
    return atoms


def with_cell(rows: Any) -> Atoms:
    """Rock salt with other vectors of the same lattice; all atoms stay where they are."""
    atoms = rock_salt()
    atoms.set_cell(np.array(rows) @ atoms.cell.array)
    return atoms


def skewed() -> Atoms:
    """A monoclinic cell, far from OpenMM's reduced form."""
    atoms = rock_salt()
    cell = atoms.cell.array.copy()
    cell[1] += 0.8 * cell[0]
    cell[2] += 2.7 * cell[1]
    atoms.set_cell(cell, scale_atoms=True)
    return atoms


def turned() -> Atoms:
    """Three different vectors, none along an axis, and left-handed."""
    atoms = rock_salt()
    atoms.set_cell([[0.3, 5.1, 1.0], [5.4, 0.4, 0.9], [1.1, -0.8, 5.7]], scale_atoms=True)
    assert atoms.cell.handedness == -1
    return atoms


def energy_and_forces(atoms: Atoms) -> tuple[float, np.ndarray]:
    """By OpenMM, of a structure whose topology it takes as it is: eV and eV/Å."""
    system = create_system(topology_from_ase(atoms), small_potential(), **EXACT)
    context = context_of(system, atoms.positions)
    return energy_of(context) / KJ, forces_of(context) / KJ / 10


@pytest.mark.parametrize(
    "atoms",
    [
        rock_salt(cubic=False),
        with_cell([[0, 1, 0], [1, 0, 0], [0, 0, 1]]),
        with_cell([[1, 0, 0], [3, 1, 0], [-2, 5, -1]]),
        skewed(),
        bulk("Si"),
        bulk("Fe"),
        bulk("Mg"),
    ],
    ids=["fcc primitive", "left-handed", "unreduced", "skewed", "diamond", "bcc", "hcp"],
)
def test_other_vectors_of_the_same_lattice_are_found_without_turning(atoms: Atoms) -> None:
    atoms.calc = JMPCalculator(small_potential(), dtype="float64", device="cpu")
    energy, forces = energy_and_forces(atoms)
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-10)
    assert np.abs(forces - atoms.get_forces()).max() < 1e-8
    assert turned_for_openmm(atoms).positions == pytest.approx(atoms.positions, abs=0)


def test_a_crystal_that_must_be_turned_is_refused_with_advice_that_works() -> None:
    atoms = turned()
    atoms.set_momenta(np.random.default_rng(0).normal(size=(len(atoms), 3)))
    with pytest.raises(InputError, match=r"atoms = turned_for_openmm\(atoms\)"):
        topology_from_ase(atoms)
    ready = turned_for_openmm(atoms)
    atoms.calc = JMPCalculator(small_potential(), dtype="float64", device="cpu")
    energy, forces = energy_and_forces(ready)
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-10)
    # Turned as a whole, and not mirrored: lengths, angles and the hand of any three forces stay.
    theirs = atoms.get_forces()
    assert forces @ forces.T == pytest.approx(theirs @ theirs.T, abs=1e-8)
    assert np.linalg.det(forces[:3]) == pytest.approx(np.linalg.det(theirs[:3]), abs=1e-8)
    momenta = ready.get_momenta()
    assert momenta @ forces.T == pytest.approx(atoms.get_momenta() @ theirs.T, abs=1e-8)


def test_boxes_generate_the_lattice_they_were_made_from() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        lower = np.tril(rng.normal(size=(3, 3))) + 5 * np.eye(3)
        cell = (np.tril(rng.integers(-4, 5, size=(3, 3)), -1) + np.eye(3)) @ lower
        box = openmm_box(cell[rng.permutation(3)])
        assert box is not None
        steps = box @ np.linalg.inv(cell)
        assert steps == pytest.approx(np.round(steps), abs=1e-9)
        assert abs(np.linalg.det(steps)) == pytest.approx(1.0)
        openmm.System().setDefaultPeriodicBoxVectors(*box / 10)


def test_networks_through_the_box_are_no_molecules_to_a_barostat() -> None:
    water = molecule("H2O", cell=[8.0, 8.0, 8.0], pbc=True)
    water.positions -= water.positions[0]  # across the boundaries
    water.wrap()
    for atoms, sizes in ((water, [3]), (bulk("Si", cubic=True), [1] * 8)):
        system = create_system(topology_from_ase(atoms), small_potential(), **EXACT)
        molecules = context_of(system, atoms.positions).getMolecules()
        assert [len(m) for m in molecules] == sizes
    mixed = bulk("Si", cubic=True) * (2, 2, 2)
    assert topology_from_ase(mixed).getNumBonds() == 0
    mixed = molecule("CH3CH2OH", vacuum=3.0, pbc=True)
    assert topology_from_ase(mixed).getNumBonds() == 8
