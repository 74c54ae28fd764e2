"""What is around a calculation on one structure: relaxed before, kept on the way, summed up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from jmp_md.options import Options
from jmp_md.report.page import NAME as REPORT
from jmp_md.runs.folder import IDENTITY, identify, opened
from jmp_md.simulate.identity import (
    identify_calculator,
    identify_structure,
    identity,
    require_same,
)
from jmp_md.simulate.state import NAME as STATE
from jmp_md.simulate.state import load_state, save_state
from jmp_md.simulate.summary import NAME as SUMMARY
from jmp_md.simulate.summary import describe, write_summary

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.runs.options import RestartOptions
    from jmp_md.simulate.relax import RelaxResult

OptionsT = TypeVar("OptionsT", bound=Options)
RELAXATION = "relaxation.traj"
FILES = (IDENTITY, RELAXATION, STATE, SUMMARY, REPORT)


class Calculation(Generic[OptionsT]):
    """A calculation in a folder that is open; see :func:`calculation`.

    Attributes:
        folder: Of its files.
        calculator: What computes.
        options: Of the run.
        report: Whether a report is wanted.
    """

    def __init__(
        self,
        verb: str,
        calculator: Calculator,
        folder: Path,
        options: OptionsT,
        around: RestartOptions,
    ) -> None:
        from jmp_md.simulate.watch import DomainWatch

        self.folder, self.calculator, self.options = folder, calculator, options
        self._verb, self._restart, self.report = verb, around.restart, around.report
        self._started, self.watch = time.monotonic(), DomainWatch(calculator)

    def relaxed(
        self, atoms: Atoms, progress: Callable[[int, float, float], None] | None, **options: Any
    ) -> RelaxResult:
        """Relax a structure; what a killed run has done of it is not done again.

        Args:
            atoms: The structure, which is left as it is.
            progress: Called with step, energy in eV and largest force in eV/Å.
            options: See :class:`~jmp_md.simulate.options.RelaxOptions`.
        """
        from jmp_md.simulate.relax import relax

        start = atoms.copy()
        start.calc = self.calculator
        return relax(
            start,
            trajectory=self.folder / RELAXATION,
            restart=self._restart,
            progress=progress,
            observer=lambda step, now: self.watch.see(now, f"step {step}"),
            **options,
        )

    def forces(self, atoms: Atoms, **settings: Any) -> KeptForces:
        """Forces of displaced copies of a structure, as far as they were computed before.

        Args:
            atoms: The structure that is displaced.
            settings: What the displacements depend on.
        """
        return KeptForces(self.folder, self.calculator, atoms, settings, self._restart)

    def summarize(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """Write ``summary.json``; what it says."""
        return write_summary(
            self.folder,
            self._verb,
            model=describe(self.calculator),
            settings=self.options.model_dump(),
            results=results,
            seconds=time.monotonic() - self._started,
            domain=self.watch.record(),
        )


class KeptForces:
    """Forces that are saved as they are computed.

    Attributes:
        known: (n, n_atoms, 3) eV/Å, of the run that goes on; None where it starts, or another
            structure is displaced by now.
    """

    def __init__(
        self,
        folder: Path,
        calculator: Calculator,
        atoms: Atoms,
        settings: Mapping[str, Any],
        restart: bool,
    ) -> None:
        self._folder = folder
        self._run = {"model": identify_calculator(calculator), "settings": dict(settings)}
        self._structure = identify_structure(atoms)
        self.known: np.ndarray | None = None
        saved = load_state(folder) if restart else None
        if saved is not None:
            arrays, facts = saved
            require_same(facts.get("run", {}), self._run, folder)
            if facts.get("structure") == self._structure:
                self.known = arrays["forces"]

    def keep(self, forces: np.ndarray) -> None:
        """Save the forces of all displaced structures so far."""
        facts = {"run": self._run, "structure": self._structure}
        save_state(self._folder, {"forces": forces}, facts)


@contextmanager
def calculation(
    verb: str,
    atoms: Sequence[Atoms],
    calculator: Calculator,
    output: str | Path,
    options: OptionsT,
    around: RestartOptions,
    files: Sequence[str] = (),
) -> Iterator[Calculation[OptionsT]]:
    """Open the folder of a calculation while the block lasts.

    Args:
        verb: What is done, e.g. ``"phonons"``.
        atoms: What it is done with.
        calculator: What computes.
        output: The folder, created if need be.
        options: Of the run.
        around: Whether the run there goes on: of the same verb, structures and model. Options may
            be others, as far as nothing that was computed with them is used again.
        files: Names of the files it writes there besides those of every calculation.

    Raises:
        InputError: The folder holds a run that is neither to be continued nor removed, or another
            one than that to be continued, or another process writes to it.
    """
    folder = Path(output)
    with opened(folder, (*FILES, *files), around):
        own = {"verb": verb, **identity(calculator, {}, atoms)}
        identify(folder, own, (RELAXATION, STATE, SUMMARY), around.restart)
        run = Calculation(verb, calculator, folder, options, around)
        run.watch.begin(atoms)
        yield run
