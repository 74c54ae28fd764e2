"""Searches of minimum energy paths in a folder, which can be killed and continued."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.options import with_options
from jmp_md.report.page import NAME as REPORT
from jmp_md.runs.folder import opened
from jmp_md.runs.options import RestartOptions, divided
from jmp_md.simulate.options import NEBOptions
from jmp_md.simulate.state import NAME as STATE
from jmp_md.simulate.state import load_state, save_state
from jmp_md.simulate.summary import NAME as SUMMARY
from jmp_md.simulate.summary import describe, write_summary

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.band import Band
    from jmp_md.simulate.neb import NEBResult

PATH, SADDLE, FIGURE = "path.extxyz", "transition_state.extxyz", "path.svg"
FILES = (PATH, SADDLE, FIGURE, STATE, SUMMARY, REPORT)


@with_options(NEBOptions, RestartOptions)
def run_neb(
    images: Sequence[Atoms],
    calculator: Calculator,
    output: str | Path,
    options: NEBOptions | None = None,
    *,
    progress: Callable[[int, float, float], None] | None = None,
    **changes: Any,
) -> NEBResult:
    """Find a path with :func:`jmp_md.simulate.neb.neb` in a folder.

    It gets ``path.extxyz``, ``transition_state.extxyz``, ``path.svg``, ``report.html``,
    ``summary.json`` and, after every step, ``state.npz``. A run that was stopped continues with
    ``restart`` from its last band.

    Args:
        images: The two ends, or a path.
        calculator: ASE calculator, of any kind.
        output: Folder of the run, created if need be.
        options: See :class:`~jmp_md.simulate.options.NEBOptions`; None for the defaults.
        progress: Called with step, barrier in eV and largest force in eV/Å.
        changes: Options by name, in place of those of ``options``, and ``restart``,
            ``overwrite`` and ``report``, see :class:`~jmp_md.runs.options.RestartOptions`.

    Raises:
        InputError: As of :func:`~jmp_md.simulate.neb.neb`, an option that does not exist or does
            not fit, or a folder that holds another run.
    """
    from jmp_md.simulate.identity import identity, require_same
    from jmp_md.simulate.initial_path import check_number
    from jmp_md.simulate.neb import neb
    from jmp_md.simulate.path_ends import matched_images
    from jmp_md.simulate.watch import DomainWatch

    options, around = divided(options or NEBOptions(), changes, RestartOptions)
    started, folder = time.monotonic(), Path(output)
    check_number(images)
    matched, _ = matched_images(images, options.atom_order)
    settings = options.model_dump(exclude={"steps", "verify"})
    who = identity(calculator, {}, images)
    watch = DomainWatch(calculator)
    watch.begin(matched)
    with opened(folder, FILES, around):
        saved = load_state(folder) if around.restart else None
        if saved is not None:
            require_same(saved[1].get("settings", {}), settings, folder)
            require_same(saved[1].get("identity", {}), who, folder)
        result = neb(
            images,
            calculator,
            options,
            restart_from=saved and (int(saved[1]["step"]), saved[0]["positions"]),
            observer=_Keeper(folder, {"settings": settings, "identity": who}, progress),
        )
        _write(result, folder)
        watch.end(result.images)
        model = describe(calculator)
        seconds = time.monotonic() - started
        summary = _summarize(result, folder, model, options, watch.record(), seconds)
        if around.report:
            from jmp_md.report.path import write_path_report

            write_path_report(folder, result, summary)
    return result


class _Keeper:
    """Saves the band after each step, and reports the step once.

    Args:
        folder: Of the state.
        facts: What is saved with each band.
        progress: Called with step, barrier in eV and largest force in eV/Å.
    """

    def __init__(
        self,
        folder: Path,
        facts: dict[str, Any],
        progress: Callable[[int, float, float], None] | None,
    ) -> None:
        self._folder, self._facts, self._progress = folder, facts, progress
        self._reported = -1

    def __call__(self, step: int, band: Band) -> None:
        positions = np.array([image.positions for image in band.images])
        save_state(self._folder, {"positions": positions}, {"step": step, **self._facts})
        if self._progress is not None and step > self._reported:  # stages begin at a step done
            self._reported = step
            barrier = float(band.energies.max() - band.energies[0])
            self._progress(step, barrier, band.largest_force())


def _figures(result: NEBResult) -> dict[str, Any]:
    return {
        "converged": result.converged,
        "steps": result.steps,
        "saddle": result.transition_state is not None,
        "barrier_eV": result.barrier,
        "reverse_barrier_eV": result.reverse_barrier,
    }


def _summarize(
    result: NEBResult,
    folder: Path,
    model: dict[str, Any],
    options: NEBOptions,
    domain: dict[str, Any] | None,
    seconds: float,
) -> dict[str, Any]:
    frequencies = None if result.frequencies is None else result.frequencies.tolist()
    return write_summary(
        folder,
        "neb",
        model=model,
        settings=options.model_dump(),
        results={
            **_figures(result),
            "energies_eV": result.energies.tolist(),
            "frequencies_per_cm": frequencies,
            "doubts": list(result.doubts),
            "notes": list(result.notes),
        },
        seconds=seconds,
        domain=domain,
    )


def _write(result: NEBResult, folder: Path) -> None:
    """Write the path and its top; without a saddle, remove the top of an unfinished run."""
    from jmp_md.files import atomic_write
    from jmp_md.report.figures import energy_path
    from jmp_md.structure_files import write_structures

    files = {PATH: result.images}
    if result.transition_state is not None:
        files[SADDLE] = [result.transition_state]
    else:
        (folder / SADDLE).unlink(missing_ok=True)
    for name, structures in files.items():
        write_structures(folder / name, structures)
    with atomic_write(folder / FIGURE) as temporary:
        energy_path(result.images).savefig(temporary, format="svg")
