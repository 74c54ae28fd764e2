"""The teacher of the organic recipe, with springs in place of its networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from organic_teacher import Teacher, TeacherCalculator, relaxed

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
