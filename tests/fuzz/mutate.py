"""Changes to valid inputs, each decided by a seeded generator."""

from __future__ import annotations

import io
import pickletools
import random
import struct
import zipfile
from typing import Any

from test_restricted import ABUSED, EXECUTING, EXHAUSTING

BYTES = (b"\0", b"\xff", b"\n", b"{", b"[", b"\x80", b"'", b"\xc3\xa5", b"-1", b"9" * 30, b"1e999")
TEXTS = (
    *("", "0", "-1", "1", "nan", "inf", "-inf", "1e999", "1e-320", "9" * 30, "0x10", "1_0", "²"),
    *("null", "true", "~", "~nobody/x", "a\0b", "\x1b[2J", "å", "\ud800", "..", "/", "/dev/null"),
    *(
        "[",
        "[1",
        "{",
        "{}",
        "[]",
        "&a [*a]",
        "!!python/object:os.system x",
        "<<: 1",
        "- -",
        "x" * 999,
    ),
    *("*", "%s", "{0}", "{base}", "1 2 3", "1,2", "1:2:3", "::", "@", "x@0", "None", "2024-01-01"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**400, -(10**30), 0.5, 1e308, float("nan")),
    *(float("inf"), "", "x", "1", "a\0b", [], {}, [[]], [0] * 1000, {"a": {"b": None}}, [None]),
)
HOSTILE = (*EXECUTING.values(), *(code for code, _ in (*ABUSED.values(), *EXHAUSTING.values())))


def data(rng: random.Random, original: bytes) -> bytes:
    """Bytes changed, cut, repeated, moved or replaced in a few places."""
    changed = bytearray(original)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        # The beginning of a file decides most.
        reach = rng.choice((16, 64, 512, len(changed) + 1))
        at = rng.randrange(min(reach, len(changed) + 1))
        length = rng.choice((1, 1, 2, 4, 8, 64))
        match rng.randrange(8):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                if at < len(changed):
                    changed[at] ^= 1 << rng.randrange(8)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length] * rng.choice((1, 2, 50))
            case 4:
                changed[at : at + rng.choice((0, length))] = rng.choice(BYTES)
            case 5:
                size = rng.choice(("<B", "<H", "<I", "<Q"))
                limit = 256 ** struct.calcsize(size)
                number = rng.choice((0, 1, limit - 1, limit // 2, rng.randrange(limit)))
                changed[at : at + struct.calcsize(size)] = struct.pack(size, number)
            case 6:
                del changed[at:]
            case 7:
                other = rng.randrange(len(changed) + 1)
                changed[at : at + length] = changed[other : other + length]
    return bytes(changed)


def text(rng: random.Random, original: str) -> str:
    """Words and lines replaced, repeated, left out or swapped."""
    lines = original.split("\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        words = lines[at].split(" ")
        word = rng.randrange(len(words))
        match rng.randrange(7):
            case 0 | 1:
                words[word] = rng.choice(TEXTS)
            case 2:
                words.insert(word, rng.choice(TEXTS))
            case 3:
                del words[word]
            case 4:
                lines.insert(at, lines[rng.randrange(len(lines))])
            case 5:
                words = []
            case 6:
                words = [data(rng, lines[at].encode(errors="replace")).decode(errors="replace")]
        lines[at] = " ".join(words)
    return "\n".join(lines)


def tree(rng: random.Random, original: Any) -> Any:
    """A value of JSON with something replaced, added or left out somewhere inside."""
    if rng.random() < 0.25 or not isinstance(original, dict | list) or not original:
        return rng.choice(VALUES)
    keys = list(original) if isinstance(original, dict) else list(range(len(original)))
    key = rng.choice(keys)
    changed: Any = original.copy()
    match rng.randrange(8):
        case 0:
            del changed[key]
        case 1 if isinstance(changed, dict):
            changed[rng.choice(TEXTS)] = rng.choice(VALUES)
        case 1:
            changed *= rng.choice((0, 2, 100))
        case _:
            changed[key] = tree(rng, original[key])
    return changed


def pickled(rng: random.Random, original: bytes) -> bytes:
    """A pickle whose operations are left out, repeated, swapped, or hostile ones put between."""
    places = [place or 0 for _, _, place in pickletools.genops(original)]
    parts = [original[a:b] for a, b in zip(places, [*places[1:], len(original)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, other = rng.randrange(1, len(parts)), rng.randrange(1, len(parts))
        match rng.randrange(6):
            case 0:
                del parts[at]
            case 1:
                parts.insert(at, parts[other])
            case 2:
                parts[at], parts[other] = parts[other], parts[at]
            case 3:
                parts.insert(at, rng.choice(HOSTILE))
            case 4:
                parts[at] = data(rng, parts[at])
            case 5:
                parts[at : at + 1] = parts[at : at + 1] * rng.choice((3, 1000))
        if len(parts) < 2:
            break
    return b"".join(parts)


def zipped(rng: random.Random, original: bytes, ending: str = ".pkl") -> bytes:
    """A zip file one of whose entries is changed, or is compressed, repeated or left out."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(original)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        chosen = [n for n in names if n.endswith(ending)] if rng.random() < 0.7 else names
        victim = rng.choice(chosen or names)
        for name in names:
            content = old.read(name)
            if name == victim:
                match rng.randrange(5):
                    case 0:
                        continue
                    case 1:
                        new.writestr(name, content, compress_type=zipfile.ZIP_DEFLATED)
                        continue
                    case 2 | 3 if name.endswith(".pkl"):
                        content = pickled(rng, content)
                    case _:
                        content = data(rng, content)
            new.writestr(name, content)
    return out.getvalue()
