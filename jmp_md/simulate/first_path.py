"""The path a search for a transition state starts from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError
from jmp_md.simulate.relax import relax

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from ase.calculators.calculator import Calculator

INTERPOLATIONS = ("idpp", "linear")
OPTIMIZERS = ("FIRE", "BFGS", "MDMin")
METHODS = ("neb", "string")
ATOM_ORDERS = ("check", "given", "nearest")
_SAME = 0.05  # Å


def check_path(images: Sequence[Atoms], steps: int, settings: dict[str, Any]) -> None:
    """Refuse options of :func:`jmp_md.simulate.neb.neb` that cannot be meant.

    Raises:
        InputError: One structure, or an option that does not exist or does not fit.
    """
    if len(images) < 2:
        raise InputError(f"{len(images)} structure: a path needs its two ends, or three and more")
    for name, choices in (
        ("optimizer", OPTIMIZERS),
        ("interpolation", INTERPOLATIONS),
        ("method", METHODS),
        ("atom_order", ATOM_ORDERS),
    ):
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


def first_path(
    given: Sequence[Atoms], calculator: Calculator, settings: dict[str, Any]
) -> list[Atoms]:
    """The first path, its ends relaxed where ``settings`` say so.

    Args:
        given: The two ends, or a path, from :func:`jmp_md.simulate.path_ends.together`.
        calculator: What relaxes the ends.
        settings: Options of :func:`jmp_md.simulate.neb.neb`.

    Raises:
        InputError: Both ends are one structure.
    """
    ends = [given[0].copy(), given[-1].copy()]
    if settings["relax_ends"]:
        for i, end in enumerate(ends):
            end.calc = calculator
            relaxed = relax(end, fmax=settings["fmax"] / 5)
            if not relaxed.converged:
                warnings.warn(
                    f"end {i + 1} has a force of {relaxed.fmax:.3f} eV/Å left after "
                    f"{relaxed.steps} steps: relax it before",
                    stacklevel=4,
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


def restored_path(given: Sequence[Atoms], arrays: dict[str, np.ndarray]) -> list[Atoms]:
    """The path of a saved state.

    Args:
        given: Structures the run was started with, see :func:`first_path`.
        arrays: ``positions`` (n_images, n_atoms, 3) Å.
    """
    path = [given[0].copy() for _ in arrays["positions"]]
    for image, positions in zip(path, arrays["positions"], strict=True):
        image.positions = positions
    return path
