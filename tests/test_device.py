"""On a device, positions go in and forces come out: no step waits or uploads beyond that."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from factories import random_potential
from pretended_device import DEVICE, PretendedDevice, pretend
from torch_geometric.data import Batch
from training_cases import well

from jmp_md import JMPCalculator
from jmp_md.errors import InputError
from jmp_md.evaluation import evaluate
from jmp_md.export.module import ExportedPotential
from jmp_md.graph.policy import GraphPolicy
from jmp_md.potential import Potential
from jmp_md.simulate.forces import Batched
from jmp_md.systems import BatchedSystems
from jmp_md.training.batches import to_data
from jmp_md.training.loss import UNSCALED, residuals

POLICIES = {
    "smooth": GraphPolicy.smooth(4.0, 4.0, 2.5, 4.5),
    "official": GraphPolicy.official(4.0, 8),
}


def structure(kind: str) -> Atoms:
    atoms = molecule("CH3CH2OH") if kind == "molecule" else bulk("NaCl", "rocksalt", 5.0)
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", ["molecule", "crystal"])
def test_a_step_of_the_calculator_waits_once_and_uploads_positions_only(
    kind: str, policy: str
) -> None:
    atoms = structure(kind)
    moved = atoms.copy()
    moved.rattle(0.01, seed=2)
    moved.calc = JMPCalculator(
        random_potential(graph=POLICIES[policy]), dtype="float64", device="cpu"
    )
    expected = moved.get_forces()
    calculator = JMPCalculator(
        random_potential(graph=POLICIES[policy]), dtype="float64", device="cpu", skin=1.0
    )
    with PretendedDevice() as device:
        pretend(calculator.potential)
        atoms.calc = calculator
        atoms.get_forces()
        device.reset()
        atoms.positions = moved.positions
        found = atoms.get_forces()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert calculator.neighbours.rebuilds == 1
    assert device.waits.total() == 1, device.waits
    assert device.uploads.total() == 1, device.uploads


def test_a_step_of_a_batch_waits_once_and_uploads_positions_only() -> None:
    structures = [structure("molecule"), structure("crystal"), molecule("H2O")]
    moved = [atoms.positions + 0.01 * np.cos(atoms.positions) for atoms in structures]
    graph = POLICIES["smooth"]
    expected = BatchedSystems(random_potential(graph=graph), structures).compute(moved)
    with PretendedDevice() as device:
        potential = random_potential(graph=graph)
        pretend(potential)
        systems = BatchedSystems(potential, structures, max_edges=10_000)
        systems.compute()
        device.reset()
        results = systems.compute(moved)
    for found, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(found.forces, wanted.forces, rtol=0, atol=1e-12)
    assert systems.rebuilds == len(structures)
    assert device.waits.total() == 1, device.waits
    assert device.uploads.total() == 1, device.uploads


@pytest.mark.parametrize(("kind", "waits"), [("molecule", 11), ("crystal", 12)])
def test_a_step_that_searches_for_neighbours_keeps_to_its_budget(kind: str, waits: int) -> None:
    atoms, calculator = structure(kind), JMPCalculator(random_potential(), device="cpu")
    with PretendedDevice() as device:
        pretend(calculator.potential)
        calculator.get_forces(molecule("H2O"))  # folds the network
        device.reset()
        calculator.get_forces(atoms)
    assert device.waits.total() == waits, device.waits
    assert device.uploads.total() <= 8, device.uploads


def test_neighbours_of_all_that_have_to_be_searched_are_found_at_once() -> None:
    structures = [structure("molecule"), structure("crystal"), molecule("H2O")] * 2
    graph = POLICIES["smooth"]
    here = BatchedSystems(random_potential(graph=graph), structures, skin=0.4)
    rng = np.random.default_rng(3)
    steps = [0.06 * rng.normal(size=(sum(map(len, structures)), 3)) for _ in range(4)]
    positions = np.concatenate([atoms.positions for atoms in structures]) + np.cumsum(steps, axis=0)
    expected = [here.compute(step) for step in positions]
    with PretendedDevice() as device:
        potential = random_potential(graph=graph)
        pretend(potential)
        systems = BatchedSystems(potential, structures, max_edges=10_000, skin=0.4)
        for step, known in zip(positions, expected, strict=True):
            device.reset()
            for found, wanted in zip(systems.compute(step), known, strict=True):
                np.testing.assert_allclose(found.forces, wanted.forces, rtol=0, atol=1e-12)
            assert device.waits.total() in (1, 12), device.waits
    assert here.rebuilds > len(structures)
    assert systems.rebuilds == here.rebuilds


def test_a_run_that_goes_on_on_a_device_computes_the_same_bits() -> None:
    structures = [molecule("H2O"), structure("crystal")]
    cells = np.array([atoms.cell.array for atoms in structures])
    start = np.concatenate([atoms.positions for atoms in structures])
    with PretendedDevice():
        calculator = JMPCalculator(random_potential(), skin=0.5)
        pretend(calculator.potential)
        whole, later = Batched(calculator), Batched(calculator)
        for batch in (whole, later):
            assert [batch.add(atoms) for atoms in structures] == [None, None]
        for moved in (0.0, 0.4, 0.5):  # neighbours of the second hold at the third
            expected = whole.compute(start + moved * np.cos(start), cells)
        later.restore(whole.arrays())
        found = later.compute(start + 0.5 * np.cos(start), cells)
    np.testing.assert_array_equal(found.forces, expected.forces)


@pytest.mark.parametrize("kind", ["molecule", "crystal"])
def test_atoms_in_one_place_are_refused_as_on_the_processor(kind: str) -> None:
    atoms = structure(kind) * ((1, 1, 1) if kind == "molecule" else (2, 1, 1))
    atoms.positions[1] = atoms.positions[0] + (0.003 if kind == "molecule" else atoms.cell[1])
    graph = POLICIES["smooth"]
    expected = evaluate([molecule("H2O"), atoms], random_potential(graph=graph), on_error="keep")
    with PretendedDevice():
        potential = random_potential(graph=graph)
        pretend(potential)
        found = evaluate([molecule("H2O"), atoms], potential, on_error="keep")
        atoms.calc = JMPCalculator(potential)
        with pytest.raises(InputError, match="apart: remove the duplicate") as refused:
            atoms.get_forces()
    assert found[0].error is None
    assert str(found[1].error) == str(expected[1].error) == str(refused.value)


def new_structures(potential: Potential, device: PretendedDevice) -> None:
    evaluate([molecule("H2O")], potential)  # folds the network
    device.reset()
    evaluate([structure("molecule"), structure("crystal")], potential, max_edges=10_000)


def exported(potential: Potential, device: PretendedDevice) -> None:
    module, atoms = ExportedPotential(potential, direct=False), structure("crystal")
    cell = torch.from_numpy(atoms.cell.array[None]).to(DEVICE)
    numbers = torch.from_numpy(atoms.numbers).to(DEVICE)
    pbc, owner = torch.ones_like(cell[:, 0], dtype=torch.bool), torch.zeros_like(numbers)
    device.reset()
    module(torch.from_numpy(atoms.positions).to(DEVICE), numbers, cell, pbc, owner)[1].cpu()


def training_step(potential: Potential, device: PretendedDevice) -> None:
    frames = [to_data(frame, potential.policy.cutoff) for frame in well(2, "CH3OH")]
    potential.requires_grad_(True).train()
    residual = residuals(potential, Batch.from_data_list(frames), UNSCALED)
    assert residual.forces is not None
    (residual.forces.mean() + residual.energy.mean()).backward()
    assert potential.embedding.weight.grad is not None


@pytest.mark.parametrize(
    ("step", "waits"), [(new_structures, 12), (exported, 14), (training_step, 5)]
)
def test_structures_never_seen_before_keep_to_their_budget(
    step: Callable[[Potential, PretendedDevice], None], waits: int
) -> None:
    with PretendedDevice() as device:
        potential = random_potential(graph=POLICIES["smooth"])
        pretend(potential)
        step(potential, device)
    assert device.waits.total() <= waits, device.waits
