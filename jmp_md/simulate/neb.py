"""Minimum energy paths by the nudged elastic band, all images in one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.files import locked
from jmp_md.simulate.first_path import check_path, first_path, restored_path
from jmp_md.simulate.state import save_state, state_to_continue
from jmp_md.simulate.summary import describe, write_summary

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.band import Band

PATH, SADDLE = "path.extxyz", "transition_state.extxyz"
# The image at the top climbs once the band is within this factor of fmax: earlier it may be at the
# wrong place (Henkelman, Uberuaga and Jónsson, J. Chem. Phys. 113, 9901 (2000)).
_CLIMB_AT = 5.0


@dataclass(frozen=True)
class NEBResult:
    """A minimum energy path.

    Attributes:
        images: Structures from one end to the other, with energies and forces.
        energies: (n_images,) eV.
        converged: Whether ``fmax`` was reached.
        steps: Optimizer steps taken.
        barrier: eV, from the first end to the highest image, which may be the last end.
        reverse_barrier: eV, from the last end.
        transition_state: The highest image between the ends; None where none lies above both.
        frequencies: cm⁻¹ at the transition state, imaginary ones negative; None if not asked for.
        doubts: Why the barrier may be wrong; empty where nothing speaks against it.
        notes: What else the user should know, as of atoms that cross a periodic boundary.
    """

    images: list[Atoms]
    energies: np.ndarray
    converged: bool
    steps: int
    barrier: float
    reverse_barrier: float
    transition_state: Atoms | None
    frequencies: np.ndarray | None = None
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def neb(
    images: Sequence[Atoms],
    calculator: Calculator,
    output: str | Path,
    *,
    n_images: int = 9,
    fmax: float = 0.05,
    steps: int = 500,
    climb: bool = True,
    spring: float = 0.1,
    method: str = "neb",
    optimizer: str = "FIRE",
    interpolation: str = "idpp",
    relax_ends: bool = True,
    atom_order: str = "check",
    verify: bool = False,
    restart: bool = False,
    report: bool = True,
    progress: Callable[[int, float, float], None] | None = None,
) -> NEBResult:
    """Find the path between two minima, and the transition state on it.

    ASE's band with improved tangents; with a ``JMPCalculator`` all images are computed in one
    batch per step. The folder gets ``path.extxyz``, ``transition_state.extxyz``, ``path.svg``,
    ``report.html``, ``summary.json`` and, after every step, ``state.npz``. A run that was stopped
    continues with ``restart`` from its last band.

    An image climbs only where one between the ends lies above both: elsewhere climbing would lead
    to a saddle beyond the path. Without such an image there is no transition state, and the
    result's ``doubts`` say so.

    Args:
        images: The two ends, with atoms in the same order; or a path, as a first guess. Atoms take
            the shortest way from each structure to the next, across periodic boundaries too.
        calculator: ASE calculator, of any kind.
        output: Folder of the run, created if need be.
        n_images: Images, with both ends, to put between two ends.
        fmax: eV/Å, the largest force on an image at which to stop.
        steps: Most steps to take.
        climb: Drive the highest image to the saddle point.
        spring: eV/Å², between images.
        method: ``"neb"``, or ``"string"``: images that are spread evenly along a spline in place of
            springs, until one of them climbs.
        optimizer: ``"FIRE"``, ``"BFGS"`` or ``"MDMin"``.
        interpolation: First path between two ends: ``"idpp"`` (image-dependent pair potential)
            or ``"linear"``.
        relax_ends: Relax both ends first, to ``fmax`` / 5.
        atom_order: Where another order of identical atoms makes the path much shorter, ``"check"``
            refuses, ``"given"`` keeps the order for an exchange that is meant, ``"nearest"`` takes
            the other order.
        verify: Compute the frequencies of the transition state; one must be imaginary.
        restart: Continue the run in ``output``; one that has no state yet starts anew.
        report: Write ``report.html`` at the end.
        progress: Called with step, barrier in eV and largest force in eV/Å.

    Raises:
        InputError: Structures that do not go together (atoms, cells, constraints, places of fixed
            atoms, identical atoms that change places), an option that does not exist or does not
            fit, a folder that holds another run, or an image that cannot be computed.
    """
    settings: dict[str, Any] = {
        "n_images": n_images,
        "fmax": fmax,
        "climb": climb,
        "spring": spring,
        "method": method,
        "optimizer": optimizer,
        "interpolation": interpolation,
        "relax_ends": relax_ends,
        "atom_order": atom_order,
    }
    from jmp_md.simulate.identity import identity, require_same
    from jmp_md.simulate.path_ends import moved_ends, together
    from jmp_md.simulate.watch import DomainWatch

    check_path(images, steps, settings)
    given, notes = together(images, atom_order)
    if verify:
        _check_verifiable(given[0])
    started = time.monotonic()
    folder = Path(output)
    who = identity(calculator, {}, images)
    watch = DomainWatch(calculator)
    watch.begin(given)
    with locked(folder):
        saved = state_to_continue(folder, settings, restart)
        if saved is None:
            path, done = first_path(given, calculator, settings), 0
        else:
            require_same(saved[1].get("identity", {}), who, folder)
            path, done = restored_path(given, saved[0]), int(saved[1]["step"])
        notes += moved_ends(given, path)
        band, converged, done = _optimize(
            path, calculator, folder, settings, who, (done, steps), progress
        )
        result = _result(band, converged, done, settings["fmax"], notes)
        _write(result, folder)
        if verify:
            result = _verified(result, calculator)
        watch.end(result.images)
        about: dict[str, Any] = {
            "model": describe(calculator),
            "settings": settings,
            "steps": steps,
            "domain": watch.record(),
        }
        _summarize(result, folder, about, time.monotonic() - started)
        if report:
            from jmp_md.report.path import write_path_report

            write_path_report(
                folder,
                result.images,
                {**about["model"], **settings, **_figures(result)},
                calculator,
                result.frequencies,
                result.doubts,
            )
    return result


def _check_verifiable(atoms: Atoms) -> None:
    from jmp_md.simulate.vibrations import moving_atoms

    moving_atoms(atoms)


def _optimize(
    path: list[Atoms],
    calculator: Calculator,
    folder: Path,
    settings: dict[str, Any],
    who: dict[str, Any],
    count: tuple[int, int],
    progress: Callable[[int, float, float], None] | None,
) -> tuple[Band, bool, int]:
    """Take steps ``count[0]`` to ``count[1]``: the band, whether it converged, steps done."""
    import ase.optimize
    import numpy as np

    from jmp_md.simulate.band import Band

    band = Band(path, calculator, settings["spring"], settings["method"])
    done, most = count
    reported: set[int] = set()

    def observe() -> None:
        step = done + run.nsteps
        positions = np.array([image.positions for image in path])
        facts = {"step": step, "settings": settings, "identity": who}
        save_state(folder, {"positions": positions}, facts)
        if progress is not None and step not in reported:  # stages start at a step done before
            reported.add(step)
            barrier = float(band.energies.max() - band.energies[0])
            progress(step, barrier, band.largest_force())

    converged = False
    for factor in _stages(band, settings["climb"]):
        run = getattr(ase.optimize, settings["optimizer"])(band, logfile=None)
        run.attach(observe)
        converged = bool(run.run(fmax=factor * settings["fmax"], steps=max(most - done, 0)))
        done += run.nsteps
    return band, converged, done


def _stages(band: Band, climb: bool) -> Iterator[float]:
    """How far to converge in units of fmax, time after time; sets whether the top image climbs."""
    from jmp_md.simulate.saddles import rises_inside

    band.set_climbing(False)
    yield _CLIMB_AT if climb else 1.0
    if climb and not rises_inside(band.energies):
        yield 1.0
    if climb and rises_inside(band.energies):
        band.set_climbing(True)
        yield 1.0


def _result(
    band: Band, converged: bool, steps: int, fmax: float, notes: Sequence[str]
) -> NEBResult:
    import numpy as np

    from jmp_md.simulate.saddles import doubts_of_path, notes_of_path, rises_inside

    images = band.frozen_images()
    energies = np.array([image.get_potential_energy() for image in images])
    doubts = doubts_of_path(images, energies, fmax)
    if not converged:
        doubts.insert(0, f"NOT converged: {steps} steps did not reach {fmax} eV/Å")
    highest = float(energies.max())
    return NEBResult(
        images,
        energies,
        converged,
        steps,
        highest - float(energies[0]),
        highest - float(energies[-1]),
        images[int(energies[1:-1].argmax()) + 1] if rises_inside(energies) else None,
        None,
        tuple(doubts),
        (*notes, *notes_of_path(images)),
    )


def _verified(result: NEBResult, calculator: Calculator) -> NEBResult:
    """With the frequencies of the transition state, where there is one."""
    from jmp_md.simulate.saddles import doubts_of_frequencies
    from jmp_md.simulate.vibrations import vibrations

    if result.transition_state is None:
        return result
    frequencies = vibrations(result.transition_state, calculator).frequencies
    doubts = (*result.doubts, *doubts_of_frequencies(frequencies))
    return replace(result, frequencies=frequencies, doubts=doubts)


def _figures(result: NEBResult) -> dict[str, Any]:
    return {
        "converged": result.converged,
        "steps": result.steps,
        "saddle": result.transition_state is not None,
        "barrier_eV": result.barrier,
        "reverse_barrier_eV": result.reverse_barrier,
    }


def _summarize(result: NEBResult, folder: Path, about: dict[str, Any], seconds: float) -> None:
    frequencies = None if result.frequencies is None else result.frequencies.tolist()
    write_summary(
        folder,
        "neb",
        model=about["model"],
        settings={**about["settings"], "steps": about["steps"]},
        results={
            **_figures(result),
            "energies_eV": result.energies.tolist(),
            "frequencies_per_cm": frequencies,
            "doubts": list(result.doubts),
            "notes": list(result.notes),
        },
        seconds=seconds,
        domain=about["domain"],
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
    with atomic_write(folder / "path.svg") as temporary:
        energy_path(result.images).savefig(temporary, format="svg")
