"""Every format is told by its name and content, or the message says what there is."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from jmp_md.errors import InputError
from jmp_md.training.data.frame import Dataset
from jmp_md.training.data.hdf5 import Hdf5Dataset
from jmp_md.training.data.open import FORMATS, open_dataset

MD22 = "1\nEnergy=-10.0 Properties=species:S:1:pos:R:3:forces:R:3\nHe 0 0 0 1 0 0\n"


@pytest.mark.parametrize(
    ("file", "frames"),
    [
        ("rmd17/rmd17_aspirin_test_01.npz", 1000),
        ("pretrain/ani1x.npz", 1000),
        ("formats/ani1x.h5", 96),
        ("formats/transition1x_ocp_style.lmdb", 100),
        ("formats/gdb9.sdf", 100),
        ("formats/matbench_phonons.json.gz", 1265),
        ("formats/md22_Ac-Ala3-NHMe_5frames.xyz", 5),
        ("formats/sgdml_ethanol_ccsd_t-train.npz", 1000),
        ("structures/neb_diels_alder.xyz", 2),
    ],
)
def test_genuine_files_are_recognised(shared: Path, file: str, frames: int) -> None:
    dataset = open_dataset(shared / "data" / file)
    assert isinstance(dataset, Dataset)
    assert len(dataset) == frames
    dataset[frames - 1]


def test_hdf5_formats_are_told_by_their_arrays(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train/H2/rxn/atomic_numbers"] = [1, 1]
        file["train/H2/rxn/positions"] = np.zeros((1, 2, 3))
        file["train/H2/rxn/wB97x_6-31G(d).energy"] = [-3.0]
        file["train/H2/rxn/wB97x_6-31G(d).forces"] = np.zeros((1, 2, 3))
        file["data"] = file["train"]
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["molecule/atomic_numbers"] = [1, 1]
        file["molecule/conformations"] = np.zeros((1, 2, 3))
        file["molecule/dft_total_energy"] = [-3.0]
        file["molecule/subset"] = [b"SPICE Dipeptides"]
    assert open_dataset(tmp_path / "a.h5", split="train")[0].energy == -3.0
    spice = open_dataset(tmp_path / "b.hdf5", subset="Dipeptides")
    assert isinstance(spice, Hdf5Dataset)
    assert spice[0].energy == pytest.approx(-81.634, abs=1e-3)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(InputError, match=r"c\.h5: format not recognised"):
        open_dataset(tmp_path / "c.h5")


def test_folders_are_told_by_what_they_hold(tmp_path: Path) -> None:
    for name, file in (
        ("lmdb", "data.0000.lmdb"),
        ("qm9", "dsgdb9nsd_000001.xyz"),
        ("qmof", "qmof.csv"),
        ("pdbbind", "1abc/1abc_ligand.sdf"),
    ):
        (tmp_path / name / file).parent.mkdir(parents=True)
        (tmp_path / name / file).write_text("")
        recognised = [key for key, format in FORMATS.items() if format.recognises(tmp_path / name)]
        assert recognised == [name]


def test_md22_needs_its_name_or_a_word(tmp_path: Path) -> None:
    for name in ("md22_helium.xyz", "helium.xyz"):
        (tmp_path / name).write_text(MD22)
    named = open_dataset(tmp_path / "md22_helium.xyz")[0]
    told = open_dataset(tmp_path / "helium.xyz", format="md22")[0]
    assert named.energy == told.energy == pytest.approx(-0.433641, abs=1e-6)
    with pytest.raises(InputError, match="say format='md22'"):
        open_dataset(tmp_path / "helium.xyz")


def test_what_is_not_known_is_answered_with_what_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    every = "".join(rf"(?=.*\n  {name} +\S)" for name in FORMATS)
    with pytest.raises(InputError, match=rf"(?s)notes\.txt: format not recognised; say{every}"):
        open_dataset(tmp_path / "notes.txt")
    with pytest.raises(InputError, match=rf"(?s)data format 'oc21': choose one of{every}"):
        open_dataset(tmp_path / "notes.txt", format="oc21")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: format not recognised"):
        open_dataset(tmp_path / "empty")
    with pytest.raises(InputError, match="nowhere: there is no such file or folder"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "a.h5").write_text("not HDF5")
    with pytest.raises(InputError, match=r"a\.h5: not a readable HDF5 file"):
        open_dataset(tmp_path / "a.h5")
    with pytest.raises(
        InputError, match="format 'ani1x' has no option 'subset'; it has level, min"
    ):
        open_dataset(tmp_path / "a.h5", format="ani1x", subset="x")
