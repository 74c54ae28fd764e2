"""Runs in a folder: what is checked before them, and what is kept and written around them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.analysis.statistics import standard_error
from jmp_md.errors import InputError
from jmp_md.report.page import NAME as REPORT
from jmp_md.runs.folder import IDENTITY, identify, opened
from jmp_md.simulate.md.options import MDOptions, check_structure
from jmp_md.simulate.md.recorder import LOG
from jmp_md.simulate.md.results import MDResult
from jmp_md.simulate.state import NAME as STATE
from jmp_md.simulate.state import load_state
from jmp_md.simulate.summary import NAME as SUMMARY
from jmp_md.simulate.summary import describe, write_summary

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.runs.options import RestartOptions
    from jmp_md.simulate.md.driver import Driver, Saved


_OWN = (LOG, "trajectory.*")  # of each run
FILES = (*_OWN, *(f"replica-*/{name}" for name in _OWN), IDENTITY, STATE, SUMMARY, REPORT)


class Runs:
    """A run, or several that take their steps together.

    Args:
        structures: Where they start; the replicas of each follow each other.
        calculator: What computes them.
        folder: Where the files go.
        options: Of the dynamics.
        replicas: Runs of each structure.
        alone: Whether there is only one, whose files lie in the folder itself.

    Attributes:
        folders: Of each run.
        speed: ns/day, once they have run.

    Raises:
        InputError: Options that do not fit, or no structure that does.
    """

    def __init__(
        self,
        structures: Sequence[Atoms],
        calculator: Calculator,
        folder: Path,
        options: MDOptions,
        replicas: int = 1,
        alone: bool = False,
    ) -> None:
        from jmp_md.simulate.watch import DomainWatch

        self.refused = _refused(structures, options)
        if len(self.refused) == len(structures):
            raise self.refused[0]
        if options.constant_pressure:
            _require_stress(calculator)
        self.structures, self.calculator, self.folder = structures, calculator, folder
        self.options, self.alone = options, alone
        self.replicas, self._started = replicas, time.monotonic()
        self.speed: float | None = None
        self.model, self.domain = describe(calculator), DomainWatch(calculator)
        names = [folder] if alone else [folder / replica_name(i) for i in range(len(structures))]
        self.folders = names

    def opened(self, around: RestartOptions) -> AbstractContextManager[None]:
        """See :func:`jmp_md.runs.folder.opened`."""
        return opened(self.folder, FILES, around)

    def results(self, driver: Driver) -> list[MDResult]:
        """All runs as their files show them."""
        from jmp_md.simulate.md.log import read_log

        found, moving = [], driver.atoms()
        for index, (given, folder) in enumerate(zip(self.structures, self.folders, strict=True)):
            trajectory = folder / f"trajectory.{self.options.trajectory}"
            log = read_log(folder / LOG)
            if index in moving:
                atoms = moving[index]
            else:  # what it wrote before it was dropped
                atoms = _last(trajectory) if log.count else given.copy()
                atoms.set_constraint(given.copy().constraints)
            if self.alone:
                atoms.calc = given.calc
            own = [log.mean(name) for name in ("temperature_K", "volume_A3", "pressure_GPa")]
            temperature, volume, pressure = own
            slope = 1000 * log.slope / len(given)
            cell = (volume, pressure) if self.options.constant_pressure else ()
            result = MDResult(atoms, trajectory, folder / LOG, temperature, slope, *cell)
            error = standard_error(log["temperature_K"]) if log.count else float("nan")
            found.append(replace(result, temperature_error=error))
        return found

    def summarize(self, figures: dict[str, Any]) -> dict[str, Any]:
        """Write ``summary.json``; what it says."""
        return write_summary(
            self.folder,
            "md",
            model=self.model,
            settings=self._settings(),
            results=figures,
            seconds=time.monotonic() - self._started,
            domain=self.domain.record(),
            ns_per_day=self.speed,
        )

    def _settings(self) -> dict[str, Any]:
        settings = self.options.model_dump()
        count = len(self.structures) // self.replicas
        many = {"structures": count, "replicas": self.replicas}
        return settings if self.alone else settings | many

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the runs are, so that no other is continued in their place."""
        from jmp_md.simulate.identity import identity

        settings = self.options.physics()
        settings["replicas"] = self.replicas
        several = self.structures[:: self.replicas]
        return identity(self.calculator, settings, several, momenta=True)

    def saved(self, restart: bool) -> Saved | None:
        """The state to go on from; None where the run starts."""
        from jmp_md.simulate.identity import require_same

        identify(self.folder, self.identity, (), restart)
        saved = load_state(self.folder) if restart else None
        if saved is None:
            return None
        facts = saved[1]
        if "identity" not in facts:
            raise InputError(
                f"{self.folder} holds a run of another kind or of an older jmp-md: start again in "
                "another folder"
            )
        require_same(facts["identity"], self.identity, self.folder)
        require_same(
            {"trajectory": facts["trajectory"]},
            {"trajectory": self.options.trajectory},
            self.folder,
        )
        if facts["step"] > self.options.steps:
            raise InputError(
                f"the run in {self.folder} has got to step {facts['step']}: ask for more than "
                f"{self.options.steps}"
            )
        return saved


def replica_name(index: int) -> str:
    """Folder of a replica."""
    return f"replica-{index:03d}"


def _refused(structures: Sequence[Atoms], options: MDOptions) -> dict[int, InputError]:
    """Why structures cannot be run, by number; each is looked at once."""
    known: dict[int, InputError | None] = {}
    for atoms in structures:
        if id(atoms) not in known:
            try:
                check_structure(atoms, options)
                known[id(atoms)] = None
            except InputError as error:
                known[id(atoms)] = error
    errors = [known[id(atoms)] for atoms in structures]
    return {index: error for index, error in enumerate(errors) if error is not None}


def _require_stress(calculator: Calculator) -> None:
    direct = getattr(calculator, "direct", False)
    if "stress" not in calculator.implemented_properties or direct:
        raise InputError(
            f"constant pressure needs stress, which {type(calculator).__name__} does not give"
            f"{' with direct forces' if direct else ''}: choose an nvt ensemble"
        )


def _last(trajectory: Path) -> Atoms:
    from ase.io import read

    if trajectory.suffix == ".h5":
        from jmp_md.simulate.trajectory.h5md import read_h5md

        return read_h5md(trajectory, "-1:")[0]
    last: Atoms = read(trajectory, index=-1)
    return last
