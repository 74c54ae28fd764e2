"""JMP models in OpenMM: right forces in whole and mixed systems, clear errors elsewhere."""

from __future__ import annotations

import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from factories import random_potential, write_model

openmm = pytest.importorskip("openmm")
if not hasattr(openmm, "PythonForce") or not hasattr(openmm.PythonForce, "setParticles"):
    pytest.skip("PythonForce of subsets needs OpenMM 8.6", allow_module_level=True)

from openmm import app, unit  # noqa: E402
from openmm_systems import (  # noqa: E402
    KJ,
    context_of,
    crystal,
    empty_system,
    energy_of,
    forces_of,
    topology_of,
    water_box,
    waters,
)

from jmp_md import InputError, JMPCalculator  # noqa: E402
from jmp_md.calculators.openmm import (  # noqa: E402
    add_jmp_force,
    create_mixed_system,
    create_system,
    jmp_force,
    topology_from_ase,
)
from jmp_md.export import export  # noqa: E402
from jmp_md.graph.policy import GraphPolicy  # noqa: E402
from jmp_md.models.registry import add_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

EXACT: dict[str, Any] = {"dtype": "float64", "device": "cpu", "backend": "python"}
SMALL = GraphPolicy.smooth(4.0, 4.0, 2.5, 4.5)


def small_potential(**options: Any) -> Any:
    return random_potential(num_blocks=1, graph=SMALL, **options)


def whole(atoms: Atoms, model: Any, **options: Any) -> openmm.System:
    """A system of these atoms and nothing but the model."""
    system = empty_system(atoms)
    add_jmp_force(system, topology_of(atoms), model, **{**EXACT, **options})
    return system


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-11)])
@pytest.mark.parametrize("atoms", [molecule("CH3CH2OH"), crystal()], ids=["molecule", "crystal"])
@pytest.mark.parametrize("forces", ["conservative", "direct"])
def test_openmm_and_ase_get_the_same_numbers(
    atoms: Atoms, dtype: str, tolerance: float, forces: str
) -> None:
    model = small_potential(direct=True)
    context = context_of(whole(atoms, model, dtype=dtype, forces=forces), atoms.positions)
    atoms.calc = JMPCalculator(model, dtype=dtype, device="cpu", forces=forces)
    assert energy_of(context) == pytest.approx(atoms.get_potential_energy() * KJ, rel=tolerance)
    assert relative(forces_of(context), atoms.get_forces() * KJ * 10) < tolerance


def test_a_system_is_made_of_a_topology_and_a_model() -> None:
    for atoms in (molecule("H2O"), crystal()):
        model = small_potential()
        system = create_system(topology_of(atoms), model, **EXACT)
        masses = [system.getParticleMass(k)._value for k in range(len(atoms))]
        assert masses == pytest.approx(atoms.get_masses(), rel=1e-3)
        atoms.calc = JMPCalculator(model, dtype="float64", device="cpu")
        expected = atoms.get_potential_energy() * KJ
        assert energy_of(context_of(system, atoms.positions)) == pytest.approx(expected, rel=1e-11)


def test_structures_of_ase_become_topologies_with_bonds_and_box() -> None:
    atoms = molecule("CH3CH2OH")
    topology = topology_from_ase(atoms)
    bonds = {tuple(sorted((a.name, b.name))) for a, b in topology.bonds()}
    assert len(bonds) == 8
    assert {("C1", "C2"), ("C2", "O3"), ("H4", "O3")} <= bonds
    atoms = crystal()
    context = context_of(
        create_system(topology_from_ase(atoms), small_potential(), **EXACT), atoms.positions
    )
    atoms.calc = JMPCalculator(small_potential(), dtype="float64", device="cpu")
    assert energy_of(context) == pytest.approx(atoms.get_potential_energy() * KJ, rel=1e-11)
    atoms.pbc = [True, True, False]
    with pytest.raises(InputError, match="three directions, or none"):
        topology_from_ase(atoms)


def test_an_exported_file_is_a_model_too_and_survives_serialisation(tmp_path: Path) -> None:
    atoms = molecule("CH3OH")
    model = small_potential()
    export(model, tmp_path / "m.pt", dtype="float64")
    system = whole(atoms, tmp_path / "m.pt", trust=True)
    (tmp_path / "m.pt").unlink()
    expected = energy_of(context_of(whole(atoms, model), atoms.positions))
    for each in (system, openmm.XmlSerializer.clone(system)):
        assert energy_of(context_of(each, atoms.positions)) == pytest.approx(expected, rel=1e-12)


def test_a_serialised_system_computes_the_same() -> None:
    atoms = crystal()
    system = whole(atoms, small_potential())
    clone = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    assert energy_of(context_of(clone, atoms.positions)) == energy_of(
        context_of(system, atoms.positions)
    )


@pytest.mark.parametrize("chosen", [[5, 0, 1, 3], [5, 4, 0, 1, 3, 2]])
def test_the_potential_acts_among_the_chosen_particles_in_any_order(chosen: list[int]) -> None:
    atoms = molecule("CH3OH")
    model = small_potential()
    force = jmp_force(model, topology_of(atoms), atoms=chosen, **EXACT)
    system = empty_system(atoms)
    system.addForce(force)
    context = context_of(system, atoms.positions)
    part = atoms[chosen]
    part.calc = JMPCalculator(model, dtype="float64", device="cpu")
    forces = forces_of(context)
    assert energy_of(context) == pytest.approx(part.get_potential_energy() * KJ, rel=1e-12)
    assert relative(forces[chosen], part.get_forces() * KJ * 10) < 1e-11
    assert not np.delete(forces, chosen, axis=0).any()


def test_virtual_sites_are_left_out_and_particles_without_mass_stay() -> None:
    model = small_potential()
    water = molecule("H2O")
    atoms = water + Atoms("X", positions=[[0.0, 0.0, 0.0]])
    system = empty_system(atoms)
    system.setParticleMass(3, 0.0)
    system.setVirtualSite(3, openmm.ThreeParticleAverageSite(0, 1, 2, 0.6, 0.2, 0.2))
    system.setParticleMass(1, 0.0)
    add_jmp_force(system, topology_of(atoms), model, **EXACT)
    context = context_of(system, atoms.positions)
    water.calc = JMPCalculator(model, dtype="float64", device="cpu")
    assert energy_of(context) == pytest.approx(water.get_potential_energy() * KJ, rel=1e-12)
    before = context.getState(positions=True).getPositions(asNumpy=True)._value
    context.getIntegrator().step(3)
    moved = np.abs(context.getState(positions=True).getPositions(asNumpy=True)._value - before)
    assert moved[1].max() == 0
    assert moved[[0, 2]].max() > 0
    with pytest.raises(InputError, match=r"particle 3 \(X of MOL 1\) has no element"):
        jmp_force(model, topology_of(atoms), atoms=[0, 1, 3], **EXACT)
    named = topology_of(water + Atoms("H", positions=[[0.0, 0.0, 0.0]]))
    with pytest.raises(InputError, match=r"3 \(H of MOL 1\) is a virtual site"):
        add_jmp_force(system, named, model, **EXACT)


def test_energy_is_conserved() -> None:
    atoms = molecule("CH3OH")
    model = small_potential()
    system = empty_system(atoms)
    system.addForce(jmp_force(model, atoms.numbers.tolist(), periodic=False, **EXACT))
    context = context_of(system, atoms.positions, openmm.VerletIntegrator(0.0002))
    context.setVelocitiesToTemperature(300, 1)
    total, potential = [], []
    for _ in range(40):
        context.getIntegrator().step(1)
        state = context.getState(energy=True)
        potential.append(state.getPotentialEnergy()._value)
        total.append(potential[-1] + state.getKineticEnergy()._value)
    assert np.ptp(potential) > 0.5
    assert np.ptp(total) < 0.01 * np.ptp(potential)


def test_the_box_of_each_step_is_used_and_a_barostat_moves_it() -> None:
    atoms = crystal().repeat(2)
    model = small_potential()
    system = whole(atoms, model)
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 1)
    barostat.setRandomNumberSeed(1)
    system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0005)
    integrator.setRandomNumberSeed(1)
    context = context_of(system, atoms.positions, integrator)
    start = context.getState().getPeriodicBoxVolume()
    integrator.step(12)
    state = context.getState(positions=True, energy=True)
    assert state.getPeriodicBoxVolume() != start
    atoms.cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
    atoms.positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    atoms.calc = JMPCalculator(model, dtype="float64", device="cpu")
    expected = atoms.get_potential_energy() * KJ
    assert state.getPotentialEnergy()._value == pytest.approx(expected, rel=1e-11)


def test_a_checkpoint_restarts_the_same_trajectory() -> None:
    atoms = molecule("CH3OH")
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0005)
    integrator.setRandomNumberSeed(5)
    context = context_of(whole(atoms, small_potential()), atoms.positions, integrator)
    integrator.step(4)
    checkpoint = context.createCheckpoint()
    ends = []
    for _ in range(2):
        context.loadCheckpoint(checkpoint)
        integrator.step(4)
        ends.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    assert np.abs(ends[0] - ends[1]).max() < 1e-12


def test_mixed_energy_is_the_model_within_and_the_force_field_between() -> None:
    modeller, system = waters(3)
    model = small_potential()
    positions = np.array(modeller.positions.value_in_unit(unit.angstrom))

    def force_field(atoms: list[int]) -> float:
        part, _ = waters(3)
        part.delete([a for a in part.topology.atoms() if a.index not in atoms])
        field = app.ForceField("amber14/tip3p.xml")
        alone = field.createSystem(part.topology, constraints=None, rigidWater=False)
        return energy_of(context_of(alone, positions[atoms]))

    inside, outside = [0, 1, 2, 6, 7, 8], [3, 4, 5]
    water = Atoms([8, 1, 1, 8, 1, 1], positions=positions[inside])
    water.calc = JMPCalculator(model, dtype="float64", device="cpu")
    between = force_field(list(range(9))) - force_field(inside) - force_field(outside)
    expected = water.get_potential_energy() * KJ + force_field(outside) + between
    mixed = create_mixed_system(modeller.topology, system, model, inside, **EXACT)
    assert abs(between) > 1
    assert energy_of(context_of(mixed, positions)) == pytest.approx(expected, abs=1e-6)
    assert {frozenset(m) for m in context_of(mixed, positions).getMolecules()} == {
        frozenset(range(k, k + 3)) for k in (0, 3, 6)
    }


def test_forces_of_a_mixed_system_are_the_gradient_of_its_energy() -> None:
    modeller, system = water_box(ewaldErrorTolerance=1e-6)
    mixed = create_mixed_system(modeller.topology, system, small_potential(), range(3), **EXACT)
    context = context_of(mixed, modeller.positions)
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    forces = forces_of(context)
    for atom, axis in ((0, 0), (1, 2), (3, 1)):
        sides = []
        for sign in (-1, 1):
            moved = positions.copy()
            moved[atom, axis] += sign * 1e-5
            context.setPositions(moved)
            sides.append(energy_of(context))
        slope = (sides[1] - sides[0]) / 2e-5
        assert forces[atom, axis] == pytest.approx(-slope, rel=1e-4, abs=0.05)


def test_constraints_of_the_subset_are_removed_and_others_kept() -> None:
    modeller, system = waters(2, rigidWater=True)
    mixed = create_mixed_system(modeller.topology, system, small_potential(), range(3), **EXACT)
    kept = [mixed.getConstraintParameters(k)[:2] for k in range(mixed.getNumConstraints())]
    assert {i for pair in kept for i in pair} == {3, 4, 5}
    with pytest.raises(InputError, match="constrained, with no bond term"):
        create_mixed_system(
            modeller.topology, system, small_potential(), range(3), interpolate=True, **EXACT
        )


def test_subsets_that_cut_a_molecule_are_refused() -> None:
    modeller, system = waters(2)
    with pytest.raises(InputError, match=r"bond of particles 0 \(O of HOH 1\) and 2 \(H2 of HOH"):
        create_mixed_system(modeller.topology, system, small_potential(), [0, 1], **EXACT)


def test_forces_that_cannot_be_split_are_refused_by_name() -> None:
    modeller, system = waters(2)
    system.addForce(openmm.GBSAOBCForce())
    with pytest.raises(InputError, match="the GBSAOBCForce of the system cannot be split"):
        create_mixed_system(modeller.topology, system, small_potential(), range(3), **EXACT)


def test_offsets_of_a_parameter_do_not_bring_internal_terms_back() -> None:
    modeller, system = waters(2)
    model = small_potential()
    (force,) = (f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    expected = energy_of(
        context_of(
            create_mixed_system(modeller.topology, system, model, range(3), **EXACT),
            modeller.positions,
        )
    )
    force.addGlobalParameter("switch", 1.0)
    (inside,) = (
        k
        for k in range(force.getNumExceptions())
        if set(force.getExceptionParameters(k)[:2]) == {0, 1}
    )
    force.addExceptionParameterOffset("switch", inside, 0.5, 0.0, 0.0)
    mixed = create_mixed_system(modeller.topology, system, model, range(3), **EXACT)
    assert energy_of(context_of(mixed, modeller.positions)) == pytest.approx(expected, abs=1e-6)


def test_a_box_that_never_reached_the_system_is_refused() -> None:
    atoms = crystal()
    system, topology = empty_system(atoms), topology_of(atoms)
    system.setDefaultPeriodicBoxVectors(*openmm.System().getDefaultPeriodicBoxVectors())
    with pytest.raises(InputError, match=r"a box of 0\.4, 0\.38, 0\.44 nm"):
        add_jmp_force(system, topology, small_potential(), **EXACT)
    system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())
    add_jmp_force(system, topology, small_potential(), **EXACT)


def test_a_topology_of_another_system_is_refused() -> None:
    topology = topology_of(molecule("CH3OH"))
    with pytest.raises(InputError, match=r"has 6 atoms and the system 3 particles"):
        add_jmp_force(empty_system(molecule("H2O")), topology, small_potential(), **EXACT)
    with pytest.raises(InputError, match=r"neither an openmm.app.Topology nor atomic numbers"):
        jmp_force(small_potential(), ["O", "H", "H"], **EXACT)


def test_water_with_charges_on_virtual_sites_is_refused_within_the_subset() -> None:
    modeller, _ = waters(2)
    field = app.ForceField("amber14/tip4pew.xml")
    modeller.addExtraParticles(field)
    system = field.createSystem(modeller.topology, rigidWater=False)
    with pytest.raises(InputError, match=r"virtual site 3 \(M of HOH 1\) belongs to"):
        create_mixed_system(modeller.topology, system, small_potential(), range(3), **EXACT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "cuda"}, "'cuda': choose 'auto' or 'python' or 'torch'"),
        ({"dtype": "half"}, "'half': choose"),
        ({"forces": "direct"}, "no direct forces"),
        ({"atoms": [0, 0]}, "occurs twice"),
        ({"atoms": [0, 99]}, "no particle 99 among 3"),
        ({"atoms": []}, "no atoms"),
        ({"skin": -1.0}, "skin -1.0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        jmp_force(small_potential(), [8, 1, 1], **{**EXACT, "periodic": False, **options})


def test_elements_the_model_never_saw_are_refused_and_other_molecules_reported() -> None:
    with pytest.raises(InputError, match=r"atom 1 \(Cl\)"):
        jmp_force(small_potential(head={"elements": (1, 6, 8)}), [8, 17], periodic=False, **EXACT)
    model = small_potential(header={"training": {"domain": {"formula": "C2H6O"}}})
    with pytest.warns(UserWarning, match="one molecule only, C2H6O"):
        jmp_force(model, [8, 1, 1], periodic=False, **EXACT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jmp_force(model, molecule("CH3CH2OH").numbers, periodic=False, **EXACT)


def test_a_simulation_that_explodes_says_so() -> None:
    atoms = molecule("H2O")
    context = context_of(whole(atoms, small_potential()), atoms.positions)
    atoms.positions[1] = np.nan
    context.setPositions(atoms.positions / 10)
    with pytest.raises(openmm.OpenMMException, match="positions are not finite"):
        energy_of(context)
    atoms.positions[1] = atoms.positions[0]
    context.setPositions(atoms.positions / 10)
    with pytest.raises(openmm.OpenMMException, match="remove the duplicate"):
        energy_of(context)


def test_openmm_ml_knows_the_models_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openmmml = pytest.importorskip("openmmml")
    if not metadata.entry_points(group="openmmml.potentials").select(name="jmp"):
        pytest.skip("jmp-md is not installed, so that it has no entry point")
    monkeypatch.setenv("JMP_MD_HOME", str(tmp_path / "home"))
    name = "jmp-xs-md22-stachyose"  # any name of the registry
    model = write_model(tmp_path, num_blocks=1, graph=SMALL)
    add_model(name, model)
    atoms = molecule("CH3CH2OH")
    atoms.calc = JMPCalculator(model, dtype="float64", device="cpu")
    expected = atoms.get_potential_energy() * KJ
    for potential in (
        openmmml.MLPotential("jmp", model=str(model), dtype="float64"),
        openmmml.MLPotential(name, dtype="float64"),
    ):
        system = potential.createSystem(topology_of(atoms), device="cpu")
        context = context_of(system, atoms.positions)
        assert energy_of(context) == pytest.approx(expected, rel=1e-11)
    with pytest.raises(InputError, match="needs model="):
        openmmml.MLPotential("jmp")
    shipped = openmmml.MLPotential("jmp-xs-rmd17-ethanol")
    atoms.calc = JMPCalculator("jmp-xs-rmd17-ethanol", device="cpu")
    context = context_of(shipped.createSystem(topology_of(atoms), device="cpu"), atoms.positions)
    expected = atoms.get_forces() * KJ * 10
    assert relative(forces_of(context), expected) < 1e-5

    modeller, system = water_box()
    general = openmmml.MLPotential("jmp", model=str(model), dtype="float64", device="cpu")
    theirs = general.createMixedSystem(modeller.topology, system, list(range(3)))
    ours = create_mixed_system(modeller.topology, system, model, range(3), **EXACT)
    energies = [energy_of(context_of(s, modeller.positions)) for s in (theirs, ours)]
    assert energies[0] == pytest.approx(energies[1], abs=1e-6)
