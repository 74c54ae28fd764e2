"""Minimum energy paths by the nudged elastic band, all images in one batch."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError
from jmp_md.simulate.relax import relax
from jmp_md.simulate.state import NAME as STATE
from jmp_md.simulate.state import check_same, load_state, save_state
from jmp_md.simulate.summary import describe, write_summary

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.band import Band

INTERPOLATIONS = ("idpp", "linear")
OPTIMIZERS = ("FIRE", "BFGS", "MDMin")
PATH, SADDLE = "path.extxyz", "transition_state.extxyz"
IMAGINARY = 20.0  # cm⁻¹ from which on an imaginary frequency counts
# The image at the top climbs once the band is within this factor of fmax: earlier it may be at the
# wrong place (Henkelman, Uberuaga and Jónsson, J. Chem. Phys. 113, 9901 (2000)).
_CLIMB_AT = 5.0
_SAME = 0.05  # Å


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
        "optimizer": optimizer,
        "interpolation": interpolation,
        "relax_ends": relax_ends,
    }
    _check(images, steps, settings)
    started = time.monotonic()
    folder = Path(output)
    settings["model"] = describe(calculator)
    saved = load_state(folder) if restart else None
    if saved is not None:
        check_same(saved[1]["settings"], settings)
    elif not restart and (folder / STATE).exists():
        raise InputError(
            f"{folder} holds a run: continue it with restart (--restart), or choose another output"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = _prepare(images, calculator, settings) if saved is None else _restore(images, saved[0])
    done = 0 if saved is None else int(saved[1]["step"])
    result = _optimize(path, calculator, folder, settings, (done, steps), progress)
    if verify:
        from jmp_md.simulate.vibrations import vibrations

        found = vibrations(result.transition_state, calculator)
        result = replace(result, frequencies=found.frequencies)
    _write(result, folder)
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


def _check(images: Sequence[Atoms], steps: int, settings: dict[str, Any]) -> None:
    import numpy as np

    if len(images) < 2:
        raise InputError(f"{len(images)} structure: a path needs its two ends, or three and more")
    first = images[0]
    for i, image in enumerate(images):
        if not np.array_equal(image.numbers, first.numbers):
            raise InputError(
                f"structure {i} has other atoms than the first, or in another order: bring them "
                "into the order of the first"
            )
        if not np.array_equal(image.pbc, first.pbc) or not np.allclose(
            image.cell.array, first.cell.array, atol=1e-6
        ):
            raise InputError(f"structure {i} has another cell or pbc: a band needs one for all")
    for name, choices in (("optimizer", OPTIMIZERS), ("interpolation", INTERPOLATIONS)):
        if settings[name] not in choices:
            raise InputError(f"{name} {settings[name]!r}: choose one of {', '.join(choices)}")
    for name, unit in (("fmax", "eV/Å"), ("spring", "eV/Å²")):
        if not settings[name] > 0:
            raise InputError(f"{name} {settings[name]!r} {unit}: must be positive")
    if settings["n_images"] < 3 or steps < 0:
        raise InputError(
            f"n_images {settings['n_images']!r}, steps {steps!r}: at least 3 and 0, 9 and 500 are "
            "usual"
        )


def _prepare(
    given: Sequence[Atoms], calculator: Calculator, settings: dict[str, Any]
) -> list[Atoms]:
    """The first path, its ends relaxed."""
    ends = [given[0].copy(), given[-1].copy()]
    if settings["relax_ends"]:
        for i, end in enumerate(ends):
            end.calc = calculator
            relaxed = relax(end, fmax=settings["fmax"] / 5)
            if not relaxed.converged:
                warnings.warn(
                    f"end {i + 1} has a force of {relaxed.fmax:.3f} eV/Å left after "
                    f"{relaxed.steps} steps: relax it before",
                    stacklevel=3,
                )
            ends[i] = relaxed.atoms
            ends[i].calc = None
    middle = given[1:-1] or [given[0]] * (settings["n_images"] - 2)
    path = [ends[0], *(image.copy() for image in middle), ends[1]]
    _place(path, interpolate=len(given) == 2, method=settings["interpolation"])
    return path


def _place(path: list[Atoms], interpolate: bool, method: str) -> None:
    """Turn images upon each other and, where asked for, put them on a path between the ends."""
    import numpy as np
    from ase.build import minimize_rotation_and_translation
    from ase.geometry import find_mic
    from ase.mep import NEB

    from jmp_md.simulate.band import is_free

    if is_free(path[0]):
        for before, after in pairwise(path):
            minimize_rotation_and_translation(before, after)
    moved, _ = find_mic(path[-1].positions - path[0].positions, path[0].cell, path[0].pbc)
    if np.linalg.norm(moved, axis=1).max() < _SAME:
        raise InputError(
            f"both ends are the same structure, to {_SAME} Å for each atom: check them, and the "
            "order of their atoms; relax_ends moves them to the nearest minima"
        )
    if interpolate:
        band = NEB(path, method="improvedtangent")
        band.interpolate(method, mic=bool(path[0].pbc.any()), apply_constraint=True)


def _restore(given: Sequence[Atoms], arrays: dict[str, np.ndarray]) -> list[Atoms]:
    import numpy as np

    if not np.array_equal(arrays["numbers"], given[0].numbers):
        raise InputError(
            f"the saved run is of other atoms, {arrays['numbers'].tolist()}: give the structures "
            "it was started with, or choose another output"
        )
    path = [given[0].copy() for _ in arrays["positions"]]
    for image, positions in zip(path, arrays["positions"], strict=True):
        image.positions = positions
    return path


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

    band = Band(path, calculator, settings["spring"])
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

    from jmp_md.checkpoints.native import atomic_write
    from jmp_md.report.figures import energy_path

    for name, structures in ((PATH, result.images), (SADDLE, [result.transition_state])):
        with atomic_write(folder / name) as temporary:
            write(temporary, structures, format="extxyz")
    with atomic_write(folder / "path.svg") as temporary:
        energy_path(result.images).savefig(temporary, format="svg")
