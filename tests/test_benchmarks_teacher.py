"""The teacher of the organic recipe, with springs in place of its networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import organic_data
import pytest
import torch
from ase import Atoms
from organic_teacher import Row, Teacher, TeacherCalculator, relaxed
from organic_transfers import STEPS, hydrogen_bonds, pulled, transferred

NUMBERS = np.array([8, 1])


class One(torch.nn.Module):
    """A bond of 1 Å and 3 eV/Å² between the first two atoms."""

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        coord = inputs["coord"]
        length = (coord[:, 0] - coord[:, 1]).square().sum(dim=1).sqrt()
        return {"energy": 1.5 * (length - 1.0) ** 2}


class Four(torch.nn.Module):
    """Another: energies of -7 eV, forces of -2 eV/Å on all atoms, padding too, and spreads."""

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        coord = inputs["coord"]
        energy, forces = torch.full((coord.shape[0],), -7.0), torch.full(coord.shape, -2.0)
        return {
            "energy": energy,
            "forces": forces,
            "energy_std": 0.1 * torch.ones_like(energy),
            "forces_std": 0.2 * torch.ones_like(forces),
        }


@pytest.fixture
def teacher(tmp_path: Path) -> Teacher:
    for module, name in ((One(), "aimnet2_wb97m-d3_0"), (Four(), "aimnet2_wb97m_ens_f")):
        torch.jit.script(module).save(str(tmp_path / f"{name}.jpt"))
    return Teacher(tmp_path)


def test_one_network_makes_geometries_and_four_label(teacher: Teacher) -> None:
    atoms = Atoms(NUMBERS, [[0, 0, 0], [0, 0, 1.2]])
    atoms.calc = TeacherCalculator(teacher.by_one)
    assert atoms.get_potential_energy() == pytest.approx(1.5 * 0.2**2, abs=1e-6)
    assert atoms.get_forces()[:, 2] == pytest.approx([0.6, -0.6], abs=1e-5)
    atoms.calc = TeacherCalculator(teacher.by_four)
    assert atoms.get_potential_energy() == pytest.approx(-7.0)
    assert atoms.get_forces() == pytest.approx(np.full((2, 3), -2.0))
    positions = relaxed(teacher, NUMBERS, atoms.positions, steps=50)
    assert np.linalg.norm(positions[1] - positions[0]) == pytest.approx(1.0, abs=0.005)


def test_labelled_frames_are_what_the_data_of_the_recipe_are_read_from(
    teacher: Teacher, tmp_path: Path
) -> None:
    large = Row("pair", "O|O", np.array([8, 1, 8, 1]), np.arange(12.0).reshape(4, 3))
    teacher.write(tmp_path / "extra.npz", [large, Row("small", "O", NUMBERS, np.eye(3)[:2])])
    written = organic_data.read(tmp_path / "extra.npz")
    one, two = (organic_data.take(written, np.array([k])) for k in (0, 1))
    assert one["numbers"].tolist() == [8, 1]
    assert two["positions"] == pytest.approx(large.positions)
    assert two["system_id"] == ["O|O"]
    assert two["energy"] == pytest.approx(-7.0)
    assert written["force_std_max"] == pytest.approx(0.2)


def test_protons_are_pulled_from_donor_to_acceptor(teacher: Teacher) -> None:
    """The pull is the gradient of its own energy, and ends at the difference asked for."""
    numbers = np.array([8, 1, 8])
    positions = np.array([[0.0, 0, 0], [1.0, 0.1, 0], [2.6, 0, 0]])
    assert hydrogen_bonds(numbers, positions) == [(0, 1, 2)]
    bent = np.array([[0.0, 0, 0], [0, 1.0, 0], [1.6, 1.2, 0]])
    assert hydrogen_bonds(numbers, bent) == []
    assert hydrogen_bonds(numbers, 1.4 * positions) == []
    atoms = Atoms(numbers, positions, calculator=pulled(teacher, [(0, 1, 2)], 0.3))
    analytical, numerical = atoms.get_forces(), np.zeros((3, 3))
    for k, axis in np.ndindex(3, 3):
        for sign in (1, -1):
            moved = atoms.copy()
            moved.calc = atoms.calc
            moved.positions[k, axis] += 0.01 * sign
            numerical[k, axis] -= sign * moved.get_potential_energy() / 0.02
    assert numerical == pytest.approx(analytical, abs=0.01)
    rows = list(transferred(teacher, "O.O", numbers, positions, np.random.default_rng(0)))
    assert len(rows) == 2 * len(STEPS)
    reached = [
        np.linalg.norm(x[1] - x[0]) - np.linalg.norm(x[1] - x[2])
        for x in (row.positions for row in rows[::2])
    ]
    assert reached == pytest.approx(STEPS, abs=0.15)
