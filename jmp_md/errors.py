"""Errors meant for users: each message names the offending value and the remedy."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxstring, _SHORT.maxother = 2, 4, 80, 160


def shown(value: object) -> str:
    """A value of unknown size and nesting, in one short line for a message."""
    try:
        return _SHORT.repr(value)
    except Exception:  # e.g. an integer of too many digits
        return f"<{type(value).__name__}>"


class JMPError(Exception):
    """Base of every error jmp-md raises on purpose."""


class InputError(JMPError, ValueError):
    """A structure, option or data file that cannot be used as given."""


class CheckpointError(JMPError):
    """A checkpoint that is broken, unsafe or of an unknown layout."""


class ModelNotFoundError(JMPError, LookupError):
    """A model name that is unknown, or known but not at hand."""


class DomainWarning(UserWarning):
    """A structure lies outside of what a model was trained on."""


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn whatever damaged data lead to, in whichever library, into one error that names them.

    Raises:
        InputError: The block raised anything but an error of ours.
    """
    try:
        yield
    except JMPError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise InputError(f"{what}: cannot be read, it may be damaged ({reason})") from error
