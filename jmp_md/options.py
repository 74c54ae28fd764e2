"""Options of a verb as one typed class, of which all else is made.

From its fields come keyword arguments, the command line, files of options, ``summary.json`` and the
JSON schema; ranges, choices and units are theirs, and so are the messages of what does not fit.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from typing_extensions import Self

from jmp_md.errors import InputError

# By the unit of an option, how much of it are others that a text may name, such as "1 bar".
_GPA = {"GPa": 1.0, "MPa": 1e-3, "kbar": 0.1, "bar": 1e-4, "atm": 1.01325e-4}
_UNITS = {"GPa": _GPA, "bar": {name: scale / _GPA["bar"] for name, scale in _GPA.items()}}
# What pydantic calls a value out of place, and what it is called here.
_REASONS = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "finite_number": "must be a finite number",
    "positive": "must be positive",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be {ge:g} or more",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be {le:g} or less",
    "missing": "there are too few numbers",
    "tuple_type": "must be a list",
    "too_long": "there must be {max_length} numbers, not {actual_length}",
    "too_short": "there must be {min_length} numbers at least, not {actual_length}",
    "value_error": "{error}",
}

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
OptionsT = TypeVar("OptionsT", bound="Options")


def option(default: Any, description: str, *, unit: str | None = None, **limits: Any) -> Any:
    """A field of :class:`Options`.

    Args:
        default: Its default.
        description: One line, which help and tables show.
        unit: Unit of the number.
        limits: Those of pydantic's ``Field``, e.g. ``gt=0``.
    """
    extra: dict[str, Any] = {} if unit is None else {"unit": unit}
    return Field(default, description=description, json_schema_extra=extra, **limits)


class Options(BaseModel):
    """Options of a verb: every name known, every value of its type and in its range.

    Texts are read as the numbers they stand for (``"1e3"``, and with a unit ``"1 bar"``), and
    choices whatever their case.

    Attributes:
        renamed: What to write for names of older versions.

    Raises:
        InputError: An unknown name or a value that does not fit; both are named.
    """

    renamed: ClassVar[Mapping[str, str]] = {}
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            # A name that is unknown explains more than a value.
            problems = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
            raise InputError(_message(type(self), problems[0])) from error

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """These options with others in their place, checked anew."""
        return type(self)(**(self.model_dump() | dict(changes))) if changes else self

    def part(self, cls: type[OptionsT]) -> OptionsT:
        """Those that another class has, too, as options of that class."""
        return cls(**self.model_dump(include=set(cls.model_fields)))

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        types = set(_parts(field.annotation))
        if type(value).__module__ == "numpy":
            value = value.ravel().tolist() if value.ndim else value.item()
        if isinstance(value, list):
            value = tuple(value)
        if known := {each.lower(): each for each in choices_of(field)}:
            words = value if isinstance(value, tuple) else (value,)
            found = tuple(known.get(v.lower(), v) if isinstance(v, str) else v for v in words)
            return found if isinstance(value, tuple) else found[0]
        if isinstance(value, tuple):
            return tuple(_whole(_number(v, "")) if isinstance(v, str) else v for v in value)
        if isinstance(value, str) and (int in types or float in types):
            value = _number(value, unit_of(field))
        if int in types and float not in types and not isinstance(value, bool):
            return _whole(value)
        return value


def with_options(*classes: type[Options]) -> Callable[[FunctionT], FunctionT]:
    """Show the fields of classes among the keyword arguments of a function that takes ``changes``.

    Args:
        classes: Classes of options; the function makes them of its ``**changes``.
    """

    def show(function: FunctionT) -> FunctionT:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        keyword = inspect.Parameter.KEYWORD_ONLY
        added = [
            inspect.Parameter(name, keyword, default=field.default, annotation=field.annotation)
            for cls in classes
            for name, field in cls.model_fields.items()
        ]
        whole = signature.replace(parameters=[*own, *added])
        function.__signature__ = whole  # type: ignore[attr-defined]
        return function

    return show


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """The words that an option, or each of its values, may be; empty where it is free."""
    parts = [part for each in _parts(field.annotation)
             for part in (get_args(each) if get_origin(each) is tuple else (each,))]  # fmt: skip
    return tuple(c for part in parts if get_origin(part) is Literal for c in get_args(part))


def length_of(field: FieldInfo) -> int | None:
    """How many values an option is: 0 where it is one, None where it is any number of them."""
    for part in _parts(field.annotation):
        if get_origin(part) is tuple:
            return None if Ellipsis in get_args(part) else len(get_args(part))
    return 0


def unit_of(field: FieldInfo) -> str:
    """Unit of an option; empty where it has none."""
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def unknown_option(name: str, known: Iterable[str]) -> str:
    """What to say of a name that does not exist, with the nearest that does."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"there is no option {name}" + (f": did you mean {near[0]}?" if near else "")


def _message(cls: type[Options], problem: Any) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else ""
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "extra_forbidden" and name in cls.renamed:
        return f"{name} is no option any more: {cls.renamed[name]}"
    if kind == "extra_forbidden":
        return unknown_option(name, cls.model_fields)
    if not name:  # options that do not go together
        return str(context.get("error", problem["msg"]))
    field = cls.model_fields[name]
    if kind == "literal_error":
        known = choices_of(field)
        near = difflib.get_close_matches(str(value), known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{name} {value!r}: choose one of {', '.join(known)}{hint}"
    if kind == "greater_than" and context["gt"] == 0:
        kind = "positive"
    reason = _REASONS[kind].format(**context) if kind in _REASONS else problem["msg"]
    if length_of(field) != 0:
        one = isinstance(value, int | float | str)  # of them
        return f"{name}{f' {value!r}' if one else ''}: {reason}; {field.description}"
    unit = unit_of(field)
    return f"{name} {value!r}{' ' if unit else ''}{unit}: {reason}"


def _parts(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union."""
    if get_origin(annotation) in (Literal, tuple, None):
        return (annotation,)
    return tuple(part for each in get_args(annotation) for part in _parts(each))


def _number(text: str, unit: str) -> Any:
    """The number that a text stands for, in the unit of the option; the text where it is none."""
    scales = _UNITS.get(unit, {unit: 1.0} if unit else {})
    lowered = {name.lower(): scale for name, scale in scales.items()}
    words = text.strip()
    named = next((n for n in sorted(lowered, key=len, reverse=True)
                  if words.lower().endswith(n)), None)  # fmt: skip
    try:
        if named is None:
            return float(words)
        return float(words[: -len(named)]) * lowered[named]
    except ValueError:
        return text


def _whole(value: Any) -> Any:
    """A whole number, also where it is written or computed with a point."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.__index__() if hasattr(value, "__index__") else value
