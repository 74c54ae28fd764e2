"""What training frames hold: everything a run needs to know of them, from one pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from ase.symbols import Symbols

from jmp_md.domain import forms, seen
from jmp_md.errors import InputError
from jmp_md.training.checks import LABELS, target_value
from jmp_md.training.data.frame import Dataset, Frame, frames
from jmp_md.training.data.references import Composition, composition, fit_references
from jmp_md.training.data.statistics import NOTHING_LEFT

SAMPLE = 2000  # frames whose geometry is looked at


@dataclass
class Summary:
    """What frames hold.

    Attributes:
        n_frames, n_atoms: How many there are.
        elements: Atomic numbers that occur.
        labels: Those of ``energy``, ``forces`` and ``stress`` that some frame has.
        others: Names under which files hold what may be labels and was not read.
        compositions, energies: Of the frames with an energy, in eV.
        target: Name of the property that every frame must have, if any.
        values, kinds: That property and the composition of each frame.
        formulas: Of all frames.
        max_force: eV/Å, the largest force on an atom; None without forces.
        sample: Some of the structures, evenly spread.
    """

    n_frames: int
    target: str | None = None
    n_atoms: int = 0
    elements: set[int] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)
    others: tuple[str, ...] = ()
    compositions: list[Composition] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    kinds: list[Composition] = field(default_factory=list)
    formulas: set[str] = field(default_factory=set)
    max_force: float | None = None
    sample: list[Atoms] = field(default_factory=list)
    _squares: float = 0.0  # of the force components on free atoms
    _components: int = 0
    _known: dict[Composition, Composition] = field(default_factory=dict)  # one object for each

    def add(self, frame: Frame, sampled: bool) -> None:
        """Take one frame; its structure, too, where it is of the sample."""
        kind = composition(frame)
        kind = self._known.setdefault(kind, kind)
        self.n_atoms += len(frame)
        self.labels.update(name for name in LABELS if getattr(frame, name) is not None)
        self.others = self.others or frame.others
        if self.target is not None:
            self.values.append(target_value("training", frame, self.target))
            self.kinds.append(kind)
        if frame.energy is not None:
            self.compositions.append(kind)
            self.energies.append(frame.energy)
        if frame.forces is not None and len(frame):
            free = frame.forces if frame.fixed is None else frame.forces[~frame.fixed]
            self._squares += float(np.square(free).sum())
            self._components += free.size
            largest = float(np.linalg.norm(frame.forces, axis=1).max())
            self.max_force = max(largest, self.max_force or 0.0)
        if sampled:
            self.sample.append(
                Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
            )

    def close(self) -> None:
        """Take together what is known of compositions, once all frames were added."""
        self.elements = {z for kind in self._known for z, _ in kind}
        self.formulas = {_formula(kind) for kind in self._known}

    @property
    def force_rms(self) -> float:
        """Root mean square of the force components on free atoms, eV/Å; 1 where there are none.

        Perfect crystals and lone atoms have forces of zero: these count as none.
        """
        rms = float(np.sqrt(self._squares / self._components)) if self._components else 0.0
        return rms if rms > NOTHING_LEFT else 1.0

    def references(self, prior: Mapping[int, float] | None = None) -> dict[int, float]:
        """Energies of the elements in eV by atomic number, see :func:`.fit_references`.

        Raises:
            InputError: No frame has an energy.
        """
        if not self.energies:
            raise InputError("no frame has an energy, so there is nothing to fit references to")
        return fit_references(self.compositions, self.energies, prior)

    def energy_std(self, references: Mapping[int, float]) -> float:
        """Standard deviation of energies less references, eV; 1 where nothing is left of them."""
        left = [
            energy - sum(count * references[z] for z, count in kind)
            for kind, energy in zip(self.compositions, self.energies, strict=True)
        ]
        std = float(np.std(left)) if left else 0.0
        return std if std > NOTHING_LEFT else 1.0

    def seen(self) -> dict[str, Any]:
        """The record of :func:`jmp_md.domain.seen` for the header of a model."""
        return seen(self.sample, self.max_force, self.n_frames)

    def only_molecule(self) -> dict[str, Any]:
        """The molecule that all frames are: its formula, and the forms it occurs in.

        Raises:
            InputError: They are of several compositions.
        """
        if len(self.formulas) > 1:
            raise InputError(
                f"data.single_molecule is set but the frames hold {len(self.formulas)} molecules"
            )
        return {"formula": next(iter(self.formulas)), "molecules": forms(self.sample)}


def summarised(dataset: Dataset, target: str | None = None) -> Summary:
    """Read every frame once.

    Args:
        dataset: Usually the training part.
        target: Name of a property that every frame must have.

    Raises:
        InputError: A frame lacks the property.
    """
    n = len(dataset)
    sample = set(np.linspace(0, n - 1, SAMPLE).round().astype(int).tolist())
    summary = Summary(n, target)
    for index, frame in enumerate(frames(dataset)):
        summary.add(frame, index in sample)
    summary.close()
    return summary


def _formula(kind: Composition) -> str:
    numbers = [z for z, count in kind for _ in range(count)]
    return str(Symbols(numbers).formula.format("hill"))
