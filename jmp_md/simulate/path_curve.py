"""The energy along a path as a curve, between its images too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from jmp_md.simulate.path_ends import shortest

if TYPE_CHECKING:
    from ase import Atoms

_APART = 1e-6  # Å between images: nearer ones have no direction
_FINE = 20  # points of the curve for each image


@dataclass(frozen=True)
class PathCurve:
    """Energies at the images of a path, and a cubic curve that has the slopes of their forces.

    Attributes:
        path: (n,) Å along the path, of images that lie apart from the one before.
        energies: (n,) eV, relative to the first.
        fine_path: (m,) Å.
        fine_energies: (m,) eV.
        indices: (n,) of the images.
    """

    path: np.ndarray
    energies: np.ndarray
    fine_path: np.ndarray
    fine_energies: np.ndarray
    indices: np.ndarray


def path_curve(images: Sequence[Atoms]) -> PathCurve:
    """The curve of a path.

    Args:
        images: At least two, from one end to the other, with energies and forces.
    """
    from scipy.interpolate import CubicHermiteSpline

    steps = [shortest(before, after) for before, after in pairwise(images)]
    lengths = np.array([np.linalg.norm(step) for step in steps])
    indices = np.flatnonzero(np.insert(lengths > _APART, 0, True))
    path = np.insert(np.cumsum(lengths), 0, 0.0)[indices]
    apart = [images[int(i)] for i in indices]
    energies = np.array([image.get_potential_energy() for image in apart])
    energies -= energies[0]
    if len(indices) < 2:
        return PathCurve(path, energies, path, energies, indices)
    slopes = []
    for i, image in zip(indices, apart, strict=True):
        along = sum((steps[k] for k in (i - 1, i) if 0 <= k < len(steps)), np.zeros_like(steps[0]))
        size = np.linalg.norm(along)
        forces = image.get_forces()
        slopes.append(-float((forces * along).sum() / size) if size > _APART else 0.0)
    fine = np.union1d(np.linspace(0, path[-1], _FINE * len(indices)), path)
    return PathCurve(
        path, energies, fine, CubicHermiteSpline(path, energies, slopes)(fine), indices
    )
