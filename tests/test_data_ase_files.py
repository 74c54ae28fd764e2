"""Files ASE reads come out with labels as calculated, and MD22 in its own unit."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
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
from jmp_md.training.data.frame import BOHR, HARTREE, KCAL_PER_MOL, frames
from jmp_md.training.data.open import open_dataset

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
    assert frame.system == "rocksalt"
    assert open_ase(path, targets=["gap"])[2].targets == {"gap": 9.0}
    assert len(open_dataset(path)) == 3


def test_labels_of_other_names_and_units(tmp_path: Path) -> None:
    path = tmp_path / "ref.xyz"
    path.write_text(
        "1\nProperties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy=-0.5\nH 0 0 0 0.1 0 0\n\n"
    )
    assert open_ase(path)[0].energy is None
    assert open_ase(path)[0].others == ("REF_energy", "REF_forces")
    frame = open_ase(path, energy_unit="Ha", energy_key="REF_energy", forces_key="REF_forces")[0]
    assert frame.energy == pytest.approx(-0.5 * HARTREE)
    np.testing.assert_allclose(frame.forces, [[0.1 * HARTREE, 0, 0]])
    with pytest.raises(InputError, match=r"ref\.xyz, record 0, field dft: missing; it has \['REF"):
        open_ase(path, energy_key="dft")[0]
    with pytest.raises(InputError, match=r"energy unit 'Ry': choose eV, kcal/mol"):
        open_ase(path, energy_unit="Ry")
    path.write_text("1\nProperties=species:S:1:pos:R:3 energy=low\nH 0 0 0\n")
    with pytest.raises(InputError, match=r"ref\.xyz, record 0"):
        open_ase(path)[0]


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
        ("garbage.cif", "not a crystal", "AssertionError; give a file in a format"),
        ("garbage.db", "not a database" * 100, "file is not a database; give a file in a format"),
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


def argon() -> tuple[Atoms, float, np.ndarray, np.ndarray]:
    """A sheared, compressed crystal of a pair potential: energy, forces, and its virial, analytic.

    The virial is the sum of r_ij (x) f_ij over the pairs, f_ij the force on i, r_ij = r_i - r_j.
    """
    cell = np.array([[3.0, 0.2, 0.0], [0.0, 3.2, 0.3], [0.1, 0.0, 2.9]])
    atoms = Atoms("ArNe", [[0.1, 0, 0], [1.5, 1.4, 1.7]], cell=cell, pbc=True)
    energy, forces, virial = 0.0, np.zeros((2, 3)), np.zeros((3, 3))
    shifts = np.array(list(itertools.product(range(-2, 3), repeat=3))) @ cell
    for i, j in itertools.product(range(2), repeat=2):
        for shift in shifts:
            r = atoms.positions[i] - atoms.positions[j] - shift
            length = np.linalg.norm(r)
            if length > 0:  # exp(-length), each pair counted from both ends
                energy += 0.5 * np.exp(-length)
                force = np.exp(-length) * r / length
                forces[i] += force
                virial += 0.5 * np.outer(r, force)
    return atoms, energy, forces, virial


def voigt(tensor: np.ndarray) -> np.ndarray:
    return tensor[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


@pytest.mark.parametrize("prefix", ["", "REF_", "dft_"])
@pytest.mark.parametrize("form", [np.asarray, np.ravel, voigt])
@pytest.mark.parametrize("name", ["stress", "virial", "virials"])
def test_stress_is_read_in_every_form(
    tmp_path: Path, prefix: str, form: Callable[[np.ndarray], np.ndarray], name: str
) -> None:
    atoms, energy, forces, virial = argon()
    expected = -virial / atoms.cell.volume
    assert np.trace(expected) < 0  # repulsion: the crystal is under pressure
    given = form(virial if name.startswith("virial") else expected)
    fields = [("Lattice", atoms.cell.array.ravel()), (f"{prefix}{name}", given.ravel())]
    words = " ".join(f'{key}="{" ".join(map(repr, value.tolist()))}"' for key, value in fields)
    columns = f"Properties=species:S:1:pos:R:3:{prefix}forces:R:3"
    rows = np.hstack([atoms.positions, forces]).tolist()
    lines = [f"{s} {' '.join(map(repr, row))}" for s, row in zip(atoms.symbols, rows, strict=True)]
    path = tmp_path / "argon.extxyz"
    comment = f'{words} {columns} {prefix}energy={float(energy)!r} pbc="T T T"'
    path.write_text("\n".join(["2", comment, *lines, ""]))
    keys = {"energy_key": f"{prefix}energy", "forces_key": f"{prefix}forces"}
    if form is voigt and not prefix and name != "virials":
        with pytest.raises(InputError, match="not in the form of a 9-long"):  # ASE's own rule
            open_ase(path)[0]
        return
    np.testing.assert_allclose(open_ase(path, **keys)[0].stress, expected, atol=1e-12)
    in_hartree = open_ase(path, **keys, energy_unit="Ha", stress_key=f"{prefix}{name}")[0]
    np.testing.assert_allclose(in_hartree.stress, expected * HARTREE, atol=1e-12)


def test_the_volume_and_the_trace_of_the_stress_are_conjugate() -> None:
    """What the test above calls the virial, against the change of the energy with the volume."""
    atoms, _, _, virial = argon()
    energies = []
    for scale in (0.9999, 1.0001):
        positions, cell = atoms.positions * scale, atoms.cell.array * scale
        shifts = np.array(list(itertools.product(range(-2, 3), repeat=3))) @ cell
        vectors = positions[:, None, None] - positions[None, :, None] - shifts
        lengths = np.linalg.norm(vectors, axis=-1)
        energies.append(0.5 * np.exp(-lengths[lengths > 0]).sum())
    pressure = -(energies[1] - energies[0]) / (atoms.cell.volume * (1.0001**3 - 0.9999**3))
    assert np.trace(virial) / (3 * atoms.cell.volume) == pytest.approx(pressure, rel=1e-6)


def test_a_stress_and_a_virial_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "two.extxyz"
    atoms = Atoms("Ar", cell=[4, 4, 4], pbc=True)
    atoms.info |= {"REF_stress": np.eye(3), "REF_virial": 64 * np.eye(3)}  # the sign is forgotten
    ase.io.write(path, atoms)
    with pytest.raises(InputError, match=r"REF_stress and REF_virial contradict .*stress_key="):
        open_ase(path)[0]
    frame = open_ase(path, stress_key="REF_virial")[0]
    np.testing.assert_allclose(frame.stress, -np.eye(3))
    assert frame.others == ("REF_stress",)
    atoms.pbc = False
    ase.io.write(path, atoms)
    assert open_ase(path)[0].stress is None


def test_a_stress_of_another_level_than_the_energies_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "levels.extxyz"
    atoms = Atoms("Ar", cell=[4, 4, 4], pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    atoms.info |= {"dft_stress": np.eye(3)}
    ase.io.write(path, atoms)
    assert open_ase(path)[0].stress is not None
    atoms.info |= {"dft_energy": -2.0}
    ase.io.write(path, atoms)
    assert open_ase(path)[0].stress is None
    np.testing.assert_allclose(open_ase(path, energy_key="dft_energy")[0].stress, np.eye(3))


def test_units_of_energies_forces_and_lengths_are_converted_each_by_its_own_factor(
    tmp_path: Path,
) -> None:
    """A harmonic pair written in atomic units: hartree, hartree/bohr as gradient, bohr."""
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.8 / BOHR]])
    atoms.info["E"] = 0.5 / HARTREE
    gradient = np.array([[0, 0, -2.0], [0, 0, 2.0]]) / HARTREE * BOHR  # of 2 eV/Å
    atoms.arrays["dE"] = gradient
    path = tmp_path / "atomic.xyz"
    ase.io.write(path, atoms, format="extxyz")
    [frame] = frames(
        open_ase(
            path,
            energy_key="E",
            forces_key="dE",
            energy_unit="Ha",
            force_unit="-Ha/bohr",
            length_unit="bohr",
        )
    )
    assert frame.energy == pytest.approx(0.5)
    assert frame.forces is not None
    assert frame.forces[:, 2] == pytest.approx([2.0, -2.0])
    assert frame.positions[1, 2] == pytest.approx(0.8)
    with pytest.raises(InputError, match="force unit 'Ry/bohr'"):
        open_ase(path, force_unit="Ry/bohr")
