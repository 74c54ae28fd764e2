"""ANI-1x, Transition-1x and SPICE files; the latter two written here to the published schema."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from processes import run_alone

from jmp_md.errors import InputError
from jmp_md.training.data.frame import frames
from jmp_md.training.data.hdf5 import open_ani1x, open_spice, open_transition1x

HARTREE_EV = 27.211386245988  # CODATA 2018, as published
BOHR_ANGSTROM = 0.529177210903


def write_ani1x(path: Path) -> None:
    """Two molecules; of the first the second row was not calculated, of H2 nothing is missing."""
    with h5py.File(path, "w") as file:
        for name, numbers, rows, missing in (
            ("C1H4", [6, 1, 1, 1, 1], 3, 1),
            ("H2", [1, 1], 2, -1),
        ):
            n = len(numbers)
            group = file.create_group(name)
            group["atomic_numbers"] = np.array(numbers, dtype=np.uint8)
            group["coordinates"] = np.arange(rows * n * 3, dtype="f4").reshape(rows, n, 3)
            energy = -40.0 - np.arange(rows)
            forces = np.full((rows, n, 3), 0.01, dtype="f4")
            if missing >= 0:
                energy[missing], forces[missing] = np.nan, np.nan
            group["wb97x_dz.energy"] = energy
            group["wb97x_dz.forces"] = forces


def write_transition1x(path: Path) -> None:
    level = "wB97x_6-31G(d)"

    def write(group: h5py.Group, rows: int, start: float) -> None:
        group["atomic_numbers"] = [6, 8]
        group["positions"] = np.zeros((rows, 2, 3)) + start
        group[f"{level}.energy"] = start + np.arange(rows)
        group[f"{level}.forces"] = np.ones((rows, 2, 3)) * start

    with h5py.File(path, "w") as file:
        for rxn, start in (("rxn0", -10.0), ("rxn1", -20.0)):
            group = file.create_group(f"data/CO/{rxn}")
            write(group, 3, start)
            for k, end in enumerate(("reactant", "product", "transition_state")):
                write(group.create_group(end), 1, start - 100.0 * (k + 1))
        file["train/CO/rxn0"] = file["data/CO/rxn0"]


def hydrogen_fluoride(distance: float) -> tuple[float, float]:
    """A Morse curve: energy in Ha and dE/dr in Ha/bohr at a distance in bohr."""
    depth, width, minimum = 0.22, 1.2, 1.73
    decay = np.exp(-width * (distance - minimum))
    return depth * (1 - decay) ** 2 - 100.0, 2 * depth * width * (1 - decay) * decay


def write_spice(path: Path, subset_as: str) -> None:
    """HF stretched along x: distances, energies and gradients in atomic units."""
    distances = np.array([1.9, 1.9001, 1.5])
    curve = np.array([hydrogen_fluoride(r) for r in distances])
    with h5py.File(path, "w") as file:
        for name, subset in (("hf", "SPICE Dipeptides v1.2"), ("other", "SPICE PubChem Set 1")):
            group = file.create_group(name)
            group["atomic_numbers"] = np.array([9, 1], dtype="i2")
            conformations = np.zeros((3, 2, 3))
            conformations[:, 1, 0] = distances
            group["conformations"] = conformations.astype("f8")
            group["dft_total_energy"] = curve[:, 0]
            group["formation_energy"] = curve[:, 0] + 100.0
            gradient = np.zeros((3, 2, 3))
            gradient[:, 1, 0], gradient[:, 0, 0] = curve[:, 1], -curve[:, 1]
            group["dft_total_gradient"] = gradient
            group["smiles"] = [b"F"]
            if subset_as == "attribute":
                group.attrs["subset"] = subset
            else:
                group["subset"] = [subset.encode()]


def test_ani1x_rows_that_were_not_calculated_are_left_out(tmp_path: Path) -> None:
    write_ani1x(tmp_path / "ani1x-release.h5")
    dataset = open_ani1x(tmp_path / "ani1x-release.h5")
    assert [frame.system for frame in frames(dataset)] == ["C1H4", "C1H4", "H2", "H2"]
    assert dataset[1].energy == pytest.approx(-42 * HARTREE_EV)
    np.testing.assert_array_equal(dataset[1].positions, np.arange(30, 45).reshape(5, 3))
    np.testing.assert_allclose(dataset[1].forces, 0.01 * HARTREE_EV, rtol=1e-6)
    assert len(open_ani1x(tmp_path / "ani1x-release.h5", min_atoms=4)) == 2


def test_genuine_ani1x(shared: Path) -> None:
    path = shared / "data/formats/ani1x.h5"
    dataset = open_ani1x(path)
    assert len(dataset) == 96
    forces = np.concatenate([frame.forces for frame in frames(dataset)])
    assert 1 < np.sqrt(np.mean(forces**2)) < 3  # eV/Å; 2.13 over the whole set
    assert dataset[0].system == "C10H10"
    assert dataset[0].energy / 10 == pytest.approx(-1052.7, abs=0.1)
    with_tz = open_ani1x(path, level="wb97x_tz")
    assert 0 < len(with_tz) < 96
    for frame in frames(with_tz):
        assert np.isfinite(frame.forces).all()


def test_transition1x_gives_both_ends_and_the_path(tmp_path: Path) -> None:
    write_transition1x(tmp_path / "Transition1x.h5")
    everything = open_transition1x(tmp_path / "Transition1x.h5")
    energies = [frame.energy for frame in frames(everything)]
    assert energies == [-110, -210, -10, -9, -8, -120, -220, -20, -19, -18]
    assert {frame.system for frame in frames(everything)} == {"CO"}
    np.testing.assert_array_equal(everything[2].forces, np.full((2, 3), -10.0))
    assert len(open_transition1x(tmp_path / "Transition1x.h5", split="train")) == 5
    with pytest.raises(InputError, match="split 'validation': choose data, train, val, test"):
        open_transition1x(tmp_path / "Transition1x.h5", split="validation")
    with pytest.raises(InputError, match="not a Transition-1x file with a group 'test'"):
        open_transition1x(tmp_path / "Transition1x.h5", split="test")


@pytest.mark.parametrize("subset_as", ["attribute", "data set"])
def test_spice_forces_are_minus_the_gradient(tmp_path: Path, subset_as: str) -> None:
    """Finite differences of the energies read tell sign and units of the forces read."""
    path = tmp_path / "SPICE-1.1.4.hdf5"
    write_spice(path, subset_as)
    dataset = open_spice(path, subset="dipeptides")
    assert [frame.system for frame in frames(dataset)] == ["hf"] * 3
    near, far, short = frames(dataset)
    assert near.positions[1, 0] == pytest.approx(1.9 * BOHR_ANGSTROM)
    step = far.positions[1, 0] - near.positions[1, 0]
    slope = (far.energy - near.energy) / step
    assert near.forces[1, 0] == pytest.approx(-slope, rel=1e-3)
    assert near.forces[1, 0] < 0 < short.forces[1, 0]  # stretched pulls back, compressed pushes
    assert near.targets["formation_energy"] == pytest.approx(near.energy + 100 * HARTREE_EV)
    formation = open_spice(path, subset="dipeptides", energy="formation")[0]
    assert formation.energy == formation.targets["formation_energy"]
    assert len(open_spice(path)) == 6
    with pytest.raises(InputError, match=r"subset 'solvated'.*its subsets are \['SPICE Dipep"):
        open_spice(path, subset="solvated")


def energies_in_worker(dataset: object, queue: multiprocessing.Queue) -> None:
    queue.put((os.getpid(), [frame.energy for frame in frames(dataset)]))


def read_in_worker(path: Path, method: str) -> None:
    dataset = open_ani1x(path)
    expected = [frame.energy for frame in frames(dataset)]  # the handle is open in the parent
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    worker = context.Process(target=energies_in_worker, args=(dataset, queue))
    worker.start()
    pid, energies = queue.get(timeout=60)
    worker.join()
    assert pid != os.getpid()
    assert energies == expected == [frame.energy for frame in frames(dataset)]
    assert len(pickle.dumps(dataset)) < 2000


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_frames_can_be_read_in_worker_processes(tmp_path: Path, method: str) -> None:
    write_ani1x(tmp_path / "ani1x.h5")
    run_alone(read_in_worker, tmp_path / "ani1x.h5", method)


def test_broken_hdf5_files_are_refused_by_name(tmp_path: Path) -> None:
    write_ani1x(tmp_path / "whole.h5")
    (tmp_path / "truncated.h5").write_bytes((tmp_path / "whole.h5").read_bytes()[:3000])
    for name in ("truncated", "missing"):
        with pytest.raises(InputError, match=rf"{name}\.h5: not a readable HDF5"):
            open_ani1x(tmp_path / f"{name}.h5")
    for opener, kind in ((open_spice, "SPICE"), (open_transition1x, "Transition-1x")):
        with pytest.raises(InputError, match=rf"whole\.h5: not a {kind} file"):
            opener(tmp_path / "whole.h5")
    with pytest.raises(InputError, match=r"not an ANI-1x file with b3lyp\.energy"):
        open_ani1x(tmp_path / "whole.h5", level="b3lyp")


def test_a_partly_missing_force_is_an_error_not_a_frame(tmp_path: Path) -> None:
    write_ani1x(tmp_path / "ani1x.h5")
    with h5py.File(tmp_path / "ani1x.h5", "a") as file:
        file["H2/wb97x_dz.forces"][1, 1, 2] = np.nan
    dataset = open_ani1x(tmp_path / "ani1x.h5")
    with pytest.raises(InputError, match=r"ani1x\.h5, record H2\[1\], field forces: holds NaN"):
        dataset[3]


def test_arrays_of_another_molecule_are_refused(tmp_path: Path) -> None:
    write_ani1x(tmp_path / "ani1x.h5")
    with h5py.File(tmp_path / "ani1x.h5", "a") as file:
        del file["C1H4/coordinates"]
        file["C1H4/coordinates"] = np.zeros((3, 4, 3))
    with pytest.raises(InputError, match=r"record C1H4, field coordinates: shape \(3, 4, 3\)"):
        open_ani1x(tmp_path / "ani1x.h5")
