"""Whether structures go together as a path: atoms, constraints, order, the shortest way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.errors import InputError
from jmp_md.simulate.identity import identify_constraint

if TYPE_CHECKING:
    from ase import Atoms

_PLACE = 0.01  # Å between the places of an atom that constraints hold
_MOVER = 0.5  # Å from which on an atom may have taken another's place
# Another order of identical atoms counts where it shortens the way this much: less may be chance.
_SHORTER, _SAVED = 0.8, 0.25  # share of the sum of squares, Å²


def matched_images(images: Sequence[Atoms], atom_order: str) -> tuple[list[Atoms], list[str]]:
    """Copies of structures that make a path, each atom taking the shortest way to the next one.

    Args:
        images: The two ends, or a path.
        atom_order: What to do where another order of identical atoms makes the path much shorter:
            ``"check"`` refuses, ``"given"`` keeps the order for an exchange that is meant,
            ``"nearest"`` takes the order of the least sum of squared distances.

    Returns:
        The copies, without calculators, and what was done to them, for the user.

    Raises:
        InputError: Other atoms, cells, constraints or places of atoms that constraints hold, or
            identical atoms that change places; each is named.
    """
    first = images[0]
    for i, image in enumerate(images):
        _check_atoms(first, image, i)
        _check_constraints(first, image, i)
    path, notes = [first.copy()], []
    for i, image in enumerate(images[1:], 1):
        moved = image.copy()
        notes += _reorder(path[-1], moved, i, atom_order)
        notes += _unwrap(path[-1], moved, i)
        path.append(moved)
    return path, notes


def is_free(atoms: Atoms) -> Any:
    """Whether a structure can be turned and moved without a change."""
    return not atoms.pbc.any() and not atoms.constraints


def shortest(before: Atoms, after: Atoms) -> np.ndarray:
    """(n_atoms, 3) Å from one structure to the nearest periodic images of another."""
    from ase.geometry import find_mic

    way: np.ndarray = find_mic(after.positions - before.positions, before.cell, before.pbc)[0]
    return way


def named(atoms: Atoms, indices: Sequence[int] | np.ndarray) -> str:
    """Atoms for a message, e.g. ``"H 3, H 4 and 7 more"``."""
    shown = ", ".join(f"{atoms.symbols[int(i)]} {int(i)}" for i in indices[:6])
    return shown + (f" and {len(indices) - 6} more" if len(indices) > 6 else "")


def _check_atoms(first: Atoms, image: Atoms, i: int) -> None:
    if not np.array_equal(image.numbers, first.numbers):
        raise InputError(
            f"structure {i} has other atoms than the first, or in another order: bring them "
            "into the order of the first"
        )
    if not np.array_equal(image.pbc, first.pbc) or not np.allclose(
        image.cell.array, first.cell.array, atol=1e-6
    ):
        raise InputError(f"structure {i} has another cell or pbc: a band needs one for all")
    for name, ours, theirs in (
        ("masses", image.get_masses(), first.get_masses()),
        ("tags", image.get_tags(), first.get_tags()),
    ):
        if len(differing := np.flatnonzero(ours != theirs)):
            raise InputError(
                f"structure {i} has other {name} than the first, at {named(first, differing)}: "
                "give all the same"
            )


def _check_constraints(first: Atoms, image: Atoms, i: int) -> None:
    ours, theirs = _constraints(image), _constraints(first)
    if ours != theirs:
        held = [{j for _, indices, _ in each for j in indices} for each in (ours, theirs)]
        differing = np.array(sorted(held[0] ^ held[1]), dtype=int)
        kinds = " and ".join(
            ", ".join(sorted({name for name, _, _ in each})) or "none" for each in (ours, theirs)
        )
        where = f", at {named(first, differing)}" if len(differing) else ""
        raise InputError(
            f"structure {i} has other constraints than the first ({kinds}{where}): barriers "
            "between structures held differently have no meaning, give all the same constraints"
        )
    apart = np.linalg.norm(np.where(_fixed(first), shortest(first, image), 0.0), axis=1)
    elsewhere = np.argsort(-apart)[: int((apart > _PLACE).sum())]
    if len(elsewhere):
        raise InputError(
            f"structure {i} holds atoms by constraints elsewhere than the first, "
            f"{named(first, elsewhere)}, up to {apart.max():.3f} Å away: put them into the same "
            "places"
        )


def _constraints(atoms: Atoms) -> list[tuple[str, tuple[int, ...], str]]:
    """Kind, atoms and details of each constraint, comparable and in no particular order."""
    fixed: set[int] = set()
    found = []
    for constraint in atoms.constraints:
        name, indices = type(constraint).__name__, _held(constraint)
        if name == "FixAtoms":  # one or many of them are the same
            fixed |= {i % len(atoms) for i in indices}
        else:
            found.append((name, indices, repr(identify_constraint(constraint))))
    return ([("FixAtoms", tuple(sorted(fixed)), "")] if fixed else []) + sorted(found)


def _held(constraint: Any) -> tuple[int, ...]:
    """Atoms that a constraint names; none for those that hold all of a structure."""
    return tuple(sorted(int(i) for i in getattr(constraint, "get_indices", list)()))


def _fixed(atoms: Atoms) -> np.ndarray:
    """(n_atoms, 3) bool: coordinates that constraints hold."""
    fixed = np.zeros((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        if type(constraint).__name__ == "FixAtoms":
            fixed[constraint.get_indices()] = True
        elif type(constraint).__name__ == "FixCartesian":
            fixed[constraint.get_indices()] |= np.asarray(constraint.mask, dtype=bool)
    return fixed


def _reorder(before: Atoms, after: Atoms, i: int, atom_order: str) -> list[str]:
    """Refuse, keep or undo an exchange of identical atoms, as ``atom_order`` says."""
    order = _nearest_order(before, after)
    moving = np.flatnonzero(order != np.arange(len(order)))
    if not len(moving):
        return []
    which = f"structure {i}: identical atoms {named(before, moving)} change places on the path"
    if atom_order == "check":
        raise InputError(
            f"{which}, in another order they move much less: put them into the order of the "
            "first; or choose atom order 'nearest' to have that done, or 'given' where the "
            "exchange is meant (--atom-order)"
        )
    if atom_order == "given":
        return [f"{which}, as given"]
    after.positions = after.positions[order]
    return [f"structure {i}: atoms {named(before, moving)} were put into the order of the first"]


def _nearest_order(before: Atoms, after: Atoms) -> np.ndarray:
    """Which atom of ``after`` to take for each of ``before``; all in place where little is won."""
    same = np.arange(len(before))
    turned, order = after.copy(), same
    start = _distance(before, turned)
    for _ in range(10):  # turning depends on the order, and the order on turning
        step = _exchange(before, turned)
        if np.array_equal(step, same):
            break
        order, turned.positions = order[step], turned.positions[step]
        left = _distance(before, turned)
    won = not np.array_equal(order, same) and start - left > _SAVED and left < _SHORTER * start
    return order if won else same


def _distance(before: Atoms, after: Atoms) -> float:
    """Sum of squared distances, Å²; turns ``after`` upon ``before`` where it is free."""
    from ase.build import minimize_rotation_and_translation

    if is_free(before):
        minimize_rotation_and_translation(before, after)
    return float((shortest(before, after) ** 2).sum())


def _exchange(before: Atoms, after: Atoms) -> np.ndarray:
    """The nearest order of the atoms that have moved far, of one kind and free of constraints."""
    from ase.geometry import get_distances
    from scipy.optimize import linear_sum_assignment

    moving = np.linalg.norm(shortest(before, after), axis=1) > _MOVER
    for constraint in before.constraints:
        moving[list(_held(constraint))] = False
    order = np.arange(len(before))
    kinds = np.stack([before.numbers, before.get_masses(), before.get_tags()], axis=1)
    for kind in np.unique(kinds[moving], axis=0):
        members = np.flatnonzero(moving & (kinds == kind).all(axis=1))
        places = before.positions[members], after.positions[members]
        _, distances = get_distances(*places, cell=before.cell, pbc=before.pbc)
        order[members] = members[linear_sum_assignment(distances**2)[1]]
    return order


def _unwrap(before: Atoms, after: Atoms, i: int) -> list[str]:
    """Move atoms to the periodic images next to where they were, so that paths are continuous."""
    way = shortest(before, after)
    crossing = np.flatnonzero(
        np.linalg.norm(after.positions - before.positions - way, axis=1) > 1e-6
    )
    after.positions = before.positions + way
    if not len(crossing):
        return []
    return [f"structure {i}: {named(before, crossing)} take the shorter way across the boundary"]


def moved_ends(given: Sequence[Atoms], path: Sequence[Atoms]) -> list[str]:
    """Ends that relaxation took far away: perhaps to another reaction than the one meant."""
    notes = []
    for name, before, after in (("first", given[0], path[0]), ("last", given[-1], path[-1])):
        there = after.copy()
        _distance(before, there)
        apart = np.linalg.norm(shortest(before, there), axis=1)
        if apart.max() > _MOVER:
            notes.append(
                f"the {name} end moved by up to {apart.max():.2f} Å when it was relaxed, at "
                f"{named(before, np.argsort(-apart)[: int((apart > _MOVER).sum())])}: look at it"
            )
    return notes
