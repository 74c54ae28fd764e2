"""Molecules from MDL molfiles and SDF (V2000): elements and positions, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase.data import atomic_numbers

from jmp_md.errors import InputError

_NUMBERS = {symbol: number for symbol, number in atomic_numbers.items() if number > 0}


class SdfEntry(NamedTuple):
    """A record of an SDF file: its title line, and where its bytes begin and end."""

    title: str
    start: int
    end: int


def sdf_entries(path: Path) -> list[SdfEntry]:
    """Find the records of an SDF file; only their places are kept.

    Raises:
        InputError: The file cannot be read, or its last record is not closed by `$$$$`.
    """
    entries: list[SdfEntry] = []
    try:
        with path.open("rb") as file:
            start, title = 0, None
            for line in iter(file.readline, b""):
                if title is None:
                    title = line.decode("utf-8", "replace").strip()
                elif line.startswith(b"$$$$"):
                    entries.append(SdfEntry(title, start, file.tell()))
                    start, title = file.tell(), None
    except OSError as error:
        raise InputError(f"{path}: not a readable SDF file ({error})") from error
    if title:
        raise InputError(f"{path}, record {title}: cut short, no '$$$$' after it; get it again")
    return entries


def read_entry(path: Path, entry: SdfEntry) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers (n,) and positions (n, 3) in Å of one record of an SDF file."""
    with path.open("rb") as file:
        file.seek(entry.start)
        text = file.read(entry.end - entry.start).decode("utf-8", "replace")
    return parse_molblock(text.splitlines(), f"{path}, record {entry.title}")


def parse_molblock(lines: Sequence[str], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers (n,) and positions (n, 3) in Å of a molfile.

    Args:
        lines: The molfile: three lines of header, the counts, then one line per atom with
            coordinates in columns 1-30 and the element in 32-34 (CTfile formats, V2000).
        where: File and record, for messages.

    Raises:
        InputError: It is not V2000, cut short, or an atom is no element.
    """
    if len(lines) < 4 or "V3000" in lines[3]:
        raise InputError(f"{where}: not a V2000 molfile; convert it, e.g. with Open Babel")
    try:
        n = int(lines[3][:3])
    except ValueError:
        raise InputError(f"{where}: {lines[3]!r} is not the counts of a V2000 molfile") from None
    atoms = lines[4 : 4 + n]
    symbols = ["H" if (s := line[31:34].strip()) in ("D", "T") else s for line in atoms]
    numbers, positions = read_atoms(atoms, symbols, (0, 10, 20), 10, where, "V2000")
    if len(atoms) < n:
        raise InputError(f"{where}: cut short, {len(atoms)} of {n} atoms")
    return numbers, positions


def read_atoms(
    lines: Sequence[str],
    symbols: Sequence[str],
    columns: Sequence[int],
    width: int,
    where: str,
    form: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers (n,) and positions (n, 3) in Å from lines of fixed columns.

    Args:
        lines: A line per atom.
        symbols: Its element.
        columns: Where its coordinates begin.
        width: How wide each is.
        where: File and record, for messages.
        form: The format, likewise.

    Raises:
        InputError: No element, or no coordinates.
    """
    numbers, positions = [], []
    for line, symbol in zip(lines, symbols, strict=True):
        try:
            positions.append([float(line[start : start + width]) for start in columns])
            numbers.append(_NUMBERS[symbol])
        except (KeyError, ValueError):
            raise InputError(f"{where}: {line!r} is not an atom in {form} format") from None
    return np.array(numbers, dtype=np.int64), np.array(positions, dtype=np.float64).reshape(-1, 3)
