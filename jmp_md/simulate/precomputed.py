"""Atoms whose forces are computed elsewhere, together with those of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ase.calculators.calculator import Calculator

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.batch import Result
    from jmp_md.graph.neighbours import NeighbourCache
    from jmp_md.systems import System


class PrecomputedCalculator(Calculator):
    """Hands out the results it was given last, whoever asks: whoever moves atoms brings new ones.

    ASE's own checks of what has changed take as long as a step of an optimizer.

    Args:
        system: The same atoms as part of a batch.
    """

    implemented_properties: ClassVar = ["energy", "free_energy", "forces"]

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system

    @property
    def neighbours(self) -> NeighbourCache:
        """The neighbour list of the system."""
        return self.system.neighbours

    @neighbours.setter
    def neighbours(self, neighbours: NeighbourCache) -> None:
        self.system.neighbours = neighbours

    def take(self, atoms: Atoms, result: Result) -> None:
        """Replace the results by those of where ``atoms`` are now."""
        self.atoms = atoms
        energy = result.energy
        self.results = {"energy": energy, "free_energy": energy, "forces": result.forces}

    def get_property(
        self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """What was given; None for what was not."""
        value: Any = self.results.get(name)
        return value.copy() if name == "forces" and value is not None else value

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = (),
    ) -> None:
        """Nothing is computed here."""
        raise NotImplementedError("results are computed together with those of others")
