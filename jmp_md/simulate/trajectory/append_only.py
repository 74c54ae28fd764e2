"""Files that only grow and can be cut back to where a saved state left them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TextIO

from jmp_md.errors import InputError

# An ASE .traj file starts with a tag, then version, number of frames and where the table of frames
# is; all else is appended. Bytes 24 to 48 and the length of the file thus say where it was.
_ULM_HEADER = slice(24, 48)


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
        return mark_of(self.path)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


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


def mark_of(path: Path) -> dict[str, Any]:
    """Where a file is now; what it holds is then safe on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        found: dict[str, Any] = {"size": os.fstat(file.fileno()).st_size}
        if path.suffix == ".traj":
            found["header"] = file.read(_ULM_HEADER.stop)[_ULM_HEADER].hex()
    return found
