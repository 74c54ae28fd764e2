"""Molecular dynamics with ASE's integrators, in runs that can be killed and continued."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError, JMPError
from jmp_md.simulate.frames import read_frames
from jmp_md.simulate.options import ENSEMBLES, check_options
from jmp_md.simulate.recorder import COLUMNS, LOG, Recorder, drift
from jmp_md.simulate.state import save_state, state_to_continue
from jmp_md.simulate.summary import describe, write_summary

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.dynamics import Dynamics

__all__ = ["COLUMNS", "ENSEMBLES", "LOG", "MDResult", "md"]


@dataclass(frozen=True)
class MDResult:
    """A finished run.

    Attributes:
        atoms: The structure at its end, with momenta and the calculator of the one given.
        trajectory: File of the frames, each with ``step`` and ``time_fs`` in ``info``.
        log: Table with the columns :data:`COLUMNS`, a line per frame.
        temperature: K, mean over the log.
        drift: meV per atom and ps, slope of the conserved energy; NaN for Langevin dynamics and
            where the log has fewer than two lines.
    """

    atoms: Atoms
    trajectory: Path
    log: Path
    temperature: float
    drift: float


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
    interval: int = 10,
    save_interval: int = 100,
    trajectory: str = "extxyz",
    seed: int = 0,
    restart: bool = False,
    report: bool = True,
    progress: Callable[[dict[str, float]], None] | None = None,
) -> MDResult:
    """Molecular dynamics of a structure with its ASE calculator; the given one is left as it is.

    Momenta the structure has are kept; without any, they are drawn at ``temperature``.

    The folder gets the trajectory, ``log.csv``, ``state.npz`` and at the end ``summary.json``. A
    run that was stopped at any moment continues with ``restart`` from its last state: frames
    after that are computed again, so that the files are those of a run that was never stopped.
    With a JMP model on one machine they are so bit for bit: the state includes random generators
    and the positions neighbours were last searched at, on which the last bits of forces depend.

    Args:
        atoms: Structure with a calculator, of any kind.
        output: Folder of the run, created if need be.
        ensemble: ``"nve"`` (velocity Verlet), ``"nvt-langevin"``, ``"nvt-bussi"`` (velocity
            rescaling), ``"nvt-nose-hoover"`` (chain), ``"npt"`` (Martyna-Tobias-Klein, the cell
            keeps its shape) or ``"npt-full"`` (all of the cell moves).
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
        interval: Steps between frames.
        save_interval: Steps between states, the most that a kill costs.
        trajectory: ``"extxyz"``, ``"traj"`` or ``"h5"`` (H5MD, compressed, written whenever the
            state is saved).
        seed: Of momenta and random forces.
        restart: Continue the run in ``output``; one that never got to a state starts anew.
        report: Write ``report.html`` at the end.
        progress: Called with each new line of the log.

    Raises:
        InputError: No calculator, an option that does not exist or does not fit, a folder that
            holds another run, or a structure that cannot be computed (its step is named).
        OSError: The disk is full, say; with the last state the run can be continued.
    """
    from jmp_md.simulate.dynamics import Dynamics

    settings: dict[str, Any] = {
        "ensemble": ensemble,
        "timestep": timestep,
        "temperature": temperature,
        "temperature_end": temperature_end,
        "pressure": pressure,
        "tdamp": tdamp,
        "pdamp": pdamp,
        "remove_drift": remove_drift,
        "interval": interval,
        "save_interval": save_interval,
        "trajectory": trajectory,
        "seed": seed,
    }
    if atoms.calc is None:
        raise InputError("the structure has no calculator: set atoms.calc = JMPCalculator(...)")
    check_options(atoms, steps=steps, **settings)
    started = time.monotonic()
    folder = Path(output)
    settings["model"] = describe(atoms.calc)
    if temperature_end is not None:
        settings["steps"] = steps  # the ramp depends on it
    saved = state_to_continue(folder, settings, restart, steps)
    if not restart:
        _refuse_used(folder, trajectory)
    folder.mkdir(parents=True, exist_ok=True)
    run = Dynamics.resume(atoms, settings, *saved) if saved else Dynamics.start(atoms, settings)
    run.atoms.get_forces()
    recorder = Recorder(folder, trajectory, timestep, saved[1]["marks"] if saved else None)
    try:
        _propagate(run, folder, recorder, settings, steps, progress, fresh=saved is None)
    finally:
        recorder.close()
    run.atoms.set_constraint(atoms.constraints)
    figures_of_log = drift(recorder.log.path, len(atoms))
    result = MDResult(run.atoms, recorder.frames.path, recorder.log.path, *figures_of_log)
    figures = {"temperature_K": result.temperature, "drift_meV_per_atom_ps": result.drift}
    write_summary(
        folder,
        "md",
        model=settings["model"],
        settings={**settings, "steps": steps},
        results=figures,
        seconds=time.monotonic() - started,
    )
    if report:
        about = {**settings["model"], **settings, "model": None, "steps": steps, **figures}
        _report(folder, result, about, atoms.calc)
    return result


def _report(
    folder: Path, result: MDResult, about: dict[str, Any], calculator: Calculator | None
) -> None:
    import numpy as np

    from jmp_md.report.dynamics import write_dynamics_report

    frames = read_frames(result.trajectory)
    log = np.loadtxt(result.log, delimiter=",", skiprows=1, ndmin=2)
    known = {name: value for name, value in about.items() if value is not None}
    write_dynamics_report(folder, frames, log, COLUMNS, known, calculator)


def _refuse_used(folder: Path, trajectory: str) -> None:
    for name in (LOG, f"trajectory.{trajectory}"):
        if (folder / name).exists():
            raise InputError(
                f"{folder} has a {name}, of a run that never got to a state or of another program: "
                "choose another output, or start again there with restart (--restart)"
            )


def _propagate(
    run: Dynamics,
    folder: Path,
    recorder: Recorder,
    settings: dict[str, Any],
    steps: int,
    progress: Callable[[dict[str, float]], None] | None,
    fresh: bool,
) -> None:
    def record() -> None:
        line = recorder.record(run)
        if progress is not None:
            progress(line)

    def save() -> None:
        facts = {**run.facts(), "marks": recorder.marks(), "settings": settings}
        save_state(folder, run.arrays(), facts)
        recorder.commit()

    try:
        if fresh:
            record()
            save()
        while run.step < steps:
            run.heat(settings, steps)
            run.advance()
            if run.step % settings["interval"] == 0:
                record()
            if run.step % settings["save_interval"] == 0 or run.step == steps:
                save()
    except JMPError as error:
        raise InputError(
            f"the run stopped after step {run.step}: {error}; frames up to there are in {folder}"
        ) from error
