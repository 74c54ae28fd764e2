"""Words of judgement in colour, on terminals that show it."""

from __future__ import annotations

import os
import re
from typing import Any, TextIO

_RED, _YELLOW, _GREEN = 31, 33, 32
_COLOURS = (
    (_RED, r"^error:|\bFAIL\b|\bNOT (converged|relaxed)\b|^broken\b"),
    (_YELLOW, r"^warning:|^in doubt:|^missing\b"),
    (_GREEN, r"\bpass(?=$|;)|\ball passed\b|(?<!NOT )\bconverged\b|^ok\b"),
)
_WORDS = re.compile("|".join(f"(?P<c{code}>{words})" for code, words in _COLOURS), re.MULTILINE)


class Coloured:
    """A stream to a terminal.

    Args:
        stream: Where all goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, with colours."""
        self._stream.write(_WORDS.sub(_painted, text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def coloured(stream: TextIO) -> TextIO:
    """The stream, with colours where it ends on a terminal and ``NO_COLOR`` is not set."""
    shows = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Coloured(stream) if shows else stream  # type: ignore[return-value]


def _painted(found: re.Match[str]) -> str:
    return f"\033[{str(found.lastgroup)[1:]}m{found[0]}\033[0m"
