"""Energies along rotations about single bonds, at geometries that nothing relaxes."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list

# Molecules of the G2 set: the atoms of the bond, of which the second turns with all beyond it.
AXES = {
    "trans-butane": (1, 2), "butadiene": (1, 2), "CH3CH2OH": (1, 2), "CH3CH2SH": (1, 2),
    "CH3CH2NH2": (1, 2), "CH3COOH": (0, 2), "HCOOCH3": (0, 2), "CH3CONH2": (1, 2),
    "OCHCHO": (0, 1), "H2O2": (0, 1),
}  # fmt: skip
ANGLES = (0, 60, 180)  # degrees from the geometry of the set


def turned(atoms: Atoms, fixed: int, moving: int, angle: float) -> Atoms:
    """A copy with what is bonded to one atom of a bond turned about it.

    Args:
        atoms: A molecule; the bond is in no ring.
        fixed: First atom of the bond.
        moving: The other one.
        angle: Degrees.
    """
    bonds = np.array(neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.2)))
    part, new = {moving}, {moving}
    while new:
        found = {int(b) for a, b in bonds.T if a in new} - part
        new = found - {fixed}
        part |= new
    result = atoms.copy()
    beyond = result[sorted(part)]
    axis = atoms.positions[moving] - atoms.positions[fixed]
    beyond.rotate(angle, axis, center=atoms.positions[moving])
    result.positions[sorted(part)] = beyond.positions
    return result
