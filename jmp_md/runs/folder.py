"""Folders of runs: one process at a time, and nothing overwritten without a word."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jmp_md.errors import InputError
from jmp_md.files import LOCK, locked, remove_if_empty
from jmp_md.run_log import NAME as LOG
from jmp_md.run_log import recorded


@contextmanager
def opened(
    folder: Path, files: Sequence[str], *, restart: bool = False, overwrite: bool = False
) -> Iterator[None]:
    """Keep other processes out of the folder of a run while the block lasts.

    What a command says is kept there, too, see :mod:`jmp_md.run_log`.

    Args:
        folder: Created if need be.
        files: Names, or patterns of names, of the files that a run of this kind writes there.
        restart: Whether the run there goes on.
        overwrite: Remove those files, with a warning; all others stay.

    Raises:
        InputError: Another process writes there, or both are asked for.
    """
    if restart and overwrite:
        raise InputError("restart goes on with a run, and overwrite removes it: choose one")
    there = folder.exists()
    with locked(folder):
        try:
            with recorded(folder):
                if overwrite:
                    _clear(folder, (*files, LOG))
                yield
        finally:
            if not there and [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()  # what was refused leaves nothing
                remove_if_empty(folder)


def _clear(folder: Path, files: Sequence[str]) -> None:
    """Remove what a run has written, and say so."""
    old = [path for pattern in files for path in folder.glob(pattern) if path.is_file()]
    for path in old:
        path.unlink()
        if path.parent != folder:
            remove_if_empty(path.parent)
    if old:  # which the log of the new run keeps
        warnings.warn(f"overwriting the run in {folder}: {len(old)} files", stacklevel=5)
