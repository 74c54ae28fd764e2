"""Molecular dynamics of one structure or of many, in runs that can be killed and continued."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError
from jmp_md.files import locked
from jmp_md.simulate.md.options import Options, check_structure
from jmp_md.simulate.md.recorder import LOG
from jmp_md.simulate.state import NAME as STATE
from jmp_md.simulate.state import load_state
from jmp_md.simulate.summary import describe, write_summary

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.md.driver import Driver, Ended, Progress, Saved, Watch
    from jmp_md.simulate.md.forces import Forces


@dataclass(frozen=True)
class MDResult:
    """A finished run.

    Attributes:
        atoms: The structure at its end, with momenta and the calculator of the one given.
        trajectory: File of the frames, each with ``step`` and ``time_fs`` in ``info``.
        log: Table with the columns :data:`~jmp_md.simulate.md.COLUMNS` and, at constant pressure,
            :data:`~jmp_md.simulate.md.CELL_COLUMNS`; a line per frame.
        temperature: K, mean over the log.
        drift: meV per atom and ps, slope of the conserved energy; NaN where the log has fewer
            than two lines.
        volume: Å³, mean at constant pressure, else NaN.
        pressure: GPa, mean at constant pressure, else NaN.
    """

    atoms: Atoms
    trajectory: Path
    log: Path
    temperature: float
    drift: float
    volume: float = float("nan")
    pressure: float = float("nan")


@dataclass(frozen=True)
class ReplicaResult(MDResult):
    """One of many runs.

    Attributes:
        steps: Steps it got to.
        error: Why it was dropped there.
    """

    steps: int = 0
    error: str | None = None


def md(
    atoms: Atoms,
    output: str | Path,
    *,
    ensemble: str = "nvt-langevin",
    steps: int = 1000,
    timestep: float = 0.5,
    temperature: float = 300.0,
    temperature_end: float | None = None,
    pressure: float = 0.0,
    tdamp: float = 100.0,
    pdamp: float = 1000.0,
    remove_drift: bool = True,
    redraw_velocities: bool = False,
    interval: int = 10,
    save_interval: int = 100,
    trajectory: str = "extxyz",
    seed: int = 0,
    restart: bool = False,
    report: bool = True,
    progress: Callable[[dict[str, float]], None] | None = None,
    watch: Watch | None = None,
    stop: Callable[[], bool] | None = None,
) -> MDResult:
    """Molecular dynamics of a structure with its ASE calculator; the given one is left as it is.

    Momenta the structure has are kept, with a warning; without any, they are drawn at
    ``temperature``. The temperature of the log is that of momenta at half steps, see
    :func:`jmp_md.simulate.md.state.thermometer`; the conserved energy counts what thermostat and
    barostat have given, so that its change is the error of integration in every ensemble.

    The folder gets the trajectory, ``log.csv``, ``state.npz`` and at the end ``summary.json``. A
    run that was stopped at any moment continues with ``restart`` from its last state: frames
    after that are computed again, so that the files are those of a run that was never stopped.
    With a JMP model on one machine they are so bit for bit: the state includes random generators
    and the positions neighbours were last searched at, on which the last bits of forces depend.

    Constraints: ``FixAtoms``, ``FixCartesian``, ``FixScaled``, ``FixedPlane``, ``FixedLine``,
    ``FixBondLengths``, ``FixCom`` and ``Hookean``.

    Args:
        atoms: Structure with a calculator, of any kind.
        output: Folder of the run, created if need be.
        ensemble: ``"nve"`` (velocity Verlet), ``"nvt-langevin"`` (BAOAB), ``"nvt-bussi"``
            (velocity rescaling), ``"nvt-nose-hoover"`` (chain), ``"npt"``
            (Martyna-Tuckerman-Tobias-Klein, the cell keeps its shape) or ``"npt-full"`` (all of
            the cell moves).
        steps: Length of the run, counted from its start also when it is continued.
        timestep: fs.
        temperature: K.
        temperature_end: K to which the temperature changes linearly over all steps; with
            Langevin or Bussi.
        pressure: GPa, for NPT.
        tdamp: fs, time constant of the thermostat; 1 / friction for Langevin.
        pdamp: fs, time constant of the barostat.
        remove_drift: Start without total momentum and keep it zero. Structures that have
            constraints are left as they are.
        redraw_velocities: Draw momenta at ``temperature`` also where the structure has some.
        interval: Steps between frames; the last structure is always written.
        save_interval: Steps between states, the most that a kill costs.
        trajectory: ``"extxyz"``, ``"traj"`` or ``"h5"`` (H5MD, compressed, written whenever the
            state is saved).
        seed: Of momenta and random forces.
        restart: Continue the run in ``output``; one that never got to a state starts anew. Other
            intervals, or another device, are no other run.
        report: Write ``report.html`` at the end.
        progress: Called with each new line of the log.
        watch: Called with 0 and each frame: at the start, on the way and at the end.
        stop: Asked after each step whether to save the state and raise KeyboardInterrupt.

    Raises:
        InputError: No calculator, an option that does not exist or does not fit, a folder that
            holds another run or that another process writes to, a structure that cannot be
            computed or that explodes (its step is named).
        OSError: The disk is full, say; with the last state the run can be continued.
        KeyboardInterrupt: The run was stopped.
    """
    options = Options(
        ensemble=ensemble,
        timestep=timestep,
        temperature=temperature,
        temperature_end=temperature_end,
        pressure=pressure,
        tdamp=tdamp,
        pdamp=pdamp,
        remove_drift=remove_drift,
        redraw_velocities=redraw_velocities,
        interval=interval,
        save_interval=save_interval,
        trajectory=trajectory,
        seed=seed,
    )
    if atoms.calc is None:
        raise InputError("the structure has no calculator: set atoms.calc = JMPCalculator(...)")
    run = _Run([atoms], atoms.calc, Path(output), options, steps, alone=True)

    def show(step: int, lines: Sequence[dict[str, float]]) -> None:
        if progress is not None:
            progress(lines[0])

    with run.folder_locked():
        driver = run.go(restart, show, watch, stop)
        [result] = run.results(driver)
        figures = {
            "temperature_K": result.temperature,
            "drift_meV_per_atom_ps": result.drift,
            "volume_A3": result.volume,
            "pressure_GPa": result.pressure,
        }
        run.summarize(figures)
        if report:
            from jmp_md.report.dynamics import write_dynamics_report

            known = {name: value for name, value in figures.items() if value == value}
            write_dynamics_report(run.folder, result, run.about() | known, atoms.calc)
    return result


def md_many(
    structures: Sequence[Atoms],
    calculator: Calculator,
    output: str | Path,
    *,
    replicas: int = 1,
    steps: int = 1000,
    restart: bool = False,
    report: bool = True,
    progress: Progress | None = None,
    watch: Watch | None = None,
    stop: Callable[[], bool] | None = None,
    **options: Any,
) -> list[ReplicaResult]:
    """Run molecular dynamics of several structures, or of one several times, together.

    A JMP model computes all of them in one batch per step, other calculators one by one.
    Momenta and random forces of the replicas are independent streams of one seed; the first is
    the run that :func:`md` makes with that seed, to the rounding of sums in a batch. ``output``
    gets a folder ``replica-000`` with trajectory and log for each of them, one ``state.npz`` and
    ``summary.json``. One that cannot be computed any more, or explodes, is dropped with what it
    has written; the others go on.

    Args:
        structures: Structures, of any sizes; they are left as they are.
        calculator: What computes them.
        output: Folder of the runs, created if need be.
        replicas: Runs of each structure.
        steps: Length of the runs, counted from their start also when they are continued.
        restart: Continue the runs in ``output``; those that never got to a state start anew.
        report: Write ``report.html`` at the end.
        progress: Called with the step and the new lines of all logs.
        watch: Called with the number of a replica and each of its frames.
        stop: Asked after each step whether to save the state and raise KeyboardInterrupt.
        options: Those of :func:`md`.

    Returns:
        Replicas of the first structure, of the second, and so on.

    Raises:
        InputError: An option that does not exist or does not fit, a folder that holds another
            run or that another process writes to, or not one structure that can be computed.
        OSError: The disk is full, say; with the last state the runs can be continued.
        KeyboardInterrupt: The runs were stopped.
    """
    from jmp_md.simulate.md.start import refuse_same_runs

    unknown = options.keys() - {field.name for field in fields(Options)}
    if unknown:
        raise InputError(f"md_many has no {', '.join(sorted(unknown))}: see its description")
    if not structures or replicas < 1:
        raise InputError(f"{len(structures)} structures, {replicas} replicas: give 1 at least")
    chosen = Options(**options)
    refuse_same_runs(structures, replicas, chosen)
    given = [atoms for atoms in structures for _ in range(replicas)]
    run = _Run(given, calculator, Path(output), chosen, steps, replicas=replicas)
    with run.folder_locked():
        driver = run.go(restart, progress, watch, stop)
        results = [
            ReplicaResult(**vars(result), **_end(driver.ended.get(index), steps))
            for index, result in enumerate(run.results(driver))
        ]
        run.summarize(
            {
                "temperature_K": [result.temperature for result in results],
                "drift_meV_per_atom_ps": [result.drift for result in results],
                "volume_A3": [result.volume for result in results],
                "pressure_GPa": [result.pressure for result in results],
                "dropped": {index: vars(end) for index, end in driver.ended.items()},
            }
        )
        if report:
            from jmp_md.report.replicas import write_replicas_report

            write_replicas_report(run.folder, results, run.about(), calculator)
    return results


class _Run:
    """A run or several in a folder: what is checked before, kept and written around them."""

    def __init__(
        self,
        structures: Sequence[Atoms],
        calculator: Calculator,
        folder: Path,
        options: Options,
        steps: int,
        replicas: int = 1,
        alone: bool = False,
    ) -> None:
        from jmp_md.simulate.watch import DomainWatch

        options.check(steps)
        self.refused = _refused(structures, options)
        if len(self.refused) == len(structures):
            raise self.refused[0]
        if options.constant_pressure:
            _require_stress(calculator)
        self.structures, self.calculator, self.folder = structures, calculator, folder
        self.options, self.steps, self.alone = options, steps, alone
        self._replicas, self._started = replicas, time.monotonic()
        self.model, self.domain = describe(calculator), DomainWatch(calculator)
        names = [folder] if alone else [folder / replica_name(i) for i in range(len(structures))]
        self.folders = names

    def folder_locked(self) -> AbstractContextManager[None]:
        """See :func:`jmp_md.files.locked`."""
        return locked(self.folder)

    def go(
        self,
        restart: bool,
        progress: Progress | None,
        watch: Watch | None,
        stop: Callable[[], bool] | None,
    ) -> Driver:
        """Start or continue, up to the last step."""
        from jmp_md.simulate.md.driver import Driver
        from jmp_md.simulate.md.start import say_what_is_kept

        identity = self._identity()
        saved = self._saved(identity, restart)
        if saved is None:
            say_what_is_kept(self.structures, self.options)
        forces = self._forces(saved)
        self.domain.begin(self.structures[:: self._replicas])
        driver = Driver(
            self.structures,
            forces,
            self.folder,
            self.folders,
            self.options,
            identity,
            saved,
            self.refused,
            self.alone,
        )
        try:
            driver.run(self.steps, progress, self._watching(watch), stop)
        finally:
            driver.close()
        self.domain.end(list(driver.atoms().values()))
        return driver

    def _watching(self, watch: Watch | None) -> Watch:
        """Also sees where frames leave what the model was trained on."""

        def see(index: int, frame: Atoms) -> None:
            where = f"step {frame.info['step']}"
            self.domain.see(frame, where if self.alone else f"{where} of replica {index}")
            if watch is not None:
                watch(index, frame)

        return see

    def results(self, driver: Driver) -> list[MDResult]:
        """All runs as their files show them."""
        from jmp_md.simulate.md.log import read_log

        found, moving = [], driver.atoms()
        for index, (given, folder) in enumerate(zip(self.structures, self.folders, strict=True)):
            trajectory = folder / f"trajectory.{self.options.trajectory}"
            log = read_log(folder / LOG, most=2)
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
            found.append(MDResult(atoms, trajectory, folder / LOG, temperature, slope, *cell))
        return found

    def about(self) -> dict[str, Any]:
        """Model and settings, for reports."""
        settings = {**self.model, **self._settings(), "model": None}
        return {name: value for name, value in settings.items() if value is not None}

    def summarize(self, figures: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        write_summary(
            self.folder,
            "md",
            model=self.model,
            settings=self._settings(),
            results=figures,
            seconds=time.monotonic() - self._started,
            domain=self.domain.record(),
        )

    def _settings(self) -> dict[str, Any]:
        settings = asdict(self.options) | {"steps": self.steps}
        count = len(self.structures) // self._replicas
        many = {"structures": count, "replicas": self._replicas}
        return settings if self.alone else settings | many

    def _forces(self, saved: Saved | None) -> Forces:
        from jmp_md.calculators.ase import JMPCalculator
        from jmp_md.simulate.md.forces import Batched, OneByOne

        stress = self.options.constant_pressure
        if isinstance(self.calculator, JMPCalculator) and not self.alone:
            return Batched(self.calculator, stress, saved[1]["forces"] if saved else None)
        return OneByOne(self.calculator, stress)

    def _identity(self) -> dict[str, Any]:
        from jmp_md.simulate.identity import identity

        settings = self.options.physics()
        if self.options.temperature_end is not None:
            settings["steps"] = self.steps  # the ramp depends on it
        settings["replicas"] = self._replicas
        several = self.structures[:: self._replicas]
        return identity(self.calculator, settings, several, momenta=True)

    def _saved(self, identity: dict[str, Any], restart: bool) -> Saved | None:
        """The state to go on from; None where the run starts."""
        from jmp_md.simulate.identity import require_same

        if not restart:
            self._refuse_used()
            return None
        saved = load_state(self.folder)
        if saved is None:
            return None
        facts = saved[1]
        if "identity" not in facts:
            raise InputError(
                f"{self.folder} holds a run of another kind or of an older jmp-md: start again in "
                "another folder"
            )
        require_same(facts["identity"], identity, self.folder)
        require_same(
            {"trajectory": facts["trajectory"]},
            {"trajectory": self.options.trajectory},
            self.folder,
        )
        if facts["step"] > self.steps:
            raise InputError(
                f"the run in {self.folder} has got to step {facts['step']}: ask for more than "
                f"{self.steps}"
            )
        return saved

    def _refuse_used(self) -> None:
        if (self.folder / STATE).exists():
            raise InputError(
                f"{self.folder} holds a run: continue it with restart (--restart), or choose "
                "another output"
            )
        for name in (LOG, f"trajectory.{self.options.trajectory}"):
            used = [folder / name for folder in self.folders if (folder / name).exists()]
            if used:
                raise InputError(
                    f"there is a {used[0]}, of a run that never got to a state or of another "
                    "program: choose another output, or start again there with restart (--restart)"
                )


def replica_name(index: int) -> str:
    """Folder of a replica."""
    return f"replica-{index:03d}"


def _refused(structures: Sequence[Atoms], options: Options) -> dict[int, InputError]:
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


def _end(ended: Ended | None, steps: int) -> dict[str, Any]:
    return {"steps": steps} if ended is None else {"steps": ended.step, "error": ended.error}


def _last(trajectory: Path) -> Atoms:
    from ase.io import read

    if trajectory.suffix == ".h5":
        from jmp_md.simulate.h5md import read_h5md

        return read_h5md(trajectory, "-1:")[0]
    last: Atoms = read(trajectory, index=-1)
    return last
