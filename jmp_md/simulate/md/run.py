"""Molecular dynamics of one structure or of many, in runs that can be killed and continued."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError
from jmp_md.simulate.md.folder import Runs
from jmp_md.simulate.md.options import Options
from jmp_md.simulate.md.results import MDResult, ReplicaResult

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.md.driver import Ended, Progress, Watch


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
    run = Runs([atoms], atoms.calc, Path(output), options, steps, alone=True)

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
    run = Runs(given, calculator, Path(output), chosen, steps, replicas=replicas)
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


def _end(ended: Ended | None, steps: int) -> dict[str, Any]:
    return {"steps": steps} if ended is None else {"steps": ended.step, "error": ended.error}
