"""What no input may do: take long, take much memory, start or overwrite anything."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

SECONDS = 5  # of processor time
WAITING = 60  # s, for what sleeps
MEMORY = 1 << 31  # bytes beyond what there is before

_STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn", "subprocess.Popen")
_REACHES = ("pickle.find_class", "socket.connect")
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "shutil.rmtree", "os.chmod")


class Hang(BaseException):
    """An input takes too long; no ``except Exception`` may hide it."""


class Guard:
    """Watches what the interpreter does for an input, by its audit events.

    Args:
        folder: Where files may be written.

    Attributes:
        violations: What happened that must not, since the last input began.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder.resolve())
        self.violations: list[str] = []
        self._active = False
        sys.addaudithook(self._watch)
        signal.signal(signal.SIGPROF, self._hang)
        signal.signal(signal.SIGALRM, self._hang)

    @contextmanager
    def watching(self, *, starts: bool = False, seconds: float = SECONDS) -> Iterator[None]:
        """Watch a block; ``starts`` lets it start processes, as command lines may."""
        self.violations, self._starts = [], starts
        before, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (_data_size() + MEMORY, hard))
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, WAITING)
        self._active = True
        try:
            yield
        finally:
            self._active = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            resource.setrlimit(resource.RLIMIT_DATA, (before, hard))

    def _hang(self, number: int, frame: FrameType | None) -> None:
        if self._active:
            raise Hang(signal.Signals(number).name)

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active:
            return
        if event in _REACHES or (event in _STARTS and not self._starts):
            self.violations.append(f"{event} {arguments!r:.200}")
        elif event == "open":
            path, _mode, flags = arguments
            written = flags and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if written and isinstance(path, str | bytes) and not self._inside(path):
                self.violations.append(f"open {path!r:.200} for writing")
        elif event in _CHANGES and not all(
            self._inside(path) or (event == "os.mkdir" and os.path.isdir(path))
            for path in arguments
            if isinstance(path, str | bytes)
        ):
            self.violations.append(f"{event} {arguments!r:.200}")

    def _inside(self, path: str | bytes) -> bool:
        place = os.path.realpath(os.fsdecode(path))
        return place.startswith((self.folder, "/dev/", "/proc/"))


def _data_size() -> int:
    """Bytes of private memory that can be written to."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0
