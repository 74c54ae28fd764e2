"""LMDB data sets: OC20/OC22 S2EF and others in the OCP style, and ASE-LMDB.

OCP style: keys b"0" .. b"n-1" hold pickled PyTorch Geometric `Data`, b"length" the pickled count.
Fields used, with the names seen in releases: `atomic_numbers` (also `z`, or the nuclear `charges`
of Transition-1x), `pos`, `y` or `energy` (eV), `force` or `forces` (eV/Å), `cell` (1, 3, 3),
`tags`, `fixed`, and `sid` as the system (not the `rxn` of Transition-1x, which is the same for all
its frames: there the formula tells systems apart, as in the HDF5 release). Pickles are read by a
reader that rebuilds tensors and plain containers and runs nothing.

ASE-LMDB (`*.aselmdb`): keys b"1" .. hold zlib-compressed JSON of a row of an ASE database
(`numbers`, `positions`, `cell`, `pbc`, `tags`, `constraints`, `energy`, `forces`, `stress`,
`key_value_pairs`, `data`), arrays as lists or as `{"__ndarray__": [shape, dtype, values]}`;
b"nextid" holds the first unused key and b"deleted_ids" those removed, in the same encoding.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import lmdb
import numpy as np

from jmp_md.checkpoints.restricted import load_pickle
from jmp_md.errors import InputError, reading
from jmp_md.training.data.frame import Concatenation, Dataset, Frame, make_frame, wrap_index
from jmp_md.training.data.handles import PerProcess

SUFFIXES = (".lmdb", ".aselmdb")

_FIELDS = {
    "numbers": ("atomic_numbers", "z", "charges"),
    "positions": ("pos",),
    "energy": ("y", "energy"),
    "forces": ("force", "forces"),
    "cell": ("cell",),
    "tags": ("tags",),
    "fixed": ("fixed",),
    "stress": ("stress",),
    "system": ("sid",),
}

# LMDB refuses to open a file twice in a process, so data sets on one file share it.
_ENVIRONMENTS: WeakValueDictionary[tuple[int, str], Any] = WeakValueDictionary()


def open_lmdb(path: str | Path, references: str | Path | None = None) -> Dataset:
    """Open an LMDB file, or a folder of them in the order of their names.

    Args:
        path: A `.lmdb` or `.aselmdb` file, or a folder that holds such files.
        references: OC20 only: pickled table of reference energies in eV by `random<sid>`, to be
            added to adsorption energies so that `Frame.energy` is the total energy.

    Raises:
        InputError: There is no such file, or it is broken or of another layout.
    """
    path = Path(path)
    if path.is_dir() and not (path / "data.mdb").is_file():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    else:
        files = [path / "data.mdb" if path.is_dir() else path]
    if not files:
        raise InputError(f"{path}: no {' or '.join(SUFFIXES)} file in this folder")
    table = None if references is None else _read_references(Path(references))
    parts = [_open_file(file, table) for file in files]
    return parts[0] if len(parts) == 1 else Concatenation(parts)


def _open_file(path: Path, references: dict[str, float] | None) -> Dataset:
    file = LmdbFile(path)
    if file.get(b"nextid") is not None:
        return AseLmdb(file)
    return PickledLmdb(file, references)


class LmdbFile:
    """A read-only LMDB file.

    Args:
        path: The file.

    Raises:
        InputError: It is missing, truncated or not LMDB.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._environment = PerProcess(open_environment, path)
        self.entries = int(self._environment.get().stat()["entries"])

    def get(self, key: bytes) -> bytes | None:
        """What is stored under `key`, if anything."""
        try:
            with self._environment.get().begin() as transaction:
                return transaction.get(key)
        except lmdb.Error as error:
            raise InputError(f"{self.path}, record {key.decode()}: {error}") from error

    def require(self, key: bytes) -> bytes:
        """What is stored under `key`.

        Raises:
            InputError: Nothing is.
        """
        value = self.get(key)
        if value is None:
            raise InputError(
                f"{self.path}, record {key.decode()}: missing; the file is incomplete, get it again"
            )
        return value


def open_environment(path: Path) -> lmdb.Environment:
    """The LMDB environment of a file in this process."""
    name, pid = str(path.resolve()), os.getpid()
    for (owner, other), environment in list(_ENVIRONMENTS.items()):
        if other == name and owner != pid:
            environment.close()  # a copy inherited by fork
    environment = _ENVIRONMENTS.get((pid, name))
    if environment is None:
        try:
            environment = lmdb.open(
                name, subdir=False, readonly=True, lock=False, readahead=False, create=False
            )
        except lmdb.Error as error:
            raise InputError(f"{path}: not a readable LMDB file ({error})") from error
        # Reading past the end of a truncated memory map would kill the process.
        pages = environment.info()["last_pgno"] + 1
        size = environment.stat()["psize"] * pages
        if path.stat().st_size < size:
            raise InputError(f"{path}: truncated, {path.stat().st_size} of {size} bytes")
        _ENVIRONMENTS[pid, name] = environment
    return environment


class PickledLmdb:
    """OCP-style LMDB of pickled `Data`.

    Args:
        file: The file.
        references: Energies in eV by `random<sid>` to add to those stored; see `open_lmdb`.
    """

    def __init__(self, file: LmdbFile, references: dict[str, float] | None = None) -> None:
        self._file = file
        self._references = references
        stored = file.get(b"length")
        if stored is None:
            self._length = file.entries
        else:
            self._length = int(_array(load_pickle(stored, f"{file.path}, record length")).item())

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Frame:
        key = str(wrap_index(index, self._length))
        where = f"{self._file.path}, record {key}"
        data = load_pickle(self._file.require(key.encode()), where)
        with reading(where):
            return self._frame(key, where, data)

    def _frame(self, key: str, where: str, data: Any) -> Frame:
        if not isinstance(data, Mapping):
            raise InputError(f"{where}: holds a {type(data).__name__}, not a graph (Data)")
        row: dict[str, Any] = {}
        for field, names in _FIELDS.items():
            name = next((name for name in names if data.get(name) is not None), None)
            if name is not None:
                row[field] = _array(data[name])
        for field in ("numbers", "positions"):
            if field not in row:
                raise InputError(f"{where}, field {field}: missing; it has {sorted(data)}")
        if "cell" in row and row["cell"].size == 9:
            row["cell"] = row["cell"].reshape(3, 3)
        if "system" in row:
            row["system"] = str(row["system"].reshape(-1)[0])
        if self._references is not None:
            row["energy"] = self._total_energy(where, row)
        return make_frame(self._file.path, key, **row)

    def _total_energy(self, where: str, row: dict[str, Any]) -> float:
        assert self._references is not None
        name = f"random{row.get('system')}"
        if name not in self._references or "energy" not in row:
            raise InputError(f"{where}, field energy: no energy, or no reference for {name!r}")
        return float(row["energy"].item()) + self._references[name]


class AseLmdb:
    """ASE-LMDB: rows of an ASE database as compressed JSON (see the module's description).

    Args:
        file: The file.
    """

    def __init__(self, file: LmdbFile) -> None:
        self._file = file
        deleted = set(self._decode("deleted_ids") if file.get(b"deleted_ids") else ())
        self._ids = [i for i in range(1, int(self._decode("nextid"))) if i not in deleted]

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Frame:
        key = str(self._ids[wrap_index(index, len(self))])
        row = self._decode(key)
        where = f"{self._file.path}, record {key}"
        with reading(where):
            return self._frame(key, where, row)

    def _frame(self, key: str, where: str, row: Any) -> Frame:
        if not isinstance(row, dict) or not {"numbers", "positions"} <= row.keys():
            raise InputError(f"{where}: not a row of an ASE database (numbers, positions, ...)")
        labels = {**(row.get("data") or {}), **(row.get("key_value_pairs") or {})}
        system = next((str(labels[name]) for name in _FIELDS["system"] if name in labels), "")
        return make_frame(
            self._file.path,
            key,
            numbers=row["numbers"],
            positions=row["positions"],
            energy=row.get("energy"),
            forces=row.get("forces"),
            cell=row.get("cell"),
            pbc=row.get("pbc"),
            tags=row.get("tags"),
            fixed=_fixed_atoms(row.get("constraints"), len(row["numbers"])),
            stress=row.get("stress"),
            system=system,
        )

    def _decode(self, key: str) -> Any:
        try:
            text = zlib.decompress(self._file.require(key.encode()))
            return json.loads(text, object_hook=_numpy_array)
        except (zlib.error, ValueError, TypeError, RecursionError) as error:
            raise InputError(
                f"{self._file.path}, record {key}: not zlib-compressed JSON ({error})"
            ) from error


def _numpy_array(value: dict[str, Any]) -> Any:
    """ASE's JSON form of an array or of a cell, turned back into an array."""
    if value.get("__ase_objtype__") == "cell":
        return value["array"]
    if "__ndarray__" not in value:
        return value
    shape, dtype, flat = value["__ndarray__"]
    return np.array(flat, dtype=dtype).reshape(shape)


def _fixed_atoms(constraints: Any, n: int) -> np.ndarray | None:
    """Mask of the atoms under ASE's `FixAtoms`, or `None` where there is none."""
    if isinstance(constraints, str):
        constraints = json.loads(constraints, object_hook=_numpy_array)
    fixed = np.zeros(n, dtype=bool)
    for constraint in constraints or ():
        if constraint.get("name") == "FixAtoms":
            fixed[np.asarray(constraint["kwargs"]["indices"], dtype=np.int64)] = True
    return fixed if fixed.any() else None


def _array(value: Any) -> np.ndarray:
    """A tensor, array or number as an array."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _read_references(path: Path) -> dict[str, float]:
    try:
        table = load_pickle(path.read_bytes(), str(path), operations=50_000_000)
    except OSError as error:
        raise InputError(f"{path}: not a readable table of references ({error})") from error
    if not isinstance(table, Mapping):
        raise InputError(f"{path}: holds a {type(table).__name__}, not a table of references")
    return {str(name): float(_array(value)) for name, value in table.items()}
