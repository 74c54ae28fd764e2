"""Data sets in numpy's npz: rMD17, MD17 / sGDML / MD22, and frames of any size concatenated."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jmp_md.errors import InputError
from jmp_md.memory import free_memory
from jmp_md.training.data.frame import (
    BOHR,
    ENERGY_UNITS,
    KCAL_PER_MOL,
    Dataset,
    Frame,
    make_frame,
    wrap_index,
)

RMD17_KEYS = {
    "numbers": "nuclear_charges",
    "positions": "coords",
    "energy": "energies",
    "forces": "forces",
}
SGDML_KEYS = {"numbers": "z", "positions": "R", "energy": "E", "forces": "F"}
CONCATENATED_KEYS = ("n_atoms", "numbers", "positions")

_TEXT = ("e_unit", "r_unit", "system_id")  # all others are numbers
# What zip files that are damaged, encrypted or of another kind lead to.
_UNREADABLE = (
    *(OSError, EOFError, KeyError, ValueError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)

LENGTH_UNITS = {"Ang": 1.0, "Angstrom": 1.0, "bohr": BOHR}


def open_npz(path: str | Path) -> Dataset:
    """Open an npz data set, its layout told by the names of its arrays.

    Args:
        path: An rMD17 file (`nuclear_charges`, `coords`, `energies`, `forces`), an MD17, sGDML or
            MD22 file (`z`, `R`, `E`, `F`), both in kcal/mol and Å unless sGDML's `e_unit` and
            `r_unit` say otherwise, or concatenated frames in eV and Å (`n_atoms`, `numbers`,
            `positions` and any of `energy`, `forces`, `cell`, `stress`, `tags`, `fixed`,
            `system_id`).

    Raises:
        InputError: The file cannot be read or has none of these layouts.
    """
    path = Path(path)
    names = array_names(path)
    for keys in (RMD17_KEYS, SGDML_KEYS):
        if keys["numbers"] in names and keys["positions"] in names:
            return MoleculeNpz(path, keys)
    if names.issuperset(CONCATENATED_KEYS):
        return ConcatenatedNpz(path)
    raise InputError(
        f"{path}: arrays {sorted(names)} are none of the layouts known: rMD17 "
        f"{list(RMD17_KEYS.values())}, sGDML {list(SGDML_KEYS.values())}, concatenated "
        f"{list(CONCATENATED_KEYS)}"
    )


def array_names(path: Path) -> set[str]:
    """Names of the arrays in an npz file.

    Raises:
        InputError: It is missing, truncated or not an npz file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            require_memory(path, sum(entry.file_size for entry in archive.infolist()))
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except _UNREADABLE as error:
        raise InputError(f"{path}: not a readable npz file ({error})") from error


def require_memory(path: Path, n_bytes: int) -> None:
    """Refuse arrays that do not fit: a small file can claim any size.

    Raises:
        InputError: There is less memory free.
    """
    free = free_memory(torch.device("cpu"))
    if n_bytes > free:
        raise InputError(
            f"{path}: holds {n_bytes / 1e9:.1f} GB of arrays and {free / 1e9:.1f} GB of memory are "
            "free: give a part of it"
        )


class _Npz:
    """Arrays of one file, read at first use and again after pickling, never pickled with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cache: dict[str, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def _array(self, key: str) -> np.ndarray:
        """Array `key`; pickled (object) arrays are refused."""
        if key not in self._cache:
            try:
                with np.load(self.path, allow_pickle=False) as archive:
                    self._cache[key] = archive[key]
            # MemoryError: claims without end; others of entries that are damaged or encrypted.
            except (*_UNREADABLE, MemoryError) as e:
                raise InputError(f"{self.path}: array {key} cannot be read ({e})") from e
            kind = self._cache[key].dtype.kind
            if kind not in "biuf" and key not in _TEXT:
                del self._cache[key]
                raise InputError(f"{self.path}: array {key} does not hold real numbers")
        return self._cache[key]

    def _expect(self, key: str, shape: tuple[int, ...]) -> None:
        """Refuse an array whose leading axes are not `shape`."""
        found = self._array(key).shape
        if found[: len(shape)] != shape:
            raise InputError(f"{self.path}: array {key} has shape {found} instead of {shape}")


class MoleculeNpz(_Npz):
    """Many frames of one molecule: rMD17, MD17, sGDML and MD22.

    Args:
        path: The npz file.
        keys: What the file calls numbers (n,), positions (m, n, 3), energy (m,) or (m, 1), and
            forces (m, n, 3); energy and forces may be absent.

    Raises:
        InputError: The shapes do not belong together, or a unit is unknown.
    """

    def __init__(self, path: Path, keys: dict[str, str]) -> None:
        super().__init__(path)
        names = array_names(path)
        self._keys = {field: key for field, key in keys.items() if key in names}
        self._energy_unit = self._unit("e_unit", KCAL_PER_MOL, ENERGY_UNITS, names)
        self._length_unit = self._unit("r_unit", 1.0, LENGTH_UNITS, names)
        numbers, positions = (self._array(self._keys[f]) for f in ("numbers", "positions"))
        n = len(np.atleast_1d(numbers))
        self._expect(self._keys["positions"], (len(np.atleast_1d(positions)), n, 3))
        if "forces" in self._keys:
            self._expect(self._keys["forces"], (len(positions), n, 3))
        if "energy" in self._keys:
            self._expect(self._keys["energy"], (len(positions),))
        self._length = len(positions)

    def _unit(self, key: str, default: float, table: dict[str, float], names: set[str]) -> float:
        if key not in names:
            return default
        stored = self._array(key)[()]
        name = stored.decode() if isinstance(stored, bytes) else str(stored)
        factors = {known.lower(): factor for known, factor in table.items()}
        if name.lower() not in factors:
            raise InputError(f"{self.path}: {key} is {name!r}; known are {', '.join(table)}")
        return factors[name.lower()]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Frame:
        index = wrap_index(index, self._length)
        row: dict[str, Any] = {
            field: self._array(key)[index]
            for field, key in self._keys.items()
            if field != "numbers"
        }
        factors = {
            "positions": self._length_unit,
            "energy": self._energy_unit,
            "forces": self._energy_unit / self._length_unit,
        }
        for field in row:  # in double precision, so that a change of unit does not round
            row[field] = np.multiply(row[field], factors[field], dtype=np.float64)
        numbers = self._array(self._keys["numbers"])
        return make_frame(self.path, index, numbers=numbers, system=self.path.stem, **row)


class ConcatenatedNpz(_Npz):
    """Frames of any size, their atoms one after the other; Å, eV and eV/Å.

    Arrays: `n_atoms` (m,), `numbers` (sum n,), `positions` (sum n, 3) and, where present,
    `energy` (m,), `forces` (sum n, 3), `cell` (m, 3, 3), `stress` (m, 3, 3) in eV/Å³, `tags` and
    `fixed` (sum n,), `system_id` (m,). A frame is periodic along cell vectors that are not zero.

    Raises:
        InputError: The lengths of the arrays do not belong together.
    """

    PER_ATOM = ("numbers", "positions", "forces", "tags", "fixed")
    PER_FRAME = ("energy", "cell", "stress", "system_id")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        names = array_names(path)
        self._fields = [key for key in self.PER_ATOM + self.PER_FRAME if key in names]
        n_atoms = self._array("n_atoms")
        if n_atoms.ndim != 1 or n_atoms.dtype.kind not in "iu":
            raise InputError(f"{path}: array n_atoms must be a list of whole numbers")
        self._ends = np.cumsum(n_atoms, dtype=np.int64)
        total = int(self._ends[-1]) if len(n_atoms) else 0
        for key in self._fields:
            self._expect(key, (total if key in self.PER_ATOM else len(n_atoms),))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Frame:
        index = wrap_index(index, len(self))
        atoms = slice(int(self._ends[index - 1]) if index else 0, int(self._ends[index]))
        row: dict[str, Any] = {
            key: self._array(key)[atoms if key in self.PER_ATOM else index] for key in self._fields
        }
        system = str(row.pop("system_id", ""))
        return make_frame(self.path, index, system=system, **row)
