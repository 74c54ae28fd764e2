"""The ``jmp-md`` command.

Every command is a module of this package with ``NAME``, ``HELP``, ``configure(parser)`` and
``run(args) -> int``. Its top level imports nothing heavy, so that ``jmp-md --help`` is fast.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from jmp_md._version import __version__
from jmp_md.cli.config import expand_config
from jmp_md.errors import DomainWarning, JMPError
from jmp_md.files import require_writable

_COMMANDS = (
    "models",
    "convert",
    "data",
    "train",
    "finetune",
    "evaluate",
    "check",
    "benchmark",
    "relax",
    "singlepoint",
    "screen",
    "md",
    "neb",
    "vibrations",
    "phonons",
    "eos",
    "elastic",
    "descriptors",
    "export",
    "doctor",
)


_TO_THE_TERMINAL = ("singlepoint", "evaluate")  # without --output


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        Exit status: 0 for success, 1 for an error that was reported, 130 when interrupted, 143
        when terminated.
    """
    try:
        argv = expand_config(sys.argv[1:] if argv is None else argv)
    except (JMPError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else an Å would end a run on a terminal in ASCII
            stream.reconfigure(errors="replace")
    args = _parser().parse_args(argv)
    try:
        _check_places(args)
        with _ended_by_sigterm(), _warnings_in_words():
            status: int = args.run(args)
        sys.stdout.flush()  # so that a closed pipe shows here
        return status
    except BrokenPipeError:
        # The reader has gone, as in `jmp-md models | head`: let the exit flush into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _Terminated:
        print("terminated", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (JMPError, OSError) as error:
        if args.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1


class _Terminated(KeyboardInterrupt):
    """SIGTERM, with which queues end a job: what an interrupt saves is saved."""


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Raise on the first SIGTERM; a second one ends the process at once, as without this."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(signum: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise _Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_places(args: argparse.Namespace) -> None:
    """Refuse places that cannot be written before a command computes anything for them."""
    for name in ("trajectory", "log"):
        place = getattr(args, name, None)
        if isinstance(place, Path):  # else it is a format
            require_writable(place)
    if getattr(args, "output", None):
        require_writable(args.output)
    if hasattr(args, "output") and args.output is None and args.command not in _TO_THE_TERMINAL:
        require_writable(Path.cwd())


@contextmanager
def _warnings_in_words() -> Iterator[None]:
    """Print our warnings as sentences, without lines of code, each of them once."""
    said: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", DomainWarning)
        others = warnings.showwarning

        def show(message: Any, category: type[Warning], *place: Any, **options: Any) -> None:
            if issubclass(category, DomainWarning) or category is UserWarning:
                if str(message) not in said:
                    print(f"warning: {message}", file=sys.stderr, flush=True)
                said.add(str(message))
            else:
                others(message, category, *place, **options)

        warnings.showwarning = show
        yield


class _Parser(argparse.ArgumentParser):
    """Exits with 1 for wrong options: 2 says that a calculation did not succeed.

    A flag can be taken back by ``--no-FLAG``, as ``flag: false`` in a file of options does.
    """

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        if options.get("action") == "store_true":
            dest = names[-1].removeprefix("--")
            hidden: dict[str, Any] = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
            super().add_argument(
                f"--no-{dest}", dest=dest.replace("-", "_"), action="store_false", **hidden
            )
        return super().add_argument(*names, **options)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jmp-md", description="JMP (GemNet-OC) potentials, from checkpoint to simulation."
    )
    parser.add_argument("--version", action="version", version=f"jmp-md {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error arose")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module_name in _COMMANDS:
        module = importlib.import_module(f"jmp_md.cli.{module_name}")
        command = commands.add_parser(module.NAME, help=module.HELP, description=module.HELP)
        # Also after the command; SUPPRESS keeps it from undoing the one before the command.
        command.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        module.configure(command)
        command.set_defaults(run=module.run, command=module.NAME)
    return parser


if __name__ == "__main__":
    sys.exit(main())
