"""pymatgen's JSON, read without pymatgen: a stream of records, and `Structure` dicts."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ase.data import atomic_numbers

from jmp_md.errors import InputError

CHUNK = 2**20
_decoder = json.JSONDecoder()


def stream_object(path: Path, key: str) -> Iterator[tuple[str, Any]]:
    """Members of the object a JSON file holds, those of the array under `key` one by one.

    Yields:
        (name, value) for each member; for `key`, (key, element) for each element.

    Raises:
        InputError: The file cannot be read, is cut short or is not such an object.
    """
    with _open_json(path) as file:
        reader = _Reader(path, file)
        reader.take("{")
        while reader.peek() != "}":
            name = reader.value()
            reader.take(":")
            if name == key:
                yield from ((key, element) for element in reader.array())
            else:
                yield name, reader.value()
            if reader.peek() == ",":
                reader.take(",")


def stream_array(path: Path) -> Iterator[Any]:
    """Elements of the array a JSON file holds, one by one.

    Raises:
        InputError: The file cannot be read, is cut short or is not an array.
    """
    with _open_json(path) as file:
        yield from _Reader(path, file).array()


def parse_structure(structure: Any, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atomic numbers (n,), positions (n, 3) and cell (3, 3) in Å of a pymatgen `Structure` dict.

    Args:
        structure: `{"lattice": {"matrix": ...}, "sites": [{"species": [{"element": "Si",
            "occu": 1}], "abc": ...}, ...]}`.
        where: File and record, for messages.

    Raises:
        InputError: It has another form, or a site that is not fully occupied by one element.
    """
    try:
        cell = np.array(structure["lattice"]["matrix"], dtype=np.float64)
        numbers, fractional = [], []
        for site in structure["sites"]:
            (species,) = site["species"]
            symbol = species["element"]
            if species.get("occu", 1) != 1:
                raise ValueError(f"a site is only {species['occu']} {symbol}")
            numbers.append(atomic_numbers["H" if symbol in ("D", "T") else symbol])
            fractional.append(site["abc"])
        positions = np.array(fractional, dtype=np.float64) @ cell
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}, field structure: not an ordered crystal ({error!r})") from error
    return np.array(numbers, dtype=np.int64), positions, cell


class _Reader:
    """Walks through JSON text piece by piece."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path = path
        self._file = file
        self._text = ""
        self._at = 0

    def peek(self) -> str:
        """The next character that is not blank."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self._at += 1
            if not self._fill():
                raise InputError(f"{self.path}: cut short; get the file again")

    def take(self, expected: str) -> None:
        found = self.peek()
        if found != expected:
            raise InputError(f"{self.path}: {found!r} where the layout has {expected!r}")
        self._at += 1

    def value(self) -> Any:
        """The next value, however long."""
        self.peek()
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._fill():
                    raise InputError(f"{self.path}: broken or cut short ({error})") from error
                continue
            if end < len(self._text) or not self._fill():  # a number may go on
                self._at = end
                return value

    def array(self) -> Iterator[Any]:
        """The elements of the next value, an array."""
        self.take("[")
        while self.peek() != "]":
            yield self.value()
            if self.peek() == ",":
                self.take(",")
        self.take("]")

    def _fill(self) -> bool:
        try:
            more = self._file.read(CHUNK)
        except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            raise InputError(f"{self.path}: broken or cut short ({error})") from error
        self._text = self._text[self._at :] + more
        self._at = 0
        return bool(more)


def _open_json(path: Path) -> TextIO:
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rt", encoding="utf-8")
        return path.open(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
