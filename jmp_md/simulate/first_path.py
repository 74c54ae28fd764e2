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
_SAME = 0.05  # Å


def check_path(images: Sequence[Atoms], steps: int, settings: dict[str, Any]) -> None:
    """Refuse what cannot be a path, and options of :func:`jmp_md.simulate.neb.neb`.

    Raises:
        InputError: Structures that do not go together, or an option that does not exist.
    """
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
    for name, choices in (
        ("optimizer", OPTIMIZERS),
        ("interpolation", INTERPOLATIONS),
        ("method", METHODS),
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
        given: The two ends, or a path.
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


def restored_path(given: Sequence[Atoms], arrays: dict[str, np.ndarray]) -> list[Atoms]:
    """The path of a saved state.

    Args:
        given: Structures the run was started with.
        arrays: ``numbers`` (n_atoms,) and ``positions`` (n_images, n_atoms, 3) Å.

    Raises:
        InputError: The state is of other atoms.
    """
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
