"""Boxes as OpenMM takes them: a along x, b in the xy plane, no vector longer than need be."""

from __future__ import annotations

import itertools

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce

_FAR = 3  # lattice vectors searched, in reduced ones
_ROUNDING = 1e-6  # of the longest vector


def openmm_box(cell: np.ndarray) -> np.ndarray | None:
    """Vectors (3, 3) Å of the same lattice in OpenMM's form; None where there are none.

    Args:
        cell: (3, 3) Å, rows are lattice vectors, of either hand.
    """
    steps = np.array(list(itertools.product(range(-_FAR, _FAR + 1), repeat=3)))
    near = np.concatenate([cell, -cell, steps @ minkowski_reduce(cell)[0]])
    zero = _ROUNDING * np.linalg.norm(cell, axis=1).max()
    near = np.where(np.abs(near) < zero, 0.0, near)
    box = np.zeros((3, 3))
    for axis in (0, 1, 2):  # the lowest layer of the lattice along x, then y, then z
        layer = near[(near[:, axis + 1 :] == 0.0).all(axis=1) & (near[:, axis] > 0.0)]
        if len(layer) == 0:
            return None
        box[axis] = layer[np.argmin(layer[:, axis])]
    volume = abs(np.linalg.det(cell))
    if abs(box.diagonal().prod() - volume) > _ROUNDING * volume:
        return None
    for row, axis in ((2, 1), (2, 0), (1, 0)):
        box[row] -= box[axis] * np.round(box[row, axis] / box[axis, axis])
        most = 0.5 * box[axis, axis]
        box[row, axis] = np.clip(box[row, axis], -most, most)  # beyond by rounding only
    return box


def turned_for_openmm(atoms: Atoms) -> Atoms:
    """A copy of a crystal with a box that OpenMM takes, turned where need be.

    The energy is that of the original; positions, momenta and forces are turned with the box.

    Args:
        atoms: Periodic in three directions, with any cell that has a volume.
    """
    turned = atoms.copy()
    turned.set_constraint()
    box = openmm_box(atoms.cell.array)
    if box is None:
        # A proper rotation, so that molecules keep their hand: cell = standard @ rotation.
        standard, rotation = atoms.cell.standard_form()
        turned.positions = atoms.positions @ rotation.T
        if turned.has("momenta"):
            turned.set_momenta(atoms.get_momenta() @ rotation.T)
        box = openmm_box(standard.array)
    turned.set_cell(box)
    return turned
