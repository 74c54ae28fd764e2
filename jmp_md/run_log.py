"""What a command says, kept in the folder of its run as ``jmp-md.log``.

A command listens to its own streams (:meth:`RunLog.listening`); whoever opens the folder of a run
says so with :func:`recorded`. Without a command, as from Python, nothing is kept.
"""

from __future__ import annotations

import math
import platform
import shlex
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from jmp_md.files import LOCK

NAME = "jmp-md.log"
_SPARSE = 60.0  # s between states of a line that moves on a terminal
_CLEAR = "\033[K"


class RunLog:
    """The lines of a command, each with its time.

    The file begins with the first line after the folder is opened, or when that is closed without
    an error, so that a run that is refused leaves no trace. Lines are appended whole, one at a
    time: a process that is killed leaves whole lines.

    Args:
        command: The command line.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._began = _now()
        self._waiting = [f"{self._began} $ {shlex.join(command)}"]
        self._folder: Path | None = None
        self._open = False  # whether lines of the run may be written
        self._begun = False
        self._lost = False  # once it could not be written

    @contextmanager
    def listening(self, stdout: TextIO | None) -> Iterator[None]:
        """Hear what is said on both streams while the block lasts.

        Args:
            stdout: Where words for standard output go besides; None for nowhere.
        """
        out, err = _Ear(self, stdout), _Ear(self, sys.stderr)
        token = _heard.set(self)
        try:
            with redirect_stdout(out), redirect_stderr(err):
                yield
        except Exception:
            self.add(traceback.format_exc())
            raise
        finally:
            _heard.reset(token)
            out.end()
            err.end()

    def add(self, line: str) -> None:
        """Keep a line."""
        if self._lost or not line.strip():
            return
        self._waiting.append(f"{_now()} {line}")
        if self._open or self._begun:
            self._write()

    @contextmanager
    def in_folder(self, folder: Path) -> Iterator[None]:
        """Write to a folder from now on; the first one of a command is that of its run."""
        if self._folder is not None:
            yield
            return
        self._folder, self._open = folder, True
        try:
            yield
            self._write()
        except BaseException:
            if self._begun and {path.name for path in folder.iterdir()} <= {LOCK, NAME}:
                (folder / NAME).unlink()  # what left nothing else
                self._begun = False
            raise
        finally:
            self._open = False

    def _write(self) -> None:
        assert self._folder is not None
        if self._lost:
            return
        path = self._folder / NAME
        try:
            if not self._begun:
                self._begun = True
                self._waiting.insert(1, f"{self._began} {_about()}")
                if path.exists():  # a run that goes on; a full disk may have cut its last line
                    self._waiting.insert(0, "" if path.read_bytes().endswith(b"\n") else "\n")
            lines, self._waiting = self._waiting, []
            with path.open("ab", buffering=0) as file:
                for line in lines:
                    file.write(f"{line}\n".encode())
        except OSError:  # a full disk, say, which the files of the run will meet, too
            self._lost = True


class _Ear:
    """A stream that passes on what it is given, and keeps the lines of it.

    Of a line that moves, as progress does on a terminal, its last state is kept, and some on the
    way.

    Args:
        log: That keeps them.
        shown: Where all goes besides; None for nowhere.
    """

    def __init__(self, log: RunLog, shown: TextIO | None) -> None:
        self._log, self._shown = log, shown
        self._rest, self._last = "", -math.inf

    def write(self, text: str) -> int:
        """Keep and pass on."""
        *lines, rest = (self._rest + text).split("\n")
        for line in lines:
            self._log.add(_last_state(line))
        self._rest = _last_state(rest)
        if "\r" in rest and time.monotonic() - self._last > _SPARSE:
            self._last = time.monotonic()
            self._log.add(self._rest)
        if self._shown is not None:
            self._shown.write(text)
        return len(text)

    def flush(self) -> None:
        """Pass on what is kept back."""
        if self._shown is not None:
            self._shown.flush()

    def isatty(self) -> bool:
        """Whether it ends on a terminal."""
        return self._shown is not None and self._shown.isatty()

    def end(self) -> None:
        """Keep a line that was not ended."""
        self._log.add(self._rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.__stdout__ if self._shown is None else self._shown, name)


_heard: ContextVar[RunLog | None] = ContextVar("log of the command", default=None)


@contextmanager
def recorded(folder: Path) -> Iterator[None]:
    """Keep what a command says in the folder of its run, from where the block begins.

    Args:
        folder: That exists.
    """
    log = _heard.get()
    if log is None:
        yield
    else:
        with log.in_folder(folder):
            yield


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _about() -> str:
    """Versions, machine and folder."""
    from jmp_md.simulate.summary import versions

    known = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"{known}; {platform.system()} {platform.machine()}, in {Path.cwd()}"


def _last_state(text: str) -> str:
    return text[text.rfind("\r") + 1 :].removesuffix(_CLEAR)
