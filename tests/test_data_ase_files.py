"""Files ASE reads come out with labels as calculated, and MD22 in its own unit."""

from __future__ import annotations

import pickle
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from jmp_md.errors import InputError
from jmp_md.training.data.ase_files import open_ase, open_md22
from jmp_md.training.data.frame import HARTREE, KCAL_PER_MOL, frames

MD22 = """2
Energy=-100.5 Properties=species:S:1:pos:R:3:forces:R:3
O 0.0 0.0 0.0 1.0 -2.0 3.0
H 0.0 0.0 0.97 -1.0 2.0 -3.0
"""


def crystals() -> list[Atoms]:
    images = []
    for k in range(3):
        atoms = Atoms("MgO", [[0, 0, 0], [2.1, 0, 0]], cell=np.eye(3) * 4.2, pbc=True)
        atoms.set_tags([0, 1])
        atoms.set_constraint(FixAtoms([1]))
        atoms.calc = SinglePointCalculator(
            atoms, energy=-10.0 - k, forces=[[k, 0, 0], [0, 0, 1.5]], stress=np.arange(6.0)
        )
        atoms.info["gap"] = 7.0 + k
        images.append(atoms)
    return images


@pytest.mark.parametrize("suffix", ["extxyz", "traj", "db", "json"])
def test_formats_of_ase_give_the_same_frames(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mgo.{suffix}"
    if suffix in ("db", "json"):
        with ase.db.connect(path) as database:
            for atoms in crystals():
                database.write(atoms, gap=atoms.info["gap"], system="rocksalt")
    else:
        images = crystals()
        for atoms in images:
            atoms.info["system"] = "rocksalt"
        ase.io.write(path, images)
    dataset = pickle.loads(pickle.dumps(open_ase(path)))
    assert [frame.energy for frame in frames(dataset)] == [-10, -11, -12]
    frame = dataset[2]
    np.testing.assert_array_equal(frame.forces, [[2, 0, 0], [0, 0, 1.5]])  # of the fixed atom too
    np.testing.assert_array_equal(frame.stress, [[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    np.testing.assert_array_equal(frame.cell, np.eye(3) * 4.2)
    np.testing.assert_array_equal(frame.fixed, [False, True])
    assert frame.pbc == (True, True, True)
    if suffix != "json":  # read as a plain structure file, without the columns of the database
        assert frame.system == "rocksalt"
        assert open_ase(path, targets=["gap"])[2].targets == {"gap": 9.0}


def test_labels_of_other_names_and_units(tmp_path: Path) -> None:
    path = tmp_path / "ref.xyz"
    path.write_text(
        "1\nProperties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy=-0.5\nH 0 0 0 0.1 0 0\n\n"
    )
    assert open_ase(path)[0].energy is None
    frame = open_ase(path, energy_unit="Ha", energy_key="REF_energy", forces_key="REF_forces")[0]
    assert frame.energy == pytest.approx(-0.5 * HARTREE)
    np.testing.assert_allclose(frame.forces, [[0.1 * HARTREE, 0, 0]])
    with pytest.raises(InputError, match=r"ref\.xyz, record 0, field dft: missing; it has \['REF"):
        open_ase(path, energy_key="dft")[0]
    with pytest.raises(InputError, match=r"energy unit 'Ry': choose eV, kcal/mol"):
        open_ase(path, energy_unit="Ry")


def test_md22_is_in_kcal_per_mol_and_never_taken_for_ev(tmp_path: Path) -> None:
    path = tmp_path / "trajectory.xyz"
    path.write_text(MD22 * 2)
    with pytest.raises(InputError, match=r"layout of MD22.*kcal/mol.*format='md22'"):
        open_ase(path)
    dataset = open_md22(path)
    assert len(dataset) == 2
    assert dataset[1].energy == pytest.approx(-100.5 * KCAL_PER_MOL)
    np.testing.assert_allclose(
        dataset[1].forces, np.array([[1, -2, 3], [-1, 2, -3]]) * KCAL_PER_MOL
    )
    in_ev = open_ase(path, energy_unit="eV", energy_key="Energy")
    assert in_ev[0].energy == -100.5


def test_genuine_md22(shared: Path) -> None:
    dataset = open_md22(shared / "data/formats/md22_Ac-Ala3-NHMe_5frames.xyz")
    assert len(dataset) == 5
    assert dataset[0].energy == pytest.approx(-620726.002662 * 0.0433641042, rel=1e-9)
    forces = np.concatenate([frame.forces for frame in frames(dataset)])
    assert 0.5 < np.sqrt(np.mean(forces**2)) < 1.5  # eV/Å at 500 K
    assert abs(dataset[0].forces.sum(axis=0)).max() < 0.01


def test_plain_xyz_has_geometry_only(tmp_path: Path) -> None:
    path = tmp_path / "path.xyz"
    path.write_text("1\nframe 22 of a path\nHe 0 0 1\n1\n\nHe 0 0 2\n")
    dataset = open_ase(path)
    assert [frame.positions[0, 2] for frame in dataset] == [1, 2]
    assert (dataset[0].energy, dataset[0].forces, dataset[0].cell) == (None, None, None)


def test_broken_files_are_refused_by_name_and_record(tmp_path: Path) -> None:
    for name, text, message in (
        ("cut.xyz", MD22[:-40] + "\n", "record 0: cut short, it has 2 atoms"),
        ("second.xyz", "1\n\nHe 0 0 0\nHe 0 0 0\n", "record 1: b'He 0 0 0.*not a number of atoms"),
        ("empty.xyz", "", "holds no frame"),
        ("garbage.traj", "not a trajectory", "ASE cannot read it"),
        ("garbage.cif", "not a crystal", "ASE cannot read it"),
        ("garbage.db", "not a database" * 100, "ASE cannot read it"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=rf"{name}.*{message}"):
            open_ase(tmp_path / name, energy_unit="eV")
    with pytest.raises(InputError, match=r"none\.xyz: there is no such file"):
        open_ase(tmp_path / "none.xyz")
    (tmp_path / "word.xyz").write_text("1\nProperties=species:S:1:pos:R:3\nHe 0 zero 0\n")
    with pytest.raises(InputError, match=r"word\.xyz, record 0: ASE cannot read it"):
        open_ase(tmp_path / "word.xyz")[0]
    with pytest.raises(InputError, match=r"word\.xyz: not an MD22 file"):
        open_md22(tmp_path / "word.xyz")
