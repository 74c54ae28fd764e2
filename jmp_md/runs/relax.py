"""Relaxations of any number of structures in a folder, which can be killed and continued."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError
from jmp_md.files import remove_if_empty
from jmp_md.report.page import NAME as REPORT
from jmp_md.runs.folder import IDENTITY, by_name, identify, opened, refuse_used
from jmp_md.runs.options import RestartOptions
from jmp_md.simulate.identity import identify_calculator, identify_structures
from jmp_md.simulate.summary import NAME as SUMMARY
from jmp_md.simulate.summary import describe, write_summary

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.calculators.ase import JMPCalculator
    from jmp_md.simulate.options import RelaxOptions
    from jmp_md.simulate.relax.relaxation import Relaxation, RelaxResult
    from jmp_md.simulate.watch import DomainWatch

RESULT, STATE, LOG = "relaxed", "state", "optimizer.log"
FILES = (f"{RESULT}.*", "trajectory*.traj", LOG, IDENTITY, SUMMARY, REPORT, f"{STATE}/*/*")
_WATCHED = 20  # steps of a structure in a batch; to look at each would take as long as a step


@dataclass
class Relaxations:
    """Relaxations in a folder.

    Args:
        structures: Any number, of any sizes; they are left as they are.
        models: Name and calculator for each.
        folder: Where ``relaxed.FORMAT``, ``optimizer.log``, ``summary.json`` and trajectories go,
            and until all is done the state that a killed run goes on from.
        options: Of each relaxation.
        batch_size: Structures to relax in a batch on one model; 1 for one after another, of which
            the first that cannot be computed ends the run.
        format: Ending of the file of results, of a format of ASE's.
        trajectory: Whether to write the steps, ``trajectory.traj``, numbered where there are
            several structures.
        around: Whether the run in the folder goes on, or its files are removed.
        observer: Called with the index of each structure and where it is, after each step.
        ended: Called with the index and the end of each structure, also of those that were done
            before a restart.

    Attributes:
        ends: What became of structures, by index.
        watches: Where they left what their models were trained on, by name of the model.
    """

    structures: Sequence[Atoms]
    models: Sequence[tuple[str, JMPCalculator]]
    folder: Path
    options: RelaxOptions
    batch_size: int = 1
    format: str = "extxyz"
    trajectory: bool = False
    around: RestartOptions = field(default_factory=RestartOptions)
    observer: Callable[[int, Relaxation], None] = lambda index, now: None
    ended: Callable[[int, RelaxResult], None] = lambda index, end: None
    ends: dict[int, RelaxResult] = field(default_factory=dict)
    watches: dict[str, DomainWatch] = field(default_factory=dict)

    @property
    def result(self) -> Path:
        """File of the relaxed structures."""
        return self.folder / f"{RESULT}.{self.format}"

    @property
    def good(self) -> list[int]:
        """Indices of the structures that could be computed."""
        return [i for i in sorted(self.ends) if self.ends[i].error is None]

    def check(self) -> None:
        """Refuse what cannot be meant, before any model is loaded.

        Raises:
            InputError: Options that do not go with a structure, a format that cannot hold the
                structures, or a folder that holds a run.
        """
        from jmp_md.simulate.relax.cell import check_fit
        from jmp_md.structure_files import require_format

        if self.batch_size < 1:
            raise InputError(f"batch-size {self.batch_size}: must be 1 or more")
        for i, atoms in enumerate(self.structures):
            try:
                check_fit(atoms, self.options)
            except InputError as error:
                if len(self.structures) == 1:
                    raise
                formula = atoms.get_chemical_formula(mode="hill")
                raise InputError(f"structure {i} ({formula}): {error}") from error
        require_format(self.result, len(self.structures))
        refuse_used(self.folder, FILES, self.around)

    def run(self) -> None:
        """Relax all structures; what is done is written whatever happens.

        Raises:
            InputError: One of those that relax one after another cannot be computed.
        """
        from jmp_md.simulate.watch import watch_domain

        started = time.monotonic()
        state = self.folder / STATE
        with opened(self.folder, FILES, self.around):
            models = by_name(self.models)
            who = {name: identify_calculator(each) for name, each in models.items()}
            given = identify_structures(self.structures)
            own = {"verb": "relax", "models": who, "structures": given}
            restart = self.around.restart
            if not (restart and state.exists()):  # else that tells which structure differs
                identify(self.folder, own, (self.result.name, SUMMARY), restart)
            self.watches = watch_domain(self.structures, self.models)
            try:
                for model, calculator in models.items():
                    self._relax(model, calculator)
            finally:  # an error or an interrupt does not cost what is done
                self._write()
                remove_if_empty(state)
            for name, watch in self.watches.items():
                watch.end([self.ends[i].atoms for i in self.good if self.models[i][0] == name])
            summary = self._summarize(time.monotonic() - started)
            if all(end.converged or end.error is not None for end in self.ends.values()):
                self._remove_state()  # else more steps may be asked for
            if self.around.report:
                self._report(summary)

    def _relax(self, model: str, calculator: JMPCalculator) -> None:
        """Relax the structures of a model."""
        from jmp_md.simulate.relax import relax_batched
        from jmp_md.simulate.relax.state import RelaxState

        own = [i for i, (name, _) in enumerate(self.models) if name == model]
        alone, watch = self.batch_size == 1, self.watches[model]
        interval = 1 if alone else _WATCHED

        def see(now: Relaxation) -> None:
            index = own[now.index]
            self.observer(index, now)
            if (now.steps + 1) % interval == 0:
                watch.see(now.atoms, f"step {now.steps} of structure {index}")

        def note(k: int, end: RelaxResult) -> None:
            self.ends[own[k]] = end
            self.ended(own[k], end)

        trajectory = (lambda k: self._trajectory(own[k])) if self.trajectory else None
        folder = self._state(model)
        with RelaxState(folder, calculator, self.options, self.around.restart, trajectory) as state:
            relax_batched(
                [self.structures[i] for i in own],
                calculator,
                self.options,
                batch_size=self.batch_size,
                on_error="raise" if alone else "keep",
                record=state,
                log=self.folder / LOG,
                progress=note,
                observer=see,
            )

    def _trajectory(self, index: int) -> Path:
        number = f"-{index + 1}" if len(self.structures) > 1 else ""
        return self.folder / f"trajectory{number}.traj"

    def _state(self, model: str) -> Path:
        return self.folder / STATE / Path(model).name

    def _write(self) -> None:
        """Write the structures that could be computed, each of which says which it is."""
        from jmp_md.structure_files import with_results, write_structures

        ends = {i: self.ends[i] for i in self.good}
        if ends:
            frames = [
                with_results(end.atoms, index=i, converged=end.converged, steps=end.steps)
                for i, end in ends.items()
            ]
            write_structures(self.result, frames)

    def _report(self, summary: dict[str, Any]) -> None:
        from jmp_md.report.molecules import write_relaxation_report

        ends = [self.ends[i] for i in range(len(self.structures))]
        left = [name for name, watch in self.watches.items() if watch.left]
        write_relaxation_report(self.folder, ends, left, summary)

    def _summarize(self, seconds: float) -> dict[str, Any]:
        rows = [
            {
                "formula": atoms.get_chemical_formula(mode="hill"),
                "model": self.models[i][0],
                "converged": self.ends[i].converged,
                "steps": self.ends[i].steps,
                "energy_eV": self.ends[i].energy,
                "fmax_eV_per_A": self.ends[i].fmax,
                "stress_left_GPa": self.ends[i].stress_left,
                "error": self.ends[i].error,
            }
            for i, atoms in enumerate(self.structures)
        ]
        return write_summary(
            self.folder,
            "relax",
            model={name: describe(calculator) for name, calculator in dict(self.models).items()},
            settings=self.options.model_dump() | {"batch_size": self.batch_size},
            results={"structures": rows},
            seconds=seconds,
            domain={name: watch.record() for name, watch in self.watches.items()},
        )

    def _remove_state(self) -> None:
        from jmp_md.simulate.relax.state import remove_state

        for model in dict(self.models):
            remove_state(self._state(model))
        remove_if_empty(self.folder / STATE)
