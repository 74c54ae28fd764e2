"""Checks of structures before anything is computed, the same for every engine."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.symbols import Symbols

from jmp_md.errors import InputError
from jmp_md.graph.pairs import CLOSEST, Pairs, pair_distances
from jmp_md.header import HeadInfo, ModelHeader

DENSEST = 0.2  # Å³ per atom, a fifth of hydrogen's at 500 GPa
CHARGES = ("charge", "total_charge")  # names in atoms.info
SPINS = ("spin", "multiplicity", "spin_multiplicity", "total_spin", "magmom")
_OC_TAGS = (0, 1, 2)


def check_structure(
    positions: np.ndarray,
    numbers: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
    header: ModelHeader,
    head: HeadInfo,
) -> None:
    """Refuse what cannot be a structure, and elements the model cannot know.

    Args:
        positions: (n_atoms, 3) Å.
        numbers: (n_atoms,) atomic numbers.
        cell: (3, 3) Å, rows are lattice vectors.
        pbc: (3,) bool.
        header: Header of the model.
        head: Its head in use.

    Raises:
        InputError: No atoms, positions that are not finite, a periodic cell without volume, or
            an element without training data, embedding or reference energy.
    """
    check_geometry(positions, numbers, cell, pbc)
    _check_elements(np.asarray(numbers), header, head)


def check_geometry(
    positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray
) -> None:
    """Refuse what cannot be a structure, for any model.

    Raises:
        InputError: As :func:`check_structure`, elements aside.
    """
    if len(numbers) == 0:
        raise InputError("the structure has no atoms: check how it was read or built")
    finite = np.isfinite(positions).all(axis=1)
    if not finite.all():
        i = int(np.flatnonzero(~finite)[0])
        raise InputError(
            f"the position of {_atom(numbers, i)} is {positions[i].tolist()}: not finite; check "
            "the file, or the time step of the simulation that led here"
        )
    check_cell(np.asarray(cell, dtype=np.float64), np.asarray(pbc, dtype=bool))
    volume = abs(np.linalg.det(cell)) / len(numbers)
    if np.all(pbc) and volume < DENSEST:  # before the neighbours fill the memory
        raise InputError(
            f"{len(numbers)} atoms in a cell of {volume * len(numbers):.3g} Å³: no matter is as "
            "dense; check the unit of the cell, or what made it collapse"
        )


def check_distances(
    positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pairs: Pairs
) -> None:
    """Refuse atoms that lie on top of each other or of a periodic image.

    Args:
        positions: (n_atoms, 3) Å, those the pairs go with.
        numbers: (n_atoms,) atomic numbers.
        cell: (3, 3) Å.
        pairs: Pairs of the structure, or at least those that can be that close.

    Raises:
        InputError: Two atoms closer than 0.01 Å; both are named.
    """
    source, target = pairs.source.numpy(), pairs.target.numpy()
    if len(source) == 0:
        return
    distance = pair_distances(positions, cell, source, target, pairs.offset.numpy())
    if distance.min() < CLOSEST:
        k = int(distance.argmin())
        first, second = sorted((int(source[k]), int(target[k])))
        raise InputError(
            f"{_atom(numbers, first)} and {_atom(numbers, second)} are {distance[k]:.4f} Å apart: "
            "remove the duplicate, or move one of them"
        )


def check_tags(tags: np.ndarray) -> None:
    """Refuse tags other than OC20's.

    Raises:
        InputError: A tag other than 0 (sub-surface), 1 (surface) or 2 (adsorbate).
    """
    wrong = np.flatnonzero(~np.isin(tags, _OC_TAGS))
    if len(wrong):
        raise InputError(
            f"atom {wrong[0]} has tag {tags[wrong[0]]}: tags='oc' needs OC20's, 0 (sub-surface), "
            "1 (surface) and 2 (adsorbate); set them with atoms.set_tags, or leave tags=None"
        )


def check_numbers(numbers: np.ndarray, header: ModelHeader, head: HeadInfo) -> None:
    """The checks that need no positions; a molecule other than the model's brings a warning.

    Raises:
        InputError: As :func:`check_structure`.
    """
    unset = np.zeros((len(numbers), 3))
    check_structure(unset, numbers, np.zeros((3, 3)), np.zeros(3, bool), header, head)
    if message := foreign_formula(numbers, header):
        warnings.warn(message, stacklevel=3)


def foreign_formula(numbers: np.ndarray, header: ModelHeader) -> str:
    """What to say of a structure that the model, made for one molecule, was not made for.

    Empty where the model is general, or the structure is its molecule.
    """
    domain = header.training.get("domain")
    own = domain.get("formula") if isinstance(domain, dict) else None
    if own is None:
        return ""
    formula = Symbols(numbers).get_chemical_formula(mode="hill")
    if own == formula:
        return ""
    return (
        f"model {header.name!r} was trained on one molecule only, {own}; this structure is "
        f"{formula}, and its energies and forces may be wrong: 'jmp-md models' lists others"
    )


def ignored_electrons(atoms: Atoms) -> str:
    """What to say of charges and spins that a structure brings; empty where it brings none.

    Counted are initial charges and magnetic moments, a charge other than 0 and a spin or
    multiplicity other than 0 and 1 in ``atoms.info``.
    """
    found = [f"info[{name!r}]" for name in CHARGES if _differs(atoms.info.get(name), (0,))]
    found += [f"info[{name!r}]" for name in SPINS if _differs(atoms.info.get(name), (0, 1))]
    found += [
        name.replace("_", " ")
        for name in ("initial_charges", "initial_magmoms")
        if atoms.has(name) and np.any(atoms.get_array(name))
    ]
    if not found:
        return ""
    return (
        f"charges and spins are ignored ({', '.join(found)}): the model knows elements and places "
        "only, and computes what it was trained on, usually the neutral ground state"
    )


def _differs(value: Any, usual: tuple[int, ...]) -> bool:
    """Whether a value is given that is none of the usual ones."""
    if value is None:
        return False
    return not any(np.array_equal(value, each) for each in usual)


def check_cell(cell: np.ndarray, pbc: np.ndarray) -> None:
    """Refuse a cell that has no volume, area or length in its periodic directions.

    Args:
        cell: (3, 3) Å, rows are lattice vectors.
        pbc: (3,) bool.

    Raises:
        InputError: It has none.
    """
    periodic = cell[pbc]
    lengths = np.linalg.norm(periodic, axis=1)
    # Area or volume as a share of that of a rectangular cell; 1 for one vector or none.
    share = np.sqrt(max(np.linalg.det(periodic @ periodic.T), 0.0)) / max(lengths.prod(), 1e-300)
    if not np.isfinite(cell).all() or (lengths < CLOSEST).any() or share < 1e-6:
        raise InputError(
            f"the cell {cell.tolist()} has no volume in its periodic directions (pbc "
            f"{pbc.tolist()}): set a cell with atoms.cell, or atoms.pbc = False"
        )


def _check_elements(numbers: np.ndarray, header: ModelHeader, head: HeadInfo) -> None:
    known = head.elements or range(1, header.architecture.num_elements + 1)
    unknown = np.flatnonzero(~np.isin(numbers, list(known)))
    if len(unknown):
        trained = " ".join(chemical_symbols[z] for z in head.elements) or f"1 to {max(known)}"
        raise InputError(
            f"{_atom(numbers, int(unknown[0]))}: head {head.name!r} of model {header.name!r} never "
            f"saw this element, only {trained}; 'jmp-md models' lists other models"
        )
    if head.references and (missing := set(numbers.tolist()) - head.references.keys()):
        symbols = " ".join(chemical_symbols[z] for z in sorted(missing))
        raise InputError(
            f"there is no reference energy for {symbols} (head {head.name!r} of model "
            f"{header.name!r}): give it in references={{...}}, in eV per atom"
        )


def _atom(numbers: np.ndarray, i: int) -> str:
    z = int(numbers[i])
    symbol = chemical_symbols[z] if 0 <= z < len(chemical_symbols) else f"Z = {z}"
    return f"atom {i} ({symbol})"
