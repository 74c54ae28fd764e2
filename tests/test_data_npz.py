"""npz data sets come out in Å, eV and eV/Å, frame by frame, or with one clear error."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from jmp_md.errors import InputError
from jmp_md.training.data.frame import (
    BOHR,
    HARTREE,
    Concatenation,
    FrameList,
    Subset,
    frames,
    make_frame,
)
from jmp_md.training.data.npz import open_npz

WATER = {"numbers": [8, 1, 1], "positions": [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]}


def write_molecule(path: Path, names: tuple[str, str, str, str], **extra: object) -> dict:
    rng = np.random.default_rng(1)
    arrays = {
        "numbers": np.array([6, 1, 1], dtype=np.uint8),
        "positions": rng.normal(size=(4, 3, 3)),
        "energy": rng.normal(size=(4, 1)) - 1e5,
        "forces": rng.normal(size=(4, 3, 3)),
    }
    np.savez(path, **dict(zip(names, arrays.values(), strict=True)), **extra)
    return arrays


@pytest.mark.parametrize(
    "names", [("nuclear_charges", "coords", "energies", "forces"), ("z", "R", "E", "F")]
)
def test_molecule_files_are_in_kcal_per_mol(tmp_path: Path, names: tuple) -> None:
    arrays = write_molecule(tmp_path / "rmd17_methylene.npz", names)
    dataset = open_npz(tmp_path / "rmd17_methylene.npz")
    assert len(dataset) == 4
    frame = dataset[2]
    np.testing.assert_array_equal(frame.numbers, [6, 1, 1])
    np.testing.assert_array_equal(frame.positions, arrays["positions"][2])
    assert frame.energy == pytest.approx(arrays["energy"][2, 0] * 0.0433641042, rel=1e-9)
    np.testing.assert_allclose(frame.forces, arrays["forces"][2] * 0.0433641042, rtol=1e-8)
    assert frame.system == "rmd17_methylene"
    assert frame.pbc == (False, False, False)


def test_sgdml_units_in_the_file_win(tmp_path: Path) -> None:
    arrays = write_molecule(
        tmp_path / "m.npz", ("z", "R", "E", "F"), r_unit=np.array("bohr"), e_unit=np.array("Ha")
    )
    frame = open_npz(tmp_path / "m.npz")[0]
    np.testing.assert_allclose(frame.positions, arrays["positions"][0] * 0.529177210903, rtol=1e-9)
    assert frame.energy == pytest.approx(arrays["energy"][0, 0] * 27.211386245988, rel=1e-9)
    np.testing.assert_allclose(frame.forces, arrays["forces"][0] * HARTREE / BOHR, rtol=1e-12)
    write_molecule(tmp_path / "odd.npz", ("z", "R", "E", "F"), e_unit=np.array("erg"))
    with pytest.raises(InputError, match=r"odd\.npz: e_unit is 'erg'; known are eV, kcal/mol"):
        open_npz(tmp_path / "odd.npz")


def test_genuine_rmd17_has_the_energy_and_forces_of_ethanol(shared: Path) -> None:
    dataset = open_npz(shared / "data/rmd17/rmd17_ethanol_train_01.npz")
    assert len(dataset) == 1000
    energies = np.array([frame.energy for frame in frames(dataset)])
    assert np.median(energies) == pytest.approx(-154.70 * HARTREE, abs=0.5)  # PBE, literature
    forces = np.concatenate([frame.forces for frame in frames(dataset)])
    assert np.sqrt(np.mean(forces**2)) == pytest.approx(1.2, abs=0.1)  # eV/Å at 500 K
    assert abs(dataset[0].forces.sum(axis=0)).max() < 0.01


def test_concatenated_frames_of_any_size(tmp_path: Path) -> None:
    path = tmp_path / "mixed.npz"
    cell = np.zeros((2, 3, 3))
    cell[1] = np.diag([3.0, 4.0, 5.0])
    np.savez(
        path,
        n_atoms=np.array([1, 2]),
        numbers=np.array([2, 29, 8], dtype=np.uint8),
        positions=np.arange(9, dtype=np.float32).reshape(3, 3),
        energy=np.array([-1.5, -7.25]),
        forces=np.full((3, 3), 0.5, dtype=np.float32),
        cell=cell,
        tags=np.array([0, 1, 2]),
        fixed=np.array([False, True, False]),
        system_id=np.array(["He", "CuO"]),
    )
    dataset = pickle.loads(pickle.dumps(open_npz(path)))
    first, second = dataset
    assert (len(first), first.energy, first.cell, first.pbc) == (1, -1.5, None, (False,) * 3)
    np.testing.assert_array_equal(second.numbers, [29, 8])
    np.testing.assert_array_equal(second.positions, [[3, 4, 5], [6, 7, 8]])
    np.testing.assert_array_equal(second.cell, np.diag([3.0, 4.0, 5.0]))
    assert (second.pbc, second.system, second.energy) == ((True,) * 3, "CuO", -7.25)
    np.testing.assert_array_equal(second.tags, [1, 2])
    np.testing.assert_array_equal(second.fixed, [True, False])
    with pytest.raises(IndexError):
        dataset[2]


def test_genuine_files_have_the_published_force_scale(shared: Path) -> None:
    for name, count, periodic, rms in (
        ("ani1x", 1000, False, 2.16),
        ("transition1x", 100, False, 0.38),
        ("mptrj", 1000, True, 1.27),
    ):
        dataset = open_npz(shared / f"data/pretrain/{name}.npz")
        assert len(dataset) == count
        forces = np.concatenate([frame.forces for frame in frames(dataset)])
        assert np.sqrt(np.mean(forces**2)) == pytest.approx(rms, abs=0.005)
        assert dataset[0].pbc == (periodic,) * 3
    assert len(open_npz(shared / "data/formats/sgdml_ethanol_ccsd_t-train.npz")) == 1000


def test_broken_npz_files_are_refused_by_name(tmp_path: Path) -> None:
    whole = tmp_path / "whole.npz"
    write_molecule(whole, ("z", "R", "E", "F"))
    truncated = tmp_path / "truncated.npz"
    truncated.write_bytes(whole.read_bytes()[:600])
    text = tmp_path / "text.npz"
    text.write_text("not an archive")
    np.savez(tmp_path / "other.npz", weights=np.ones(3))
    np.savez(tmp_path / "lengths.npz", z=[1, 1], R=np.zeros((3, 2, 3)), F=np.zeros((2, 2, 3)))
    np.savez(tmp_path / "object.npz", z=np.array([1, None]), R=np.zeros((1, 2, 3)))
    for name, message in (
        ("truncated", "not a readable npz"),
        ("text", "not a readable npz"),
        ("missing", "not a readable npz"),
        ("other", "none of the layouts known"),
        ("lengths", r"array F has shape \(2, 2, 3\) instead of \(3, 2, 3\)"),
        ("object", "array z cannot be read"),
    ):
        with pytest.raises(InputError, match=rf"{name}\.npz.*{message}"):
            open_npz(tmp_path / f"{name}.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"numbers": [8, 1, 0]}, "field numbers: 0 is no atomic number"),
        ({"numbers": [8, 1, 119]}, "field numbers: 119"),
        ({"numbers": [8, 1.5, 1]}, "field numbers: holds values that are not whole"),
        ({"numbers": ["O", "H", "H"]}, "field numbers: not a table of numbers"),
        ({"numbers": [], "positions": np.zeros((0, 3))}, "one or more atoms"),
        ({"positions": np.zeros((2, 3))}, r"field positions: shape \(2, 3\) instead of \(3, 3\)"),
        ({"positions": np.full((3, 3), np.nan)}, "field positions: holds NaN"),
        ({"forces": np.full((3, 3), np.inf)}, "field forces: holds NaN or infinity"),
        ({"stress": np.zeros(5)}, r"field stress: shape \(5,\)"),
        ({"energy": np.nan}, "field energy: holds NaN"),
        ({"energy": [1.0, 2.0]}, "field energy: shape"),
        ({"pbc": (True, True, True)}, "field cell: direction 0 is periodic"),
        ({"cell": np.ones((3, 3))}, "span no volume"),
        ({"targets": {"gap": np.nan}}, "field gap: nan is not a finite number"),
    ],
)
def test_an_impossible_value_names_file_record_and_field(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=rf"water\.xyz, record 7.*{message}"):
        make_frame("water.xyz", 7, **{**WATER, **change})


def test_a_slab_is_periodic_in_two_directions() -> None:
    frame = make_frame("slab", 0, **WATER, cell=np.diag([3.0, 3.0, 0.0]))
    assert frame.pbc == (True, True, False)
    molecule = make_frame("box", 0, **WATER, cell=np.eye(3), pbc=(False,) * 3)
    assert molecule.pbc == (False,) * 3


def test_stress_may_be_in_voigt_order() -> None:
    frame = make_frame("cell", 0, **WATER, cell=9 * np.eye(3), stress=[1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(frame.stress, [[1, 6, 5], [6, 2, 4], [5, 4, 3]])


def test_parts_of_data_sets() -> None:
    parts = [
        FrameList([make_frame("a", k, **WATER, energy=float(k)) for k in range(n)])
        for n in (2, 0, 3)
    ]
    joined = Concatenation(parts)
    assert [frame.energy for frame in joined] == [0, 1, 0, 1, 2]
    assert joined[-1].energy == 2
    assert [frame.energy for frame in Subset(joined, [4, 0, 4])] == [2, 0, 2]
    with pytest.raises(InputError, match="frame 5 was asked for but the data set has 5 frames"):
        Subset(joined, [5])
