"""The saved state of many relaxations: what is done, and how far the others are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.errors import InputError
from jmp_md.simulate.state import save_state, state_to_continue

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class Relaxed:
    """What became of one of many structures.

    Attributes:
        atoms: The structure at its end, with energy and forces where it could be computed.
        converged: Whether ``fmax`` was reached.
        steps: Optimizer steps taken.
        energy: eV; NaN after an error.
        fmax: eV/Å, the largest force left; NaN after an error.
        error: Why the structure was dropped.
    """

    atoms: Atoms
    converged: bool
    steps: int
    energy: float
    fmax: float
    error: InputError | None = None


class ManyState:
    """State of :func:`jmp_md.simulate.many.relax_many` in a folder.

    Args:
        folder: Where it is saved; created if need be.
        settings: Options that a run must be continued with.
        restart: Take up what is there.

    Raises:
        InputError: The folder holds a run that is not to be continued, or another one.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any], restart: bool) -> None:
        self._folder, self._settings = Path(folder), dict(settings)
        saved = state_to_continue(self._folder, self._settings, restart)
        self._arrays, self._facts = saved or ({}, {"done": {}, "moving": {}})
        self._folder.mkdir(parents=True, exist_ok=True)

    def start(self, index: int, given: Atoms) -> tuple[Atoms, int]:
        """Where to go on with a structure, and the steps it has done.

        Raises:
            InputError: It is not the structure that was saved.
        """
        steps = self._facts["moving"].get(str(index))
        return (given, 0) if steps is None else (self._moved(index, given), steps)

    def end(self, index: int, given: Atoms) -> Relaxed | None:
        """What became of a structure, where that is known already.

        Raises:
            InputError: It is not the structure that was saved.
        """
        from ase.calculators.singlepoint import SinglePointCalculator

        fact = self._facts["done"].get(str(index))
        if fact is None:
            return None
        atoms = self._moved(index, given)
        error = None if fact["error"] is None else InputError(fact["error"])
        if error is None:
            forces = self._arrays[f"{index}/forces"]
            atoms.calc = SinglePointCalculator(atoms, energy=fact["energy"], forces=forces)
        return Relaxed(atoms, fact["converged"], fact["steps"], fact["energy"], fact["fmax"], error)

    def save(self, moving: Mapping[int, tuple[Atoms, int]], done: Mapping[int, Relaxed]) -> None:
        """Replace the state.

        Args:
            moving: Structures on their way and their steps, by index.
            done: Those that are not.
        """
        arrays: dict[str, np.ndarray] = {}
        ended = {}
        for index, end in done.items():
            arrays |= {f"{index}/numbers": end.atoms.numbers}
            arrays |= {f"{index}/positions": end.atoms.positions}
            if end.error is None:
                arrays |= {f"{index}/forces": end.atoms.calc.results["forces"]}
            ended[index] = {
                "converged": end.converged,
                "steps": end.steps,
                "energy": end.energy,
                "fmax": end.fmax,
                "error": None if end.error is None else str(end.error),
            }
        for index, (atoms, _) in moving.items():
            arrays |= {f"{index}/numbers": atoms.numbers, f"{index}/positions": atoms.positions}
        steps = {index: count for index, (_, count) in moving.items()}
        facts = {"settings": self._settings, "done": ended, "moving": steps}
        save_state(self._folder, arrays, facts)

    def _moved(self, index: int, given: Atoms) -> Atoms:
        numbers = self._arrays[f"{index}/numbers"]
        if not np.array_equal(numbers, given.numbers):
            raise InputError(
                f"structure {index} of the saved run has the atoms {numbers.tolist()}: give the "
                "structures it was started with, or choose another output"
            )
        atoms = given.copy()
        atoms.positions = self._arrays[f"{index}/positions"]
        return atoms
