"""Molecular dynamics of one structure or of many, in runs that can be killed and continued."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError
from jmp_md.options import with_options
from jmp_md.runs.md_folder import Runs
from jmp_md.runs.options import RestartOptions, divided
from jmp_md.simulate.forces import Batched, Forces, OneByOne, as_jmp
from jmp_md.simulate.md.options import MDOptions
from jmp_md.simulate.md.results import MDResult, ReplicaResult

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.md.driver import Driver, Ended, Progress, Saved, Watch


@with_options(MDOptions, RestartOptions)
def run_md(
    atoms: Atoms,
    output: str | Path,
    options: MDOptions | None = None,
    *,
    progress: Callable[[dict[str, float]], None] | None = None,
    watch: Watch | None = None,
    stop: Callable[[], bool] | None = None,
    **changes: Any,
) -> MDResult:
    """Molecular dynamics of a structure with its ASE calculator; the given one is left as it is.

    Momenta the structure has are kept, with a warning; without any, they are drawn at
    ``temperature``. The temperature of the log is that of momenta at half steps, see
    :func:`jmp_md.simulate.md.state.thermometer`; the conserved energy counts what thermostat and
    barostat have given, so that its change is the error of integration in every ensemble.

    The folder gets the trajectory, ``log.csv``, ``state.npz`` and at the end ``summary.json``. A
    run that was stopped at any moment continues with ``restart`` from its last state: frames
    after that are computed again, so that the files are those of a run that was never stopped.
    One that never got to a state starts anew; other intervals, or another device, are no other run.
    With a JMP model on one machine they are so bit for bit: the state includes random generators
    and the positions neighbours were last searched at, on which the last bits of forces depend.

    Constraints: ``FixAtoms``, ``FixCartesian``, ``FixScaled``, ``FixedPlane``, ``FixedLine``,
    ``FixBondLengths``, ``FixCom`` and ``Hookean``.

    Args:
        atoms: Structure with a calculator, of any kind.
        output: Folder of the run, created if need be.
        options: See :class:`~jmp_md.simulate.md.MDOptions`; None for the defaults.
        progress: Called with each new line of the log.
        watch: Called with 0 and each frame: at the start, on the way and at the end.
        stop: Asked after each step whether to save the state and raise KeyboardInterrupt.
        changes: Options by name, in place of those of ``options``, and ``restart``,
            ``overwrite`` and ``report``, see :class:`~jmp_md.runs.options.RestartOptions`.

    Raises:
        InputError: No calculator, an option that does not exist or does not fit, a folder that
            holds another run or that another process writes to, a structure that cannot be
            computed or that explodes (its step is named).
        OSError: The disk is full, say; with the last state the run can be continued.
        KeyboardInterrupt: The run was stopped.
    """
    chosen, around = divided(options or MDOptions(), changes, RestartOptions)
    if atoms.calc is None:
        raise InputError("the structure has no calculator: set atoms.calc = JMPCalculator(...)")
    run = Runs([atoms], atoms.calc, Path(output), chosen, alone=True)

    def show(step: int, lines: Sequence[dict[str, float]]) -> None:
        if progress is not None:
            progress(lines[0])

    with run.opened(around):
        driver = _go(run, around.restart, show, watch, stop)
        [result] = run.results(driver)
        figures = {
            "temperature_K": result.temperature,
            "temperature_error_K": result.temperature_error,
            "drift_meV_per_atom_ps": result.drift,
            "volume_A3": result.volume,
            "pressure_GPa": result.pressure,
        }
        summary = run.summarize(figures)
        if around.report:
            from jmp_md.report.dynamics import write_dynamics_report

            write_dynamics_report(run.folder, result, summary)
    return result


@with_options(MDOptions, RestartOptions)
def run_md_replicas(
    structures: Sequence[Atoms],
    calculator: Calculator,
    output: str | Path,
    options: MDOptions | None = None,
    *,
    replicas: int = 1,
    progress: Progress | None = None,
    watch: Watch | None = None,
    stop: Callable[[], bool] | None = None,
    **changes: Any,
) -> list[ReplicaResult]:
    """Run molecular dynamics of several structures, or of one several times, together.

    A JMP model computes all of them in one batch per step, other calculators one by one.
    Momenta and random forces of the replicas are independent streams of one seed; the first is
    the run that :func:`run_md` makes with that seed, to the rounding of sums in a batch. ``output``
    gets a folder ``replica-000`` with trajectory and log for each of them, one ``state.npz`` and
    ``summary.json``. One that cannot be computed any more, or explodes, is dropped with what it
    has written; the others go on.

    Args:
        structures: Structures, of any sizes; they are left as they are.
        calculator: What computes them.
        output: Folder of the runs, created if need be.
        options: See :class:`~jmp_md.simulate.md.MDOptions`; None for the defaults.
        replicas: Runs of each structure.
        progress: Called with the step and the new lines of all logs.
        watch: Called with the number of a replica and each of its frames.
        stop: Asked after each step whether to save the state and raise KeyboardInterrupt.
        changes: Options by name, in place of those of ``options``, and ``restart``,
            ``overwrite`` and ``report``, see :class:`~jmp_md.runs.options.RestartOptions`.

    Returns:
        Replicas of the first structure, of the second, and so on.

    Raises:
        InputError: An option that does not exist or does not fit, a folder that holds another
            run or that another process writes to, or not one structure that can be computed.
        OSError: The disk is full, say; with the last state the runs can be continued.
        KeyboardInterrupt: The runs were stopped.
    """
    from jmp_md.simulate.md.initial_conditions import refuse_same_runs

    chosen, around = divided(options or MDOptions(), changes, RestartOptions)
    if not structures or replicas < 1:
        raise InputError(f"{len(structures)} structures, {replicas} replicas: give 1 at least")
    refuse_same_runs(structures, replicas, chosen)
    given = [atoms for atoms in structures for _ in range(replicas)]
    run = Runs(given, calculator, Path(output), chosen, replicas=replicas)
    with run.opened(around):
        driver = _go(run, around.restart, progress, watch, stop)
        results = [
            ReplicaResult(**vars(result), **_end(driver.ended.get(index), chosen.steps))
            for index, result in enumerate(run.results(driver))
        ]
        summary = run.summarize(
            {
                "temperature_K": [result.temperature for result in results],
                "temperature_error_K": [result.temperature_error for result in results],
                "drift_meV_per_atom_ps": [result.drift for result in results],
                "volume_A3": [result.volume for result in results],
                "pressure_GPa": [result.pressure for result in results],
                "dropped": {index: vars(end) for index, end in driver.ended.items()},
            }
        )
        if around.report:
            from jmp_md.report.replicas import write_replicas_report

            write_replicas_report(run.folder, results, summary)
    return results


def _go(
    run: Runs,
    restart: bool,
    progress: Progress | None,
    watch: Watch | None,
    stop: Callable[[], bool] | None,
) -> Driver:
    """Start or continue, up to the last step."""
    from jmp_md.simulate.md.driver import Driver
    from jmp_md.simulate.md.initial_conditions import say_what_is_kept

    def see(index: int, frame: Atoms) -> None:
        where = f"step {frame.info['step']}"
        run.domain.see(frame, where if run.alone else f"{where} of replica {index}")
        if watch is not None:
            watch(index, frame)

    saved = run.saved(restart)
    if saved is None:
        say_what_is_kept(run.structures, run.options)
    forces = _forces(run, saved)
    run.domain.begin(run.structures[:: run.replicas])
    driver = Driver(
        run.structures,
        forces,
        run.folder,
        run.folders,
        run.options,
        run.identity,
        saved,
        run.refused,
        run.alone,
    )
    begun, steps = time.monotonic(), run.options.steps - driver.step
    try:
        driver.run(progress, see, stop)
        days = (time.monotonic() - begun) / 86400
        run.speed = steps * run.options.timestep * 1e-6 / days if steps else None
    finally:
        driver.close()
    run.domain.end(list(driver.atoms().values()))
    return driver


def _forces(run: Runs, saved: Saved | None) -> Forces:
    cells_move = run.options.constant_pressure
    jmp = as_jmp(run.calculator)
    if jmp is None:
        return OneByOne(run.calculator, stress=cells_move)
    return Batched(jmp, cells_move, saved[1]["forces"] if saved else None)


def _end(ended: Ended | None, steps: int) -> dict[str, Any]:
    return {"steps": steps} if ended is None else {"steps": ended.step, "error": ended.error}
