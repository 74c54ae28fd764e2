"""Files of structures: read whole or refused, written with the results that were computed."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from jmp_md.errors import InputError
from jmp_md.files import atomic_write

if TYPE_CHECKING:
    from ase import Atoms

_COMPRESSED = (".gz", ".bz2", ".xz")
_MOST_DIGITS = 12  # of a number of atoms
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SPLIT = 0.5  # Å; atoms of an ordered crystal or a protein are never closer
_PLAIN_NAME = re.compile(r"[A-Za-z_][\w.-]*\Z")
_PLAIN_TEXT = re.compile(r"[\w.,;:+*/()<>@#%&!?$^~|-][\w .,;:+*/()<>@#%&!?$^~|-]*\Z")
_OF_THE_FORMAT = ("Lattice", "Properties", "pbc", "positions", "symbols", "species", "pos")


def read_structures(path: Path) -> list[Atoms]:
    """All structures in a file of any format ASE reads; its name is taken literally.

    Blank lines between the frames of an xyz file are passed over. Its comments are UTF-8 or, where
    they are not, Latin-1.

    Raises:
        InputError: The file cannot be read as structures, holds none or an empty one, or a site
            of a crystal is occupied in part.
    """
    if not path.exists():
        raise InputError(f"there is no structure file {path}: check the path")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give a file of structures in it")
    try:
        structures = _read(path)
    except InputError:
        raise
    except Exception as error:  # every format of ASE has errors of its own
        reason = str(error) or type(error).__name__
        raise InputError(
            f"cannot read structures from {path}: {reason}; give a file in a format of ASE, e.g. "
            ".xyz, .cif, .vasp, .pdb"
        ) from error
    if not structures:
        raise InputError(f"{path} holds no structures")
    for i, atoms in enumerate(structures):
        if len(atoms) == 0:
            raise InputError(f"{path}, structure {i}: has no atoms; take it out of the file")
        _check_order(atoms, f"{path}, structure {i}" if len(structures) > 1 else f"{path}")
    return structures


def xyz_frames(file: BinaryIO, name: str | Path) -> list[int]:
    """Places where the frames of an xyz file begin, and where the last one ends.

    Args:
        file: The file, at its beginning; it is read to its end.
        name: Its name, for messages.

    Raises:
        InputError: A frame is cut short or does not begin with a number of atoms.
    """
    starts: list[int] = []
    end = 0
    while header := file.readline():
        start, end = end, file.tell()
        text = header.removeprefix(_BYTE_ORDER_MARK).strip()
        if not text:
            continue
        if starts and text.startswith(b"VEC"):  # a cell, after the atoms of the frame
            continue
        record = len(starts)
        if not text.isdigit() or len(text) > _MOST_DIGITS:
            raise InputError(
                f"{name}, record {record}: {header[:40]!r} is not a number of atoms; {record} "
                "frames before it are whole"
            )
        n = int(text)
        if n < 1:
            raise InputError(f"{name}, record {record}: has no atoms; take it out of the file")
        lines = list(islice(file, n + 1))  # as many as there are, whatever the file claims
        whole = len(lines) == n + 1 and lines[0].endswith(b"\n")
        if not whole or not all(line.strip() for line in lines[1:]):
            raise InputError(
                f"{name}, record {record}: cut short, it has {n} atoms; {record} frames before it "
                "are whole"
            )
        starts.append(start)
        end = file.tell()
    return [*starts, end]


def decode(data: bytes) -> str:
    """Text that is UTF-8 or, where it is not, Latin-1, with line ends of one kind."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.replace("\r\n", "\n")


def write_structures(path: Path, structures: Sequence[Atoms]) -> None:
    """Write structures, with the energies and forces they have, atomically.

    Args:
        path: File to replace; its name gives the format.
        structures: Structures; see :func:`with_results` for keeping results.
    """
    from ase.io import write
    from ase.io.extxyz import write_extxyz
    from ase.io.formats import filetype

    form = filetype(str(path), read=False)
    with atomic_write(path) as temporary:
        if form == "extxyz":
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                write_extxyz(file, list(structures))
        else:
            write(temporary, structures if len(structures) > 1 else structures[0], format=form)


def require_format(path: Path, count: int) -> None:
    """Refuse, before any computing, a file that ASE cannot write.

    Args:
        path: File to write structures to.
        count: How many there are.

    Raises:
        InputError: ASE cannot write its format, or only one structure in it.
    """
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    if path.suffix in _COMPRESSED:
        raise InputError(f"{path} is not written compressed: leave out {path.suffix}")
    try:
        form = ioformats.get(filetype(str(path), read=False))
    except UnknownFileTypeError:
        form = None
    if form is None or not form.can_write or (count > 1 and form.single):
        raise InputError(
            f"ASE cannot write {count} structures to {path}: choose another ending, e.g. .extxyz"
        )


def with_results(atoms: Atoms, results: dict[str, Any] | None = None, **info: Any) -> Atoms:
    """A copy that can be written: with results, and without what would contradict them.

    What ``info`` or the arrays hold under the name of a result, as data sets do, is left out: it
    belongs to another place or another method. So is, with a warning, what extended xyz has no
    form for.

    Args:
        atoms: The structure.
        results: By ASE's names, e.g. ``energy`` and ``forces``; None takes those that its
            calculator has at hand.
        info: Further entries of ``info``.
    """
    from ase.calculators.singlepoint import all_properties

    copy = atoms.copy()
    for held in (copy.info, copy.arrays):
        for name in all_properties:
            held.pop(name, None)
    dropped = [key for key, value in copy.info.items() if not _can_hold_info(key, value)]
    # True stands for a word of a comment that is a sentence: not worth a warning.
    words = {key for key in dropped if copy.info.pop(key) is True}
    dropped = [key for key in dropped if key not in words]
    columns = [key for key, array in copy.arrays.items() if not _can_hold_column(key, array)]
    for key in columns:
        del copy.arrays[key]
    if dropped or columns:
        named = ", ".join(repr(key) for key in (*dropped, *columns))
        warnings.warn(
            f"{named} of the structure cannot be held by files and is left out", stacklevel=2
        )
    copy.info.update(info)
    known = _at_hand(atoms) if results is None else results
    return attach_results(copy, known)


def attach_results(atoms: Atoms, results: Mapping[str, Any]) -> Atoms:
    """The structure itself, given results by ASE's names that no calculator computes again."""
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms.calc = SinglePointCalculator(atoms, **results) if results else None
    return atoms


def _at_hand(atoms: Atoms) -> dict[str, Any]:
    """Energy, forces and stress, where the calculator knows them without computing."""
    from ase.calculators.calculator import PropertyNotImplementedError

    known = {}
    for name in ("energy", "forces", "stress") if atoms.calc is not None else ():
        try:
            value = atoms.calc.get_property(name, atoms, allow_calculation=False)
        except PropertyNotImplementedError:
            continue
        if value is not None:
            known[name] = value
    return known


def _read(path: Path) -> list[Atoms]:
    from ase.io import read
    from ase.io.extxyz import read_extxyz
    from ase.io.formats import filetype, open_with_compression

    place = str(path.absolute())  # in full, for "-" is a file as well as any other
    form = filetype(place)
    if form not in ("extxyz", "xyz"):
        return list(read(place, index=":", format=form, do_not_split_by_at_sign=True))
    with open_with_compression(str(path), "rb") as file:
        data = file.read()
    frames = [data[a:b] for a, b in pairwise(xyz_frames(io.BytesIO(data), path))]
    structures = []
    for i, frame in enumerate(frames):
        text = decode(frame).strip() + "\n"
        try:
            structures += list(read_extxyz(io.StringIO(text), slice(None)))
        except Exception as error:
            raise InputError(
                f"{path}, record {i}: {error}; {i} of {len(frames)} frames before it are whole"
            ) from error
    return structures


def _check_order(atoms: Atoms, where: str) -> None:
    """Refuse sites that are occupied in part: as full atoms they are another substance."""
    import numpy as np
    from ase.geometry import get_duplicate_atoms

    sites = atoms.info.get("occupancy")
    partial = []
    if isinstance(sites, dict):
        for held in sites.values():
            shares = " ".join(f"{s} {held[s]:g}" for s in sorted(held, key=held.get, reverse=True))
            # A shared site is listed once for each of its elements.
            if (len(held) > 1 or abs(sum(held.values()) - 1) > 1e-3) and shares not in partial:
                partial.append(shares)
    column = atoms.arrays.get("occupancy")
    if column is not None and column.dtype.kind == "f":  # of a PDB file, where 0 is no statement
        for i in np.flatnonzero((column > 1e-3) & (column < 1 - 1e-3)):
            partial.append(f"atom {i} {atoms.symbols[i]} {column[i]:g}")
    if partial:
        raise InputError(
            f"{where}: sites are occupied in part ({'; '.join(partial[:5])}"
            f"{', ...' if len(partial) > 5 else ''}): give an ordered structure, e.g. a supercell "
            "in which each site has one atom or none"
        )
    finite = np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()
    if finite and ("spacegroup_kinds" in atoms.arrays or column is not None):
        pairs = get_duplicate_atoms(atoms, cutoff=_SPLIT)
        if pairs is not None and len(pairs):
            first, second = sorted(int(k) for k in pairs[0])
            raise InputError(
                f"{where}: atoms {first} ({atoms.symbols[first]}) and {second} "
                f"({atoms.symbols[second]}) are less than {_SPLIT} Å apart, parts of a site that "
                "is split: keep one of them"
            )


def _can_hold_info(key: Any, value: Any) -> bool:
    """Whether an entry of ``info`` comes back from extended xyz, and harms nothing beside it."""
    import numpy as np

    if not isinstance(key, str) or not _PLAIN_NAME.match(key) or key in _OF_THE_FORMAT:
        return False
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return not isinstance(value, np.complexfloating)
    if isinstance(value, str) and _PLAIN_TEXT.match(value):
        return True
    if isinstance(value, np.ndarray) and value.dtype.kind in "fib" and value.size:
        return True
    trial = _trial()
    trial.info[key] = value
    back = _round_trip(trial)
    if back is None or set(back.info) != {key}:
        return False
    return value is not None and (not isinstance(value, str) or bool(back.info[key] == value))


def _can_hold_column(key: str, array: Any) -> bool:
    import numpy as np

    if key in ("numbers", "positions"):
        return True
    if not _PLAIN_NAME.match(key) or ":" in key or key in _OF_THE_FORMAT or array.ndim > 2:
        return False
    if array.dtype.kind in "fib":
        return True
    if array.dtype.kind != "U":
        return False
    return bool(np.all([len(text.split()) == 1 for text in array.ravel()]))


def _trial() -> Atoms:
    from ase import Atoms

    return Atoms("H", cell=[9.0, 9.0, 9.0], pbc=(True, False, False))


def _round_trip(atoms: Atoms) -> Atoms | None:
    """The structure as it comes back from extended xyz; None where it does not."""
    from ase.io.extxyz import read_extxyz, write_extxyz

    file = io.StringIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is written in part, which is found out here
            write_extxyz(file, [atoms])
            file.seek(0)
            [back] = read_extxyz(file, slice(None))
    except Exception:  # whatever the values make of the format
        return None
    same = len(back) == len(atoms) and back.pbc.tolist() == atoms.pbc.tolist()
    return back if same else None
