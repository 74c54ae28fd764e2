"""Typed settings from plain mappings: every key known, every value of its type."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Iterable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from jmp_md.errors import InputError


def build(cls: type, raw: Any, where: str = "") -> Any:
    """A dataclass from a mapping, section by section, refusing what does not belong.

    Args:
        cls: A dataclass; its fields may be dataclasses, or mappings and tuples of them.
        raw: What YAML gave.
        where: Name of the section with a dot at the end, for messages.

    Raises:
        InputError: An unknown key (with the nearest known one), a missing one or a wrong type.
    """
    if not isinstance(raw, dict):
        raise InputError(f"recipe section {where.rstrip('.')!r} must be a mapping, not {raw!r}")
    hints = get_type_hints(cls)
    check_keys(raw, hints, where)
    values = {}
    for f in dataclasses.fields(cls):
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if f.name in raw:
            values[f.name] = _convert(raw[f.name], hints[f.name], f"{where}{f.name}")
        elif required:
            raise InputError(f"the recipe needs {where}{f.name}")
    return cls(**values)


def check_keys(given: Iterable[Any], known: Iterable[str], where: str) -> None:
    """Refuse keys that are not known, and name the nearest one that is.

    Raises:
        InputError: There is such a key.
    """
    known = list(known)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {where}{near[0]}?" if near else f"known: {', '.join(known)}"
            raise InputError(f"unknown recipe key {where}{key}: {hint}")


def override(raw: dict[str, Any], assignment: str) -> None:
    """Set ``section.key=value``, the value in YAML, in a mapping of mappings.

    Raises:
        InputError: It is not written so, names a key below something that is no section, or its
            value is not YAML.
    """
    key, separator, text = assignment.partition("=")
    if not separator:
        raise InputError(f"--set {assignment!r}: write it as section.key=value")
    *path, last = key.strip().split(".")
    section = raw
    for part in path:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise InputError(f"--set {assignment!r}: {part!r} is not a section")
    try:
        section[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(
            f"--set {assignment!r}: the value is not valid YAML; put text with brackets or colons "
            f"in quotes, '{key}=\"{text}\"'"
        ) from error


def plain(value: Any) -> Any:
    """Settings as YAML has them: mappings, lists and plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _convert(value: Any, kind: Any, name: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        kinds = [k for k in arguments if k is not type(None)]
        exact = [k for k in kinds if isinstance(k, type) and type(value) is k]
        return _convert(value, (exact or kinds)[-1], name)
    if dataclasses.is_dataclass(kind):
        return build(kind, value, f"{name}.")  # type: ignore[arg-type]
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(v, arguments[0], f"{name}[{k}]") for k, v in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _convert(v, arguments[1], f"{name}.{key}") for key, v in value.items()}
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as a string
        except ValueError:
            pass
    elif kind is Any or (isinstance(kind, type) and type(value) is kind):
        return value
    wanted = (
        " or ".join(map(repr, arguments)) if origin is Literal else getattr(kind, "__name__", kind)
    )
    raise InputError(f"recipe key {name} = {value!r}: expected {wanted}")
