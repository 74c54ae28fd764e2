"""A potential turns network outputs into physical numbers, structure by structure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from factories import random_potential, write_model

from jmp_md.errors import CheckpointError, InputError
from jmp_md.graph.pairs import find_pairs
from jmp_md.graph.policy import GraphPolicy
from jmp_md.load import load_model
from jmp_md.potential import Potential
from jmp_md.structures import Structures, concatenate, single_structure

REFERENCES = {1: -13.6, 6: -1030.0, 8: -2040.0}
SMALL = GraphPolicy.smooth(4.0, 4.0, 2.5, 4.5)


def structure(name: str) -> Structures:
    atoms = bulk("CO", "rocksalt", 4.3) if name == "crystal" else molecule(name)
    atoms.rattle(0.05, seed=2)
    cell = atoms.cell.array
    pairs = find_pairs(atoms.positions, cell, atoms.pbc, 6.5)
    return single_structure(atoms.positions, atoms.numbers, cell, pairs)


@pytest.mark.parametrize("kind", ["smooth", "official"])
def test_a_batch_gives_what_its_structures_give_alone(kind: str) -> None:
    graph = SMALL if kind == "smooth" else GraphPolicy.official(4.5, 8)
    potential = random_potential(graph=graph, head={"references": REFERENCES, "energy_mean": 5.0})
    parts = [structure(name) for name in ("H2O", "crystal", "H", "CH3OH")]
    batch = potential.predict(concatenate(parts))
    alone = [potential.predict(part) for part in parts]
    assert batch.forces is not None
    assert torch.allclose(batch.energy, torch.cat([p.energy for p in alone]), atol=1e-11)
    assert torch.allclose(batch.energies, torch.cat([p.energies for p in alone]), atol=1e-11)
    assert torch.allclose(batch.forces, torch.cat([p.forces for p in alone]), atol=1e-11)


def test_stress_of_a_batch_is_that_of_each_crystal() -> None:
    potential = random_potential(graph=SMALL)
    parts = [structure("crystal") for _ in range(2)]
    parts[1] = parts[1]._replace(positions=parts[1].positions * 1.03, cells=parts[1].cells * 1.03)
    batch = potential.predict(concatenate(parts), stress=True)
    assert batch.stress is not None
    for part, stress in zip(parts, batch.stress, strict=True):
        alone = potential.predict(part, stress=True).stress
        assert alone is not None
        assert torch.allclose(alone[0], stress, atol=1e-12)
        assert torch.allclose(stress, stress.T, atol=1e-12)
    assert not torch.allclose(batch.stress[0], batch.stress[1], atol=1e-6)


def test_energies_are_scaled_shifted_and_referenced() -> None:
    plain = random_potential(head={"energy_scale": 1.0})
    head = {"energy_scale": 2.5, "energy_mean": 7.0, "references": REFERENCES}
    dressed = random_potential(head=head)
    s = structure("CH3OH")
    network, physical = plain.predict(s), dressed.predict(s)
    assert network.forces is not None
    constants = 7.0 + 4 * -13.6 - 1030.0 - 2040.0
    assert physical.energy.item() == pytest.approx(2.5 * network.energy.item() + constants)
    assert physical.energies.sum() == pytest.approx(physical.energy.item())
    assert torch.allclose(physical.forces, 2.5 * network.forces, atol=1e-12)


def test_constants_do_not_cost_precision_in_float32() -> None:
    single = random_potential(head={"references": {1: -13.6, 6: -1e6, 8: -2e6}}).float()
    double = random_potential(head={"references": {1: -13.6, 6: -1e6, 8: -2e6}})
    s = structure("CH3OH")
    assert single.predict(s).energy.item() == pytest.approx(double.predict(s).energy.item(), 1e-11)


def test_interaction_energy_and_constants_make_the_energy_and_carry_gradients() -> None:
    potential = random_potential(head={"references": REFERENCES, "energy_mean": 1.0})
    s = structure("H2O")
    prediction = potential.predict(s)
    positions = s.positions.clone().requires_grad_()
    energy = potential.interaction_energy(s._replace(positions=positions))
    (gradient,) = torch.autograd.grad(energy.sum(), positions)
    assert torch.allclose(gradient, -prediction.forces, atol=1e-12)
    total = energy.detach().double().sum() + potential.constant_energies(s).sum()
    assert total.item() == pytest.approx(prediction.energy.item())


def test_the_given_structure_is_left_alone() -> None:
    s = structure("crystal")
    before = s.positions.clone()
    random_potential(graph=SMALL).predict(s, stress=True)
    random_potential(graph=SMALL).predict(s)
    assert torch.equal(s.positions, before)
    assert not s.positions.requires_grad


@pytest.mark.parametrize("direct", [False, True])
def test_tensors_written_and_read_again_give_the_same_forces(direct: bool) -> None:
    potential = random_potential(smooth=False, direct=direct)
    again = Potential.from_state(potential.header, potential.native_state())
    first, second = (p.predict(structure("H2O"), direct=direct) for p in (potential, again))
    assert torch.equal(first.energy, second.energy)
    assert np.array_equal(first.forces, second.forces)


def test_tensors_of_another_size_are_refused() -> None:
    potential = random_potential()
    state = potential.native_state()
    state["embedding.weight"] = state["embedding.weight"][:, :-1]
    with pytest.raises(CheckpointError, match="model 'random' do not fit its header"):
        Potential.from_state(potential.header, state)


def test_direct_forces_need_a_force_head_and_have_no_stress() -> None:
    with pytest.raises(InputError, match="has no direct force head"):
        random_potential().predict(structure("H2O"), direct=True)
    with pytest.raises(InputError, match="direct forces have no stress"):
        random_potential(direct=True).predict(structure("crystal"), direct=True, stress=True)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_the_caller_has_switched_off_does_not_matter(mode: type, tmp_path: Path) -> None:
    potential, crystal = random_potential(graph=SMALL), structure("crystal")
    expected = potential.predict(crystal, stress=True)
    path = write_model(tmp_path, graph=SMALL)
    with mode():
        made = load_model(path, dtype=torch.float64, device="cpu")
        made.predict(structure("crystal"), forces=False)
        inside = made.predict(structure("crystal"), stress=True)
    after = made.predict(crystal, stress=True)
    for found in (inside, after):
        assert found.forces is not None
        assert torch.allclose(found.forces, expected.forces, atol=1e-12)
        assert torch.allclose(found.stress, expected.stress, atol=1e-12)
    assert torch.is_grad_enabled()


def test_references_stay_exact_in_single_precision() -> None:
    large = {z: energy - 0.123456789 for z, energy in {1: -13.6, 6: -1030.0, 8: -20400.0}.items()}
    exact = random_potential(graph=SMALL, head={"references": large})
    single = random_potential(graph=SMALL, head={"references": large}).float()
    s = structure("CH3OH")
    difference = single.predict(s).energy - exact.predict(s).energy
    assert abs(float(difference)) < 1e-5  # 1e-3 with rounded references
