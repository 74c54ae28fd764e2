"""QM9 (10.1038/sdata.2014.22): `gdb9.sdf` with its csv, or the original `dsgdb9nsd_*.xyz`.

`Frame.energy` is the internal energy at 0 K (`u0`), eV. `Frame.targets`, by the csv's names:
rotational constants `A`, `B`, `C` in GHz; dipole `mu` in D; polarisability `alpha` in bohr³;
`homo`, `lumo`, `gap`, `zpve`, `u0`, `u298`, `h298`, `g298` in eV; extent `r2` in bohr²; heat
capacity `cv` in cal/(mol K); and, in the csv only, the atomisation energies `u0_atom`,
`u298_atom`, `h298_atom`, `g298_atom` in eV.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from jmp_md.errors import InputError
from jmp_md.training.data.frame import (
    HARTREE,
    KCAL_PER_MOL,
    Dataset,
    Frame,
    make_frame,
    wrap_index,
)
from jmp_md.training.data.molfile import read_entry, sdf_entries

# In the order of the xyz files; what published results are not given in eV stays as it is.
XYZ_FACTORS = {
    **dict.fromkeys(("A", "B", "C", "mu", "alpha"), 1.0),
    **dict.fromkeys(("homo", "lumo", "gap"), HARTREE),
    "r2": 1.0,
    **dict.fromkeys(("zpve", "u0", "u298", "h298", "g298"), HARTREE),
    "cv": 1.0,
}
CSV_FACTORS = {
    **XYZ_FACTORS,
    **dict.fromkeys(("u0_atom", "u298_atom", "h298_atom", "g298_atom"), KCAL_PER_MOL),
}
XYZ_PATTERN = "dsgdb9nsd_*.xyz"


def open_qm9(path: str | Path, exclude: str | Path | None = None) -> Dataset:
    """Open QM9.

    Args:
        path: `gdb9.sdf` with `gdb9.sdf.csv` or `gdb9.csv` beside it, a folder that holds these,
            or a folder of `dsgdb9nsd_*.xyz`.
        exclude: The published `uncharacterized.txt`: molecules whose geometry did not survive
            the relaxation, to be left out.

    Raises:
        InputError: The files are missing, broken or do not belong together.
    """
    path = Path(path)
    left_out = set() if exclude is None else _uncharacterized(Path(exclude))
    if path.is_dir() and (path / "gdb9.sdf").is_file():
        path = path / "gdb9.sdf"
    if path.is_dir():
        files = sorted(path.glob(XYZ_PATTERN))
        if not files:
            raise InputError(f"{path}: neither gdb9.sdf nor {XYZ_PATTERN} in this folder")
        return Qm9Xyz([file for file in files if _number(file.stem) not in left_out])
    return Qm9Sdf(path, left_out)


class Qm9Sdf:
    """QM9 as geometries in SDF and properties in csv, matched by the name of the molecule.

    Args:
        path: The SDF file; the csv has the same name with `.csv` added or instead of `.sdf`.
        left_out: Numbers of molecules (1 for gdb_1) to leave out.

    Raises:
        InputError: A file is missing or broken, or a molecule has no row in the csv.
    """

    def __init__(self, path: Path, left_out: set[int] | None = None) -> None:
        self.path = path
        entries = sdf_entries(path)
        self._entries = [e for e in entries if _number(e.title) not in (left_out or set())]
        tables = [Path(f"{path}.csv"), path.with_suffix(".csv")]
        table = next((table for table in tables if table.is_file()), None)
        if table is None:
            raise InputError(f"{path}: no properties; put {' or '.join(map(str, tables))} there")
        self._names, self._rows, self._values = _read_table(table)
        for entry in self._entries:
            if entry.title not in self._rows:
                raise InputError(f"{table}: has no row for {entry.title!r} of {path}")

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Frame:
        entry = self._entries[wrap_index(index, len(self))]
        numbers, positions = read_entry(self.path, entry)
        values = self._values[self._rows[entry.title]]
        targets = dict(zip(self._names, values.tolist(), strict=True))
        return make_frame(
            self.path,
            entry.title,
            numbers=numbers,
            positions=positions,
            energy=targets["u0"],
            system=entry.title,
            targets=targets,
        )


class Qm9Xyz:
    """QM9 as released: one file per molecule, properties in the second line.

    Args:
        files: The files.
    """

    def __init__(self, files: list[Path]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Frame:
        path = self._files[wrap_index(index, len(self))]
        try:
            # Mathematica wrote some numbers as 1.5*^-6.
            lines = path.read_text().replace("*^", "e").splitlines()
            n = int(lines[0])
            label, name, *values = lines[1].split()
            properties = [float(value) for value in values]
            atoms = [line.split() for line in lines[2 : 2 + n]]
            numbers = [atomic_numbers[atom[0]] for atom in atoms]
            positions = [[float(x) for x in atom[1:4]] for atom in atoms]
            if len(atoms) < n:
                raise ValueError(f"{len(atoms)} of {n} atoms")
            targets = {
                key: value * factor
                for (key, factor), value in zip(XYZ_FACTORS.items(), properties, strict=True)
            }
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise InputError(f"{path}: not a QM9 xyz file ({error!r})") from error
        return make_frame(
            path,
            f"{label}_{name}",
            numbers=numbers,
            positions=positions,
            energy=targets["u0"],
            system=f"{label}_{name}",
            targets=targets,
        )


def _read_table(path: Path) -> tuple[list[str], dict[str, int], np.ndarray]:
    """Names of the properties, row of each molecule, and values in the units of this module."""
    rows: dict[str, int] = {}
    values: list[list[float]] = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        missing = sorted({"mol_id", *XYZ_FACTORS} - set(columns))
        if missing:
            raise InputError(f"{path}: not the table of QM9, columns {missing} are missing")
        names = [name for name in CSV_FACTORS if name in columns]
        for row in reader:
            rows[row["mol_id"]] = len(values)
            try:
                values.append([float(row[name]) * CSV_FACTORS[name] for name in names])
            except (TypeError, ValueError) as error:
                raise InputError(f"{path}, record {row['mol_id']}: {error}") from error
    return names, rows, np.array(values)


def _number(name: str) -> int:
    """The number of a molecule: 21 for gdb_21 or dsgdb9nsd_000021; -1 without one."""
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdigit() else -1


def _uncharacterized(path: Path) -> set[int]:
    """Numbers listed in `uncharacterized.txt`: the first word of each line that has one."""
    try:
        words = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise InputError(f"{path}: not a readable list of molecules ({error})") from error
    numbers = {int(word) for word in words if word.isdigit()}
    if not numbers:
        raise InputError(f"{path}: lists no molecule; give the published uncharacterized.txt")
    return numbers
