"""Folders of runs: one process at a time, and nothing overwritten without a word."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError
from jmp_md.files import LOCK, atomic_write, exists, locked, remove_if_empty
from jmp_md.run_log import NAME as LOG
from jmp_md.run_log import recorded
from jmp_md.runs.options import FolderOptions, RestartOptions
from jmp_md.simulate.identity import require_same
from jmp_md.simulate.summary import NAME as SUMMARY

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

IDENTITY = "run.json"
_PROGRESS = ("queue.json", "benchmark.json")  # of runs that keep no state


@contextmanager
def opened(
    folder: Path, files: Sequence[str], around: FolderOptions | None = None
) -> Iterator[None]:
    """Keep other processes out of the folder of a run while the block lasts.

    What a command says is kept there, too, see :mod:`jmp_md.run_log`.

    Args:
        folder: Created if need be.
        files: Names, or patterns of names, of the files that a run of this kind writes there.
        around: Whether the run there goes on, where its kind can, or those files are removed, with
            a warning; None for neither. All others stay.

    Raises:
        InputError: Another process writes there, or as of :func:`refuse_used`.
    """
    around = around or FolderOptions()
    there = folder.exists()
    with locked(folder):
        refuse_used(folder, files, around)
        try:
            with recorded(folder):
                if around.overwrite:
                    _clear(folder, (*files, LOG))
                yield
        finally:
            if not there and [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()  # what was refused leaves nothing
                remove_if_empty(folder)


def refuse_used(folder: Path, files: Sequence[str], around: FolderOptions) -> None:
    """Refuse a folder with files that a run would write, where none goes on or is removed.

    :func:`opened` does; commands ask before they load a model, too.

    Args:
        folder: That of the run, which may not exist yet.
        files: See :func:`opened`; besides them every run has a summary.
        around: See there.

    Raises:
        InputError: There are such files, or one that would be removed is read by the run.
    """
    restart = around.restart if isinstance(around, RestartOptions) else None
    if around.overwrite:
        _refuse_inputs(folder, files, around.inputs)
    if around.overwrite or not exists(folder):
        return
    there = [path.relative_to(folder) for path in _written(folder, (SUMMARY, *files))]
    if restart and any(map(_tells_of_a_run, there)):
        return
    # Who it is, and logs that grow, are all that a run leaves which fails at once.
    used = [path for path in there if path.name != IDENTITY and path.suffix != ".log"]
    if used and restart:
        raise InputError(
            f"{folder} holds no run that could go on, but {used[0]}, which a run would write: "
            "choose another output"
        )
    if used:
        goes_on = "" if restart is None else "continue it with restart (--restart), "
        raise InputError(
            f"{folder} holds a run: {goes_on}remove it with overwrite (--overwrite), or choose "
            f"another output; there is {used[0]}"
        )


def _refuse_inputs(folder: Path, files: Sequence[str], inputs: Sequence[Path]) -> None:
    """Keep what a run reads from what it removes."""
    read = {path.resolve() for path in inputs}
    for path in _written(folder, (SUMMARY, *files)):
        if path.resolve() in read:
            raise InputError(
                f"{path} is read, and overwrite (--overwrite) would remove it: move it, or choose "
                "another output"
            )


def _tells_of_a_run(path: Path) -> bool:
    """Whether a file in the folder says what a run is, or how far."""
    return path.name in (IDENTITY, SUMMARY, *_PROGRESS) or "state" in str(path)


def _written(folder: Path, files: Sequence[str]) -> list[Path]:
    """The files of a run that are there."""
    return [
        path
        for pattern in files
        for path in folder.glob(pattern)
        if path.is_file() and (not pattern.endswith(".*") or path.suffix[1:] in _endings())
    ]


def _clear(folder: Path, files: Sequence[str]) -> None:
    """Remove what a run has written, and say so."""
    old = _written(folder, files)
    for path in old:
        path.unlink()
        if path.parent != folder:
            remove_if_empty(path.parent)
    if old:  # which the log of the new run keeps
        warnings.warn(f"overwriting the run in {folder}: {len(old)} files", stacklevel=5)


def _endings() -> set[str]:
    """What files of results and trajectories may end in."""
    from ase.io.formats import ioformats

    return {*ioformats, "h5", "csv"}


def identify(folder: Path, own: Mapping[str, Any], others: Sequence[str], restart: bool) -> None:
    """Write what the run of a folder is, which begins; refuse to go on with another one.

    Args:
        folder: That is open.
        own: What the run is.
        others: Files that a run of an older version has left where it does not say what it is.
        restart: Whether a run that is there goes on.

    Raises:
        InputError: The folder holds another run.
    """
    path = folder / IDENTITY
    if restart and path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(
                f"{path} is damaged ({error}): start again with overwrite (--overwrite)"
            ) from error
        require_same(before if isinstance(before, dict) else {}, own, folder)
        return
    if restart and any((folder / name).exists() for name in others):
        raise InputError(
            f"{folder} holds a run of another kind or of an older jmp-md: start again with "
            "overwrite (--overwrite), or choose another output"
        )
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(own, indent=1), encoding="utf-8")


def by_name(models: Sequence[tuple[str, Calculator]]) -> dict[str, Calculator]:
    """The calculators by their names.

    Raises:
        InputError: One name stands for two of them.
    """
    found: dict[str, Calculator] = {}
    for name, calculator in models:
        if found.setdefault(name, calculator) is not calculator:
            raise InputError(f"two calculators have the name {name!r}: give them different ones")
    return found
