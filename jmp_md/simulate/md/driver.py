"""Takes one or many runs from step to step, and keeps what they leave behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.errors import InputError, JMPError
from jmp_md.simulate.md import initial_conditions
from jmp_md.simulate.md.frames import Snapshots
from jmp_md.simulate.md.guard import Guard
from jmp_md.simulate.md.integrators import Integrator
from jmp_md.simulate.md.recorder import Recorder
from jmp_md.simulate.md.state import State
from jmp_md.simulate.state import save_state

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.simulate.forces import Forces
    from jmp_md.simulate.md.options import MDOptions

Progress = Callable[[int, Sequence[dict[str, float]]], None]
Watch = Callable[[int, "Atoms"], None]
Saved = tuple[dict[str, np.ndarray], dict[str, Any]]


@dataclass(frozen=True)
class Ended:
    """A run that was dropped.

    Attributes:
        step: Last step it did.
        error: What went wrong.
    """

    step: int
    error: str


class Driver:
    """Runs that take their steps together.

    Args:
        structures: Where they start.
        forces: What computes them.
        folder: Of the saved state.
        folders: Of trajectory and log of each run.
        options: Of the dynamics.
        identity: What the runs are, saved with the state.
        saved: State to continue from.
        refused: Why structures cannot be run, by number.
        alone: Whether an error ends everything, instead of the run it is of.

    Attributes:
        ended: Runs that were dropped, by number.
        step: Steps done.
    """

    def __init__(
        self,
        structures: Sequence[Atoms],
        forces: Forces,
        folder: Path,
        folders: Sequence[Path],
        options: MDOptions,
        identity: Mapping[str, Any],
        saved: Saved | None = None,
        refused: Mapping[int, JMPError] | None = None,
        alone: bool = False,
    ) -> None:
        arrays, facts = saved or ({}, {})
        self._forces, self._folder, self._options = forces, folder, options
        self._identity, self._alone, self._fresh = identity, alone, saved is None
        self.step: int = facts.get("step", 0)
        self._recorded: int = facts.get("recorded", -1)
        self.ended = {int(i): Ended(**end) for i, end in facts.get("ended", {}).items()}
        self._moving = self._enter(structures, refused or {})
        rngs = initial_conditions.generators(options.seed, len(structures))
        self._integrator = Integrator(options)
        self._state = State.of(
            [structures[i] for i in self._moving],
            [rngs[i] for i in self._moving],
            options.remove_drift,
        )
        self._integrator.begin(self._state)
        if saved is None:
            initial_conditions.begin(self._state, options)
        else:
            self._state.restore(arrays, facts["state"])
            forces.restore(arrays)
        self._state.take(forces.compute(self._state.positions, self._state.cells))
        failed = dict(self._state.computed.errors)
        if alone and failed:
            raise failed[0]
        self._snapshots = Snapshots(initial_conditions.templates(structures), options)
        marks = facts.get("marks") or [None] * len(self._moving)
        self._recorders = [
            Recorder(folders[i], options.trajectory, self._snapshots.columns, mark)
            for i, mark in zip(self._moving, marks, strict=True)
        ]
        self._leaving: list[Recorder] = []
        self._guard = self._make_guard(facts.get("temperatures"))
        self._drop(failed)

    def run(
        self,
        progress: Progress | None = None,
        watch: Watch | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """Go on to the last step.

        Args:
            progress: Called with the step and the new lines of all logs.
            watch: Called with the number of a run and each of its frames.
            stop: Asked after each step whether to save the state and raise KeyboardInterrupt.

        Raises:
            InputError: No run can be computed any more, or the only one.
        """
        if not self._moving:
            raise InputError(self._nothing_left())
        if self._fresh:
            self._record(progress, watch)
            self._save()
        steps = self._options.steps
        while self.step < steps and self._moving:
            self._advance()
            if self.step % self._options.interval == 0:
                self._record(progress, watch)
            stopped = stop is not None and stop()
            due = self.step % self._options.save_interval == 0 or self.step == steps
            if due or stopped or self._leaving:
                self._save()
            if stopped and self.step < steps:
                raise KeyboardInterrupt
        if self._moving and self._recorded != self.step:
            self._record_end(progress, watch)

    def atoms(self) -> dict[int, Atoms]:
        """Structures of the runs that go on, by number, with momenta."""
        moving = enumerate(self._moving)
        return {i: self._snapshots.atoms(self._state, place, i) for place, i in moving}

    def close(self) -> None:
        """Close all files."""
        for recorder in (*self._leaving, *self._recorders):
            recorder.close()

    def _enter(self, structures: Sequence[Atoms], refused: Mapping[int, JMPError]) -> list[int]:
        moving = []
        for index, atoms in enumerate(structures):
            if index in self.ended:
                continue
            error = refused.get(index) or self._forces.add(atoms)
            if error is None:
                moving.append(index)
            elif self._alone:
                raise error
            else:
                self.ended[index] = Ended(0, str(error))
        if not moving:
            raise InputError(self._nothing_left())
        return moving

    def _make_guard(self, temperatures: Sequence[float] | None) -> Guard:
        freedom, options = self._state.constraints.freedom, self._options
        if temperatures is None:
            asked = max(options.temperature, options.temperature_end or 0.0)
            own = self._integrator.temperature(self._state)
            temperatures = np.maximum(asked, own).tolist()
        return Guard(np.array(temperatures), freedom, options.timestep)

    def _advance(self) -> None:
        options = self._options
        if options.temperature_end is not None:
            change = options.temperature_end - options.temperature
            target = options.temperature + change * self.step / options.steps
            self._integrator.thermostat.temperature = target
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            self._integrator.step(self._state, self._forces)
            conserved = self._integrator.conserved(self._state)
            temperatures = self._integrator.temperature(self._state)
        wrong = self._guard.look(self.step + 1, conserved, temperatures)
        self._drop(wrong | dict(self._state.computed.errors))
        self.step += 1

    def _drop(self, wrong: Mapping[int, JMPError | str]) -> None:
        """Go on without some runs; what they have written is safe with the next state."""
        if not wrong:
            return
        if self._alone:
            reason = next(iter(wrong.values()))
            raise InputError(
                f"the run stopped after step {self.step}: {reason}; frames up to there are in "
                f"{self._folder}"
            ) from (reason if isinstance(reason, JMPError) else None)
        kept = np.array([place not in wrong for place in range(len(self._moving))])
        for place, reason in wrong.items():
            self.ended[self._moving[place]] = Ended(self.step, str(reason))
            self._leaving.append(self._recorders[place])
        self._moving = [i for i, k in zip(self._moving, kept, strict=True) if k]
        self._recorders = [r for r, k in zip(self._recorders, kept, strict=True) if k]
        if self._moving:
            self._state.keep(kept)
            self._forces.keep(kept)
            self._guard.keep(kept)

    def _nothing_left(self) -> str:
        reasons = list(dict.fromkeys(end.error for end in self.ended.values()))
        more = f" (and {len(reasons) - 1} other errors)" if len(reasons) > 1 else ""
        return f"none of {len(self.ended)} replicas can be computed: {reasons[0]}{more}"

    def _record(self, progress: Progress | None, watch: Watch | None) -> None:
        self._write(progress, watch, lambda recorder, frame, line: recorder.record(frame, line))
        self._recorded = self.step

    def _record_end(self, progress: Progress | None, watch: Watch | None) -> None:
        """Write where the runs end, so that runs that go on do not have it."""
        marks: list[dict[str, Any]] = []
        self._write(
            progress,
            watch,
            lambda recorder, frame, line: marks.append(recorder.record_end(frame, line)),
        )
        self._save(marks)

    def _write(
        self,
        progress: Progress | None,
        watch: Watch | None,
        write: Callable[[Recorder, Atoms, dict[str, float]], None],
    ) -> None:
        lines = self._snapshots.lines(self._state, self._integrator, self.step, self._moving)
        for place, (index, recorder) in enumerate(zip(self._moving, self._recorders, strict=True)):
            frame = self._snapshots.frame(self._state, place, index, lines[place])
            write(recorder, frame, lines[place])
            if watch is not None:
                watch(index, frame)
        if progress is not None:
            progress(self.step, lines)

    def _save(self, marks: list[dict[str, Any]] | None = None) -> None:
        if marks is None:
            marks = [recorder.marks() for recorder in self._recorders]
        for recorder in self._leaving:
            recorder.marks()
        facts = {
            "step": self.step,
            "recorded": self._recorded,
            "ended": {index: vars(end) for index, end in self.ended.items()},
            "marks": marks,
            "temperatures": self._guard.temperatures.tolist(),
            "state": self._state.facts(),
            "forces": self._forces.facts(),
            "trajectory": self._options.trajectory,
            "identity": self._identity,
        }
        save_state(self._folder, self._state.arrays() | self._forces.arrays(), facts)
        for recorder in (*self._leaving, *self._recorders):
            recorder.commit()
        for recorder in self._leaving:
            recorder.close()
        self._leaving = []
