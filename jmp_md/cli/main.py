"""The ``jmp-md`` command.

Every command is a module of this package with ``configure(parser)`` and ``run(args) -> int``; one
that makes its options from a class names it as ``OPTIONS``. A module is imported when its command
is asked for, and its top level imports nothing heavy, so that ``--help`` is fast.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn, TextIO

from jmp_md._version import __version__
from jmp_md.cli.colour import coloured
from jmp_md.cli.config import effective, expand_config
from jmp_md.errors import DomainWarning, InputError, JMPError
from jmp_md.files import require_writable
from jmp_md.run_log import RunLog
from jmp_md.signals import Terminated, sigterm_interrupts

COMMANDS = {
    "models": "list models; add or remove one, print card or path, record its training data",
    "convert": "turn an official checkpoint into a native model file",
    "data": "inspect data sets, prepare them for training, fit reference energies",
    "train": "train or pre-train a model by a recipe",
    "finetune": "fine-tune a model on your own data, in one command",
    "evaluate": "errors of a model on labelled data; predictions of property models",
    "check": "physics checks of a model on a structure; exit code 2 where one fails",
    "benchmark": "test a model on published geometries, energies, frequencies and crystals",
    "relax": "relax structures; exit code 2 where one did not converge, or became another molecule",
    "singlepoint": "energies and forces of structures; exit code 2 where one cannot be computed",
    "screen": "relax or compute many structures, in a queue that can be stopped and shared out",
    "md": "molecular dynamics that can be killed and continued; exit code 2 where a replica failed",
    "neb": "minimum energy path and barrier; exit code 2 where the barrier is in doubt",
    "vibrations": "vibrational frequencies and thermochemistry; exit code 2 where in doubt",
    "phonons": "phonons of a crystal with phonopy; exit code 2 where they are in doubt",
    "eos": "equilibrium volume and bulk modulus of a crystal; exit code 2 where they are in doubt",
    "elastic": "elastic constants and moduli of a crystal; exit code 2 where they are in doubt",
    "descriptors": "mean embeddings of structures (npz), and a map of them",
    "analyse": "what a trajectory says: distances, diffusion, spectrum; exit code 2 where in doubt",
    "export": "write a model as a TorchScript file or a compiled package",
    "doctor": "test torch, ASE, OpenMM and phonopy here, and say what to install",
    "completion": "have bash, zsh or tcsh complete commands, options and files",
}

_EXPONENT = re.compile(r"-(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", re.IGNORECASE)
_TO_THE_TERMINAL = ("singlepoint", "evaluate")  # without --output


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        Exit status: 0 for success, 1 for an error that was reported, 130 when interrupted, 143
        when terminated.
    """
    given = sys.argv[1:] if argv is None else argv
    try:
        argv = expand_config(given)
    except (JMPError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else an Å would end a run on a terminal in ASCII
            stream.reconfigure(errors="replace")
    argv = [_in_digits(word) for word in argv]
    parser = parser_for(argv)
    if not argv:
        parser.print_help()
        return 0
    try:
        _refuse_renamed(argv)
        args = parser.parse_args(argv)
    except JMPError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    standard, log = sys.stdout, RunLog(["jmp-md", *given])
    try:
        with redirect_stderr(coloured(sys.stderr)), log.listening(_words(args)):
            status = _execute(args, parser, standard)
        standard.flush()  # so that a closed pipe shows here
        return status
    except BrokenPipeError:
        # The reader has gone, as in `jmp-md models | head`: let the exit flush into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), standard.fileno())
        return 1


def _execute(args: argparse.Namespace, parser: CommandParser, standard: TextIO) -> int:
    """Do what a command line asks for; what it asks to be printed goes to ``standard``."""
    try:
        if getattr(args, "print_config", False) and args.command != "train":
            known = parser.asked.positional if parser.asked else ()
            print(effective(args, known), end="", file=standard)
            return 0
        if getattr(args, "print_schema", False):
            cls = importlib.import_module(f"jmp_md.cli.{args.command}").OPTIONS
            schema = json.dumps(cls.model_json_schema(), indent=2, ensure_ascii=False)
            print(schema, file=standard)
            return 0
        _check_places(args)
        args.inputs = _files_of(args)
        with sigterm_interrupts(), _warnings_in_words():
            status: int = args.run(args)
        if _as_json(args):
            print(getattr(args, "summary", "").rstrip(), file=standard)
        return status
    except BrokenPipeError:
        raise  # and no error of the run
    except Terminated:
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


def _in_digits(word: str) -> str:
    """A negative number without its exponent, as argparse takes ``-1e-3`` for an option."""
    return format(Decimal(word), "f") if _EXPONENT.fullmatch(word) else word


def _refuse_renamed(argv: Sequence[str]) -> None:
    """Name what an option of an older version is called now.

    Raises:
        InputError: There is one.
    """
    asked = next((word for word in argv if word in COMMANDS), None)
    if asked is None:
        return
    module = importlib.import_module(f"jmp_md.cli.{asked}")
    renamed, without = getattr(module, "RENAMED", {}), getattr(module, "WITHOUT_VALUE", {})
    for word, following in zip(argv, [*argv[1:], "-"], strict=True):
        option, given, _ = word.partition("=")
        if option in renamed:
            raise InputError(f"{option} is no option any more: {renamed[option]}")
        if option in without and (given or not following.startswith("-")):
            raise InputError(f"{option} takes no value any more: {without[option]}")


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


def _files_of(args: argparse.Namespace) -> list[Path]:
    """What a command line names of files, but for where results go."""
    given = [value for name, value in vars(args).items() if name != "output"]
    values = [each for value in given for each in (value if isinstance(value, list) else [value])]
    return [value for value in values if isinstance(value, Path)]


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


def _as_json(args: argparse.Namespace) -> bool:
    return getattr(args, "json", None) is True  # else it is a file


def _words(args: argparse.Namespace) -> TextIO | None:
    """Where words go: to standard error where JSON is asked for, nowhere where no words are."""
    if getattr(args, "quiet", False):
        return None
    return sys.stderr if _as_json(args) else coloured(sys.stdout)


class CommandParser(argparse.ArgumentParser):
    """Exits with 1 for wrong options: 2 says that a calculation did not succeed.

    A flag can be taken back by ``--no-FLAG``, as ``flag: false`` in a file of options does.

    Attributes:
        positional: Names of the arguments that are no options.
        asked: Parser of the command, whose options are meant; None without one.
        files: Arguments that are files, of the commands too.
    """

    def __init__(self, **options: Any) -> None:
        self.positional: set[str] = set()
        self.asked: CommandParser | None = None
        self.files: list[argparse.Action] = []
        super().__init__(**options)

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        if names and not names[0].startswith("-"):
            self.positional.add(names[0])
        if options.get("action") == "store_true":
            dest = names[-1].removeprefix("--")
            hidden: dict[str, Any] = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
            super().add_argument(
                f"--no-{dest}", dest=dest.replace("-", "_"), action="store_false", **hidden
            )
        action = super().add_argument(*names, **options)
        if options.get("type") is Path:
            self.files.append(action)
        return action

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required"):
            self.print_help(sys.stderr)
        else:
            self.print_usage(sys.stderr)
        hint = _nearest(message, (self.asked or self).format_help())
        self.exit(1, f"{self.prog}: error: {message}{hint}\n")


def _nearest(message: str, help_text: str) -> str:
    """The options or choices nearest to those that a message says are not known."""
    if "unrecognized arguments" in message:
        words, known = re.findall(r"--[\w-]+", message), re.findall(r"--[a-z][a-z-]+", help_text)
    elif "invalid choice" in message:
        first, *known = re.findall(r"'([^']*)'", message)
        words = [first]
    else:
        return ""
    near = [hit for w in words for hit in difflib.get_close_matches(w.replace("_", "-"), known, 1)]
    return f"; did you mean {', '.join(near)}?" if near else ""


def parser_for(argv: Sequence[str], whole: Iterable[str] = ()) -> CommandParser:
    """The parser of a command line.

    Only the command that is asked for has its options, which takes time; its own parser is
    ``asked`` of the one returned.

    Args:
        argv: Arguments without the program's name, with those of a file of options.
        whole: Commands that have their options, too.
    """
    parser = CommandParser(
        prog="jmp-md", description="JMP (GemNet-OC) potentials, from checkpoint to simulation."
    )
    parser.add_argument("--version", action="version", version=f"jmp-md {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error arose")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    asked = next((word for word in argv if not word.startswith("-")), None)
    whole = {*whole, asked or ""}
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name not in whole:
            continue
        module = importlib.import_module(f"jmp_md.cli.{name}")
        # Also after the command; SUPPRESS keeps it from undoing the one before the command.
        command.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        module.configure(command)
        parser.files += command.files
        parser.asked = command if name == asked else parser.asked
        command.set_defaults(run=module.run, command=name)
    return parser


if __name__ == "__main__":
    sys.exit(main())
