"""Typed settings from plain mappings: every key known, every value of its type and in its range."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError

from jmp_md.errors import InputError


class Section(BaseModel):
    """A section of a recipe: keys that are known, values that are not converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


SectionT = TypeVar("SectionT", bound=Section)


def _number(value: Any) -> Any:
    """YAML reads 1e-3 as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    return value


def _size(value: Any) -> int | float | None:
    """A number of frames, or a share of them."""
    value = _number(value)
    if isinstance(value, float) and not 0 < value <= 1:
        raise ValueError("a number with a point is a share of the frames, above 0 and at most 1")
    if isinstance(value, bool) or not (value is None or isinstance(value, int | float)):
        raise ValueError("expected a number of frames, or a share such as 0.8")
    if value is not None and value < 0:
        raise ValueError("must be at least 0")
    return value


AnyNumber = Annotated[float, BeforeValidator(_number)]
Number = Annotated[AnyNumber, Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
BelowOne = Annotated[Number, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Size = Annotated[Any, PlainValidator(_size)]
Files = str | Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


def file_names(files: Files | None) -> tuple[str, ...]:
    """The names in a key that takes one file or several."""
    return () if files is None else (files,) if isinstance(files, str) else files


# What pydantic calls a value out of place, and what it is called here.
_REASONS = {
    "int_type": "expected int",
    "float_type": "expected float",
    "bool_type": "expected true or false",
    "string_type": "expected text; put it in quotes",
    "dict_type": "must be a mapping",
    "tuple_type": "expected a list",
    "finite_number": "expected a finite number",
    "literal_error": "expected {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "value_error": "{error}",
}


def build(cls: type[SectionT], raw: Any) -> SectionT:
    """A section from what YAML gave, refusing what does not belong.

    Raises:
        InputError: An unknown key (with the nearest known one), a missing one, a wrong type or a
            value out of range; the key is named as ``section.key``.
    """
    try:
        return cls.model_validate(raw)
    except ValidationError as error:
        # A key that is unknown explains others that are missing.
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        raise InputError(_message(cls, problems[0])) from error


def _message(cls: type[Section], problem: Any) -> str:
    place = [str(part) if isinstance(part, int) else part for part in problem["loc"]]
    name = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]
    ).lstrip(".")
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        check_keys(place[-1:], _keys(cls, place[:-1]), "".join(f"{part}." for part in place[:-1]))
    if kind == "missing":
        return f"the recipe needs {name}"
    if kind == "model_type":
        return f"recipe section {name!r} must be a mapping, not {problem['input']!r}"
    if kind == "value_error" and isinstance(problem["input"], dict):
        return f"recipe section {name}: {context['error']}"
    reason = _REASONS[kind].format(**context) if kind in _REASONS else problem["msg"]
    return f"recipe key {name} = {problem['input']!r}: {reason}"


def _keys(cls: type[Section], place: list[str]) -> list[str]:
    """Keys that the section at a place below ``cls`` has."""
    for part in place:
        if part in cls.model_fields:
            found = _sections(cls.model_fields[part].annotation)
            cls = found[0] if found else cls
    return list(cls.model_fields)


def _sections(annotation: Any) -> list[type[Section]]:
    """The sections that occur in a type."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [s for part in getattr(annotation, "__args__", ()) for s in _sections(part)]


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
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as pairs of dotted names and values."""
    if isinstance(value, dict) and value:
        return [pair for key, item in value.items() for pair in flat(item, f"{prefix}{key}.")]
    return [(prefix.rstrip("."), value)]
