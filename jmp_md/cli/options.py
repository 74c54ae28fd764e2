"""The options of a verb on the command line, made from their class."""

from __future__ import annotations

import argparse
from typing import Any, TypeVar

from pydantic.fields import FieldInfo

from jmp_md.options import Options, choices_of, length_of, unit_of

OptionsT = TypeVar("OptionsT", bound=Options)


def add_options(parser: argparse.ArgumentParser, cls: type[Options]) -> None:
    """Add an option for each field of a class; :func:`options_from` reads them.

    Args:
        parser: Parser of a command.
        cls: Class of its options.
    """
    parser.add_argument(
        "--print-schema",
        action="store_true",
        help="print the JSON schema of the options of the calculation, and stop",
    )
    group = parser.add_argument_group("options of the calculation")
    for name, field in cls.model_fields.items():
        group.add_argument(
            f"--{name.replace('_', '-')}",
            default=argparse.SUPPRESS,  # so that one can tell what was given
            help=_words(field),
            **_form(field),
        )


def options_from(args: argparse.Namespace, cls: type[OptionsT], **changes: Any) -> OptionsT:
    """The options of a command line.

    Args:
        args: Parsed, with those of :func:`add_options`.
        cls: Class of the options.
        changes: Others in their place.

    Raises:
        InputError: A value that does not fit.
    """
    given = {name: value for name, value in vars(args).items() if name in cls.model_fields}
    return cls(**(given | changes))


def _form(field: FieldInfo) -> dict[str, Any]:
    """How an option is written."""
    if field.annotation is bool:
        return {"action": argparse.BooleanOptionalAction}
    form: dict[str, Any] = {"metavar": "X" if "float" in str(field.annotation) else "N"}
    known, count = choices_of(field), length_of(field)
    if known:
        form = {"metavar": "{" + ",".join(known) + "}" if count == 0 else "NAME"}
    if count != 0:
        form |= {"nargs": count or "+"}
    return form


def _words(field: FieldInfo) -> str:
    """What an option is, with the words that a list of them may have."""
    known = choices_of(field) if length_of(field) != 0 else ()
    listed = f": some of {', '.join(known)}" if known else ""
    return f"{field.description}{listed} {_default(field)}".rstrip().replace("%", "%%")


def _default(field: FieldInfo) -> str:
    if field.default is None:
        return f"({unit_of(field)})" if unit_of(field) else ""
    if isinstance(field.default, bool):
        return f"(default: {'yes' if field.default else 'no'})"
    values = field.default if isinstance(field.default, tuple) else (field.default,)
    return f"(default: {' '.join(map(str, values))}{' ' if unit_of(field) else ''}{unit_of(field)})"
