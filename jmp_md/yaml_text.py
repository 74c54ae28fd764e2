"""YAML from outside: text that becomes plain values, within bounds, or one error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from jmp_md.bounds import tree_problem
from jmp_md.errors import InputError

_LARGEST = 100_000  # characters; the parser takes seconds for more


def read_yaml(path: str | Path, what: str) -> Any:
    """What a file of YAML says.

    Args:
        path: The file.
        what: What it is, for messages, e.g. ``"the recipe a.yaml"``.

    Raises:
        InputError: It cannot be read, or is not YAML.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: not text, or no name of a file
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {what}: {reason}") from error
    return parse_yaml(text, what)


def parse_yaml(text: str, what: str) -> Any:
    """What a text of YAML says.

    Raises:
        InputError: It is not YAML, or larger than any file of options.
    """
    if len(text) > _LARGEST:
        raise InputError(f"{what} has more than {_LARGEST} characters: it cannot be meant")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{what} is not valid YAML: {error}") from error
    except (ValueError, OverflowError, RecursionError) as error:  # of dates, numbers and nesting
        raise InputError(f"{what} is not valid YAML: {str(error)[:200]}") from error
    except (TypeError, AttributeError) as error:  # values that cannot be what they are marked as
        raise InputError(f"{what} is not valid YAML: a value is not of its type") from error
    if problem := tree_problem(value, 10 * _LARGEST):
        raise InputError(f"{what} cannot be used: {problem}")
    return value
