"""Atoms whose forces are computed elsewhere, together with those of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError

if TYPE_CHECKING:
    from ase import Atoms


class PrecomputedCalculator(Calculator):
    """Hands out the results it was given last, whoever asks: whoever moves atoms brings new ones.

    ASE's own checks of what has changed take as long as a step of an optimizer.

    Attributes:
        results: By ASE's names; to be replaced as a whole.
    """

    implemented_properties: ClassVar = ["energy", "free_energy", "forces", "stress"]

    def calculation_required(self, atoms: Atoms, properties: Sequence[str]) -> bool:
        """Whether something is asked for that was not given."""
        return any(name not in self.results for name in properties)

    def get_property(
        self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """What was given.

        Raises:
            PropertyNotImplementedError: It was not, and None will not do.
        """
        value: Any = self.results.get(name)
        if value is None and allow_calculation:
            raise PropertyNotImplementedError(f"{name} was not computed")
        return value.copy() if isinstance(value, np.ndarray) else value
