"""Errors of a potential on labelled frames."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from jmp_md.batch import BatchPredictor, Item, in_parts
from jmp_md.domain import foreign
from jmp_md.errors import DomainWarning, InputError
from jmp_md.header import HeadInfo
from jmp_md.potential import Potential
from jmp_md.system import System
from jmp_md.training.data.frame import Dataset, Frame, frames
from jmp_md.training.parity import Parity

MEV = 1000.0


class Values(NamedTuple):
    """Energies (n_frames,) in eV, forces (n_atoms, 3) in eV/Å, stress (n_frames, 3, 3) in eV/Å³.

    Stress is None where none was asked for.
    """

    energy: np.ndarray
    forces: np.ndarray
    stress: np.ndarray | None = None


class ErrorSums:
    """Errors gathered over frames. Labels that are NaN leave out the errors they would give.

    Attributes:
        n_frames: Frames added.
        parity: Labels and predictions of some of them.
    """

    def __init__(self) -> None:
        self.n_frames = 0
        self.parity = Parity()
        self._energy: list[np.ndarray] = []
        # Per atomic number: components, sum of absolute errors, sum of squares.
        self._forces = np.zeros((len(chemical_symbols), 3))
        self._stress = np.zeros(3)  # likewise
        self._labels = 0.0  # sum of squares of force labels

    def add(
        self, predicted: Values, label: Values, numbers: np.ndarray, constant: np.ndarray
    ) -> None:
        """Add predictions and labels.

        Args:
            predicted: Predictions.
            label: Labels; NaN where there is none.
            numbers: (n_atoms,) atomic numbers.
            constant: (n_frames,) eV, energies of the elements, which plots leave out.
        """
        self.n_frames += len(predicted.energy)
        known = ~np.isnan(label.energy)
        self._energy.append((predicted.energy - label.energy)[known])
        for column, values in enumerate(_sums(predicted.forces, label.forces)):
            np.add.at(self._forces[:, column], numbers, values.sum(axis=1))
        self._labels += float(np.nansum(np.square(label.forces)))
        name = "energy less references (eV)"
        self.parity.add(name, label.energy - constant, predicted.energy - constant)
        self.parity.add("force (eV/Å)", label.forces, predicted.forces)
        if predicted.stress is not None and label.stress is not None:
            self._stress += [v.sum() for v in _sums(predicted.stress, label.stress)]
            self.parity.add("stress (eV/Å³)", label.stress, predicted.stress)

    def __add__(self, other: ErrorSums) -> ErrorSums:
        """Errors over the frames of both."""
        total = ErrorSums()
        total.n_frames = self.n_frames + other.n_frames
        total.parity = self.parity + other.parity
        total._energy = self._energy + other._energy
        total._forces = self._forces + other._forces
        total._stress = self._stress + other._stress
        total._labels = self._labels + other._labels
        return total

    def summary(self) -> dict[str, float]:
        """Mean absolute and root-mean-square errors, in meV and meV/Å, over frames and components.

        Keys: ``n_frames``; where there are labels ``energy_mae_meV``, ``energy_rmse_meV``,
        ``energy_shift_eV`` (the mean of reference minus prediction), ``force_mae_meV_per_A``,
        ``force_rmse_meV_per_A``, ``stress_mae_meV_per_A3`` and ``stress_rmse_meV_per_A3``.
        """
        result: dict[str, float] = {"n_frames": self.n_frames}
        energy = self._all_energies()
        if len(energy):
            result["energy_mae_meV"] = float(np.abs(energy).mean()) * MEV
            result["energy_rmse_meV"] = float(np.sqrt(np.square(energy).mean())) * MEV
            result["energy_shift_eV"] = -float(energy.mean())
        count, absolute, square = self._forces.sum(axis=0)
        if count:
            result["force_mae_meV_per_A"] = float(absolute / count) * MEV
            result["force_rmse_meV_per_A"] = float(np.sqrt(square / count)) * MEV
        count, absolute, square = self._stress
        if count:
            result["stress_mae_meV_per_A3"] = float(absolute / count) * MEV
            result["stress_rmse_meV_per_A3"] = float(np.sqrt(square / count)) * MEV
        return result

    def labels(self) -> dict[str, float]:
        """What the labels are: ``n_energies``, and ``force_rms_meV_per_A`` where there are any."""
        count = self._forces[:, 0].sum()
        result: dict[str, float] = {"n_energies": len(self._all_energies())}
        if count:
            result["force_rms_meV_per_A"] = float(np.sqrt(self._labels / count)) * MEV
        return result

    def shifted_energy(self) -> dict[str, float]:
        """Energy errors once the mean error is taken off, as a constant is not learned from forces.

        Keys: ``energy_mae_meV`` and ``energy_rmse_meV``; empty without labels.
        """
        energy = self._all_energies()
        if not len(energy):
            return {}
        energy = energy - energy.mean()
        return {
            "energy_mae_meV": float(np.abs(energy).mean()) * MEV,
            "energy_rmse_meV": float(np.sqrt(np.square(energy).mean())) * MEV,
        }

    def force_errors_by_element(self) -> dict[str, dict[str, float]]:
        """``mae`` and ``rmse`` of force components, in meV/Å, by chemical symbol."""
        return {
            chemical_symbols[z]: {
                "mae": float(absolute / count) * MEV,
                "rmse": float(np.sqrt(square / count)) * MEV,
            }
            for z, (count, absolute, square) in enumerate(self._forces)
            if count
        }

    def _all_energies(self) -> np.ndarray:
        return np.concatenate(self._energy) if self._energy else np.empty(0)


class Labelled(NamedTuple):
    """A structure ready to be computed, and what it is compared with.

    Attributes:
        number: Of the frame.
        item: The structure with its pairs.
        label: Arrays of one frame; NaN where there is no label.
    """

    number: int
    item: Item
    label: Values


def errors_of(
    potential: Potential,
    structures: Iterable[Labelled],
    *,
    direct: bool = False,
    failed: Callable[[int, InputError], object] | None = None,
    at_once: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> ErrorSums:
    """Errors over structures, in batches that fit in memory.

    Args:
        potential: The model.
        structures: What to compute, with labels.
        direct: Whether to measure the forces of the direct force head.
        failed: Called with the number of a frame that cannot be computed and the reason; it is
            then left out. By default its errors are NaN.
        at_once: Structures in memory together, at most; by default as many as have
            :data:`jmp_md.batch.PAIRS_AT_ONCE` pairs.
        progress: Called with the number of frames done since the last call.
    """
    sums = ErrorSums()
    for part in in_parts(structures, lambda each: each.item, at_once):
        stress = not direct and any(_is_labelled(each.label.stress) for each in part)
        predictor = BatchPredictor(potential, stress=stress, direct=direct)
        results = predictor.predict([each.item for each in part])
        for each, result in zip(part, results, strict=True):
            if result.error is not None and failed is not None:
                failed(each.number, result.error)
                continue
            numbers = each.item.structures.numbers.numpy()
            assert result.forces is not None
            tension = None if result.stress is None else result.stress[None]
            predicted = Values(np.array([result.energy]), result.forces, tension)
            sums.add(predicted, each.label, numbers, _constant(potential.head, numbers))
        if progress:
            progress(len(part))
    return sums


def dataset_errors(
    potential: Potential,
    dataset: Dataset,
    *,
    batch_size: int = 256,
    direct: bool = False,
    skip_bad: bool = False,
    progress: Callable[[int], object] | None = None,
) -> ErrorSums:
    """Errors over a data set, read a few frames at a time and checked before they are computed.

    Args:
        potential: The model.
        dataset: Labelled frames of any sizes.
        batch_size: Frames read and evaluated together.
        direct: Whether to measure the forces of the direct force head.
        skip_bad: Leave out frames that the model cannot evaluate.
        progress: Called with the number of frames done since the last call.

    Raises:
        InputError: No frames, or one that cannot be evaluated; its number is given.
    """
    if batch_size < 1:
        raise InputError(f"batch size {batch_size}: must be at least 1")

    def failed(number: int, error: InputError) -> None:
        if not skip_bad:
            raise InputError(f"frame {number}: {error}") from error

    structures = _checked(potential, dataset, failed)
    sums = errors_of(
        potential, structures, direct=direct, failed=failed, at_once=batch_size, progress=progress
    )
    if not sums.n_frames:
        raise InputError("there is no frame to evaluate: check the data set, or what was left out")
    return sums


def _checked(
    potential: Potential, dataset: Dataset, failed: Callable[[int, InputError], object]
) -> Iterator[Labelled]:
    """Frames that the model is made for; the first one that it does not know is warned of."""
    warned = False
    for number, frame in enumerate(frames(dataset)):
        atoms = to_atoms(frame)
        try:
            item = System(atoms, potential, skin=0.0, oc_tags=True).item()
        except InputError as error:
            failed(number, error)
            continue
        if not warned and (message := foreign(atoms, potential.header)):
            warnings.warn(message, DomainWarning, stacklevel=2)
            warned = True
        yield Labelled(number, item, _labels(frame))


def _is_labelled(values: np.ndarray | None) -> bool:
    return values is not None and not bool(np.isnan(values).all())


def _constant(head: HeadInfo, numbers: np.ndarray) -> np.ndarray:
    """eV, energy of the elements of one frame: (1,)."""
    elements, counts = np.unique(numbers, return_counts=True)
    known = [head.references.get(z, 0.0) for z in elements.tolist()]
    return np.array([float(counts @ known) + head.energy_mean])


def to_atoms(frame: Frame) -> Atoms:
    """A frame as ASE holds it, without labels; tags as the network takes them."""
    tags = np.full(len(frame), 2) if frame.tags is None else frame.tags
    return Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc, tags=tags)


def _labels(frame: Frame) -> Values:
    """NaN where there is none; forces on atoms held in place are no labels."""
    forces = np.full((len(frame), 3), np.nan) if frame.forces is None else frame.forces.copy()
    if frame.fixed is not None:
        forces[frame.fixed] = np.nan
    stress = None if frame.stress is None else frame.stress[None]
    return Values(np.array([np.nan if frame.energy is None else frame.energy]), forces, stress)


def _sums(predicted: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each value whether there is a label, the absolute error and its square."""
    known = ~np.isnan(label)
    error = np.where(known, predicted - label, 0.0)
    return known, np.abs(error), error**2
