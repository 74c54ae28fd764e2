"""Files that are written as a whole, and folders that one process at a time writes to."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jmp_md.errors import InputError

LOCK = ".lock"


def user_path(text: str | Path) -> Path:
    """The path that a user means, with ``~`` in its place.

    Raises:
        InputError: No file can have that name.
    """
    path = Path(text)
    if "\0" in str(path):
        raise InputError(f"{str(path)!r} cannot be a path: it holds a NUL character")
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise InputError(f"{path} is in the home folder of nobody: check the path") from error


def is_file(path: Path) -> bool:
    """Whether there is a file, also for paths that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # e.g. a name that is too long
        return False


def exists(path: Path) -> bool:
    """Whether there is a file or folder, also for paths that nothing can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that replaces it once the block succeeds.

    Whoever reads ``path`` meanwhile sees the old file or the new one, never a part of it. When
    the block raises, the temporary file is removed and ``path`` is left as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def require_own(path: Path) -> None:
    """Refuse code that anybody but this user could have written.

    Raises:
        PermissionError: The file or folder is somebody else's, or others may write to it or put
            something in its place.
    """
    if not hasattr(os, "getuid"):  # Windows: the user's own cache folder is all there is
        return
    about, above = path.stat(), path.parent.stat()
    if about.st_uid != os.getuid():
        raise PermissionError(f"{path}, which holds code, belongs to somebody else: remove it")
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(
            f"others may write to {path}, which holds code: remove it, or run 'chmod go-w {path}' "
            "if nobody has"
        )
    if above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX:
        raise PermissionError(
            f"anybody may replace {path}, which holds code: run 'chmod o-w {path.parent}'"
        )


def require_writable(path: str | Path) -> None:
    """Refuse a file or folder that cannot be written, before anything is computed for it.

    Args:
        path: A file to be written or replaced, in a folder that exists, or a folder, which may
            still have to be created.

    Raises:
        InputError: The system does not let this process write there.
    """
    path = Path(path)
    if path.anchor and path == Path(path.anchor):
        raise InputError(f"{path} is the root of all folders: choose another output")
    if path.is_file():
        if not os.access(path, os.W_OK):
            raise InputError(f"{path} cannot be written: allow it, or choose another output")
        folder = path.parent
    else:
        folder = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, {path} cannot be in it: choose another output")
    trial = folder / f".{secrets.token_hex(4)}.tmp"
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be written to ({error.strerror}): allow it, or choose "
            "another output"
        ) from error


def remove_if_empty(folder: Path) -> None:
    """Remove a folder in which nothing is left."""
    with suppress(OSError):  # which it is where something is in it
        folder.rmdir()


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keep other processes from writing to the folder of a run while the block lasts.

    The folder is created if need be. The operating system lifts the lock of a process that is
    killed, so that its run can be continued at once.

    Raises:
        InputError: Another process holds the lock.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder / LOCK, folder):
        yield


@contextmanager
def locked_file(path: str | Path) -> Iterator[None]:
    """Keep other processes from writing to a file that grows while the block lasts.

    Raises:
        InputError: Another process holds the lock.
    """
    path = Path(path)
    with _held(path.with_name(f".{path.name}{LOCK}"), path):
        yield


@contextmanager
def _held(lock_file: Path, place: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout  # slow to import, and help needs no locks

    lock = FileLock(lock_file)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise InputError(
            f"another process is writing to {place}: wait for it, or choose another output"
        ) from error
    try:
        yield
    finally:
        lock.release()
