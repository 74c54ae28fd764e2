"""What a benchmark finds: cases with their references, in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """One number of a model.

    Attributes:
        name: What it is of, e.g. ``"N2"``.
        value: By the model, in the unit of its part; NaN where it could not be had.
        reference: Published, or by another program; None where there is none.
    """

    name: str
    value: float
    reference: float | None = None

    @property
    def error(self) -> float:
        """Value less reference; NaN where there is none."""
        return float("nan") if self.reference is None else self.value - self.reference


@dataclass(frozen=True)
class Part:
    """Numbers of one kind.

    Attributes:
        name: Of the kind, e.g. ``"bond lengths"``.
        unit: Of values and references.
        source: Where references come from.
        cases: In the order of the part.
        left_out: By name, why a case was not computed.
        seconds: That it took.
    """

    name: str
    unit: str
    source: str
    cases: Sequence[Case]
    left_out: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def mean_error(self) -> float:
        """Mean absolute error of the cases that have a reference; NaN where none has."""
        errors = self._errors()
        return float(np.mean(errors)) if errors else float("nan")

    @property
    def worst(self) -> Case | None:
        """The case of the largest error; None where none has a reference."""
        compared = [case for case in self.cases if case.reference is not None]
        return max(compared, key=lambda c: np.nan_to_num(abs(c.error), nan=np.inf), default=None)

    def _errors(self) -> list[float]:
        return [abs(case.error) for case in self.cases if case.reference is not None]


@dataclass(frozen=True)
class Benchmark:
    """All parts for one calculator.

    Attributes:
        model: Name of what was tested.
        about: How it computed: versions, hashes, machine.
        parts: In the order they ran.
    """

    model: str
    about: Mapping[str, Any]
    parts: Sequence[Part]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Benchmark:
        """From :meth:`to_dict`."""
        parts = [
            Part(**{**part, "cases": tuple(Case(**case) for case in part["cases"])})
            for part in content["parts"]
        ]
        return cls(content["model"], content["about"], tuple(parts))
