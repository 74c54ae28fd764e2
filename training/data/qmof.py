"""QMOF (10.1016/j.matt.2021.02.015): band gaps of metal-organic frameworks.

A folder with the properties, `qmof.csv` (columns `qmof_id`, `outputs.pbe.bandgap`, ...) or
`qmof.json` (the same, nested), and the structures, `qmof_structure_data.json` (a list of `qmof_id`
and pymatgen `structure`) or a folder of `<qmof_id>.cif`.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import ase.io

from jmp_md.errors import InputError
from jmp_md.training.data.crystals import parse_structure, stream_array
from jmp_md.training.data.frame import Dataset, Frame, FrameList, make_frame, wrap_index

TARGET = "bandgap"
STRUCTURES = "qmof_structure_data.json"
CIF_FOLDERS = (".", "relaxed_structures", "cif", "cifs")


def open_qmof(path: str | Path, level: str = "pbe") -> Dataset:
    """Open QMOF.

    Args:
        path: The folder, or one of the files in it.
        level: Level of theory of the band gap (`pbe`, `hle17`, `hse06`, `hse06_10hf`); materials
            without one are left out. It is `Frame.targets["bandgap"]`, eV.

    Raises:
        InputError: A file is missing or broken, or no material has a band gap at this level.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    gaps = _read_gaps(folder, level)
    if (folder / STRUCTURES).is_file():
        return FrameList(_read_structures(folder / STRUCTURES, gaps))
    for name in CIF_FOLDERS:
        if any((folder / name / f"{qmof_id}.cif").is_file() for qmof_id in gaps):
            return QmofCifs(folder / name, gaps)
    raise InputError(f"{folder}: no structures; put {STRUCTURES} or relaxed_structures/*.cif there")


class QmofCifs:
    """Materials of which each has a cif file.

    Args:
        folder: The folder of `<qmof_id>.cif`.
        gaps: Band gap in eV by `qmof_id`; those without a file are left out.
    """

    def __init__(self, folder: Path, gaps: dict[str, float]) -> None:
        self.folder = folder
        self._gaps = gaps
        self._ids = [qmof_id for qmof_id in gaps if (folder / f"{qmof_id}.cif").is_file()]

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Frame:
        qmof_id = self._ids[wrap_index(index, len(self))]
        path = self.folder / f"{qmof_id}.cif"
        try:
            atoms = ase.io.read(path)
        except Exception as error:
            raise InputError(f"{path}: ASE cannot read it ({error})") from error
        return _frame(path, qmof_id, atoms.numbers, atoms.positions, atoms.cell.array, self._gaps)


def _read_structures(path: Path, gaps: dict[str, float]) -> list[Frame]:
    frames = []
    for entry in stream_array(path):
        if not isinstance(entry, dict) or not {"qmof_id", "structure"} <= entry.keys():
            raise InputError(f"{path}: its entries need 'qmof_id' and 'structure'")
        qmof_id = entry["qmof_id"]
        if qmof_id in gaps:
            arrays = parse_structure(entry["structure"], f"{path}, record {qmof_id}")
            frames.append(_frame(path, qmof_id, *arrays, gaps))
    if not frames:
        raise InputError(f"{path}: holds none of the {len(gaps)} materials with a band gap")
    return frames


def _frame(
    path: Path, qmof_id: str, numbers: Any, positions: Any, cell: Any, gaps: dict[str, float]
) -> Frame:
    return make_frame(
        path,
        qmof_id,
        numbers=numbers,
        positions=positions,
        cell=cell,
        pbc=(True, True, True),
        system=qmof_id,
        targets={TARGET: gaps[qmof_id]},
    )


def _read_gaps(folder: Path, level: str) -> dict[str, float]:
    """Band gap in eV by `qmof_id`, of the materials that have one at this level."""
    column = f"outputs.{level}.bandgap"
    if (folder / "qmof.csv").is_file():
        path = folder / "qmof.csv"
        with path.open(newline="", encoding="utf-8") as file:
            table = [(row.get("qmof_id"), row.get(column)) for row in csv.DictReader(file)]
    elif (folder / "qmof.json").is_file():
        path = folder / "qmof.json"
        table = [
            (_nested(entry, "qmof_id"), _nested(entry, column)) for entry in stream_array(path)
        ]
    else:
        raise InputError(f"{folder}: no properties; put qmof.csv or qmof.json there")
    try:
        gaps = {str(name): float(gap) for name, gap in table if name and gap not in (None, "")}
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}, field {column}: {error}") from error
    if not gaps:
        raise InputError(f"{path}: no 'qmof_id' with a value of {column!r}")
    return gaps


def _nested(entry: Any, dotted: str) -> Any:
    """The value under a dotted name, such as `outputs.pbe.bandgap`, or `None`."""
    for key in dotted.split("."):
        entry = entry.get(key) if isinstance(entry, dict) else None
    return entry
