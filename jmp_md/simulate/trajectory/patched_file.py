"""A file that changes in place, yet can be taken back to where a saved state left it."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jmp_md.simulate.trajectory.append_only import require_size


class PatchedFile:
    """File object for HDF5 whose file on the disk is always that of the last commit.

    What is written beyond the end of that goes to the disk at once and does no harm there. What
    would change earlier bytes (HDF5's tables) is kept in memory and becomes part of the next
    mark; the caller saves the mark, then commits. A kill between the two leaves a mark from which
    the file is made whole again. HDF5 does not survive errors of its file: those of a full disk are
    raised by the next mark.

    Args:
        path: File; created, or taken back to ``mark``.
        mark: From :meth:`mark`; None starts the file anew.

    Raises:
        InputError: The file holds less than when the mark was made.
    """

    def __init__(self, path: Path, mark: Mapping[str, Any] | None = None) -> None:
        if mark is not None:
            require_size(path, mark["size"])
        self._file = path.open("w+b" if mark is None else "r+b", buffering=0)
        self._committed = 0  # bytes of the disk's file that a kill must find unchanged
        self._patches: list[tuple[int, bytes]] = []
        self._marked: tuple[int, int] | None = None  # size, number of patches
        self._at = self._size = 0
        self._failure: OSError | None = None
        if mark is not None:
            self._file.truncate(mark["size"])
            self._patches = [(at, base64.b64decode(text)) for at, text in mark["patches"]]
            self._marked = mark["size"], len(self._patches)
            self._size = mark["size"]
            self.commit()

    def mark(self) -> dict[str, Any]:
        """What the file is now, as JSON can hold it; what it refers to is safe on the disk."""
        if self._failure is not None:
            raise self._failure
        os.fsync(self._file.fileno())
        self._marked = self._size, len(self._patches)
        patches = [(at, base64.b64encode(data).decode()) for at, data in self._patches]
        return {"size": self._size, "patches": patches}

    def mark_end(self) -> dict[str, Any]:
        """Mark what the file is now, and return a mark that takes it back to the last commit.

        Once that mark is saved, :meth:`commit` brings the file to what it is now.
        """
        original = []
        for at, data in self._patches:
            self._file.seek(at)
            original.append((at, base64.b64encode(self._file.read(len(data)) or b"").decode()))
        self.mark()
        return {"size": self._committed, "patches": original}

    def commit(self) -> None:
        """Bring the disk's file to the last mark, which has been saved."""
        assert self._marked is not None
        self._committed, count = self._marked
        self._file.truncate(max(self._size, self._committed))
        for at, data in self._patches[:count]:
            self._put(at, data)
        if self._failure is not None:
            raise self._failure
        del self._patches[:count]

    def close(self) -> None:
        """Leave the file as of the last commit, without what came later."""
        self._file.truncate(self._committed)
        self._file.close()

    def write(self, data: Any) -> int:
        """Write at the present place."""
        view = memoryview(data).cast("B")
        start, end = self._at, self._at + len(view)
        inside = min(max(self._committed - start, 0), len(view))
        if inside:
            self._patches.append((start, bytes(view[:inside])))
        if inside < len(view):
            self._put(start + inside, view[inside:])
        self._at = end
        self._size = max(self._size, end)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        """Read at the present place, with what is not on the disk yet."""
        view = memoryview(buffer).cast("B")
        start = self._at
        end = max(min(start + len(view), self._size), start)
        self._file.seek(start)
        found = self._file.read(end - start) or b""
        view[: len(found)] = found
        view[len(found) : end - start] = bytes(end - start - len(found))
        for at, data in self._patches:
            low, high = max(at, start), min(at + len(data), end)
            if low < high:
                view[low - start : high - start] = data[low - at : high - at]
        self._at = end
        return end - start

    def read(self, size: int = -1) -> bytes:
        """Read at the present place."""
        buffer = bytearray(max(self._size - self._at, 0) if size < 0 else size)
        return bytes(buffer[: self.readinto(buffer)])

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go somewhere."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Where reading and writing goes on."""
        return self._at

    def truncate(self, size: int | None = None) -> int:
        """Set the size; the disk's file keeps what was committed."""
        self._size = self._at if size is None else size
        try:
            self._file.truncate(max(self._size, self._committed))
        except OSError as error:
            self._failure = error
        return self._size

    def flush(self) -> None:
        """Nothing to do: there is no buffer."""

    def _put(self, at: int, data: Any) -> None:
        rest = memoryview(data)
        try:
            self._file.seek(at)
            while len(rest):
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._failure = error
