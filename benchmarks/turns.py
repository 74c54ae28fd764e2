"""Processes that take turns, so that other work on the machine slows all of them alike.

A worker prepares a call, which may take long, and answers turns; the parent lets several workers
call in rounds and collects times and peak memory. Standard library only: a worker may run in
another environment.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_QUICK, _WARM_UP = 10.0, 4  # seconds, calls
_MARK = "@turn "  # libraries may print, too
MIB = 2**20


def serve(call: Callable[[], object], memory: float | None = None) -> None:
    """Answer the turns of a parent until it hangs up.

    Args:
        call: What is measured.
        memory: GiB that calls may take; more raises an out-of-memory error in the caller.
    """
    if memory is not None:
        most = round(memory * 1024 * MIB) + _status("VmData")
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    before = _reset_peak()
    _say({})
    for line in sys.stdin:
        wall: list[float] = []
        cpu: list[float] = []
        seconds, least = json.loads(line)
        while len(wall) < least or sum(wall) < seconds:
            wall_began, cpu_began = time.perf_counter(), time.process_time()
            call()
            wall.append(time.perf_counter() - wall_began)
            cpu.append(time.process_time() - cpu_began)
        _say({"wall": wall, "cpu": cpu, "peak_MiB": (_status("VmHWM") - before) / MIB})


@dataclass
class Measurement:
    """What a worker's turns gave.

    Attributes:
        wall: Seconds of each call, warm-up left out.
        cpu: The same in time of the process, all threads together.
        first: Seconds of the first call, by both clocks.
        peak: MiB by which the resident set grew during calls.
        error: Why there are no times, or no more.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    first: tuple[float, float] | None = None
    peak: float = 0.0
    error: str = ""

    def summary(self) -> dict[str, Any]:
        """Medians, of the first call where there is no other; only the error where there is one."""
        if self.error:
            return {"error": self.error}
        assert self.first is not None
        return {
            "ms": 1e3 * statistics.median(self.wall or self.first[:1]),
            "cpu_ms": 1e3 * statistics.median(self.cpu or self.first[1:]),
            "first_ms": 1e3 * self.first[0],
            "peak_MiB": self.peak,
            "calls": len(self.wall),
        }


def take_turns(
    commands: Mapping[str, Sequence[str]],
    *,
    rounds: int = 5,
    seconds: float = 0.3,
    budget: float = 120.0,
    timeout: float = 300.0,
) -> dict[str, Measurement]:
    """Measure workers side by side; one that fails leaves the others running.

    Args:
        commands: Command line of each worker, by name.
        rounds: Turns of each after its first call; 0 for steps that take minutes.
        seconds: Least length of a turn; it holds one call at least.
        budget: Seconds after which no round begins.
        timeout: Seconds for one turn.
    """
    results = {name: Measurement() for name in commands}
    workers: dict[str, Worker] = {}
    try:
        for name, command in commands.items():  # one after the other: starting is work, too
            workers[name] = Worker(command, timeout)
            _warm_up(workers, name, results[name])
        began = time.perf_counter()
        for _ in range(rounds):
            for name in list(workers):
                if time.perf_counter() - began < budget or not results[name].wall:
                    answer = _turn(workers, name, results[name], seconds)
                    results[name].wall += answer["wall"]
                    results[name].cpu += answer["cpu"]
    finally:
        for worker in workers.values():
            worker.close()
    return results


def _warm_up(workers: dict[str, Worker], name: str, result: Measurement) -> None:
    """The first call, and where it was quick some more: compilers of others watch a few calls."""
    answer = _turn(workers, name, result, 0.0)
    if answer["wall"]:
        result.first = answer["wall"][0], answer["cpu"][0]
        if result.first[0] < _QUICK:
            _turn(workers, name, result, 0.5, least=_WARM_UP)


def _turn(
    workers: dict[str, Worker], name: str, result: Measurement, seconds: float, least: int = 1
) -> dict[str, list[float]]:
    """Times of one turn of one worker; none where it fails, and it is closed."""
    if name in workers:
        try:
            answer = workers[name].turn(seconds, least)
            result.peak = max(result.peak, answer["peak_MiB"])
            return answer
        except WorkerError as error:
            result.error = str(error)
            workers.pop(name).close()
    return {"wall": [], "cpu": []}


class WorkerError(RuntimeError):
    """A worker ended or took too long."""


class Worker:
    """A process that runs :func:`serve`.

    Raises:
        WorkerError: It does not come to be ready.
    """

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        self._timeout = timeout
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - until close()
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._ready = False

    def turn(self, seconds: float, least: int) -> dict[str, Any]:
        """Let it call for so long, and so often at least."""
        late = threading.Event()
        timer = threading.Timer(self._timeout, lambda: (late.set(), self._process.kill()))
        timer.start()
        try:
            if not self._ready:
                self._answer()
                self._ready = True
            assert self._process.stdin is not None
            self._process.stdin.write(f"{json.dumps([seconds, least])}\n")
            self._process.stdin.flush()
            return self._answer()
        except (WorkerError, BrokenPipeError) as error:
            if late.is_set():
                raise WorkerError(f"over {self._timeout:.0f} s") from error
            raise WorkerError(self._reason()) from error
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(_MARK):
                answer: dict[str, Any] = json.loads(line.removeprefix(_MARK))
                return answer
        raise WorkerError

    def _reason(self) -> str:
        """Why the process ended, from the last line of its error output."""
        self._process.wait()
        self._errors.seek(0)
        lines = [line for line in self._errors.read().splitlines() if line.strip()]
        last = lines[-1].strip() if lines else ""
        if any(words in last for words in ("t allocate memory", "MemoryError", "out of memory")):
            return "does not fit in memory"
        return last or f"ended with {self._process.returncode}, perhaps for memory"


def _say(answer: Mapping[str, Any]) -> None:
    print(_MARK + json.dumps(answer), flush=True)


def _reset_peak() -> int:
    """Bytes resident now, from where the peak is counted."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmHWM")


def _status(name: str) -> int:
    """Bytes, by a name of Linux's /proc; elsewhere the largest resident set so far."""
    path = Path(f"/proc/{os.getpid()}/status")
    if not path.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for line in path.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{path} has no {name}")
