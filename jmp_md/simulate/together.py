"""Molecular dynamics runs that take their steps together, on the forces of one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError
from jmp_md.simulate.dynamics import Dynamics
from jmp_md.simulate.given import Given
from jmp_md.simulate.recorder import Recorder
from jmp_md.simulate.state import save_state
from jmp_md.systems import BatchedSystems

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

    from jmp_md.calculators.ase import JMPCalculator

Progress = Callable[[int, Sequence[dict[str, float]]], None]

# No fluctuation, not even of two atoms, gets that far: the replica has blown up.
_TOO_HOT = 30.0


@dataclass(frozen=True)
class Ended:
    """A replica that was dropped.

    Attributes:
        step: Last step it did.
        error: What went wrong.
    """

    step: int
    error: str


@dataclass
class Replica:
    """One of the runs.

    Attributes:
        index: Its number.
        key: Its key among the systems.
        run: Where it is.
        recorder: Its files.
        limit: K, the temperature at which it has exploded.
    """

    index: int
    key: int
    run: Dynamics
    recorder: Recorder
    limit: float


class Together:
    """Runs that take their steps together.

    Args:
        given: A structure for each.
        calculator: Model, with its graph and precision.
        folder: Where the files go.
        settings: Options of :func:`jmp_md.simulate.md.md`; replica k gets the seed plus k.
        saved: State to continue from, as :func:`jmp_md.simulate.state.load_state` returns it.

    Attributes:
        moving: Runs that go on.
        ended: Those that were dropped, by number.
        step: Steps done.
    """

    def __init__(
        self,
        given: Sequence[Atoms],
        calculator: JMPCalculator,
        folder: Path,
        settings: Mapping[str, Any],
        saved: tuple[dict[str, np.ndarray], dict[str, Any]] | None,
    ) -> None:
        arrays, facts = saved or ({}, {})
        self._systems = BatchedSystems(
            calculator.potential,
            direct=calculator.direct,
            oc_tags=calculator.oc_tags,
            skin=calculator.neighbours.skin,
            max_edges=facts.get("max_edges"),
        )
        self._folder, self._settings, self._fresh = folder, dict(settings), saved is None
        self._leaving: list[Recorder] = []
        self.moving: list[Replica] = []
        self.ended = {int(i): Ended(**end) for i, end in facts.get("ended", {}).items()}
        self.step: int = facts.get("step", 0)
        for index, atoms in enumerate(given):
            if index not in self.ended:
                self._enter(index, atoms, arrays, facts.get("runs", {}).get(str(index)))

    def propagate(self, steps: int, progress: Progress | None) -> None:
        """Go on to a step.

        Args:
            steps: Length of the run, from its start.
            progress: Called with the step and the new lines of all logs.
        """
        self._compute()
        if self._fresh:
            self._record(progress)
            self._save()
        while self.step < steps and self.moving:
            self._advance(steps)
            if self.step % self._settings["interval"] == 0:
                self._drop_hot()
                self._record(progress)
            due = self.step % self._settings["save_interval"] == 0 or self.step == steps
            if due or self._leaving:
                self._save()

    def close(self) -> None:
        """Close all files."""
        for recorder in (*self._leaving, *(replica.recorder for replica in self.moving)):
            recorder.close()

    def _enter(
        self, index: int, given: Atoms, arrays: dict[str, np.ndarray], facts: dict[str, Any] | None
    ) -> None:
        """Begin a run, or continue it."""
        settings = {**self._settings, "seed": self._settings["seed"] + index}
        try:
            key = self._systems.add(given)
        except InputError as error:
            self.ended[index] = Ended(0, str(error.__cause__ or error))
            return
        atoms = given.copy()
        atoms.calc = Given(self._systems[key])
        if facts is None:
            run = Dynamics.start(atoms, settings)
        else:
            prefix = f"{index}/"
            own = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            run = Dynamics.resume(atoms, settings, own, facts)
            # What it is packed with depends on where neighbours were searched last.
            self._systems[key].positions = run.searched["searched_positions"]
            self._systems[key].item()
        folder = self._folder / replica_name(index)
        folder.mkdir(parents=True, exist_ok=True)
        marks = None if facts is None else facts["marks"]
        recorder = Recorder(folder, settings["trajectory"], settings["timestep"], marks)
        asked = settings["temperature"], settings["temperature_end"] or 0.0
        limit = facts["limit"] if facts else _TOO_HOT * max(*asked, run.temperature())
        self.moving.append(Replica(index, key, run, recorder, limit))

    def _advance(self, steps: int) -> None:
        halves = {}
        for replica in self.moving:
            replica.run.heat(self._settings, steps)
            halves[replica.index] = replica.run.halves()
            next(halves[replica.index])
        self._compute()
        for replica in self.moving:
            next(halves[replica.index], None)
        self.step += 1

    def _compute(self) -> None:
        """Compute all where they are, and drop those that cannot be."""
        for replica in self.moving:
            self._systems[replica.key].positions = replica.run.atoms.positions.copy()
        results = self._systems.compute(on_error="keep")
        for replica, result in zip(list(self.moving), results, strict=True):
            if result.error is None:
                replica.run.atoms.calc.take(replica.run.atoms, result)
            else:
                self._drop(replica, str(result.error))

    def _drop_hot(self) -> None:
        for replica in list(self.moving):
            temperature = replica.run.temperature()
            if not temperature < replica.limit:
                self._drop(replica, f"it exploded: its temperature is {temperature:.3g} K")

    def _drop(self, replica: Replica, reason: str) -> None:
        """Go on without a replica; what it has written stays, and is safe with the next state."""
        self.moving.remove(replica)
        self._systems.remove(replica.key)
        self.ended[replica.index] = Ended(self.step, reason)
        self._leaving.append(replica.recorder)

    def _record(self, progress: Progress | None) -> None:
        lines = [replica.recorder.record(replica.run) for replica in self.moving]
        if progress is not None:
            progress(self.step, lines)

    def _save(self) -> None:
        arrays: dict[str, np.ndarray] = {}
        runs: dict[str, Any] = {}
        for replica in self.moving:
            arrays |= {f"{replica.index}/{k}": v for k, v in replica.run.arrays().items()}
            marks = {"marks": replica.recorder.marks(), "limit": replica.limit}
            runs[str(replica.index)] = replica.run.facts() | marks
        for recorder in self._leaving:
            recorder.marks()
        facts = {
            "step": self.step,
            "runs": runs,
            "ended": {index: vars(end) for index, end in self.ended.items()},
            "max_edges": self._systems.max_edges,
            "settings": self._settings,
        }
        save_state(self._folder, arrays, facts)
        for recorder in (*self._leaving, *(replica.recorder for replica in self.moving)):
            recorder.commit()
        for recorder in self._leaving:
            recorder.close()
        self._leaving = []


def replica_name(index: int) -> str:
    """Folder of a replica."""
    return f"replica-{index:03d}"
