"""A GPU gives the numbers of the processor. Skipped where there is none.

``JMP_MD_TEST_DEVICE=cpu`` runs every line of it on the processor.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from factories import random_potential, write_model
from training_cases import ALONE, tiny_recipe, tiny_trainer, well

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.cli.main import main
from jmp_md.evaluation import evaluate
from jmp_md.systems import BatchedSystems
from jmp_md.training.assembly import assemble
from jmp_md.training.data.frame import FrameList, Subset
from jmp_md.training.distributed import Ranks
from jmp_md.training.task import TaskData

DEVICE = os.environ.get("JMP_MD_TEST_DEVICE", "cuda")

pytestmark = pytest.mark.skipif(
    DEVICE != "cpu" and not torch.cuda.is_available(), reason="there is no GPU"
)


def structures() -> list[Atoms]:
    silicon = bulk("Si", cubic=True)
    silicon.rattle(0.1, seed=1)
    slab = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    slab.pbc = (True, True, False)
    return [molecule("CH3CH2OH"), silicon, slab, molecule("C6H6"), molecule("H2")]


@pytest.mark.parametrize("smooth", [True, False])
def test_structures_one_by_one(smooth: bool) -> None:
    for atoms in structures():
        here, there = (
            JMPCalculator(random_potential(smooth=smooth).to(device)) for device in ("cpu", DEVICE)
        )
        rng = np.random.default_rng(0)
        for _ in range(8):  # searches for neighbours among them
            atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
            found = []
            for calculator in (here, there):
                atoms.calc = calculator
                stress = atoms.get_stress(voigt=False) if atoms.pbc.all() else np.zeros((3, 3))
                found.append((atoms.get_potential_energy(), atoms.get_forces(), stress))
            for mine, other in zip(*found, strict=True):
                np.testing.assert_allclose(other, mine, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("direct", [True, False])
def test_structures_in_batches(direct: bool) -> None:
    potential = random_potential(direct=direct)
    forces = "direct" if direct else "conservative"
    expected = evaluate(structures() * 3, potential, forces=forces)
    found = evaluate(structures() * 3, potential.to(DEVICE), forces=forces)
    for mine, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other.energy, mine.energy, rtol=1e-9)
        np.testing.assert_allclose(other.forces, mine.forces, rtol=1e-9, atol=1e-10)


def test_structures_that_move_together() -> None:
    several = [BatchedSystems(random_potential().to(d), structures()) for d in ("cpu", DEVICE)]
    rng = np.random.default_rng(0)
    positions = np.concatenate([atoms.positions for atoms in structures()])
    for _ in range(10):
        positions = positions + rng.normal(0, 0.05, positions.shape)
        here, there = (systems.compute(positions) for systems in several)
        for mine, other in zip(here, there, strict=True):
            np.testing.assert_allclose(other.forces, mine.forces, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("precision", "deviation"), [("full", 1e-4), ("bf16", 0.05)])
def test_less_precision_deviates_as_far_as_it_says(
    tmp_path: Path, precision: str, deviation: float
) -> None:
    model = write_model(tmp_path)
    atoms = molecule("C6H6")
    atoms.rattle(0.1, seed=0)
    exact = JMPCalculator(model, device="cpu", dtype="float64")
    rough = JMPCalculator(model, device=DEVICE, dtype="float32", precision=precision)
    expected = exact.get_forces(atoms)
    error = np.abs(rough.get_forces(atoms) - expected).max() / np.abs(expected).max()
    assert error < deviation


def test_steps_of_training(tmp_path: Path) -> None:
    frames = FrameList(well(11))
    parts = Subset(frames, range(8)), Subset(frames, range(8, 11))
    recipe = tiny_recipe("optimiser.epochs=2")
    losses = []
    for device in ("cpu", DEVICE):
        ranks = Ranks(0, 1, torch.device(device))
        trainer = assemble(recipe, {recipe.model.head: TaskData(*parts)}, tmp_path / device, ranks)
        losses.append([row["loss"] for row in trainer.run().history])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


def test_a_run_of_one_device_goes_on_on_another(tmp_path: Path) -> None:
    whole = tiny_trainer(tmp_path / "whole", "optimiser.epochs=2")
    whole.run()
    part = tiny_trainer(tmp_path / "part", "optimiser.epochs=2")
    part.run(max_minutes=0.0)
    frames = FrameList(well(11))
    data = TaskData(Subset(frames, range(8)), Subset(frames, range(8, 11)))
    recipe = tiny_recipe("optimiser.epochs=2")
    ranks = Ranks(0, 1, torch.device(DEVICE))
    later = assemble(recipe, {recipe.model.head: data}, tmp_path / "part", ranks)
    later.resume()
    later.run()
    mine, other = (t.progress.history[-1]["loss"] for t in (whole, later))
    assert other == pytest.approx(mine, rel=1e-3)
    assert ALONE.device.type == "cpu"


def test_dynamics_conserve_the_energy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path)
    molecule("CH3CH2OH").write(tmp_path / "ethanol.xyz")
    command = ["md", str(tmp_path / "ethanol.xyz"), "--model", str(model), "--device", DEVICE]
    run = ["--ensemble", "nve", "--steps", "40", "--timestep", "0.2", "--temperature", "50"]
    folder = ["--output", str(tmp_path / "run"), "--dtype", "float64"]
    assert main([*command, *run, *folder]) == 0, capsys.readouterr().err


def test_an_exported_file_computes_on_it(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    exported = tmp_path / "exported.pt"
    assert main(["export", "--model", str(model), "--output", str(exported)]) == 0
    atoms = molecule("CH3CH2OH")
    expected = JMPCalculator(model, device="cpu", dtype="float64").get_forces(atoms)
    found = JMPCalculator(exported, device=DEVICE, trust=True).get_forces(atoms)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
