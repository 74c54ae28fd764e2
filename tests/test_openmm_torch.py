"""TorchForce computes what PythonForce and ASE do; in the environment where its plugin loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch  # noqa: F401 - before openmm, or the plugin does not load
from ase import Atoms
from ase.build import bulk, molecule
from factories import random_potential

openmm = pytest.importorskip("openmm")
openmmtorch = pytest.importorskip("openmmtorch")

from openmm_systems import (  # noqa: E402
    KJ,
    context_of,
    crystal,
    empty_system,
    energy_of,
    forces_of,
    step,
    topology_of,
    water_box,
)

from jmp_md import JMPCalculator  # noqa: E402
from jmp_md.calculators.openmm import add_jmp_force, create_mixed_system  # noqa: E402
from jmp_md.calculators.openmm_torch import plugin_problem  # noqa: E402
from jmp_md.export import export  # noqa: E402
from jmp_md.graph.policy import GraphPolicy  # noqa: E402

if plugin_problem():
    pytest.skip(plugin_problem(), allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

SMALL = GraphPolicy.smooth(4.0, 4.0, 2.5, 4.5)


def small_potential(**options: Any) -> Any:
    return random_potential(num_blocks=1, **{"graph": SMALL, **options})


def box() -> Atoms:
    """A crystal off its symmetric places, in a box smaller than twice the cutoff."""
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    atoms.rattle(0.1, seed=2)
    return atoms


def whole(atoms: Atoms, model: Any, backend: str, **options: Any) -> openmm.System:
    system = empty_system(atoms)
    add_jmp_force(system, topology_of(atoms), model, backend=backend, device="cpu", **options)
    return system


def relative(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-11)])
@pytest.mark.parametrize(
    "atoms", [molecule("CH3CH2OH"), crystal(), box()], ids=["molecule", "triclinic", "box"]
)
@pytest.mark.parametrize("forces", ["conservative", "direct"])
def test_both_backends_and_ase_get_the_same_numbers(
    atoms: Atoms, dtype: str, tolerance: float, forces: str
) -> None:
    model = small_potential(direct=True)
    options = {"dtype": dtype, "forces": forces}
    python, torch_ = (
        context_of(whole(atoms, model, backend, **options), atoms.positions)
        for backend in ("python", "torch")
    )
    atoms.calc = JMPCalculator(model, device="cpu", **options)
    energy, force = atoms.get_potential_energy() * KJ, atoms.get_forces() * KJ * 10
    for context in (python, torch_):
        # Once more after a move.
        assert energy_of(context) == pytest.approx(energy, rel=tolerance)
        assert relative(forces_of(context), force) < tolerance
        context.setPositions((atoms.positions + 0.1 * np.sin(atoms.positions)) / 10)
    assert relative(forces_of(torch_), forces_of(python)) < tolerance


def test_trajectories_of_both_backends_stay_together() -> None:
    atoms = molecule("CH3OH")
    ends = []
    for backend in ("python", "torch"):
        system = whole(atoms, small_potential(), backend, dtype="float64")
        context = context_of(system, atoms.positions, openmm.VerletIntegrator(0.0005))
        context.setVelocitiesToTemperature(300, 1)
        step(context, 10)
        ends.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    assert np.abs(ends[0] - atoms.positions / 10).max() > 1e-3
    assert np.abs(ends[0] - ends[1]).max() < 1e-10


def test_a_subset_in_a_mixed_system_is_scaled_from_the_force_field_to_the_model() -> None:
    modeller, system = water_box()
    atoms = [6, 7, 8, 3, 5, 4]
    model = small_potential()
    options: dict[str, Any] = {"backend": "torch", "dtype": "float64"}
    mixed = create_mixed_system(
        modeller.topology, system, model, atoms, interpolate=True, **options
    )
    fixed = create_mixed_system(modeller.topology, system, model, atoms, **options)
    context, full = (context_of(s, modeller.positions) for s in (mixed, fixed))
    ends = [energy_of(context_of(system, modeller.positions)), energy_of(full)]
    for scale in (0.0, 0.3, 1.0):
        context.setParameter("lambda_interpolate", scale)
        expected = (1 - scale) * ends[0] + scale * ends[1]
        assert energy_of(context) == pytest.approx(expected, abs=1e-6)
    assert relative(forces_of(context), forces_of(full)) < 1e-9

    positions = np.array(modeller.positions._value)
    forces = forces_of(full)
    for atom, axis in ((7, 0), (4, 2)):
        sides = []
        for sign in (-1, 1):
            moved = positions.copy()
            moved[atom, axis] += sign * 1e-5
            full.setPositions(moved)
            sides.append(energy_of(full))
        assert forces[atom, axis] == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-3, abs=0.5)


def test_a_barostat_changes_the_box_and_xml_keeps_the_force() -> None:
    atoms = crystal().repeat(2)
    system = openmm.XmlSerializer.clone(whole(atoms, small_potential(), "torch", dtype="float64"))
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 1)
    barostat.setRandomNumberSeed(1)
    system.addForce(barostat)
    context = context_of(system, atoms.positions, openmm.VerletIntegrator(0.0002))
    step(context, 6)
    state = context.getState(positions=True)
    assert state.getPeriodicBoxVolume()._value * 1000 != pytest.approx(atoms.get_volume())
    atoms.cell = state.getPeriodicBoxVectors(asNumpy=True)._value * 10
    atoms.positions = state.getPositions(asNumpy=True)._value * 10
    atoms.calc = JMPCalculator(small_potential(), dtype="float64", device="cpu")
    expected = atoms.get_potential_energy() * KJ
    assert energy_of(context) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("atoms", [molecule("H2O"), crystal()], ids=["molecule", "crystal"])
def test_atoms_that_are_lost_or_on_top_of_each_other_show_in_the_energy(atoms: Atoms) -> None:
    context = context_of(whole(atoms, small_potential(), "torch"), atoms.positions)
    for place in (np.nan, np.inf, atoms.positions[0]):
        broken = atoms.positions.copy()
        broken[1] = place
        context.setPositions(broken / 10)
        assert np.isnan(energy_of(context))
    context.setPositions(atoms.positions / 10)
    assert np.isfinite(energy_of(context))


def test_virtual_sites_are_left_out() -> None:
    model = small_potential()
    atoms = molecule("H2O") + Atoms("X", positions=[[0.0, 0.0, 0.0]])
    system = empty_system(atoms)
    system.setParticleMass(3, 0.0)
    system.setVirtualSite(3, openmm.ThreeParticleAverageSite(0, 1, 2, 0.6, 0.2, 0.2))
    add_jmp_force(system, topology_of(atoms), model, backend="torch", dtype="float64")
    context = context_of(system, atoms.positions)
    water = atoms[:3]
    water.calc = JMPCalculator(model, dtype="float64", device="cpu")
    assert energy_of(context) == pytest.approx(water.get_potential_energy() * KJ, rel=1e-12)
    assert relative(forces_of(context)[:3], water.get_forces() * KJ * 10) < 1e-11


@pytest.mark.parametrize("direct", [False, True])
def test_an_exported_file_drives_openmm_with_and_without_this_package(
    tmp_path: Path, direct: bool
) -> None:
    atoms = molecule("CH3OH")
    model = small_potential(direct=direct)
    path = tmp_path / "m.pt"
    info = export(model, path, numbers=atoms.numbers.tolist(), dtype="float64")
    options = {"dtype": "float64", "forces": info.forces}
    expected = energy_of(context_of(whole(atoms, model, "python", **options), atoms.positions))
    assert energy_of(
        context_of(whole(atoms, path, "torch", trust=True, **options), atoms.positions)
    ) == pytest.approx(expected, rel=1e-12)

    system = empty_system(atoms)
    force = openmmtorch.TorchForce(str(path))
    force.setOutputsForces(direct)
    system.addForce(force)
    context = context_of(system, atoms.positions)
    assert energy_of(context) == pytest.approx(expected, rel=1e-12)
    atoms.calc = JMPCalculator(path, device="cpu", trust=True, **options)
    assert relative(forces_of(context), atoms.get_forces() * KJ * 10) < 1e-11


def test_the_order_of_imports_does_not_matter() -> None:
    script = (
        "import openmm, torch\n"
        "from jmp_md.calculators.openmm_torch import plugin_problem\n"
        "print(any('OpenMMTorchReference' in f for f in "
        "openmm.Platform.getPluginLoadFailures()), repr(plugin_problem()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert result.stdout.strip() == "True ''"
