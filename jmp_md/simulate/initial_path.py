"""The path a search for a transition state starts from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from jmp_md.errors import InputError
from jmp_md.simulate.relax import relax

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.simulate.options import NEBOptions

_SAME = 0.05  # Å


def check_number(images: Sequence[Atoms]) -> None:
    """Refuse less than two structures.

    Raises:
        InputError: There are.
    """
    if len(images) < 2:
        raise InputError(f"{len(images)} structure: a path needs its two ends, or three and more")


def initial_path(
    images: Sequence[Atoms], calculator: Calculator, options: NEBOptions
) -> list[Atoms]:
    """The first path, its ends relaxed where ``options`` say so.

    Args:
        images: The two ends, or a path, from :func:`jmp_md.simulate.path_ends.matched_images`.
        calculator: What relaxes the ends.
        options: Of the search.

    Raises:
        InputError: Both ends are one structure.
    """
    ends = [images[0].copy(), images[-1].copy()]
    if options.relax_ends:
        for i, end in enumerate(ends):
            end.calc = calculator
            relaxed = relax(end, fmax=options.fmax / 5)
            if not relaxed.converged:
                warnings.warn(
                    f"end {i + 1} has a force of {relaxed.fmax:.3f} eV/Å left after "
                    f"{relaxed.steps} steps: relax it before",
                    stacklevel=4,
                )
            ends[i] = relaxed.atoms
            ends[i].calc = None
    middle = images[1:-1] or [images[0]] * (options.n_images - 2)
    path = [ends[0], *(image.copy() for image in middle), ends[1]]
    _place(path, interpolate=len(images) == 2, method=options.interpolation)
    return path


def _place(path: list[Atoms], interpolate: bool, method: str) -> None:
    """Turn images upon each other and, where asked for, put them on a path between the ends."""
    import numpy as np
    from ase.build import minimize_rotation_and_translation
    from ase.mep import NEB

    from jmp_md.simulate.path_ends import is_free, shortest

    if is_free(path[0]):
        for before, after in pairwise(path):
            minimize_rotation_and_translation(before, after)
    if np.linalg.norm(shortest(path[0], path[-1]), axis=1).max() < _SAME:
        raise InputError(
            f"both ends are the same structure, to {_SAME} Å for each atom: check them, and the "
            "order of their atoms; relax_ends moves them to the nearest minima"
        )
    if interpolate:
        band = NEB(path, method="improvedtangent")
        band.interpolate(method, mic=bool(path[0].pbc.any()), apply_constraint=True)


def restored_path(images: Sequence[Atoms], positions: np.ndarray) -> list[Atoms]:
    """The path of a saved state.

    Args:
        images: Structures the run was started with, see :func:`initial_path`.
        positions: (n_images, n_atoms, 3) Å.
    """
    path = [images[0].copy() for _ in positions]
    for image, own in zip(path, positions, strict=True):
        image.positions = own
    return path
