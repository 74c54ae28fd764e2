"""Structures are read whole or refused by name, and written so that they come back."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from jmp_md.errors import InputError
from jmp_md.files import require_writable
from jmp_md.structure_files import (
    read_structures,
    require_format,
    with_results,
    write_structures,
)
from jmp_md.training.data.ase_files import open_ase


def xyz(comment: str = "", formula: str = "H2O") -> str:
    atoms = molecule(formula)
    rows = [
        f"{s} {x:.8f} {y:.8f} {z:.8f}"
        for s, (x, y, z) in zip(atoms.symbols, atoms.positions, strict=True)
    ]
    return "\n".join([str(len(atoms)), comment, *rows]) + "\n"


@pytest.mark.parametrize("gap", ["", "\n", "\n\n", " \n\t\n"])
@pytest.mark.parametrize("name", ["all.xyz", "all.extxyz", "all.xyz.gz", "frames"])
def test_blank_lines_between_frames_cost_no_frame(tmp_path: Path, gap: str, name: str) -> None:
    text = gap.join(xyz("a=1", f) for f in ("H2O", "CH4", "CO2")) + gap
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    found = read_structures(tmp_path / name)
    assert [atoms.get_chemical_formula() for atoms in found] == ["H2O", "CH4", "CO2"]
    if name == "all.xyz":
        frames = open_ase(tmp_path / name)
        assert [len(frames[i].numbers) for i in range(len(frames))] == [3, 5, 3]
        assert np.allclose(frames[1].positions, found[1].positions)


def test_line_ends_and_byte_order_marks_of_other_systems_are_read(tmp_path: Path) -> None:
    text = "\ufeff" + (xyz('note="a b" pbc="F F F"') + "\n" + xyz()).replace("\n", "\r\n")
    (tmp_path / "dos.xyz").write_bytes(text.encode())
    first, second = read_structures(tmp_path / "dos.xyz")
    assert first.info["note"] == "a b"
    assert len(second) == 3
    assert len(open_ase(tmp_path / "dos.xyz")[1].numbers) == 3


def test_a_latin_1_comment_is_read(tmp_path: Path) -> None:
    comment = 'comment="Übung \x85 ä" Properties=species:S:1:pos:R:3 pbc="F F F"'
    (tmp_path / "old.xyz").write_bytes(xyz(comment).encode("latin-1"))
    [atoms] = read_structures(tmp_path / "old.xyz")
    assert atoms.info["comment"].startswith("Übung")
    assert np.array_equal(atoms.numbers, molecule("H2O").numbers)
    assert len(open_ase(tmp_path / "old.xyz")[0].numbers) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (xyz() + "\n" + xyz()[:-45], r"record 1: cut short, it has 3 atoms; 1 frames before"),
        (xyz() + xyz().replace("3\n", "4\n"), "record 1: cut short, it has 4 atoms; 1 frames"),
        (xyz() + xyz().replace("3\n", "2\n"), r"record 2: b'H .* is not a number of atoms; 2 fr"),
        (xyz() + "0\n\n", "record 1: has no atoms"),
        (xyz().replace("\nH", "\n\nH", 1), "record 0: cut short"),
    ],
)
def test_a_broken_frame_is_an_error_that_counts(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.xyz").write_text(text)
    for reader in (read_structures, open_ase):
        with pytest.raises(InputError, match=rf"a\.xyz, {message}"):
            reader(tmp_path / "a.xyz")


def test_a_line_cut_short_is_an_error_that_counts(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(xyz() + xyz()[:-15])
    with pytest.raises(InputError, match=r"a\.xyz, record 1: .*; 1 of 2 frames before it"):
        read_structures(tmp_path / "a.xyz")


@pytest.mark.parametrize("name", ["x@300K.xyz", "x@300K.traj", "x@300K.vasp", "x@0"])
def test_names_are_taken_literally(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("x", molecule("CH4"), format="extxyz")
    write("other.extxyz", bulk("Cu"))
    write_structures(Path(name), [bulk("Cu")]) if name != "x@0" else Path("other.extxyz").rename(
        name
    )
    for path in (Path(name), Path(name).absolute()):
        [atoms] = read_structures(path)
        assert atoms.get_chemical_formula() == "Cu"


CIF = """data_x
_cell_length_a 5.5
_cell_length_b 5.5
_cell_length_c 5.5
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
{occupancy}
"""


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (["Na1 Na 0 0 0 0.6", "K1 K 0 0 0 0.4"], r"part \(Na 0.6 K 0.4\)"),
        (["Na1 Na 0 0 0 0.6", "K1 K 0.02 0 0 0.4"], "Na 0.6; K 0.4"),
        (["Na1 Na 0 0 0 1.0", "Cl1 Cl 0.5 0.5 0.5 0.5"], "Cl 0.5"),
        (["Na1 Na 0 0 0", "Na2 Na 0.02 0 0"], r"atoms 0 \(Na\) and 1 \(Na\) are less than 0.5"),
        (["Na1 Na 0.01 0 0", "Na2 Na 0.99 0 0"], r"atoms 0 \(Na\) and 1 \(Na\) are less than"),
    ],
)
def test_a_disordered_crystal_is_refused(tmp_path: Path, sites: list[str], message: str) -> None:
    shares = "_atom_site_occupancy" if len(sites[0].split()) == 6 else ""
    (tmp_path / "a.cif").write_text(CIF.format(occupancy=shares) + "\n".join(sites) + "\n")
    for reader in (read_structures, open_ase):
        with pytest.raises(InputError, match=rf"a\.cif: .*{message}"):
            reader(tmp_path / "a.cif")


def test_an_ordered_crystal_is_read(tmp_path: Path) -> None:
    sites = "Na1 Na 0 0 0 1.0\nCl1 Cl 0.5 0.5 0.5 1\n"
    text = CIF.format(occupancy="_atom_site_occupancy") + sites
    (tmp_path / "a.cif").write_text(text)
    [atoms] = read_structures(tmp_path / "a.cif")
    assert atoms.get_chemical_formula() == "ClNa"
    write_structures(tmp_path / "b.extxyz", [with_results(atoms, {"energy": -1.0})])
    assert read(tmp_path / "b.extxyz").get_potential_energy() == -1.0


def test_alternate_places_in_a_protein_are_refused(tmp_path: Path) -> None:
    lines = [
        "ATOM      1  O   HOH A   1       0.000   0.000   0.000  1.00  0.00           O",
        "ATOM      2  H1 AHOH A   1       0.960   0.000   0.000  0.60  0.00           H",
        "ATOM      3  H1 BHOH A   1      -0.960   0.000   0.000  0.40  0.00           H",
    ]
    (tmp_path / "a.pdb").write_text("\n".join(lines) + "\nEND\n")
    with pytest.raises(InputError, match=r"in part \(atom 1 H 0.6; atom 2 H 0.4\)"):
        read_structures(tmp_path / "a.pdb")


LABELS: dict[str, Any] = {
    "energy": -1.0,
    "free_energy": -1.0,
    "stress": np.zeros(6),
    "forces": "column",
    "energies": 1.0,
    "dipole": np.ones(3),
}
STRANGE: dict[Any, Any] = {
    "none": None,
    "set": {1, 2},
    "complex": 1 + 2j,
    "Properties": "species:S:1",
    "pbc": "T T T",
    "Lattice": "1 0 0",
    "newline": "two\nlines",
    "quote": 'say "hi" \\',
    "empty": "",
    "a=b": 1,
    (1, 2): 3,
    5: 6,
    "separator": "a\u2028b",
}
KEPT: dict[str, Any] = {
    "name": "water 1",
    "REF_energy": -3.0,
    "umlaut": "Übung",
    "tensor": np.eye(3),
    "flag": True,
    "words": ["a", "b"],
    "table": {"a": [1, 2]},
}


@pytest.mark.parametrize("key", [*LABELS, *STRANGE], ids=str)
@pytest.mark.parametrize("ending", ["extxyz", "traj"])
def test_results_win_and_the_rest_of_info_stays(tmp_path: Path, key: Any, ending: str) -> None:
    atoms = molecule("H2O", vacuum=4.0)
    atoms.info.update(KEPT)
    if key == "forces":
        atoms.arrays["forces"] = np.ones((3, 3))
    else:
        atoms.info[key] = {**LABELS, **STRANGE}[key]
    before = dict(atoms.info)
    atoms.calc = SinglePointCalculator(atoms, energy=-2.0, forces=np.full((3, 3), 0.5))
    path = tmp_path / f"out.{ending}"
    if key in STRANGE:
        with pytest.warns(UserWarning, match="cannot be held by files and is left out"):
            written = with_results(atoms, index=4)
    else:
        written = with_results(atoms, index=4)
    write_structures(path, [written] * 2)
    for back in read_structures(path):
        assert back.get_potential_energy() == -2.0
        assert np.array_equal(back.get_forces(), np.full((3, 3), 0.5))
        assert set(back.calc.results) <= {"energy", "forces"}
        assert back.pbc.tolist() == [False] * 3
        assert set(back.info) == {*KEPT, "index"}
        assert back.info["index"] == 4
        assert back.info["umlaut"] == "Übung"
        assert np.array_equal(back.info["tensor"], np.eye(3))
    assert atoms.info == before


@pytest.mark.parametrize(
    "column",
    [np.zeros((3, 2, 2)), np.array(["a", "b c", ""]), np.array([1j, 1, 2]), np.array([None, 1, 2])],
    ids=["matrices", "words", "complex", "objects"],
)
def test_columns_that_files_cannot_hold_are_left_out(tmp_path: Path, column: np.ndarray) -> None:
    atoms = molecule("H2O")
    atoms.arrays["mine"] = column
    atoms.arrays["fine"] = np.arange(3)
    with pytest.warns(UserWarning, match="'mine' of the structure"):
        written = with_results(atoms, {"energy": 1.0})
    write_structures(tmp_path / "a.extxyz", [written])
    [back] = read_structures(tmp_path / "a.extxyz")
    assert back.arrays["fine"].tolist() == [0, 1, 2]
    assert "mine" not in back.arrays


def test_places_that_cannot_be_written_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"leave out \.gz"):
        require_format(tmp_path / "b.extxyz.gz", 1)
    with pytest.raises(InputError, match="the folder /proc cannot be written to"):
        require_writable("/proc/none.extxyz")
    require_format(tmp_path / "b.extxyz", 2)
    require_writable(tmp_path / "b.extxyz")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_structure_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "empty.traj", [molecule("H2O"), Atoms()])
    with pytest.raises(InputError, match=r"empty\.traj, structure 1: has no atoms"):
        read_structures(tmp_path / "empty.traj")


def test_a_pdb_without_numbers_for_places_is_no_traceback(tmp_path: Path) -> None:
    cell = "CRYST1      nan    9.000    9.000  90.00  90.00  90.00 P 1           1\n"
    line = "ATOM      1  O   HOH A   1         nan     nan     nan  1.00  0.00           O\n"
    (tmp_path / "a.pdb").write_text(cell + line + line.replace("1  O ", "2  H ") + "END\n")
    [atoms] = read_structures(tmp_path / "a.pdb")
    assert np.isnan(atoms.positions).all()  # which every verb refuses by the atom
