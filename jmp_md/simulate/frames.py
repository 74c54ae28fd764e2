"""Files that grow frame by frame and can be cut back to where a saved state left them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from jmp_md.errors import InputError
from jmp_md.structure_files import read_structures

if TYPE_CHECKING:
    from ase import Atoms

FORMATS = ("extxyz", "traj", "h5")

# An ASE .traj file starts with a tag, then version, number of frames and where the table of frames
# is; all else is appended. Bytes 24 to 48 and the length of the file thus say where it was.
_ULM_HEADER = slice(24, 48)


class FrameWriter(Protocol):
    """A trajectory that only grows."""

    path: Path

    def write(self, atoms: Atoms) -> None:
        """Append a frame: a structure that does not change any more."""

    def write_end(self, atoms: Atoms) -> dict[str, Any]:
        """Append a frame that the mark returned, which the caller saves, takes back."""

    def mark(self) -> dict[str, Any]:
        """Where the file is now, to be saved; what it holds is then safe on the disk."""

    def commit(self) -> None:
        """The last mark has been saved."""

    def close(self) -> None:
        """Close the file."""


def open_frames(path: Path, mark: dict[str, Any] | None = None) -> FrameWriter:
    """A trajectory: text, ASE's or HDF5.

    Args:
        path: File; its ending, one of :data:`FORMATS`, gives the format. Created, or taken back
            to ``mark``.
        mark: Where to continue; None starts the file anew.

    Raises:
        InputError: The file holds less than when the mark was made.
    """
    if path.suffix == ".h5":
        from jmp_md.simulate.h5md import H5Frames

        return H5Frames(path, mark)
    return Frames(path, mark)


def read_frames(path: Path) -> list[Atoms]:
    """All frames of a trajectory that :func:`open_frames` wrote, also of one being written."""
    if path.suffix == ".h5":
        from jmp_md.simulate.h5md import read_h5md

        return read_h5md(path)
    return read_structures(path)


class TextFile:
    """A text file that only grows.

    Args:
        path: File; created, or cut back to ``mark``.
        mark: Where to continue, from :meth:`mark`; None starts the file anew.

    Raises:
        InputError: The file holds less than when the mark was made.
    """

    def __init__(self, path: Path, mark: dict[str, Any] | None = None) -> None:
        self.path = path
        if mark is not None:
            cut_back(path, mark)
        self.file: TextIO = path.open("w" if mark is None else "a", encoding="utf-8")

    def write(self, text: str) -> None:
        """Append text and hand it to the operating system."""
        self.file.write(text)
        self.file.flush()

    def mark(self) -> dict[str, Any]:
        """Where the file is now; what it holds is then safe on the disk."""
        return _mark(self.path)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Frames:
    """A trajectory, ``.extxyz`` or ASE's ``.traj``, that only grows.

    Args:
        path: File; its ending gives the format. Created, or cut back to ``mark``.
        mark: Where to continue, from :meth:`mark`; None starts the file anew.

    Raises:
        InputError: The file holds less than when the mark was made.
    """

    def __init__(self, path: Path, mark: dict[str, Any] | None = None) -> None:
        from ase.io.trajectory import TrajectoryWriter

        self.path = path
        self._text: TextFile | None = None
        if path.suffix == ".traj":
            if mark is not None:
                cut_back(path, mark)
            self._writer = TrajectoryWriter(path, "w" if mark is None else "a")
        else:
            self._text = TextFile(path, mark)

    def write(self, atoms: Atoms) -> None:
        """Append a frame."""
        from ase.io.extxyz import write_extxyz

        if self._text is None:
            self._writer.write(atoms)
        else:
            write_extxyz(self._text.file, [atoms])
            self._text.file.flush()

    def write_end(self, atoms: Atoms) -> dict[str, Any]:
        """Append a frame that the mark returned takes back."""
        mark = self.mark()
        self.write(atoms)
        return mark

    def mark(self) -> dict[str, Any]:
        """Where the file is now; what it holds is then safe on the disk."""
        return _mark(self.path)

    def commit(self) -> None:
        """Nothing to do: all that was written is in the file."""

    def close(self) -> None:
        """Close the file."""
        (self._writer if self._text is None else self._text).close()


def cut_back(path: Path, mark: dict[str, Any]) -> None:
    """Make a file what it was when ``mark`` was made.

    Raises:
        InputError: The file holds less than it did then.
    """
    require_size(path, mark["size"])
    with path.open("r+b") as file:
        file.truncate(mark["size"])
        if "header" in mark:
            file.seek(_ULM_HEADER.start)
            file.write(bytes.fromhex(mark["header"]))


def require_size(path: Path, size: int) -> None:
    """Refuse a file that has lost something.

    Raises:
        InputError: It is smaller than ``size`` bytes.
    """
    present = path.stat().st_size if path.exists() else -1
    if present < size:
        found = "is missing" if present < 0 else f"has {present} bytes"
        raise InputError(
            f"{path} {found}, but had {size} when the state was saved: put it back, or start "
            "again in another folder"
        )


def _mark(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        mark: dict[str, Any] = {"size": os.fstat(file.fileno()).st_size}
        if path.suffix == ".traj":
            mark["header"] = file.read(_ULM_HEADER.stop)[_ULM_HEADER].hex()
    return mark
