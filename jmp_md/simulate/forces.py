"""What computes forces: any ASE calculator, or a JMP model, which takes many structures at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jmp_md.errors import InputError, JMPError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.batch import Result
    from jmp_md.calculators.ase import JMPCalculator
    from jmp_md.system import System

_SEARCHED = ("searched_positions", "searched_cells")


def as_jmp(calculator: Calculator | None) -> JMPCalculator | None:
    """The calculator where it is a JMP model; None for any other, and for none.

    A class of its own that computes something else is another calculator: a batch of the model
    would leave out what it adds.
    """
    from jmp_md.calculators.ase import JMPCalculator

    if not isinstance(calculator, JMPCalculator):
        return None
    kind = type(calculator)
    own = (kind.calculate, kind.get_property) == (
        JMPCalculator.calculate,
        JMPCalculator.get_property,
    )
    return calculator if own else None


def require_jmp(calculator: Calculator, what: str) -> JMPCalculator:
    """The calculator, which has to be a JMP model.

    Args:
        calculator: Any.
        what: What needs it, for the message.

    Raises:
        InputError: It is none.
    """
    if (jmp := as_jmp(calculator)) is None:
        raise InputError(f"{what} a JMPCalculator, not {type(calculator).__name__}")
    return jmp


def has_stress(calculator: Calculator) -> bool:
    """Whether a calculator gives stress; direct forces of a JMP model have none."""
    if (jmp := as_jmp(calculator)) is not None:
        return not jmp.direct
    return "stress" in calculator.implemented_properties


@dataclass
class Computed:
    """Results for several structures, whose atoms stand in one row.

    Attributes:
        energy: (n_structures,) eV.
        forces: (n_atoms, 3) eV/Å, without those of constraints.
        stress: (n_structures, 3, 3) eV/Å³, positive under tension, NaN where it is not known.
        errors: Why structures could not be computed, by place; their results are zero.
    """

    energy: np.ndarray
    forces: np.ndarray
    stress: np.ndarray
    errors: dict[int, JMPError] = field(default_factory=dict)


class Forces(Protocol):
    """Computes structures that move, in the order they were added."""

    def add(self, atoms: Atoms) -> JMPError | None:
        """Add a structure; an error where it cannot be computed, and is not added."""

    def keep(self, kept: np.ndarray) -> None:
        """Go on with some of the structures: (n_structures,) bool."""

    def compute(self, positions: np.ndarray, cells: np.ndarray) -> Computed:
        """Compute all: positions (n_atoms, 3) Å, cells (n_structures, 3, 3) Å."""

    def arrays(self) -> dict[str, np.ndarray]:
        """What the last bits of results depend on beside the structures, to be saved."""

    def facts(self) -> dict[str, Any]:
        """The same, as JSON can hold it."""

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Compute on as if what :meth:`arrays` said had been computed before."""


class OneByOne:
    """Forces of an ASE calculator, of any kind, one structure after the other.

    Args:
        calculator: What computes.
        stress: Whether stress is needed; where it is at hand, it is taken anyway.
    """

    def __init__(self, calculator: Calculator, stress: bool = False) -> None:
        self._calculator, self._stress = calculator, stress
        self._structures: list[Atoms] = []

    def add(self, atoms: Atoms) -> JMPError | None:
        """Add a structure."""
        own = atoms.copy()
        own.set_constraint()
        own.calc = self._calculator
        self._structures.append(own)
        return None

    def keep(self, kept: np.ndarray) -> None:
        """Go on with some of the structures."""
        self._structures = [a for a, k in zip(self._structures, kept, strict=True) if k]

    def compute(self, positions: np.ndarray, cells: np.ndarray) -> Computed:
        """Compute all."""
        n = len(self._structures)
        found = Computed(np.zeros(n), np.zeros_like(positions), np.full((n, 3, 3), np.nan))
        start = 0
        for i, atoms in enumerate(self._structures):
            own = slice(start, start + len(atoms))
            start = own.stop
            atoms.positions, atoms.cell = positions[own], cells[i]
            try:
                if not np.isfinite(positions[own]).all():
                    raise InputError("positions are not finite: take a shorter timestep")
                self._compute_one(i, atoms, own, found)
            except JMPError as error:
                found.errors[i] = error
                found.energy[i], found.forces[own] = 0.0, 0.0
        return found

    def _compute_one(self, i: int, atoms: Atoms, own: slice, found: Computed) -> None:
        from ase.stress import voigt_6_to_full_3x3_stress

        forces = atoms.calc.get_property("forces", atoms)
        known = getattr(atoms.calc, "results", {})  # asking again compares all of the structure
        if not np.array_equal(known.get("forces", ()), forces):
            known = {}  # another thread has used the calculator since
        found.energy[i] = known["energy"] if "energy" in known else atoms.get_potential_energy()
        if not (np.isfinite(forces).all() and np.isfinite(found.energy[i])):
            raise InputError("energy or forces are not finite: check for atoms too close")
        found.forces[own] = forces
        stress = atoms.get_stress() if self._stress else known.get("stress")
        if stress is not None:
            found.stress[i] = voigt_6_to_full_3x3_stress(stress)

    def arrays(self) -> dict[str, np.ndarray]:
        """Nothing: what a calculator remembers is its own."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Nothing."""


class Batched:
    """Forces of a JMP model, of all structures in one batch, with stress where there is one.

    It computes with positions relative to those at which neighbours were last searched, so that
    these decide about the last bits of forces: they are part of the state of a run.

    Args:
        calculator: Model, with its graph and precision.
        cells_move: Whether cells are not what they were when structures were added.
        facts: From :meth:`facts`, of a run that goes on.
    """

    def __init__(
        self,
        calculator: JMPCalculator,
        cells_move: bool = False,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        from jmp_md.systems import BatchedSystems

        self._systems = BatchedSystems(
            calculator.potential,
            stress=not calculator.direct,
            direct=calculator.direct,
            oc_tags=calculator.oc_tags,
            skin=calculator.neighbours.skin,
            max_edges=(facts or {}).get("max_edges"),
        )
        self._cells_move = cells_move
        self._searched: dict[int, tuple[int, tuple[np.ndarray, np.ndarray]]] = {}

    def add(self, atoms: Atoms) -> JMPError | None:
        """Add a structure."""
        try:
            key = self._systems.add(atoms)
        except InputError as error:
            cause = error.__cause__
            return cause if isinstance(cause, InputError) else error
        self._searched[key] = 0, _place(self._systems[key])
        return None

    def keep(self, kept: np.ndarray) -> None:
        """Go on with some of the structures."""
        for key, stays in zip(self._systems.keys, kept, strict=True):
            if not stays:
                self._systems.remove(key)
                del self._searched[key]

    def compute(self, positions: np.ndarray, cells: np.ndarray) -> Computed:
        """Compute all."""
        moving = list(cells) if self._cells_move else None
        results = self._systems.compute(positions, moving, on_error="keep")
        for key in self._systems.keys:
            system = self._systems[key]
            if system.neighbours.rebuilds != self._searched[key][0]:
                self._searched[key] = system.neighbours.rebuilds, _place(system)
        return _joined(results)

    def arrays(self) -> dict[str, np.ndarray]:
        """Where neighbours were searched."""
        return _searched_arrays([self._searched[key][1] for key in self._systems.keys])

    def facts(self) -> dict[str, Any]:
        """The size of batches."""
        return {"max_edges": self._systems.max_edges}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Search neighbours where they were searched."""
        from jmp_md.system import search_systems

        systems = [self._systems[key] for key in self._systems.keys]
        places = _searched_places(arrays, [len(system.numbers) for system in systems])
        for system, place in zip(systems, places, strict=True):
            system.positions, system.cell = place
        search_systems(systems)
        for key, system, place in zip(self._systems.keys, systems, places, strict=True):
            system.item()  # what it is packed with depends on where it was searched
            self._searched[key] = system.neighbours.rebuilds, place


def _joined(results: Sequence[Result]) -> Computed:
    missing = np.full((3, 3), np.nan)
    found = Computed(
        np.array([result.energy for result in results]),
        np.concatenate([result.forces for result in results]),
        np.array([missing if r.stress is None else r.stress for r in results]),
        {i: result.error for i, result in enumerate(results) if result.error is not None},
    )
    found.energy = np.nan_to_num(found.energy)
    found.forces = np.nan_to_num(found.forces)
    return found


def _place(system: System) -> tuple[np.ndarray, np.ndarray]:
    return system.positions.copy(), system.cell.copy()


def _searched_arrays(places: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    arrays = np.concatenate([p for p, _ in places]), np.array([cell for _, cell in places])
    return dict(zip(_SEARCHED, arrays, strict=True))


def _searched_places(
    arrays: Mapping[str, np.ndarray], counts: Sequence[int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    positions, cells = (arrays[name] for name in _SEARCHED)
    parts = np.split(positions, np.cumsum(counts)[:-1])
    return [(part.copy(), cell.copy()) for part, cell in zip(parts, cells, strict=True)]
