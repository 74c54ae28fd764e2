"""Minimum energy paths by the nudged elastic band, all images in one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.simulate.first_path import check_path, first_path, restored_path
from jmp_md.simulate.state import save_state, state_to_continue
from jmp_md.simulate.summary import describe, write_summary

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.band import Band

PATH, SADDLE = "path.extxyz", "transition_state.extxyz"
IMAGINARY = 20.0  # cm⁻¹ from which on an imaginary frequency counts
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
        barrier: eV, from the first end to the highest image.
        reverse_barrier: eV, from the last end.
        transition_state: The highest image.
        frequencies: cm⁻¹ at the transition state, imaginary ones negative; None if not asked for.
    """

    images: list[Atoms]
    energies: np.ndarray
    converged: bool
    steps: int
    barrier: float
    reverse_barrier: float
    transition_state: Atoms
    frequencies: np.ndarray | None = None


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

    Args:
        images: The two ends, with atoms in the same order; or a path, as a first guess.
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
        verify: Compute the frequencies of the transition state; one must be imaginary.
        restart: Continue the run in ``output``; one that has no state yet starts anew.
        report: Write ``report.html`` at the end.
        progress: Called with step, barrier in eV and largest force in eV/Å.

    Raises:
        InputError: Structures that do not go together, an option that does not exist or does not
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
    }
    check_path(images, steps, settings)
    started = time.monotonic()
    folder = Path(output)
    settings["model"] = describe(calculator)
    saved = state_to_continue(folder, settings, restart)
    folder.mkdir(parents=True, exist_ok=True)
    path = (
        first_path(images, calculator, settings)
        if saved is None
        else restored_path(images, saved[0])
    )
    done = 0 if saved is None else int(saved[1]["step"])
    result = _optimize(path, calculator, folder, settings, (done, steps), progress)
    _write(result, folder)
    if verify:
        from jmp_md.simulate.vibrations import vibrations

        found = vibrations(result.transition_state, calculator)
        result = replace(result, frequencies=found.frequencies)
    results = {
        "converged": result.converged,
        "steps": result.steps,
        "barrier_eV": result.barrier,
        "reverse_barrier_eV": result.reverse_barrier,
    }
    found_modes = None if result.frequencies is None else result.frequencies.tolist()
    write_summary(
        folder,
        "neb",
        model=settings["model"],
        settings={**settings, "steps": steps},
        results=results
        | {"energies_eV": result.energies.tolist(), "frequencies_per_cm": found_modes},
        seconds=time.monotonic() - started,
    )
    if report:
        from jmp_md.report.path import write_path_report

        about = {**settings["model"], **settings, **results}
        del about["model"]
        write_path_report(folder, result.images, about, calculator, result.frequencies)
    return result


def _optimize(
    path: list[Atoms],
    calculator: Calculator,
    folder: Path,
    settings: dict[str, Any],
    count: tuple[int, int],
    progress: Callable[[int, float, float], None] | None,
) -> NEBResult:
    """Take steps ``count[0]`` to ``count[1]``; converge the band, then let it climb."""
    import ase.optimize
    import numpy as np

    from jmp_md.simulate.band import Band

    band = Band(path, calculator, settings["spring"], settings["method"])
    done, most = count
    reported: set[int] = set()

    def observe() -> None:
        step = done + run.nsteps
        positions = np.array([image.positions for image in path])
        arrays = {"numbers": path[0].numbers, "positions": positions}
        save_state(folder, arrays, {"step": step, "settings": settings})
        if progress is not None and step not in reported:  # climbing starts at a step done before
            reported.add(step)
            barrier = float(band.energies.max() - band.energies[0])
            progress(step, barrier, band.largest_force())

    converged = False
    for climbing in (False, True) if settings["climb"] else (False,):
        band.set_climbing(climbing)
        factor = _CLIMB_AT if settings["climb"] and not climbing else 1.0
        run = getattr(ase.optimize, settings["optimizer"])(band, logfile=None)
        run.attach(observe)
        converged = bool(run.run(fmax=factor * settings["fmax"], steps=max(most - done, 0)))
        done += run.nsteps
    return _result(band, converged, done)


def _result(band: Band, converged: bool, steps: int) -> NEBResult:
    import numpy as np

    images = band.frozen_images()
    energies = np.array([image.get_potential_energy() for image in images])
    top = int(energies[1:-1].argmax()) + 1
    highest = float(energies.max())
    return NEBResult(
        images,
        energies,
        converged,
        steps,
        highest - float(energies[0]),
        highest - float(energies[-1]),
        images[top],
    )


def _write(result: NEBResult, folder: Path) -> None:
    from ase.io import write

    from jmp_md.files import atomic_write
    from jmp_md.report.figures import energy_path

    for name, structures in ((PATH, result.images), (SADDLE, [result.transition_state])):
        with atomic_write(folder / name) as temporary:
            write(temporary, structures, format="extxyz")
    with atomic_write(folder / "path.svg") as temporary:
        energy_path(result.images).savefig(temporary, format="svg")
