"""Open files that survive pickling and forks: each process opens its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """A file opened at first use in each process, so that data sets can go to worker processes.

    HDF5 and LMDB handles inherited by a fork share state with the parent and must not be used.

    Args:
        opener: Opens the file; a module-level function, so that it can be pickled.
        path: What to open.
    """

    def __init__(self, opener: Callable[[Path], T], path: Path) -> None:
        self._opener = opener
        self._path = path
        self._open: tuple[int, T] | None = None

    def get(self) -> T:
        """The handle of this process."""
        if self._open is None or self._open[0] != os.getpid():
            self._open = None  # releases what a fork left behind before the file is opened again
            self._open = (os.getpid(), self._opener(self._path))
        return self._open[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}
