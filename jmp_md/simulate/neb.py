"""Minimum energy paths by the nudged elastic band, all images in one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from jmp_md.simulate.initial_path import check_number, initial_path, restored_path
from jmp_md.simulate.options import NEBOptions
from jmp_md.simulate.verdict import Verdict, doubts

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.band import Band

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
        verdicts: Whether the barrier stands.
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
    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the barrier may be wrong; empty where nothing speaks against it."""
        return doubts(self.verdicts)


def neb(
    images: Sequence[Atoms],
    calculator: Calculator,
    options: NEBOptions | None = None,
    *,
    restart_from: tuple[int, np.ndarray] | None = None,
    observer: Callable[[int, Band], None] | None = None,
) -> NEBResult:
    """Find the path between two minima, and the transition state on it.

    ASE's band with improved tangents; with a ``JMPCalculator`` all images are computed in one
    batch per step. An image climbs only where one between the ends lies above both: elsewhere
    climbing would lead to a saddle beyond the path. Without such an image there is no transition
    state, and the result's ``doubts`` say so.

    Args:
        images: The two ends, with atoms in the same order; or a path, as a first guess. Atoms take
            the shortest way from each structure to the next, across periodic boundaries too.
        calculator: ASE calculator, of any kind.
        options: See :class:`~jmp_md.simulate.options.NEBOptions`; None for the defaults.
        restart_from: Steps done before and the positions (n_images, n_atoms, 3) in Å they led to.
        observer: Called with the step and the band at the start and after every step.

    Raises:
        InputError: Structures that do not go together (atoms, cells, constraints, places of fixed
            atoms, identical atoms that change places), or an image that cannot be computed.
    """
    from jmp_md.simulate.band import Band
    from jmp_md.simulate.path_ends import matched_images, moved_ends
    from jmp_md.simulate.vibrations import moving_atoms

    options = options or NEBOptions()
    check_number(images)
    matched, notes = matched_images(images, options.atom_order)
    if options.verify:
        moving_atoms(matched[0])  # refuses what has no frequencies, before anything is computed
    if restart_from is None:
        path, done = initial_path(matched, calculator, options), 0
    else:
        path, done = restored_path(matched, restart_from[1]), restart_from[0]
    notes += moved_ends(matched, path)
    band = Band(path, calculator, options.spring, options.method)
    converged, done = _optimize(band, options, done, observer)
    result = _result(band, converged, done, options.fmax, notes)
    return _verified(result, calculator) if options.verify else result


def _optimize(
    band: Band,
    options: NEBOptions,
    done: int,
    observer: Callable[[int, Band], None] | None,
) -> tuple[bool, int]:
    """Take the steps that are left after ``done``: whether it converged, steps done in all."""
    import ase.optimize

    converged = False
    for factor in _stages(band, options.climb):
        run = getattr(ase.optimize, options.optimizer)(band, logfile=None)
        if observer is not None:
            run.attach(lambda done=done, run=run: observer(done + run.nsteps, band))
        converged = bool(run.run(fmax=factor * options.fmax, steps=max(options.steps - done, 0)))
        done += run.nsteps
    return converged, done


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

    from jmp_md.simulate.saddles import notes_of_path, rises_inside, verdicts_of_path

    images = band.frozen_images()
    energies = np.array([image.get_potential_energy() for image in images])
    convergence = Verdict(
        "convergence",
        converged,
        f"largest force {band.largest_force():.4f} eV/Å after {steps} steps",
        f"at most {fmax} eV/Å",
        "fmax, on an atom of the band across the path",
        f"NOT converged: {steps} steps did not reach {fmax} eV/Å",
    )
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
        (convergence, *verdicts_of_path(images, energies, fmax)),
        (*notes, *notes_of_path(images)),
    )


def _verified(result: NEBResult, calculator: Calculator) -> NEBResult:
    """With the frequencies of the transition state, where there is one."""
    from jmp_md.simulate.saddles import verdict_of_frequencies
    from jmp_md.simulate.vibrations import vibrations

    if result.transition_state is None:
        return result
    frequencies = vibrations(result.transition_state, calculator).frequencies
    verdicts = (*result.verdicts, verdict_of_frequencies(frequencies))
    return replace(result, frequencies=frequencies, verdicts=verdicts)
