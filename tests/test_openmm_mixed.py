"""A model within a subset, on every platform: force field at one end, model at the other."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from factories import random_potential, write_model

openmm = pytest.importorskip("openmm")
if not hasattr(openmm, "PythonForce") or not hasattr(openmm.PythonForce, "setParticles"):
    pytest.skip("PythonForce of subsets needs OpenMM 8.6", allow_module_level=True)

from openmm import app, unit  # noqa: E402
from openmm_systems import (  # noqa: E402
    KJ,
    context_of,
    energy_and_forces,
    energy_of,
    forces_of,
    platforms,
    topology_of,
    water_box,
    waters,
)

from jmp_md import InputError, JMPCalculator  # noqa: E402
from jmp_md.calculators.openmm import create_mixed_system, jmp_force  # noqa: E402
from jmp_md.graph.policy import GraphPolicy  # noqa: E402

EXACT: dict[str, Any] = {"dtype": "float64", "device": "cpu", "backend": "python"}
SMALL = GraphPolicy.smooth(4.0, 4.0, 2.5, 4.5)
TWO_WATERS = [6, 7, 8, 3, 5, 4]


def small_potential() -> Any:
    return random_potential(num_blocks=1, graph=SMALL)


@pytest.fixture(params=platforms())
def platform(request: pytest.FixtureRequest) -> str:
    return request.param


def close(got: np.ndarray, expected: np.ndarray, platform: str) -> bool:
    """Whether forces agree as far as the platform's precision goes, relative to the largest."""
    tolerance = 1e-9 if platform == "Reference" else 5e-5
    return float(np.abs(got - expected).max()) < tolerance * float(np.abs(expected).max())


def check_ends(
    system: openmm.System, mixed: openmm.System, free: openmm.System, positions: Any, platform: str
) -> None:
    """Energy and forces of an interpolated system: those of both ends, and linear between."""
    ends = [energy_and_forces(context_of(s, positions, platform=platform)) for s in (system, mixed)]
    energies, forces = zip(*ends, strict=True)
    context = context_of(free, positions, platform=platform)
    assert abs(energies[0] - energies[1]) > 1.0
    assert np.abs(forces[0] - forces[1]).max() > 10.0
    for scale in (0.0, 0.3, 1.0):
        context.setParameter("lambda_interpolate", scale)
        tolerance = 1e-6 if platform == "Reference" else 1e-5 * max(map(abs, energies))
        energy, force = energy_and_forces(context)
        between = (1 - scale) * energies[0] + scale * energies[1]
        assert energy == pytest.approx(between, abs=tolerance)
        assert close(force, (1 - scale) * forces[0] + scale * forces[1], platform)


@pytest.mark.parametrize("method", [app.PME, app.CutoffPeriodic, app.LJPME])
def test_interpolation_has_both_ends_with_pairs_that_no_force_field_excludes(
    method: Any, platform: str
) -> None:
    modeller, system = water_box(nonbondedMethod=method)
    arguments = (modeller.topology, system, small_potential(), TWO_WATERS)
    mixed = create_mixed_system(*arguments, **EXACT)
    free = create_mixed_system(*arguments, interpolate=True, **EXACT)
    check_ends(system, mixed, free, modeller.positions, platform)


def ligand_in_argon(periodic: bool) -> tuple[app.Topology, openmm.System, np.ndarray]:
    """A chain of four atoms with 1-4 terms among neutral atoms, all by two non-bonded forces."""
    grid = 3.4 * np.stack(np.meshgrid(*[range(1, 5)] * 3), axis=-1).reshape(-1, 3).astype(float)
    chain = np.array([[0.0, 0, 0], [1.5, 0, 0], [2.0, 1.4, 0], [3.5, 1.4, 0.5]]) + 1.0
    positions = np.concatenate([chain, grid[np.linalg.norm(grid - [3, 2, 1], axis=1) > 3.0]])
    atoms = Atoms(["O", "C", "C", "O", *["Ne"] * (len(positions) - 4)], positions)
    if periodic:
        atoms.set_cell(17.0 * np.eye(3))
        atoms.pbc = True
    bonds = [(0, 1), (1, 2), (2, 3)]
    system, nonbonded = openmm.System(), openmm.NonbondedForce()
    custom = openmm.CustomNonbondedForce("50*exp(-(r/0.3)^2)*w1*w2")
    custom.addPerParticleParameter("w")
    stretch = openmm.HarmonicBondForce()
    for k in range(len(atoms)):
        system.addParticle(16.0)
        nonbonded.addParticle((0.3, -0.2, 0.2, -0.3)[k] if k < 4 else 0.0, 0.3, 0.4)
        custom.addParticle([1.0 + 0.1 * (k % 3)])
    nonbonded.addException(0, 3, -0.045, 0.3, 0.2)
    for i, j in (*bonds, (0, 2), (1, 3)):
        nonbonded.addException(i, j, 0.0, 1.0, 0.0)
    for i, j in (*bonds, (0, 2), (1, 3), (0, 3)):
        custom.addExclusion(i, j)
    for i, j in bonds:
        stretch.addBond(i, j, 0.14, 1e5)
    for force in (nonbonded, custom):
        force.setNonbondedMethod(2 if periodic else 1)
        force.setCutoffDistance(0.8)
        force.setUseSwitchingFunction(True)
        force.setSwitchingDistance(0.6)
        system.addForce(force)
    system.addForce(stretch)
    if periodic:
        system.setDefaultPeriodicBoxVectors(*1.7 * np.eye(3))
    return topology_of(atoms, bonds), system, positions


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("periodic", [False, True])
def test_custom_forces_with_switches_and_groups_are_scaled_too(
    periodic: bool, groups: bool, platform: str
) -> None:
    topology, system, positions = ligand_in_argon(periodic)
    n = system.getNumParticles()
    if groups:
        (custom,) = (f for f in system.getForces() if isinstance(f, openmm.CustomNonbondedForce))
        custom.addInteractionGroup(range(10), range(4, n))
        custom.addInteractionGroup(range(20, 30), range(30, n))  # none of the subset
    subset = [0, 1, 2, 3, 4, 5]  # a molecule and two atoms
    arguments = (topology, system, random_potential(num_blocks=1, graph=SMALL), subset)
    mixed = create_mixed_system(*arguments, **EXACT)
    free = create_mixed_system(*arguments, interpolate=True, **EXACT)
    check_ends(system, mixed, free, positions, platform)


NEON = """<ForceField><AtomTypes><Type name="Ne" class="Ne" element="Ne" mass="20.18"/></AtomTypes>
<Residues><Residue name="NE"><Atom name="NE" type="Ne"/></Residue></Residues>
<NonbondedForce coulomb14scale="0.8333333333333334" lj14scale="0.5">
<Atom type="Ne" charge="0.1" sigma="0.28" epsilon="0.3"/></NonbondedForce></ForceField>"""


def test_virtual_sites_outside_the_subset_keep_their_forces(platform: str) -> None:
    modeller, _ = water_box()
    neon = app.Topology()
    chain = neon.addChain()
    for _ in range(2):
        neon.addAtom("NE", app.Element.getBySymbol("Ne"), neon.addResidue("NE", chain))
    modeller.add(neon, [openmm.Vec3(x, 0.31, 0.22) for x in (0.1, 0.35)] * unit.nanometer)
    field = app.ForceField("amber14/tip4pew.xml", io.StringIO(NEON))
    modeller.addExtraParticles(field)
    system = field.createSystem(
        modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.5 * unit.nanometer
    )
    subset = [a.index for a in modeller.topology.atoms() if a.name == "NE"]
    arguments = (modeller.topology, system, small_potential(), subset)
    mixed = create_mixed_system(*arguments, **EXACT)
    free = create_mixed_system(*arguments, interpolate=True, **EXACT)
    check_ends(system, mixed, free, modeller.positions, platform)


@pytest.mark.parametrize("interpolate", [False, True])
def test_two_subsets_in_one_system(interpolate: bool, platform: str) -> None:
    modeller, system = water_box()
    positions = np.array(modeller.positions.value_in_unit(unit.angstrom))
    model = small_potential()
    first, second = TWO_WATERS, [12, 13, 14]
    options = {**EXACT, "interpolate": interpolate}
    one = create_mixed_system(modeller.topology, system, model, first, force_group=3, **options)
    both = create_mixed_system(modeller.topology, one, model, second, **options)
    assert [f.getForceGroup() for f in both.getForces() if f.getName() == "JMPForce"] == [3, 0]

    # Sums over pairs: each subset changes the energy by what it would alone.
    other = create_mixed_system(modeller.topology, system, model, second, **EXACT)
    alone = create_mixed_system(modeller.topology, system, model, first, **EXACT)
    mm, a, b = (context_of(s, positions, platform=platform) for s in (system, alone, other))
    context = context_of(both, positions, platform=platform)
    tolerance = 1e-6 if platform == "Reference" else 1e-5 * abs(energy_of(mm))
    expected = energy_of(a) + energy_of(b) - energy_of(mm)
    assert energy_of(context) == pytest.approx(expected, abs=tolerance)
    assert close(forces_of(context), forces_of(a) + forces_of(b) - forces_of(mm), platform)
    if interpolate:
        context.setParameter("lambda_interpolate", 0.0)
        assert energy_of(context) == pytest.approx(energy_of(mm), abs=tolerance)
        assert close(forces_of(context), forces_of(mm), platform)
    with pytest.raises(InputError, match="particle 12 has a JMP potential already"):
        create_mixed_system(modeller.topology, both, model, [12, 13, 14, 15, 16, 17], **EXACT)


def slope(context: openmm.Context, positions: np.ndarray, atom: int, axis: int) -> float:
    """Force by central differences of the energy: kJ/mol/nm from positions in nm."""
    sides = []
    for sign in (-1, 1):
        moved = positions.copy()
        moved[atom, axis] += sign * 1e-5
        context.setPositions(moved)
        sides.append(energy_of(context))
    return (sides[0] - sides[1]) / 2e-5


@pytest.mark.parametrize("method", [app.PME, app.CutoffPeriodic])
def test_forces_between_the_ends_are_the_gradient_of_the_energy(method: Any) -> None:
    modeller, system = water_box(nonbondedMethod=method, ewaldErrorTolerance=1e-6)
    options = {**EXACT, "interpolate": True}
    free = create_mixed_system(modeller.topology, system, small_potential(), TWO_WATERS, **options)
    context = context_of(free, modeller.positions)
    context.setParameter("lambda_interpolate", 0.4)
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    forces = forces_of(context)
    for atom, axis in ((6, 0), (4, 2), (10, 1)):
        expected = slope(context, positions, atom, axis)
        assert forces[atom, axis] == pytest.approx(expected, rel=1e-4, abs=0.05)


def test_a_box_that_changes_and_molecules_in_other_images_leave_the_ends_what_they_are() -> None:
    modeller, system = water_box()
    arguments = (modeller.topology, system, small_potential(), TWO_WATERS)
    free = create_mixed_system(*arguments, interpolate=True, **EXACT)
    mixed = create_mixed_system(*arguments, **EXACT)
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    box = np.array(modeller.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer))
    contexts = [context_of(s, modeller.positions) for s in (system, mixed, free)]
    whole = [energy_of(c) for c in contexts[:2]]
    elsewhere = positions.copy()
    elsewhere[3:6] += box[0] - box[2]  # one molecule of the subset
    for c in contexts:
        c.setPositions(elsewhere)
    assert [energy_of(c) for c in contexts[:2]] == pytest.approx(whole, abs=1e-6)
    for c in contexts:
        c.setPeriodicBoxVectors(*(1.02 * box))
    for scale, end in ((0.0, contexts[0]), (1.0, contexts[1])):
        contexts[2].setParameter("lambda_interpolate", scale)
        assert energy_of(contexts[2]) == pytest.approx(energy_of(end), abs=1e-6)
    assert energy_of(contexts[0]) != pytest.approx(whole[0], abs=1.0)


def test_molecules_known_from_the_force_field_alone_stay_molecules() -> None:
    modeller, system = water_box()
    bare = topology_of(Atoms([a.element.symbol for a in modeller.topology.atoms()]))
    bare.setPeriodicBoxVectors(modeller.topology.getPeriodicBoxVectors())
    for interpolate in (False, True):
        mixed = create_mixed_system(
            bare, system, small_potential(), range(3), interpolate=interpolate, **EXACT
        )
        assert (0, 1, 2) in context_of(mixed, modeller.positions).getMolecules()


def test_constraints_stay_where_asked() -> None:
    modeller, system = waters(2, rigidWater=True)
    arguments = (modeller.topology, system, small_potential(), range(3))
    mixed = create_mixed_system(*arguments, remove_constraints=False, **EXACT)
    assert mixed.getNumConstraints() == system.getNumConstraints() == 6


def openmmml_potential(tmp_path: Path, **options: Any) -> Any:
    openmmml = pytest.importorskip("openmmml")
    if not metadata.entry_points(group="openmmml.potentials").select(name="jmp"):
        pytest.skip("jmp-md is not installed, so that it has no entry point")
    model = write_model(tmp_path, num_blocks=1, graph=SMALL)
    return openmmml.MLPotential("jmp", model=str(model), dtype="float64", device="cpu", **options)


def test_openmm_ml_interpolates_from_the_force_field(tmp_path: Path, platform: str) -> None:
    potential = openmmml_potential(tmp_path)
    modeller, system = water_box(nonbondedMethod=app.CutoffPeriodic)
    arguments = (modeller.topology, system, TWO_WATERS)
    mixed = potential.createMixedSystem(*arguments)
    free = potential.createMixedSystem(*arguments, interpolate=True)
    check_ends(system, mixed, free, modeller.positions, platform)


def test_openmm_ml_removes_constraints_or_not(tmp_path: Path) -> None:
    potential = openmmml_potential(tmp_path)
    modeller, system = waters(2, rigidWater=True)
    for remove, left in ((True, 3), (False, 6)):
        mixed = potential.createMixedSystem(
            modeller.topology, system, [0, 1, 2], removeConstraints=remove
        )
        assert mixed.getNumConstraints() == left
    with pytest.raises(InputError, match="constrained, with no bond term"):
        potential.createMixedSystem(modeller.topology, system, [0, 1, 2], interpolate=True)


def test_other_embeddings_of_openmm_ml_collect_the_force_in_an_empty_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openmmml = pytest.importorskip("openmmml")
    potential = openmmml_potential(tmp_path)
    modeller, system = waters(2)

    class Vacuum(openmmml.mlpotential.Embedding):
        """The subset by the model, times a parameter, and nothing else."""

        def createEmbedding(self, name: str, **options: Any) -> Any:  # noqa: N802
            return self

        def createMixedSystem(  # noqa: N802
            self, impl: Any, topology: Any, system: Any, atoms: Sequence[int], *_: Any, **__: Any
        ) -> openmm.System:
            collected, result = openmm.System(), openmm.System()
            for k in range(system.getNumParticles()):
                result.addParticle(system.getParticleMass(k))
            impl.addForces(topology, collected, atoms, 0)
            force = openmm.CustomCVForce("half * model")
            force.addGlobalParameter("half", 0.5)
            (copied,) = (openmm.XmlSerializer.clone(f) for f in collected.getForces())
            force.addCollectiveVariable("model", copied)
            result.addForce(force)
            return result

    monkeypatch.setattr(openmmml.MLPotential, "_embeddingFactories", {})
    openmmml.MLPotential.registerEmbeddingFactory("vacuum", Vacuum())
    mixed = potential.createMixedSystem(
        modeller.topology, system, [0, 1, 2], embedding="vacuum", interpolate=True
    )
    positions = np.array(modeller.positions.value_in_unit(unit.angstrom))
    water = Atoms([8, 1, 1], positions=positions[:3])
    water.calc = JMPCalculator(small_potential(), dtype="float64", device="cpu")
    expected = 0.5 * water.get_potential_energy() * KJ
    assert energy_of(context_of(mixed, positions)) == pytest.approx(expected, rel=1e-9)


def test_a_whole_potential_leaves_no_room_for_a_subset() -> None:
    modeller, system = waters(2)
    system.addForce(jmp_force(small_potential(), modeller.topology, **EXACT))
    with pytest.raises(InputError, match="particle 0 has a JMP potential already"):
        create_mixed_system(modeller.topology, system, small_potential(), range(3), **EXACT)
