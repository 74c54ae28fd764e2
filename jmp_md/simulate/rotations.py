"""Whether a molecule is linear, and how many rotations leave it as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

_ON_AXIS = 0.02  # Å from the axis, which no bent molecule comes near
_TOLERANCE = 0.05  # Å by which atoms may miss each other's places


def is_linear(atoms: Atoms) -> bool:
    """Whether all atoms lie on one line, to 0.02 Å; an atom alone does not."""
    return len(atoms) > 1 and distance_from_axis(atoms) < _ON_AXIS


def distance_from_axis(atoms: Atoms) -> float:
    """Å from the line that is nearest to all atoms to the atom farthest from it."""
    arms = atoms.positions - atoms.positions.mean(axis=0)
    axis = np.linalg.svd(arms)[2][0]
    return float(np.linalg.norm(arms - np.outer(arms @ axis, axis), axis=1).max())


def symmetry_number(atoms: Atoms, tolerance: float = _TOLERANCE) -> int:
    """Number of proper rotations that put a molecule upon itself, isotopes told apart.

    Args:
        atoms: A molecule.
        tolerance: Å by which atoms may miss each other's places.
    """
    kinds = np.stack([atoms.numbers, atoms.get_masses().round(3)], axis=1)
    arms = atoms.positions - atoms.get_center_of_mass()
    if len(atoms) == 1:
        return 1
    if is_linear(atoms):
        return 2 if _is_upon(-arms, arms, kinds, tolerance) else 1
    first, second = _two_arms(arms, kinds, tolerance)
    # Two arms fix a rotation: it is known from where it puts them.
    targets = [_alike(index, arms, kinds, tolerance) for index in (first, second)]
    angle = float(arms[first] @ arms[second])
    slack = 2 * tolerance * float(np.linalg.norm(arms, axis=1).max())
    count = 0
    for i in targets[0]:
        for j in targets[1]:
            if i == j or abs(float(arms[i] @ arms[j]) - angle) > slack:
                continue
            turned = arms @ _rotation(arms[[first, second]], arms[[i, j]]).T
            met = _nearest(turned, arms, kinds)
            turned = arms @ _rotation(arms, arms[met]).T  # two arms alone magnify their errors
            count += _is_upon(turned, arms, kinds, tolerance)
    return count


def _two_arms(arms: np.ndarray, kinds: np.ndarray, tolerance: float) -> tuple[int, int]:
    """Two atoms, not in line with the centre, with the fewest others like them."""
    lengths = np.linalg.norm(arms, axis=1)
    order = sorted(
        np.flatnonzero(lengths > 0.2).tolist(),
        key=lambda i: (len(_alike(i, arms, kinds, tolerance)), -lengths[i]),
    )
    sines = {
        (i, j): np.linalg.norm(np.cross(arms[i], arms[j])) / (lengths[i] * lengths[j])
        for n, i in enumerate(order)
        for j in order[n + 1 :]
    }
    wide = [pair for pair, sine in sines.items() if sine > 0.3]
    return wide[0] if wide else max(sines, key=lambda pair: sines[pair])


def _alike(index: int, arms: np.ndarray, kinds: np.ndarray, tolerance: float) -> np.ndarray:
    """Atoms of the same kind as one, as far from the centre."""
    lengths = np.linalg.norm(arms, axis=1)
    near = np.abs(lengths - lengths[index]) < tolerance
    return np.flatnonzero(near & (kinds == kinds[index]).all(axis=1))


def _rotation(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The proper rotation that puts vectors best upon others (Kabsch)."""
    left, _, right = np.linalg.svd(end.T @ start)
    sign = np.sign(np.linalg.det(left @ right))
    rotation: np.ndarray = left @ np.diag([1.0, 1.0, sign]) @ right
    return rotation


def _nearest(turned: np.ndarray, arms: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """For each atom, the one of its kind that it comes nearest to."""
    gaps = np.linalg.norm(turned[:, None] - arms[None], axis=2)
    gaps[(kinds[:, None] != kinds[None]).any(axis=2)] = np.inf
    return gaps.argmin(axis=1)


def _is_upon(turned: np.ndarray, arms: np.ndarray, kinds: np.ndarray, tolerance: float) -> bool:
    """Whether every atom meets another one of its kind."""
    met = _nearest(turned, arms, kinds)
    near = float(np.linalg.norm(turned - arms[met], axis=1).max()) < tolerance
    return near and len(set(met.tolist())) == len(met)
