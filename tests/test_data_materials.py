"""MatBench and QMOF: crystals from pymatgen's JSON, read without pymatgen and piece by piece."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from jmp_md.errors import InputError
from jmp_md.training.data import crystals
from jmp_md.training.data.frame import frames
from jmp_md.training.data.matbench import open_matbench
from jmp_md.training.data.qmof import open_qmof

CELL = [[4.0, 0.0, 0.0], [1.0, 5.0, 0.0], [0.0, 0.5, 6.0]]


def structure(symbol: str = "Mg", occupied: float = 1) -> dict:
    return {
        "@module": "pymatgen.core.structure",
        "lattice": {"matrix": CELL, "a": 4.0},
        "sites": [
            {"species": [{"element": symbol, "occu": occupied}], "abc": [0.0, 0.0, 0.0]},
            {"species": [{"element": "O", "occu": 1}], "abc": [0.5, 0.25, 1.0]},
        ],
    }


def write_matbench(path: Path, values: list, columns: tuple = ("structure", "gap pbe")) -> None:
    rows = [[structure(), value] for value in values]
    table = {"index": list(range(len(rows))), "columns": columns, "data": rows}
    with gzip.open(path, "wt") as file:
        json.dump(table, file)


def test_matbench_rows_are_crystals_with_a_target(tmp_path: Path) -> None:
    path = tmp_path / "matbench_mp_gap.json.gz"
    write_matbench(path, [1.5, 0, 2])
    dataset = open_matbench(path)
    assert [frame.targets for frame in dataset] == [{"gap pbe": v} for v in (1.5, 0.0, 2.0)]
    frame = dataset[1]
    np.testing.assert_array_equal(frame.numbers, [12, 8])
    np.testing.assert_allclose(
        frame.positions[1], 0.5 * np.array(CELL[0]) + 0.25 * np.array(CELL[1]) + np.array(CELL[2])
    )
    assert frame.pbc == (True, True, True)
    write_matbench(path, [True, False], ("structure", "is_metal"))
    assert [frame.targets["is_metal"] for frame in open_matbench(path)] == [1.0, 0.0]


@pytest.mark.parametrize("chunk", [1, 7, 50, 10**6])
def test_json_is_read_the_same_in_pieces_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(crystals, "CHUNK", chunk)
    value = {"index": [10, 200], "name": 'a } ] " b', "data": [[1, -2.5e3], {}, [], "ü", 12345]}
    (tmp_path / "a.json").write_text(json.dumps(value, indent=1), encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps(value["data"], ensure_ascii=False), "utf-8")
    members = list(crystals.stream_object(tmp_path / "a.json", "data"))
    assert [v for k, v in members if k == "data"] == value["data"]
    assert dict(members)["index"] == value["index"]
    assert dict(members)["name"] == value["name"]
    assert list(crystals.stream_array(tmp_path / "b.json")) == value["data"]


def test_genuine_matbench_phonons(shared: Path) -> None:
    path = shared / "data/formats/matbench_phonons.json.gz"
    dataset = open_matbench(path)
    assert len(dataset) == 1265
    with gzip.open(path) as file:
        rows = json.load(file)["data"]
    for frame, (crystal, target) in zip(frames(dataset), rows, strict=True):
        cartesian = [site["xyz"] for site in crystal["sites"]]
        np.testing.assert_allclose(frame.positions, cartesian, atol=1e-9)
        assert frame.targets == {"last phdos peak": target}
        assert abs(np.linalg.det(frame.cell)) == pytest.approx(crystal["lattice"]["volume"])


def test_broken_matbench_files_are_refused_by_name(tmp_path: Path) -> None:
    write_matbench(tmp_path / "whole.json.gz", [1.0] * 2000)
    whole = (tmp_path / "whole.json.gz").read_bytes()
    (tmp_path / "cut.json.gz").write_bytes(whole[:-200])
    (tmp_path / "corrupt.json.gz").write_bytes(whole[:400] + b"\0" * 50 + whole[450:])
    (tmp_path / "text.json").write_text("no JSON at all")
    (tmp_path / "cut.json").write_text('{"columns": ["structure", "x"], "data": [[1, 2], [')
    (tmp_path / "empty.json").write_text('{"columns": ["structure", "x"], "data": []}')
    write_matbench(tmp_path / "composition.json.gz", [1.0], ("composition", "yield"))
    write_matbench(tmp_path / "null.json.gz", [1.0, None])
    for name, message in (
        ("missing.json", "cannot be read"),
        ("cut.json.gz", "broken or cut short"),
        ("corrupt.json.gz", "broken or cut short"),
        ("text.json", "'n' where the layout has '{'"),
        ("cut.json", "record 0, field structure: not an ordered crystal"),
        ("empty.json", "no rows under 'data'"),
        ("composition.json.gz", r"has columns \['composition', 'yield'\]"),
        ("null.json.gz", "record 1, field gap pbe: None is not a number"),
    ):
        with pytest.raises(InputError, match=rf"{name}.*{message}"):
            open_matbench(tmp_path / name)


@pytest.mark.parametrize("site", [("Mg", 0.5), ("Xx", 1), ("Dummy", 1)])
def test_a_disordered_crystal_is_refused(site: tuple) -> None:
    with pytest.raises(InputError, match="here, field structure: not an ordered crystal"):
        crystals.parse_structure(structure(*site), "here")


def write_qmof(folder: Path, properties: str, structures: str) -> None:
    """Three materials; the second has a gap with PBE only, the third no structure."""
    gaps = {"qmof-1": (1.5, 2.5), "qmof-2": (0.75, None), "qmof-3": (3.0, 4.0)}
    if properties == "csv":
        with (folder / "qmof.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["qmof_id", "name", "outputs.pbe.bandgap", "outputs.hse06.bandgap"])
            writer.writerows([key, "MOF", pbe, hse06] for key, (pbe, hse06) in gaps.items())
    else:
        entries = [
            {"qmof_id": key, "outputs": {"pbe": {"bandgap": pbe}, "hse06": {"bandgap": hse06}}}
            for key, (pbe, hse06) in gaps.items()
        ]
        (folder / "qmof.json").write_text(json.dumps(entries))
    if structures == "json":
        entries = [
            {"qmof_id": f"qmof-{k}", "name": "MOF", "structure": structure()} for k in (2, 1)
        ]
        (folder / "qmof_structure_data.json").write_text(json.dumps(entries))
    else:
        (folder / "relaxed_structures").mkdir()
        for k in (1, 2):
            atoms = Atoms("MgO", scaled_positions=[[0, 0, 0], [0.5, 0.25, 0]], cell=CELL, pbc=True)
            atoms.write(folder / f"relaxed_structures/qmof-{k}.cif")


@pytest.mark.parametrize("properties", ["csv", "json"])
@pytest.mark.parametrize("structures", ["json", "cif"])
def test_qmof_joins_structures_and_band_gaps(
    tmp_path: Path, properties: str, structures: str
) -> None:
    write_qmof(tmp_path, properties, structures)
    dataset = open_qmof(tmp_path)
    assert {frame.system: frame.targets["bandgap"] for frame in frames(dataset)} == {
        "qmof-1": 1.5,
        "qmof-2": 0.75,
    }
    np.testing.assert_array_equal(dataset[0].numbers, [12, 8])
    assert dataset[0].pbc == (True, True, True)
    assert abs(np.linalg.det(dataset[0].cell)) == pytest.approx(120.0)
    hse06 = open_qmof(tmp_path, level="hse06")
    assert [frame.targets for frame in frames(hse06)] == [{"bandgap": 2.5}]
    with pytest.raises(InputError, match=r"no 'qmof_id' with a value of 'outputs\.b3lyp\.bandgap'"):
        open_qmof(tmp_path, level="b3lyp")


def test_incomplete_qmof_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no properties; put qmof\.csv or qmof\.json there"):
        open_qmof(tmp_path)
    (tmp_path / "qmof.csv").write_text("qmof_id,outputs.pbe.bandgap\nqmof-1,1.0\n")
    with pytest.raises(InputError, match=r"no structures; put qmof_structure_data\.json"):
        open_qmof(tmp_path)
    (tmp_path / "qmof-1.cif").write_text("not a crystal")
    with pytest.raises(InputError, match=r"qmof-1\.cif: ASE cannot read it"):
        open_qmof(tmp_path)[0]
    (tmp_path / "qmof_structure_data.json").write_text('[{"qmof_id": "qmof-7", "structure": {}}]')
    with pytest.raises(InputError, match="holds none of the 1 materials with a band gap"):
        open_qmof(tmp_path / "qmof.csv")
    (tmp_path / "qmof.csv").write_text("qmof_id,outputs.pbe.bandgap\nqmof-1,wide\n")
    with pytest.raises(InputError, match=r"field outputs\.pbe\.bandgap: could not convert"):
        open_qmof(tmp_path)
