"""One function that opens any of the data sets, whatever their format."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
from ase.io.formats import UnknownFileTypeError, filetype

from jmp_md.errors import InputError, reading
from jmp_md.files import exists, user_path
from jmp_md.training.data.ase_files import is_database, is_md22, open_ase, open_md22
from jmp_md.training.data.frame import Dataset
from jmp_md.training.data.hdf5 import (
    TRANSITION1X_SPLITS,
    open_ani1x,
    open_hdf5,
    open_spice,
    open_transition1x,
)
from jmp_md.training.data.lmdb import SUFFIXES as LMDB_SUFFIXES
from jmp_md.training.data.lmdb import open_lmdb
from jmp_md.training.data.matbench import open_matbench
from jmp_md.training.data.npz import open_npz
from jmp_md.training.data.oc20_text import frame_files, open_oc20_text
from jmp_md.training.data.pdbbind import open_pdbbind
from jmp_md.training.data.prepared import SOURCE_FILE, PreparedDataset
from jmp_md.training.data.qm9 import XYZ_PATTERN, open_qm9
from jmp_md.training.data.qmof import open_qmof


@dataclass(frozen=True)
class Format:
    """A format: what opens it, how it is told from others, and what it is, for messages."""

    opener: Callable[..., Dataset]
    recognises: Callable[[Path], bool]
    description: str


PATH_OPTIONS = ("exclude", "references")  # options that name further files


def open_dataset(path: str | Path, format: str | None = None, **options: Any) -> Dataset:
    """Open a data set; frames come in Å, eV and eV/Å.

    Args:
        path: File or folder, as published.
        format: A name in `FORMATS`; by default recognised by name and content.
        **options: For the format's own function, such as `subset` for `open_spice`.

    Raises:
        InputError: There is nothing at `path`, its format is not recognised, it is broken, or an
            option is not one of this format.
    """
    path = user_path(path)
    if not exists(path):
        raise InputError(f"{path}: there is no such file or folder")
    if format is None:
        with reading(str(path)):
            format = format_of(path)
    if format not in FORMATS:
        raise InputError(f"data format {format!r}: choose one of\n{_listing()}")
    opener = FORMATS[format].opener
    known = list(inspect.signature(opener).parameters)[1:]
    for option in options:
        if option not in known:
            raise InputError(
                f"{path}: format {format!r} has no option {option!r}; "
                f"it has {', '.join(known) or 'none'}"
            )
    with reading(str(path)):
        return opener(path, **options)


def format_of(path: Path) -> str:
    """Name of the format of a file or folder, recognised by name and content.

    Raises:
        InputError: It is none of `FORMATS`.
    """
    for name, format in FORMATS.items():
        if format.recognises(path):
            return name
    raise InputError(f"{path}: format not recognised; say format=, one of\n{_listing()}")


def _listing() -> str:
    width = max(map(len, FORMATS))
    return "\n".join(f"  {name:{width}}  {f.description}" for name, f in FORMATS.items())


def _is_lmdb(path: Path) -> bool:
    if path.is_dir():
        names = [file for file in path.iterdir() if file.suffix in LMDB_SUFFIXES]
        return bool(names) or (path / "data.mdb").is_file()
    return path.suffix in LMDB_SUFFIXES


def _first_group(path: Path) -> list[str]:
    """Names in the first group of an HDF5 file, and of the file itself."""
    if path.suffix not in (".h5", ".hdf5"):
        return []
    with open_hdf5(path) as file:
        groups = (list(group) for group in file.values() if isinstance(group, h5py.Group))
        return [*file, *next(groups, [])]


def _is_transition1x(path: Path) -> bool:
    return bool(set(TRANSITION1X_SPLITS) & set(_first_group(path)))


def _is_qm9(path: Path) -> bool:
    if path.is_dir():
        return (path / "gdb9.sdf").is_file() or any(path.glob(XYZ_PATTERN))
    return path.name.startswith("gdb9") and path.suffix == ".sdf"


def _is_qmof(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in ("qmof.csv", "qmof.json"))
    return path.name.startswith("qmof") and path.suffix in (".csv", ".json")


def _is_pdbbind(path: Path) -> bool:
    return path.is_dir() and any(path.glob("????/????_ligand.sdf"))


def _is_ase(path: Path) -> bool:
    if path.is_dir():
        return False
    try:
        return is_database(path) or bool(filetype(str(path), guess=False))
    except UnknownFileTypeError:
        return False


# In the order in which they are tried.
FORMATS: dict[str, Format] = {
    "prepared": Format(
        PreparedDataset,
        lambda path: (path / SOURCE_FILE).is_file(),
        "a folder written by 'jmp-md data prepare'",
    ),
    "npz": Format(
        open_npz,
        lambda path: path.suffix == ".npz",
        "rMD17, MD17, sGDML, MD22 or concatenated frames in npz",
    ),
    "ani1x": Format(
        open_ani1x, lambda path: "coordinates" in _first_group(path), "ANI-1x release HDF5"
    ),
    "transition1x": Format(open_transition1x, _is_transition1x, "Transition-1x HDF5"),
    "spice": Format(open_spice, lambda path: "conformations" in _first_group(path), "SPICE HDF5"),
    "lmdb": Format(open_lmdb, _is_lmdb, "OC20, OC22 or other LMDB files, *.lmdb or *.aselmdb"),
    "oc20-text": Format(
        open_oc20_text,
        lambda path: bool(frame_files(path)),
        "OC20's S2EF as published: folder of N.extxyz.xz and N.txt.xz",
    ),
    "qm9": Format(open_qm9, _is_qm9, "QM9: gdb9.sdf with its csv, or dsgdb9nsd_*.xyz"),
    "matbench": Format(
        open_matbench,
        lambda path: path.name.startswith("matbench_") and ".json" in path.suffixes,
        "matbench_*.json.gz with structures",
    ),
    "qmof": Format(open_qmof, _is_qmof, "QMOF: folder of qmof.csv and qmof_structure_data.json"),
    "pdbbind": Format(open_pdbbind, _is_pdbbind, "PDBBind: folder of <code>/<code>_ligand.sdf"),
    "md22": Format(
        open_md22,
        lambda path: path.name.lower().startswith("md22") and is_md22(path),
        "MD22 extended xyz, kcal/mol",
    ),
    "ase": Format(open_ase, _is_ase, "anything ASE reads, eV: extxyz, traj, db, cif, ..."),
}
