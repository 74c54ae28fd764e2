"""OC20's S2EF as published: pairs of compressed text files, written here by hand in that form."""

from __future__ import annotations

import lzma
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.training.data import oc20_text
from jmp_md.training.data.frame import Dataset, Subset, frames
from jmp_md.training.data.oc20_text import open_oc20_text
from jmp_md.training.data.open import open_dataset

LATTICE = "5.0 0.0 0.0 0.0 5.0 0.0 0.0 0.0 20.0"
COLUMNS = "species:S:1:pos:R:3:move_mask:L:1:tags:I:1:forces:R:3"


def frame_text(energy: float, shift: float = 0.0) -> str:
    """Two copper atoms, the lower one held in place, and CO, as the release writes them."""
    rows = [
        f"Cu 0.00000000 0.00000000 {2 + shift:.8f} F 0 0.10000000 0.20000000 0.30000000",
        f"Cu 0.00000000 0.00000000 {4 + shift:.8f} T 1 0.00000000 0.00000000 -0.40000000",
        f"C  0.00000000 0.00000000 {6 + shift:.8f} T 2 0.00000000 0.00000000 0.50000000",
        f"O  0.00000000 0.00000000 {7.2 + shift:.8f} T 2 0.00000000 0.00000000 -0.60000000",
    ]
    comment = (
        f'Lattice="{LATTICE}" Properties={COLUMNS} energy={energy:.8f} '
        f'free_energy={energy - 0.5:.8f} pbc="T T T"'
    )
    return "\n".join([str(len(rows)), comment, *rows, ""])


def write_oc20_text(folder: Path, sizes: tuple[int, ...] = (3, 2), compressed: bool = True) -> None:
    """Files 0, 1, ...: frame k of all has energy -100 - k and reference -90, system random<k>."""
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    for number, size in enumerate(sizes):
        rows = range(first, first + size)
        first += size
        texts = {
            "extxyz": "".join(frame_text(-100.0 - k, 0.05 * k) for k in rows),
            "txt": "".join(f"random{k},frame{7 * k},-90.0\n" for k in rows),
        }
        for end, text in texts.items():
            path = folder / f"{number}.{end}"
            if compressed:
                path.with_name(f"{path.name}.xz").write_bytes(lzma.compress(text.encode()))
            else:
                path.write_text(text)


@pytest.mark.parametrize("compressed", [True, False])
def test_the_published_folder_is_recognised_and_read(tmp_path: Path, compressed: bool) -> None:
    write_oc20_text(tmp_path / "s2ef", compressed=compressed)
    (tmp_path / "s2ef" / "README.txt").write_text("not a note\n")
    dataset = open_dataset(tmp_path / "s2ef")
    assert isinstance(dataset, Dataset)
    found = list(frames(dataset))
    assert [frame.energy for frame in found] == [-100.0, -101.0, -102.0, -103.0, -104.0]
    assert [frame.system for frame in found] == [f"random{k}" for k in range(5)]
    frame = dataset[4]
    assert frame.numbers.tolist() == [29, 29, 6, 8]
    assert frame.positions[:, 2].tolist() == pytest.approx([2.2, 4.2, 6.2, 7.4])
    assert frame.cell is not None
    assert np.diag(frame.cell).tolist() == [5.0, 5.0, 20.0]
    assert frame.pbc == (True, True, True)
    assert frame.tags is not None
    assert frame.tags.tolist() == [0, 1, 2, 2]
    assert frame.fixed is not None
    assert frame.fixed.tolist() == [True, False, False, False]
    assert frame.forces is not None  # those of the atom held in place are kept as calculated
    assert frame.forces[0].tolist() == [0.1, 0.2, 0.3]
    assert frame.others == ()


def test_adsorption_energies_are_less_the_reference_of_their_line(tmp_path: Path) -> None:
    write_oc20_text(tmp_path)
    dataset = open_dataset(tmp_path, energy="adsorption")
    assert [dataset[k].energy for k in (4, 0)] == [-14.0, -10.0]
    with pytest.raises(InputError, match="energy 'free': choose total, adsorption"):
        open_oc20_text(tmp_path, "free")


def test_files_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write_oc20_text(tmp_path, sizes=(1,) * 11)
    assert [frame.energy for frame in frames(open_dataset(tmp_path))] == [
        -100.0 - k for k in range(11)
    ]


def test_one_file_is_a_data_set_too(tmp_path: Path) -> None:
    write_oc20_text(tmp_path)
    assert len(open_dataset(tmp_path / "0.extxyz.xz")) == 3


def test_reading_in_order_decompresses_each_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_oc20_text(tmp_path, sizes=(4,) * 30)
    dataset = open_dataset(tmp_path)
    opened: list[Path] = []
    content = oc20_text._content
    monkeypatch.setattr(oc20_text, "_content", lambda path: opened.append(path) or content(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(frames(dataset))
    assert len(opened) == 60
    assert len(pickle.dumps(dataset)) < 20_000  # what a process gets: no file's content
    shuffled = Subset(dataset, np.random.default_rng(0).permutation(120)[:40])
    shuffled = Subset(dataset, np.random.default_rng(0).permutation(120)[:40])
    with pytest.warns(UserWarning, match="is read at random, .*'jmp-md data prepare'"):
        list(frames(shuffled))


def test_prepared_it_is_the_same(tmp_path: Path) -> None:
    write_oc20_text(tmp_path / "s2ef")
    command = ["data", "prepare", str(tmp_path / "s2ef"), "--output", str(tmp_path / "oc20")]
    command += ["--shard-size", "2", "--option", "energy=adsorption"]
    assert main(command) == 0
    prepared = open_dataset(tmp_path / "oc20")
    assert [frame.energy for frame in frames(prepared)] == [-10.0, -11.0, -12.0, -13.0, -14.0]
    assert prepared[3].system == "random3"
    assert prepared[3].fixed is not None
    assert prepared[3].fixed.sum() == 1


def test_broken_files_are_named_with_what_to_do(tmp_path: Path) -> None:
    write_oc20_text(tmp_path)
    (tmp_path / "0.txt.xz").write_bytes(lzma.compress(b"random0,frame0,-90.0\nrandom1,frame1,x\n"))
    with pytest.raises(InputError, match=r"0\.extxyz\.xz has 3 frames, 0\.txt\.xz 2 lines: get"):
        open_dataset(tmp_path)[0]
    lines = b"random0,frame0,\nrandom1,frame1,x\nrandom2\n"
    (tmp_path / "0.txt.xz").write_bytes(lzma.compress(lines))
    dataset = open_dataset(tmp_path)
    assert dataset[0].energy == -100.0  # a test set has no references
    assert dataset[2].system == "random2"
    with pytest.raises(InputError, match=r"0\.txt\.xz, line 2: 'random1,frame1,x' is not system_"):
        dataset[1]
    with pytest.raises(InputError, match=r"line 1: 'random0,frame0,' has no reference energy"):
        open_dataset(tmp_path, energy="adsorption")[0]
    whole = (tmp_path / "0.extxyz.xz").read_bytes()
    (tmp_path / "0.extxyz.xz").write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"0\.extxyz\.xz: broken or cut short .*get it again"):
        open_dataset(tmp_path)[0]
    text = lzma.decompress(whole)
    (tmp_path / "0.extxyz.xz").write_bytes(lzma.compress(text[:-100]))
    with pytest.raises(InputError, match=r"0\.extxyz\.xz, record 2: cut short, it has 4 atoms"):
        open_dataset(tmp_path)[0]
    (tmp_path / "1.txt.xz").unlink()
    with pytest.raises(InputError, match=r"1\.extxyz\.xz: 1\.txt\.xz is missing; get both"):
        open_dataset(tmp_path)


def test_a_file_that_grows_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_oc20_text(tmp_path)
    monkeypatch.setattr(oc20_text, "MAX_BYTES", 200)
    with pytest.raises(InputError, match="more than 200 bytes, which no file of OC20 has"):
        open_dataset(tmp_path)[0]
