"""Molecular dynamics of many structures on one model: a batch per step, files for each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.errors import InputError
from jmp_md.simulate.frames import read_frames
from jmp_md.simulate.halves import SPLIT
from jmp_md.simulate.md import MDResult, md
from jmp_md.simulate.options import check_options
from jmp_md.simulate.recorder import LOG, drift
from jmp_md.simulate.state import state_to_continue
from jmp_md.simulate.summary import describe, write_summary
from jmp_md.simulate.together import Progress, Together, replica_name

if TYPE_CHECKING:
    from ase import Atoms

# Options of md that md_many does not have, or has as arguments of its own.
NOT_HERE = ("restart", "steps", "progress", "report")


@dataclass(frozen=True)
class ReplicaResult(MDResult):
    """One of many runs.

    Attributes:
        steps: Steps it got to.
        error: Why it was dropped there.
    """

    steps: int = 0
    error: str | None = None


def md_many(
    structures: Sequence[Atoms],
    calculator: JMPCalculator,
    output: str | Path,
    *,
    replicas: int = 1,
    steps: int = 1000,
    restart: bool = False,
    report: bool = True,
    progress: Progress | None = None,
    **options: Any,
) -> list[ReplicaResult]:
    """Run molecular dynamics of several structures, or of one several times, in one batch.

    Replica k is the run that :func:`~jmp_md.simulate.md.md` makes with seed ``seed + k``, to the
    rounding of sums in a batch. ``output`` gets a folder ``replica-000`` with trajectory and log
    for each of them, one ``state.npz`` and ``summary.json``. One that cannot be computed any
    more, or explodes, is dropped with what it has written; the others go on.

    Args:
        structures: Structures, of any sizes; they are left as they are.
        calculator: Model, with its graph and precision.
        output: Folder of the runs, created if need be.
        replicas: Runs of each structure, with seeds of their own.
        steps: Length of the runs, counted from their start also when they are continued.
        restart: Continue the runs in ``output``; those that never got to a state start anew.
        report: Write ``report.html`` at the end.
        progress: Called with the step and the new lines of all logs.
        options: Those of :func:`~jmp_md.simulate.md.md`; ensembles that change the cell are not
            among them.

    Returns:
        Replicas of the first structure, of the second, and so on.

    Raises:
        InputError: An option that does not exist or does not fit, or a folder that holds another
            run.
        OSError: The disk is full, say; with the last state the runs can be continued.
    """
    defaults = {k: v for k, v in (md.__kwdefaults__ or {}).items() if k not in NOT_HERE}
    unknown = options.keys() - defaults.keys()
    if unknown:
        raise InputError(f"md_many has no {', '.join(sorted(unknown))}: see its description")
    settings: dict[str, Any] = {**defaults, **options}
    _check(structures, calculator, replicas, steps, settings)
    started = time.monotonic()
    folder = Path(output)
    settings["model"] = describe(calculator)
    settings |= {"structures": len(structures), "replicas": replicas}
    if settings["temperature_end"] is not None:
        settings["steps"] = steps
    given = [atoms for atoms in structures for _ in range(replicas)]
    saved = state_to_continue(folder, settings, restart, steps)
    folder.mkdir(parents=True, exist_ok=True)
    runs = Together(given, calculator, folder, settings, saved)
    try:
        runs.propagate(steps, progress)
    finally:
        runs.close()
    results = _results(given, runs, folder, trajectory=settings["trajectory"])
    write_summary(
        folder,
        "md",
        model=settings["model"],
        settings={**settings, "steps": steps},
        results={
            "temperature_K": [result.temperature for result in results],
            "drift_meV_per_atom_ps": [result.drift for result in results],
            "dropped": {index: vars(end) for index, end in runs.ended.items()},
        },
        seconds=time.monotonic() - started,
    )
    if report:
        from jmp_md.report.replicas import write_replicas_report

        about = {**settings["model"], **settings, "model": None, "steps": steps}
        known = {name: value for name, value in about.items() if value is not None}
        write_replicas_report(folder, results, known, calculator)
    return results


def _check(
    structures: Sequence[Atoms],
    calculator: JMPCalculator,
    replicas: int,
    steps: int,
    settings: dict[str, Any],
) -> None:
    if not isinstance(calculator, JMPCalculator):
        raise InputError(
            f"md_many needs a JMPCalculator, not {type(calculator).__name__}: use md for each "
            "structure"
        )
    if not structures or replicas < 1:
        raise InputError(f"{len(structures)} structures, {replicas} replicas: give 1 at least")
    if settings["ensemble"] not in SPLIT:
        raise InputError(
            f"ensemble {settings['ensemble']!r} for several structures: choose one of "
            f"{', '.join(SPLIT)}"
        )
    for atoms in structures:
        check_options(atoms, steps=steps, **settings)
        alike = settings["ensemble"] in ("nve", "nvt-nose-hoover") and atoms.get_momenta().any()
        if replicas > 1 and alike:
            raise InputError(
                f"{replicas} replicas that start with the momenta of the structure are one and the "
                f"same run in {settings['ensemble']}: take the momenta out of the file, or choose "
                "nvt-langevin or nvt-bussi"
            )


def _results(
    given: Sequence[Atoms], runs: Together, folder: Path, trajectory: str
) -> list[ReplicaResult]:
    """All replicas as their files show them."""
    ends = {replica.index: replica.run.atoms for replica in runs.moving}
    results = []
    for index, atoms in enumerate(given):
        own, end = folder / replica_name(index), runs.ended.get(index)
        trajectory_path, log = own / f"trajectory.{trajectory}", own / LOG
        temperature, slope = drift(log, len(atoms))
        if index in ends:
            final = ends[index].copy()
        else:  # what it wrote before it was dropped
            final = read_frames(trajectory_path)[-1] if isfinite(temperature) else atoms.copy()
        final.set_constraint(atoms.constraints)
        results.append(
            ReplicaResult(
                final,
                trajectory_path,
                log,
                temperature,
                slope,
                steps=runs.step if end is None else end.step,
                error=None if end is None else end.error,
            )
        )
    return results
