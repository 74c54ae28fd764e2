"""Whatever ASE reads: extended xyz, ASE databases and trajectories, cif, POSCAR, OUTCAR, ...

ASE's convention is eV, eV/Å and eV/Å³; `energy_unit` says so where a file departs from it. MD22's
extended xyz does: it has kcal/mol, and `Energy=` where ASE's key is `energy=`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io.formats import UnknownFileTypeError, filetype
from ase.io.trajectory import Trajectory

from jmp_md.errors import InputError
from jmp_md.structure_files import decode, read_structures, xyz_frames
from jmp_md.training.data.frame import (
    ENERGY_UNITS,
    FORCE_UNITS,
    KCAL_PER_MOL,
    LENGTH_UNITS,
    Dataset,
    Frame,
    FrameList,
    make_frame,
    wrap_index,
)
from jmp_md.training.data.handles import PerProcess
from jmp_md.training.data.labels import Keys, find_stress, label_names

MD22_COMMENT = re.compile(r"\bEnergy=\S+ +Properties=species:S:1:pos:R:3:forces:R:3\s*$")


def open_ase(
    path: str | Path,
    energy_unit: str | None = None,
    energy_key: str = "energy",
    forces_key: str = "forces",
    stress_key: str | None = None,
    targets: Sequence[str] = (),
    force_unit: str | None = None,
    length_unit: str = "Å",
) -> Dataset:
    """Open a file in any format of ASE; xyz, `.traj` and databases frame by frame, others whole.

    Args:
        path: The file. A number or word `system` in `atoms.info` (or an ASE database's key-value
            pairs) becomes `Frame.system`.
        energy_unit: `"eV"` (the default, as in ASE), `"kcal/mol"` or `"Ha"`; stress is in this
            unit per length unit cubed.
        energy_key, forces_key: What the file calls them, e.g. `REF_energy`.
        stress_key: Likewise; a name with `virial` in it is minus the stress times the volume. By
            default the usual names are looked for, see :class:`.labels.Keys`. Frames that are not
            periodic in three directions have no stress.
        targets: Names of further numbers in `atoms.info` to read, without conversion.
        force_unit: One of `FORCE_UNITS`, with a minus before it where the file holds gradients; by
            default the unit of energies per Å.
        length_unit: `"Å"`, `"bohr"` or `"nm"`, of positions and cells.

    Raises:
        InputError: The file cannot be read, its unit is unknown, or it looks like MD22 and no
            unit is given.
    """
    path = Path(path)
    energy_factor = _factor("energy", energy_unit or "eV", ENERGY_UNITS)
    force_factor = energy_factor
    if force_unit is not None:
        force_factor = _factor("force", force_unit.removeprefix("-"), FORCE_UNITS)
        force_factor *= -1 if force_unit.startswith("-") else 1
    length_factor = _factor("length", length_unit, LENGTH_UNITS)
    keys = Keys(
        energy_key,
        forces_key,
        stress_key,
        tuple(targets),
        energy_factor,
        force_factor,
        length_factor,
    )
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    if path.suffix in (".xyz", ".extxyz"):
        if energy_unit is None and is_md22(path):
            raise InputError(
                f"{path}: 'Energy=' in the comment is the layout of MD22, which is in kcal/mol, "
                "not eV; say format='md22', or energy_unit='eV', energy_key='Energy' if it is in eV"
            )
        return XyzFile(path, keys)
    if path.suffix == ".traj":
        return TrajectoryFile(path, keys)
    if is_database(path):
        return DatabaseFile(path, keys)
    images = read_structures(path)
    return FrameList([_frame(path, k, atoms, keys) for k, atoms in enumerate(images)])


def _factor(kind: str, unit: str, units: Mapping[str, float]) -> float:
    if unit not in units:
        raise InputError(f"{kind} unit {unit!r}: choose {', '.join(units)}")
    return units[unit]


def is_database(path: Path) -> bool:
    """Whether a file is a database of ASE, in SQLite or JSON."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError:
        return False
    if path.suffix == ".json":
        try:
            return bool(filetype(str(path), guess=False) == "json") and b'{"' in start
        except (UnknownFileTypeError, ValueError):
            return False
    return path.suffix == ".db" and start == b"SQLite format 3\0"


def open_md22(path: str | Path) -> Dataset:
    """Open an MD22 file in extended xyz (arXiv 2209.14865), which is in kcal/mol and Å.

    Raises:
        InputError: The file cannot be read or has another layout.
    """
    path = Path(path)
    if not is_md22(path):
        raise InputError(
            f"{path}: not an MD22 file; its comment lines read 'Energy=... Properties=species:S:1:"
            "pos:R:3:forces:R:3'"
        )
    return XyzFile(
        path, Keys(energy="Energy", energy_factor=KCAL_PER_MOL, force_factor=KCAL_PER_MOL)
    )


def is_md22(path: Path) -> bool:
    """Whether the first comment line of an xyz file is in MD22's layout."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return bool(MD22_COMMENT.search([next(file), next(file)][1]))
    except (OSError, StopIteration):
        return False


class XyzFile:
    """Frames of an xyz or extended xyz file, found by their place in it.

    Args:
        path: The file.
        keys: What it calls its labels.

    Raises:
        InputError: A frame is cut short or does not begin with a number of atoms.
    """

    def __init__(self, path: Path, keys: Keys) -> None:
        self.path = path
        self._keys = keys
        with path.open("rb") as file:
            self._starts = xyz_frames(file, path)
        if len(self._starts) == 1:
            raise InputError(f"{path}: holds no frame")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Frame:
        index = wrap_index(index, len(self))
        start, end = self._starts[index : index + 2]
        with self.path.open("rb") as file:
            file.seek(start)
            return xyz_frame(self.path, index, file.read(end - start), self._keys)


def xyz_frame(path: Path, record: int, data: bytes, keys: Keys) -> Frame:
    """A frame from what an xyz or extended xyz file holds of it.

    Args:
        path, record: Where it comes from, for messages.
        data: Its bytes in the file.
        keys: What the file calls its labels.

    Raises:
        InputError: It cannot be read.
    """
    text = decode(data).lstrip()
    comment = text.split("\n", 2)[1]
    with _told(path, record):
        atoms = ase.io.read(io.StringIO(text), format="extxyz" if "=" in comment else "xyz")
    return _frame(path, record, atoms, keys)


class TrajectoryFile:
    """Frames of an ASE trajectory (`.traj`).

    Args:
        path: The file.
        keys: What it calls its labels.

    Raises:
        InputError: The file cannot be read.
    """

    def __init__(self, path: Path, keys: Keys) -> None:
        self.path = path
        self._keys = keys
        self._file = PerProcess(_open_trajectory, path)
        self._length = len(self._file.get())

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Frame:
        index = wrap_index(index, self._length)
        with _told(self.path, index):
            atoms = self._file.get()[index]
        return _frame(self.path, index, atoms, self._keys)


class DatabaseFile:
    """Rows of an ASE database (`.db`), in the order of their ids.

    Args:
        path: The file.
        keys: What it calls its labels.

    Raises:
        InputError: The file cannot be read.
    """

    def __init__(self, path: Path, keys: Keys) -> None:
        self.path = path
        self._keys = keys
        self._file = PerProcess(ase.db.connect, path)
        with _told(path):
            rows = self._file.get().select(columns=["id"], include_data=False)
            self._ids = [row.id for row in rows]

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Frame:
        number = self._ids[wrap_index(index, len(self))]
        with _told(self.path, number):
            atoms = self._file.get().get(number).toatoms(add_additional_information=True)
        atoms.info.update(atoms.info.pop("key_value_pairs", {}))
        return _frame(self.path, number, atoms, self._keys)


@contextmanager
def _told(path: Path, record: int | None = None) -> Iterator[None]:
    """Turns whatever ASE raises on a broken file into one error that names file and record."""
    where = f"{path}" if record is None else f"{path}, record {record}"
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{where}: ASE cannot read it ({type(error).__name__}: {error})"
        ) from error


def _open_trajectory(path: Path) -> Any:
    with _told(path):
        return Trajectory(str(path))


def _frame(path: Path, record: int, atoms: Atoms, keys: Keys) -> Frame:
    """A frame from ASE's atoms, its labels as calculated (constraints do not zero forces)."""
    results = {} if atoms.calc is None else atoms.calc.results
    energy = results.get(keys.energy, atoms.info.get(keys.energy))
    forces = results.get(keys.forces, atoms.arrays.get(keys.forces))
    for key, value, usual in (
        (keys.energy, energy, Keys.energy),
        (keys.forces, forces, Keys.forces),
        *((key, atoms.info.get(key), "") for key in keys.targets),
    ):
        needed = len(atoms) > 1 or key != keys.forces  # a lone atom has no forces
        if value is None and key != usual and needed:
            names = sorted({*results, *atoms.info, *atoms.arrays} - {"numbers", "positions"})
            raise InputError(f"{path}, record {record}, field {key}: missing; it has {names}")
    values = {**atoms.info, **results}
    stress = None
    if atoms.pbc.all():
        stress = find_stress(f"{path}, record {record}", values, keys, atoms.cell.volume)
    read = {keys.energy, keys.forces, "energies", *(stress or ())[:1]}
    if energy is not None:
        read.add("free_energy")
    with _told(path, record):
        targets = {key: float(atoms.info[key]) for key in keys.targets}
        energy, forces, tension = (
            None if value is None else np.multiply(value, factor)
            for value, factor in (
                (energy, keys.energy_factor),
                (forces, keys.force_factor),
                (None if stress is None else stress[1], keys.energy_factor / keys.length_factor**3),
            )
        )
    return make_frame(
        path,
        record,
        numbers=atoms.numbers,
        positions=atoms.positions * keys.length_factor,
        energy=energy,
        forces=forces,
        cell=atoms.cell.array * keys.length_factor,
        pbc=atoms.pbc,
        tags=atoms.get_tags() if atoms.has("tags") else None,
        fixed=_fixed_atoms(atoms),
        stress=tension,
        system=str(atoms.info.get("system", "")),
        targets=targets,
        others=label_names({*values, *atoms.arrays} - read),
    )


def _fixed_atoms(atoms: Atoms) -> np.ndarray | None:
    """Mask of the atoms under `FixAtoms`, or `None` where there is none."""
    fixed = np.zeros(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
    return fixed if fixed.any() else None
