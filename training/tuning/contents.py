"""What a user's frames hold, and what in them looks wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.symbols import Symbols

from jmp_md.connectivity import POSSIBLE, Contacts
from jmp_md.errors import InputError
from jmp_md.training.data.frame import Frame, FrameList
from jmp_md.training.data.references import is_lone_atom
from jmp_md.training.data.statistics import inspect
from jmp_md.training.metrics import to_atoms

LEAST = 4  # frames
SAMPLE = 50  # frames whose bonds and neighbours in time are looked at
ALIKE = 0.5  # of the usual distance between frames, below which neighbours are a trajectory


@dataclass(frozen=True)
class Contents:
    """What frames hold.

    Attributes:
        frames: Those to learn from.
        lone_atoms: eV of isolated atoms by symbol, whose frames are not learned from.
        formulas: Number of frames by Hill formula.
        elements: Atomic numbers.
        found: As :func:`jmp_md.training.data.statistics.inspect` has it.
        molecules: Usual smallest and largest number of separate molecules in a frame.
        crystal: Whether bonds go on from cell to cell.
        trajectory: Whether consecutive frames are much nearer to each other than others.
        stress: Number of frames with stress.
        mean_force: Mean absolute component, eV/Å.
    """

    frames: list[Frame]
    lone_atoms: dict[str, float]
    formulas: dict[str, int]
    elements: tuple[int, ...]
    found: dict[str, Any]
    molecules: tuple[int, int]
    crystal: bool
    trajectory: bool
    stress: int
    mean_force: float

    @property
    def one_molecule(self) -> bool:
        """Whether all frames are one molecule alone."""
        return len(self.formulas) == 1 and self.molecules == (1, 1) and not self.found["periodic"]

    @property
    def largest(self) -> int:
        """Atoms of the largest frame."""
        return max(map(len, self.frames))


def contents_of(every: list[Frame]) -> Contents:
    """Look at frames.

    Raises:
        InputError: Too few frames, no forces, the same frame throughout, or forces on no atom.
    """
    learned = [frame for frame in every if not is_lone_atom(frame)]
    lone = {
        chemical_symbols[int(frame.numbers[0])]: frame.energy
        for frame in every
        if is_lone_atom(frame) and frame.energy is not None
    }
    if len(learned) < LEAST:
        raise InputError(
            f"{len(learned)} frames (isolated atoms apart): give {LEAST} at least, and some tens "
            "for a model that is of use"
        )
    found = inspect(FrameList(learned))
    if found["duplicates"]["number"] == len(learned) - 1:
        raise InputError(
            f"all {len(learned)} frames hold the same geometry: give different structures, e.g. "
            "frames of a molecular dynamics run"
        )
    labelled = [frame.forces for frame in learned if frame.forces is not None]
    if not labelled:
        raise InputError("no frame has forces, which a fine-tune learns from: compute them")
    if not any(force.any() for force in labelled):
        raise InputError("all forces are zero: give frames that are not at rest, and their forces")
    sample = [learned[k] for k in _spread(len(learned), SAMPLE)]
    contacts = [Contacts(to_atoms(frame)) for frame in sample]
    counts = [int(contact.molecules(POSSIBLE).max(initial=-1)) + 1 for contact in contacts]
    low, high = np.percentile(counts, (5, 95), method="nearest").tolist()  # but for rare breaks
    formulas = Counter(str(Symbols(f.numbers).formula.format("hill")) for f in learned)
    return Contents(
        learned,
        lone,
        dict(formulas.most_common()),
        tuple(sorted({int(z) for frame in learned for z in frame.numbers})),
        found,
        (int(low), int(high)),
        any(contact.is_network for contact in contacts),
        _is_trajectory(learned),
        sum(frame.stress is not None for frame in learned),
        float(np.mean(np.abs(np.concatenate(labelled)))),
    )


def overlap(train: list[Frame], other: list[Frame]) -> int:
    """How many of ``other`` have the geometry of one in ``train``, to 0.001 Å."""
    known = {geometry(frame) for frame in train}
    return sum(geometry(frame) in known for frame in other)


def geometry(frame: Frame) -> tuple[Any, ...]:
    """The same for frames that are alike to 0.001 Å."""
    cell = b"" if frame.cell is None else np.round(frame.cell * 1000).astype(int).tobytes()
    rounded = np.round(frame.positions * 1000).astype(int).tobytes()
    return frame.numbers.tobytes(), frame.pbc, cell, rounded


def _spread(n: int, most: int) -> list[int]:
    places: list[int] = np.unique(np.linspace(0, n - 1, most).round().astype(int)).tolist()
    return places


def _is_trajectory(learned: list[Frame]) -> bool:
    """Whether frames that follow each other resemble each other more than others do."""
    places = _spread(len(learned) - 1, SAMPLE)
    order = np.random.default_rng(0).permutation(len(learned))
    near = [d for k in places if (d := _apart(learned[k], learned[k + 1])) is not None]
    far = [
        d
        for k, other in zip(places, order.tolist(), strict=False)
        if abs(k - other) > 1 and (d := _apart(learned[k], learned[other])) is not None
    ]
    if len(near) < 3 or len(far) < 3:
        return False
    return float(np.median(near)) < ALIKE * float(np.median(far))


def _apart(a: Frame, b: Frame) -> float | None:
    """Root mean square of the change of distances between atoms; None for other atoms."""
    if not np.array_equal(a.numbers, b.numbers) or len(a) < 2:
        return None
    if a.cell is not None and b.cell is not None and any(a.pbc):
        change = np.linalg.solve(a.cell.T, (b.positions - a.positions).T).T
        return float(np.sqrt(np.mean(((change - change.round()) @ a.cell) ** 2)))
    some = slice(0, 64)
    one, other = (np.linalg.norm(x[some, None] - x[None, some], axis=2)
                  for x in (a.positions, b.positions))  # fmt: skip
    return float(np.sqrt(np.mean((one - other) ** 2)))
