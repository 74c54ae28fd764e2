"""Energies of the elements: what makes total energies of different compositions comparable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jmp_md.training.data.frame import Frame

Composition = tuple[tuple[int, int], ...]

# Directions of composition space that the data hardly span, as a share of the one they span best.
_UNDETERMINED = 1e-2
ALONE = 6.0  # Å to its own image, from where an atom counts as isolated


def composition(frame: Frame) -> Composition:
    """(atomic number, number of atoms) of each element, in order."""
    return composition_of(frame.numbers)


def composition_of(numbers: np.ndarray) -> Composition:
    """(atomic number, number of atoms) of each element, in order."""
    elements, counts = np.unique(numbers, return_counts=True)
    return tuple(zip(elements.tolist(), counts.tolist(), strict=True))


def is_lone_atom(frame: Frame) -> bool:
    """Whether a frame is one atom that is far from its own images."""
    if len(frame) != 1:
        return False
    periodic = np.array(frame.pbc)
    if frame.cell is None or not periodic.any():
        return True
    return bool((np.linalg.norm(frame.cell[periodic], axis=1) > ALONE).all())


def fit_references(
    kinds: Sequence[Composition],
    energies: Sequence[float],
    prior: Mapping[int, float] | None = None,
) -> dict[int, float]:
    """Least squares of E = sum over elements of (atoms of the element) x (its reference).

    There is no intercept, so that energies are size-consistent. Where the compositions do not tell
    elements apart (all frames are one molecule, two elements always come together), references
    stay as near as possible to a prior: without one, in proportion to the energies of atoms in
    the Thomas-Fermi model, Z^(7/3).

    Args:
        kinds: Composition of each frame.
        energies: eV, of each frame.
        prior: eV by atomic number, for all elements.

    Returns:
        eV by atomic number.
    """
    # Frames of one composition enter as their mean, with their number as weight.
    sums: dict[Composition, list[float]] = {}
    for kind, energy in zip(kinds, energies, strict=True):
        sums.setdefault(kind, []).append(energy)
    elements, counts = _count(sums)
    mean = np.array([np.mean(values) for values in sums.values()])
    root = np.sqrt([len(values) for values in sums.values()])
    if prior is None:
        shape = np.array(elements, dtype=float) ** (7 / 3)
        total = counts @ shape
        start = shape * float((root * total) @ (root * mean) / ((root * total) @ (root * total)))
    else:
        start = np.array([prior[z] for z in elements])
    norms = np.linalg.norm(counts * root[:, None], axis=0)
    u, s, vt = np.linalg.svd(counts * root[:, None] / norms, full_matrices=False)
    spanned = s > _UNDETERMINED * s[0]
    change = (u[:, spanned].T @ (root * (mean - counts @ start))) / s[spanned]
    found = start + (vt[spanned].T @ change) / norms
    return dict(zip(elements, found.tolist(), strict=True))


def undetermined(kinds: Sequence[Composition]) -> tuple[int, ...]:
    """Atomic numbers of elements that these compositions do not tell apart."""
    elements, counts = _count({kind: [] for kind in kinds})
    _, s, vt = np.linalg.svd(counts / np.linalg.norm(counts, axis=0), full_matrices=True)
    spanned = np.zeros(len(elements), dtype=bool)
    spanned[: len(s)] = s > _UNDETERMINED * s[0]
    free = np.linalg.norm(vt[~spanned], axis=0) > _UNDETERMINED
    return tuple(z for z, is_free in zip(elements, free, strict=True) if is_free)


def _count(kinds: Mapping[Composition, list[float]]) -> tuple[list[int], np.ndarray]:
    """Elements, and the number of atoms of each in each kind."""
    elements = sorted({number for kind in kinds for number, _ in kind})
    columns = {number: column for column, number in enumerate(elements)}
    counts = np.zeros((len(kinds), len(elements)))
    for row, kind in enumerate(kinds):
        for number, count in kind:
            counts[row, columns[number]] = count
    return elements, counts
