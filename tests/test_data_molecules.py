"""QM9 and PDBBind: geometries and properties belong together and are in the units stated."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from jmp_md.errors import InputError
from jmp_md.training.data.frame import HARTREE, KCAL_PER_MOL, frames
from jmp_md.training.data.pdbbind import open_pdbbind
from jmp_md.training.data.qm9 import CSV_FACTORS, XYZ_FACTORS, open_qm9

METHANE_XYZ = """5
gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t\
-40.47893\t-40.476062\t-40.475117\t-40.498597\t6.469\t
C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689
H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921
H\t 1.0117308433\t 1.4637511618\t 2.765748*^-4\t 0.133922
H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923
H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923
1341.307\t1341.3284\t1341.365
C\tC\t
InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4
"""


def molfile(name: str, atoms: list[tuple[str, float, float, float]]) -> str:
    lines = [name, "  test", "", f"{len(atoms):3d}  0  0     0  0  0  0  0  0999 V2000"]
    for symbol, x, y, z in atoms:
        lines.append(f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0  0  0  0  0  0  0  0  0  0  0  0")
    return "\n".join([*lines, "M  END", "$$$$", ""])


def write_qm9(folder: Path, table: str = "gdb9.sdf.csv") -> None:
    """Water and ammonia; the rows of the table are in the other order than the molecules."""
    water = [("O", 0.0, 0.0, 0.1), ("H", -1234.5678, 0.76, -0.5), ("H", 0.0, -0.76, -0.5)]
    ammonia = [("N", 0.0, 0.0, 0.0), *(("H", 0.1 * k, 0.9, 0.2) for k in range(3))]
    (folder / "gdb9.sdf").write_text(molfile("gdb_3", water) + molfile("gdb_2", ammonia))
    with (folder / table).open("w", newline="") as file:
        writer = csv.DictWriter(file, ["mol_id", *CSV_FACTORS])
        writer.writeheader()
        for number in (2, 3):
            values = {name: number + 0.01 * k for k, name in enumerate(CSV_FACTORS)}
            writer.writerow({"mol_id": f"gdb_{number}", **values})


@pytest.mark.parametrize("table", ["gdb9.sdf.csv", "gdb9.csv"])
def test_qm9_rows_are_matched_by_name_and_converted(tmp_path: Path, table: str) -> None:
    write_qm9(tmp_path, table)
    water, ammonia = frames(open_qm9(tmp_path))
    np.testing.assert_array_equal(water.numbers, [8, 1, 1])
    assert water.positions[1, 0] == -1234.5678  # columns that touch
    assert (water.system, ammonia.system) == ("gdb_3", "gdb_2")
    assert water.targets["A"] == 3.0
    assert water.targets["homo"] == pytest.approx((3 + 0.05) * HARTREE)
    assert water.targets["u0_atom"] == pytest.approx((3 + 0.15) * KCAL_PER_MOL)
    assert water.energy == water.targets["u0"] == pytest.approx((3 + 0.10) * HARTREE)
    assert ammonia.targets["A"] == 2.0


def test_uncharacterized_molecules_are_left_out(tmp_path: Path) -> None:
    write_qm9(tmp_path)
    listing = tmp_path / "uncharacterized.txt"
    listing.write_text("Index  SMILES of GDB\n====\n\n     2     N      [NH3]\n")
    assert [frame.system for frame in frames(open_qm9(tmp_path, exclude=listing))] == ["gdb_3"]
    listing.write_text("nothing here\n")
    with pytest.raises(InputError, match=r"uncharacterized\.txt: lists no molecule"):
        open_qm9(tmp_path, exclude=listing)


def test_genuine_qm9_sdf(shared: Path) -> None:
    dataset = open_qm9(shared / "data/formats/gdb9.sdf")
    assert len(dataset) == 100
    methane, ammonia, water = dataset[0], dataset[1], dataset[2]
    np.testing.assert_array_equal(water.numbers, [8, 1, 1])
    np.testing.assert_array_equal(ammonia.numbers, [7, 1, 1, 1])
    bonds = np.linalg.norm(methane.positions[1:] - methane.positions[0], axis=1)
    np.testing.assert_allclose(bonds, 1.09, atol=0.005)
    assert methane.energy == pytest.approx(-40.47893 * 27.211386245988)
    assert methane.targets["u0_atom"] == pytest.approx(-17.17, abs=0.01)  # eV, as in the literature
    assert methane.targets["gap"] == pytest.approx(
        methane.targets["lumo"] - methane.targets["homo"]
    )


def test_qm9_as_first_released_agrees_with_its_sdf(tmp_path: Path, shared: Path) -> None:
    (tmp_path / "dsgdb9nsd_000001.xyz").write_text(METHANE_XYZ)
    methane = open_qm9(tmp_path)[0]
    same = open_qm9(shared / "data/formats/gdb9.sdf")[0]
    np.testing.assert_allclose(methane.positions, same.positions, atol=1e-4)
    assert (methane.system, methane.energy) == (same.system, same.energy)
    assert methane.targets == {name: same.targets[name] for name in XYZ_FACTORS}


def test_broken_qm9_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither gdb9\.sdf nor dsgdb9nsd_\*\.xyz"):
        open_qm9(tmp_path)
    (tmp_path / "dsgdb9nsd_000001.xyz").write_text("".join(METHANE_XYZ.splitlines(True)[:4]))
    with pytest.raises(InputError, match=r"dsgdb9nsd_000001\.xyz: not a QM9 xyz file.*2 of 5 atom"):
        open_qm9(tmp_path)[0]
    write_qm9(tmp_path)
    whole, table = (tmp_path / "gdb9.sdf").read_text(), (tmp_path / "gdb9.sdf.csv").read_text()
    for file, content, message in (
        ("gdb9.sdf", whole[:-20], "record gdb_2: cut short"),
        ("gdb9.sdf", whole.replace("gdb_2", "gdb_9"), "has no row for 'gdb_9'"),
        ("gdb9.sdf.csv", table.replace("gap", "gaps"), r"columns \['gap'\] are missing"),
        ("gdb9.sdf.csv", table.replace("2.05", "none"), "record gdb_2: could not convert"),
    ):
        write_qm9(tmp_path)
        (tmp_path / file).write_text(content)
        with pytest.raises(InputError, match=message):
            open_qm9(tmp_path)
    write_qm9(tmp_path)
    (tmp_path / "gdb9.sdf").write_text(whole.replace("N   0", "Q   0").replace("V2000", "V3000", 1))
    for index, message in (
        (0, "record gdb_3: not a V2000"),
        (1, "record gdb_2: .* Q .*not an atom"),
    ):
        with pytest.raises(InputError, match=message):
            open_qm9(tmp_path)[index]


def pdb_atom(name: str, x: float, element: str = "", alternate: str = " ") -> str:
    return f"ATOM      1 {name}{alternate}GLY A   1    {x:8.3f}{0:8.3f}{0:8.3f}  1.00  0.00".ljust(
        76
    ) + element.rjust(2)


def write_pdbbind(folder: Path) -> None:
    pocket = [
        pdb_atom(" CA ", 1.0, "C"),
        pdb_atom(" CB ", 1.5, "C", alternate="B"),
        pdb_atom(" CA ", 2.0),
        pdb_atom("CA  ", 3.0),
        pdb_atom("HG11", 4.0),
        pdb_atom("1HB ", 5.0),
        pdb_atom("ZN  ", 6.0, "ZN"),
        "ENDMDL",
        pdb_atom(" N  ", 7.0, "N"),
    ]
    for code in ("1abc", "2xyz"):
        (folder / code).mkdir()
        (folder / code / f"{code}_ligand.sdf").write_text(molfile(code, [("Cl", 0.0, 1.0, 2.0)]))
        (folder / code / f"{code}_pocket.pdb").write_text("\n".join(pocket))


def test_pdbbind_is_ligand_then_pocket_with_its_affinity(tmp_path: Path) -> None:
    write_pdbbind(tmp_path)
    index = tmp_path / "INDEX_core_data.2013"
    index.write_text(
        "# PDB code, resolution, release year, -logKd/Ki, Kd/Ki, reference, ligand name\n"
        "2xyz  1.90  2003   2.05  Kd=9mM       // 2xyz.pdf (ABC)\n"
        "1abc   NMR  2001  11.10  Ki=8pM       // 1abc.pdf (DEF)\n"
        "9zzz  2.10  2001   5.00  Ki=10uM      // 9zzz.pdf (GHI)\n"
    )
    dataset = open_pdbbind(tmp_path)
    assert [frame.system for frame in frames(dataset)] == ["2xyz", "1abc"]
    assert dataset[1].targets == {"-logKd/Ki": 11.1}
    np.testing.assert_array_equal(dataset[0].numbers, [17, 6, 6, 20, 1, 1, 30])
    np.testing.assert_array_equal(dataset[0].positions[:3], [[0, 1, 2], [1, 0, 0], [2, 0, 0]])
    (tmp_path / "pdbbind_core_df.csv").write_text("pdb_id,smiles,label\n1abc,Cl,4.5\n")
    with pytest.raises(InputError, match="2 index files in this folder; name the one to use"):
        open_pdbbind(tmp_path)
    named = open_pdbbind(tmp_path, index=tmp_path / "pdbbind_core_df.csv")
    assert [frame.targets["-logKd/Ki"] for frame in frames(named)] == [4.5]


def test_broken_pdbbind_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0 index files.*INDEX_core_data\.2013"):
        open_pdbbind(tmp_path)
    index = tmp_path / "INDEX_core_data.2013"
    index.write_text("1abc 2.0\n")
    with pytest.raises(InputError, match=r"INDEX_core_data\.2013: not an index of PDBBind"):
        open_pdbbind(tmp_path)
    index.write_text("1abc 2.0 2001 5.0\n")
    with pytest.raises(InputError, match="has no folder for any of 1 complexes"):
        open_pdbbind(tmp_path)
    write_pdbbind(tmp_path)
    pocket = tmp_path / "1abc/1abc_pocket.pdb"
    for text, message in (
        ("HEADER", r"1abc_pocket\.pdb: holds no atom"),
        (pdb_atom(" XX ", 0.0, "XX"), r"1abc_pocket\.pdb: 'ATOM .* is not an atom"),
    ):
        pocket.write_text(text)
        with pytest.raises(InputError, match=message):
            open_pdbbind(tmp_path)[0]
    pocket.unlink()
    with pytest.raises(InputError, match=r"1abc_pocket\.pdb: cannot be read"):
        open_pdbbind(tmp_path)[0]
