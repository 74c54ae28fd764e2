"""Bounds of data that come from outside."""

from __future__ import annotations

MAX_DEPTH = 64


def tree_problem(root: object, most: int) -> str:
    """Why a value cannot be walked or printed: stack, time or memory would end; empty if it can.

    Args:
        root: Made of dicts, lists and tuples, which may be shared: those count as often as they
            are met. Nothing here recurses.
        most: Largest number of values and characters.
    """
    found: dict[int, tuple[int, int]] = {}  # size and height of containers that are done
    entered: set[int] = set()
    pending = [root]
    while pending:
        item = pending[-1]
        if not isinstance(item, dict | list | tuple) or id(item) in found:
            pending.pop()
            continue
        parts = list(item.values()) if isinstance(item, dict) else item
        inner = [part for part in parts if isinstance(part, dict | list | tuple)]
        if id(item) not in entered:
            entered.add(id(item))
            if any(id(part) in entered and id(part) not in found for part in inner):
                return "data nested within itself"
            pending += inner
            continue
        pending.pop()
        size = 1 + sum(map(_size, item)) if isinstance(item, dict) else 1
        for part in parts:
            size += found[id(part)][0] if isinstance(part, dict | list | tuple) else _size(part)
        height = 1 + max((found[id(part)][1] for part in inner), default=0)
        if height > MAX_DEPTH:
            return f"data nested more than {MAX_DEPTH} levels deep"
        if size > most:
            return "the same data are used again and again"
        found[id(item)] = size, height
    return ""


def _size(leaf: object) -> int:
    return 1 + (len(leaf) if isinstance(leaf, str | bytes | bytearray) else 0)
