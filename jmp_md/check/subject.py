"""What a check is made of: its subject, its outcome and the differences it measures."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase import Atoms

from jmp_md.batch import Result
from jmp_md.errors import DomainWarning
from jmp_md.evaluation import evaluate
from jmp_md.potential import Potential

MEV = 1000.0


@dataclass(frozen=True)
class Outcome:
    """What a check measured.

    Attributes:
        name: Name of the check.
        measured: The number; None where the check does not apply.
        limit: Largest number that passes; None where there is nothing to fail.
        unit: Unit of both.
        note: What else there is to know, such as why a check does not apply.
    """

    name: str
    measured: float | None
    limit: float | None
    unit: str
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong; a value that is not a number is."""
        return self.measured is None or self.limit is None or self.measured <= self.limit


@dataclass(frozen=True)
class Subject:
    """What is checked.

    Attributes:
        atoms: The structure, without constraints.
        potential: The model in float64.
        dtype: ``"float32"`` or ``"float64"``, what simulations run in.
        seed: Of random displacements, rotations and velocities.
        steps: Steps of the dynamics.
        compile: Whether to compile the network.
        tags: See :class:`~jmp_md.calculators.ase.JMPCalculator`.
    """

    atoms: Atoms
    potential: Potential
    dtype: str
    seed: int
    steps: int
    compile: bool = False
    tags: str | None = None

    @property
    def rng(self) -> np.random.Generator:
        """A fresh source of random numbers, so that checks do not depend on each other."""
        return np.random.default_rng(self.seed)

    @cached_property
    def own(self) -> Result:
        """The structure as it is, by itself."""
        return self.results([self.atoms])[0]

    def results(self, structures: Sequence[Atoms]) -> list[Result]:
        """Energies, forces and stress where there is one, in float64."""
        return self._evaluate(structures, ("energy", "forces", "stress"))

    def energies(self, structures: Sequence[Atoms]) -> np.ndarray:
        """(n_structures,) eV in float64."""
        return np.array([r.energy for r in self._evaluate(structures, ())])

    def _evaluate(self, structures: Sequence[Atoms], properties: tuple[str, ...]) -> list[Result]:
        """Copies that are moved or doubled are no news of the domain, which has its own row."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DomainWarning)
            return evaluate(structures, self.potential, properties=properties, tags=self.tags)

    def moved(self, positions: np.ndarray) -> Atoms:
        """A copy with other positions."""
        copy = self.atoms.copy()
        copy.positions = positions
        return copy

    def rattled(self, amplitude: float) -> Atoms:
        """A copy with every coordinate displaced by up to ``amplitude`` Å."""
        shift = self.rng.uniform(-amplitude, amplitude, self.atoms.positions.shape)
        return self.moved(self.atoms.positions + shift)


def forces_of(result: Result) -> np.ndarray:
    """Forces, which were asked for."""
    assert result.forces is not None
    return result.forces


def difference(a: Result, b: Result) -> float:
    """Largest difference in energy (eV) or a force component (eV/Å)."""
    return max(abs(a.energy - b.energy), float(np.abs(forces_of(a) - forces_of(b)).max()))
