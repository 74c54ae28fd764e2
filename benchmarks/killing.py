"""Runs in processes of their own, killed at a chosen moment."""

from __future__ import annotations

import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

# Its server has imported what runs need but has computed nothing, so that children start in
# milliseconds without inheriting threads or locks, as those of a process that computes would.
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["jmp_md.calculators.ase", "jmp_md.systems", "jmp_md.simulate.relax.state"]
    + ["jmp_md.simulate.md.driver", "jmp_md.simulate.md.log", "ase.build", "ase.io"]
    + ["ase.calculators.emt", "ase.calculators.harmonic", "pytest"]
)


def killed(seconds: float, run: Callable[..., object], *arguments: Any) -> bool:
    """Call ``run`` in a new process and kill it ``seconds`` after the call.

    Args:
        seconds: Counted from the call on, not from the start of the process.
        run: A function of a module.
        arguments: Of the call; all of them can be pickled.

    Returns:
        Whether it was killed; False where it ended before.

    Raises:
        RuntimeError: It failed before it could be killed.
    """
    called, calls = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_call, args=(calls, run, arguments))
    process.start()
    calls.close()
    try:
        called.recv()
        process.join(seconds)
    except EOFError:  # it failed before the call
        process.join()
    process.kill()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{run.__name__} failed with exit code {process.exitcode}")
    return process.exitcode != 0


def _call(calls: Connection, run: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    calls.send(None)
    run(*arguments)
