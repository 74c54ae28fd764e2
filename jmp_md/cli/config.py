"""Options from a file: ``--config run.yaml`` stands for the options in it."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

OPTION = "--config"
# What a command line has besides: what it is for, and how it is done this time.
_NO_OPTIONS = {
    *("run", "command", "debug", "config", "print_config", "print_schema", "dry_run"),
    *("restart", "overwrite", "quiet", "json"),
}


def add_config(parser: argparse.ArgumentParser) -> None:
    """Describe ``--config``, which :func:`expand_config` resolves before any parsing."""
    parser.add_argument(
        OPTION, metavar="YAML", help="file of options, e.g. 'timestep: 0.5'; those given here win"
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print all options, with defaults, as such a file has them, and stop",
    )


def effective(args: argparse.Namespace, positional: Collection[str]) -> str:
    """All options of a command line as a file of options has them.

    Args:
        args: Parsed.
        positional: Names that are no options.

    Raises:
        InputError: A value does not fit.
    """
    import yaml

    from jmp_md.cli.options import options_from

    module = import_module(f"jmp_md.cli.{args.command}")
    left_out = _NO_OPTIONS | set(positional)
    values = {name: value for name, value in vars(args).items() if name not in left_out}
    if cls := getattr(module, "OPTIONS", None):
        values |= options_from(args, cls).model_dump()
    plain = {n: str(v) if isinstance(v, Path) else v for n, v in values.items() if v is not None}
    plain = {n: list(v) if isinstance(v, tuple) else v for n, v in plain.items()}
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


def expand_config(argv: Sequence[str]) -> list[str]:
    """Put the options of a ``--config`` file right after the command, so that later ones win.

    Args:
        argv: Command line without the program's name.

    Raises:
        InputError: The file cannot be read as options.
    """
    rest = list(argv)
    for i, token in enumerate(rest):
        if token == OPTION and i + 1 < len(rest):
            path = rest[i + 1]
            del rest[i : i + 2]
        elif token.startswith(f"{OPTION}="):
            path = rest.pop(i).partition("=")[2]
        else:
            continue
        command = next((k + 1 for k, word in enumerate(rest) if not word.startswith("-")), 0)
        # The option itself ends a list before it, which would take what comes next for its own.
        own = [*_tokens(Path(path)), f"{OPTION}={path}"]
        return [*rest[:command], *own, *rest[command:]]
    return rest


def _tokens(path: Path) -> list[str]:
    """The lines of a file as arguments of a command line."""
    from jmp_md.errors import InputError
    from jmp_md.yaml_text import read_yaml

    values = read_yaml(path, f"the file of options {path}")
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no options: give lines such as 'timestep: 0.5'")
    return [token for key, value in values.items() for token in _option(str(key), value)]


def _option(key: str, value: Any) -> list[str]:
    option = "--" + key.replace("_", "-")
    if value is None or value == []:
        return []
    if isinstance(value, bool):
        return [option if value else option.replace("--", "--no-", 1)]
    if isinstance(value, list):
        return [option, *map(str, value)]
    return [f"{option}={value}"]
