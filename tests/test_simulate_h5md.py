"""HDF5 trajectories are H5MD, give back what was written and survive any interruption."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from jmp_md.errors import InputError
from jmp_md.simulate.trajectory.h5md import H5Frames, read_h5md, write_h5md
from jmp_md.simulate.trajectory.patched_file import PatchedFile


def frame(i: int, periodic: bool = False) -> Atoms:
    rng = np.random.default_rng(i)
    atoms = bulk("Cu", cubic=True) if periodic else molecule("H2O")
    atoms.rattle(0.1, rng=rng)
    atoms.set_cell(atoms.cell * (1 + 0.01 * i), scale_atoms=True)
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)))
    atoms.info.update(step=5 * i, time_fs=2.5 * i)
    forces = rng.normal(size=(len(atoms), 3))
    atoms.calc = SinglePointCalculator(atoms, energy=-float(i), forces=forces)
    return atoms


@pytest.mark.parametrize("periodic", [False, True])
def test_what_is_written_is_read(periodic: bool, tmp_path: Path) -> None:
    frames = [frame(i, periodic) for i in range(4)]
    write_h5md(tmp_path / "a.h5", frames)
    for given, found in zip(frames, read_h5md(tmp_path / "a.h5"), strict=True):
        assert np.array_equal(found.numbers, given.numbers)
        assert np.array_equal(found.pbc, given.pbc)
        assert found.positions == pytest.approx(given.positions, abs=1e-5)
        assert found.get_velocities() == pytest.approx(given.get_velocities(), abs=1e-5)
        assert found.get_forces() == pytest.approx(given.get_forces(), abs=1e-5)
        assert found.get_potential_energy() == given.get_potential_energy()
        assert found.info == given.info
        if periodic:
            assert found.cell.array == pytest.approx(given.cell.array, abs=1e-5)
    assert [a.info["step"] for a in read_h5md(tmp_path / "a.h5", "-2:")] == [10, 15]


def test_the_layout_is_that_of_h5md(tmp_path: Path) -> None:
    write_h5md(tmp_path / "a.h5", [frame(i, True) for i in range(3)])
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["h5md"].attrs["version"].tolist() == [1, 1]
        group = file["particles/trajectory"]
        assert group["position/value"].shape == (3, 4, 3)
        assert group["position/value"].compression == "gzip"
        assert group["position/value"].attrs["unit"] == "Angstrom"
        assert group["velocity/step"] == group["position/step"]
        assert group["position/time"].attrs["unit"] == "fs"
        assert group["position/time"][:].tolist() == [0.0, 2.5, 5.0]
        assert group["box"].attrs["dimension"] == 3
        assert list(group["box"].attrs["boundary"]) == ["periodic"] * 3
        expected = frame(1, True).get_forces() / (units.kJ / units.mol)
        assert group["force/value"][1] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_mdanalysis_reads_it(tmp_path: Path) -> None:
    analysis = pytest.importorskip("MDAnalysis")
    frames = [frame(i, True) for i in range(3)]
    write_h5md(tmp_path / "a.h5", frames)
    universe = analysis.Universe.empty(4)
    universe.load_new(str(tmp_path / "a.h5"), format="H5MD")
    assert universe.trajectory.n_frames == 3
    last = universe.trajectory[2]
    assert last.time == pytest.approx(0.005)  # ps
    assert last.positions == pytest.approx(frames[2].positions, abs=1e-4)
    lengths = frames[2].cell.cellpar()
    assert last.dimensions == pytest.approx(lengths, abs=1e-3)


def test_an_interruption_at_any_moment_leaves_the_last_state(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    frames = [frame(i) for i in range(60)]
    writer = H5Frames(path)
    saved: dict = {}
    for i, atoms in enumerate(frames):
        writer.write(atoms)
        if i % 7:
            continue
        before = path.read_bytes()
        mark = writer.mark()
        left = {"before": path.read_bytes()}  # killed after the mark, before it was saved
        if saved:
            assert left["before"][: saved["size"]] == before[: saved["size"]]
        after = mark  # the state is saved now
        left["saved"] = path.read_bytes()
        writer.commit()
        left["committed"] = path.read_bytes()
        assert len(read_h5md(path)) == i + 1  # can be read while it is written
        for when, content in left.items():
            state, count = (saved, i - 6) if when == "before" else (after, i + 1)
            if not state:
                continue
            copy = tmp_path / "copy.h5"
            copy.write_bytes(content)
            again = H5Frames(copy, state)
            again.write(frames[count])
            again.mark()
            again.commit()
            again.close()
            steps = [atoms.info["step"] for atoms in read_h5md(copy)]
            assert steps == list(range(0, 5 * (count + 1), 5)), when
        saved = mark
    writer.close()
    assert len(read_h5md(path)) == 57


def test_a_file_that_lost_something_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    writer = H5Frames(path)
    writer.write(frame(0))
    mark = writer.mark()
    writer.commit()
    writer.close()
    shutil.copy(path, tmp_path / "whole.h5")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"run.h5 has 100 bytes, but had"):
        H5Frames(path, mark)
    path.unlink()
    with pytest.raises(InputError, match=r"run.h5 is missing"):
        H5Frames(path, mark)
    with pytest.raises(InputError, match=r"cannot read .* as an H5MD trajectory"):
        read_h5md(path)


def test_a_patched_file_reads_what_it_will_be(tmp_path: Path) -> None:
    file = PatchedFile(tmp_path / "file")
    file.write(b"0123456789")
    file.mark()
    file.commit()
    file.seek(8)
    file.write(b"abcd")
    file.seek(2)
    file.write(b"XY")
    file.seek(0)
    assert file.read() == b"01XY4567abcd"
    assert (tmp_path / "file").read_bytes()[:10] == b"0123456789"
    mark = file.mark()
    file.commit()
    file.seek(0)
    file.write(b"lost")
    file.close()
    assert (tmp_path / "file").read_bytes() == b"01XY4567abcd"
    again = PatchedFile(tmp_path / "file", mark)
    assert again.read() == b"01XY4567abcd"
    again.close()
