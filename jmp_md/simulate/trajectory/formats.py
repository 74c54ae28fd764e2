"""Trajectories of every format, written frame by frame and read back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jmp_md.errors import InputError
from jmp_md.simulate.trajectory.append_only import TextFile, cut_back, mark_of
from jmp_md.structure_files import read_structures

if TYPE_CHECKING:
    from ase import Atoms

FORMATS = ("extxyz", "traj", "h5")
_PIECE = 500  # frames of HDF5 that are read together


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
        from jmp_md.simulate.trajectory.h5md import H5Frames

        return H5Frames(path, mark)
    return Frames(path, mark)


def read_frames(path: Path) -> list[Atoms]:
    """All frames of a trajectory that :func:`open_frames` wrote, also of one being written."""
    if path.suffix == ".h5":
        from jmp_md.simulate.trajectory.h5md import read_h5md

        return read_h5md(path)
    return read_structures(path)


def iterate_frames(path: Path) -> Iterator[Atoms]:
    """Frames of a trajectory of any format, one after another.

    Args:
        path: HDF5 of jmp-md, extended XYZ, ASE's ``.traj``, or what else ASE reads, which is read
            whole.

    Raises:
        InputError: It cannot be read, or holds no frames.
    """
    if not path.is_file():
        raise InputError(f"there is no trajectory {path}: check the path")
    if path.suffix == ".h5":
        from jmp_md.simulate.trajectory.h5md import read_h5md

        start = 0
        while frames := read_h5md(path, f"{start}:{start + _PIECE}"):
            yield from frames
            start += _PIECE
    elif path.suffix in (".extxyz", ".traj"):
        from ase.io import iread

        try:
            yield from iread(path, index=":")
        except Exception as error:  # every format of ASE has errors of its own
            raise InputError(f"cannot read frames of {path}: {error}") from error
    else:
        yield from read_structures(path)


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
        return mark_of(self.path)

    def commit(self) -> None:
        """Nothing to do: all that was written is in the file."""

    def close(self) -> None:
        """Close the file."""
        (self._writer if self._text is None else self._text).close()
