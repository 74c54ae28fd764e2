"""What relaxes of a cell, what symmetry holds, and for which structures that can be meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.constraints import FixAtoms

from jmp_md.errors import InputError
from jmp_md.validate import check_cell

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.simulate.options import RelaxOptions


def check_fit(atoms: Atoms, options: RelaxOptions) -> None:
    """Refuse a structure that options of cell and symmetry do not go with.

    Raises:
        InputError: Nothing is periodic, pressure has no volume to act on, a constraint does not
            hold in a cell that moves, the cell has no volume or its periodic vectors do not lie
            along as many of x, y and z, the mask asks for other strains, or symmetry cannot be
            kept.
    """
    if options.relax_cell:
        _check_cell(atoms, options)
    if options.keep_symmetry and (atoms.constraints or not atoms.pbc.all()):
        raise InputError(
            f"symmetry can be kept in crystals without constraints; this structure has pbc "
            f"{atoms.pbc.tolist()} and {len(atoms.constraints)} constraints: leave out "
            "keep_symmetry (--keep-symmetry)"
        )


def _check_cell(atoms: Atoms, options: RelaxOptions) -> None:
    if not atoms.pbc.any():
        raise InputError(
            f"the structure has no cell to relax, pbc {atoms.pbc.tolist()}: leave out relax_cell "
            "(--relax-cell)"
        )
    if options.pressure != 0 and not atoms.pbc.all():
        raise InputError(
            f"pressure {options.pressure!r} GPa on a structure with pbc {atoms.pbc.tolist()}: it "
            "has no volume of its own that pressure could act on; leave out pressure (--pressure)"
        )
    for constraint in atoms.constraints:
        if not isinstance(constraint, FixAtoms):
            raise InputError(
                f"{type(constraint).__name__} does not hold in a cell that is relaxed, FixAtoms "
                "does: take it out, or leave out relax_cell (--relax-cell)"
            )
    cell = atoms.cell.array.tolist()
    check_cell(atoms.cell.array, atoms.pbc)
    if atoms.cell.rank < 3:
        raise InputError(
            f"the cell {cell} has no volume, by which stress is defined: set all of its vectors, "
            "e.g. with atoms.center(vacuum=10, axis=2)"
        )
    if _periodic_axes(atoms).sum() != atoms.pbc.sum():
        raise InputError(
            f"the periodic vectors of the cell {cell} (pbc {atoms.pbc.tolist()}) do not lie along "
            "as many of x, y and z: rotate the structure with its cell"
        )
    within = _strains_within(atoms)
    asked = options.cell_mask or within
    if any(a and not w for a, w in zip(asked, within, strict=True)):
        raise InputError(
            f"cell_mask {list(asked)} asks for strains of directions that are not periodic (pbc "
            f"{atoms.pbc.tolist()}): {within} are those there are"
        )


def strains(atoms: Atoms, options: RelaxOptions) -> list[int] | None:
    """Which of xx, yy, zz, yz, xz, xy relax, as 1 and 0; None where the cell stays as it is."""
    if not options.relax_cell:
        return None
    return list(options.cell_mask or _strains_within(atoms))


def _strains_within(atoms: Atoms) -> list[int]:
    """Those within the periodic directions."""
    along = _periodic_axes(atoms)
    pairs = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
    return [int(along[i] and along[j]) for i, j in pairs]


def _periodic_axes(atoms: Atoms) -> np.ndarray:
    """(3,) bool, those of x, y and z that periodic vectors of the cell have a part along."""
    periodic = atoms.cell.array[atoms.pbc]
    lengths = np.linalg.norm(periodic, axis=1, keepdims=True)
    along: np.ndarray = (np.abs(periodic) > 1e-6 * lengths).any(axis=0)
    return along


def symmetric(atoms: Atoms) -> Atoms:
    """A copy with its symmetry made exact and held by a constraint.

    Raises:
        InputError: spglib is not installed.
    """
    from ase.constraints import FixSymmetry

    copy = atoms.copy()
    try:
        copy.set_constraint(FixSymmetry(copy))
    except ImportError as error:
        raise InputError(
            "keeping symmetry needs spglib, which is not installed: pip install spglib"
        ) from error
    return copy
