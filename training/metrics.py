"""Errors of a potential on labelled frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch_geometric.data import Data

from jmp_md.errors import InputError
from jmp_md.evaluation import evaluate
from jmp_md.potential import Potential
from jmp_md.training.batches import labels, to_structures
from jmp_md.training.data.frame import Dataset, Frame
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


def batch_errors(potential: Potential, batches: Iterable[Data]) -> ErrorSums:
    """Errors over batches; forces are those of the direct head where there is one."""
    sums = ErrorSums()
    device, direct = potential.embedding.weight.device, potential.force_head is not None
    for batch in batches:
        energy, forces = labels(batch, torch.float64, device)
        structures = to_structures(batch)
        stress = not direct and not bool(batch.stress.isnan().all())
        prediction = potential.predict(structures, direct=direct, stress=stress)
        assert prediction.forces is not None
        constant = torch.zeros_like(prediction.energy)
        by_atom = potential.constant_energies(structures.to(device, torch.float64))
        constant.index_add_(0, structures.structure.to(device), by_atom)
        sums.add(
            Values(
                prediction.energy.cpu().numpy(),
                prediction.forces.double().cpu().numpy(),
                None if prediction.stress is None else prediction.stress.double().cpu().numpy(),
            ),
            Values(energy.cpu().numpy(), forces.cpu().numpy(), batch.stress.cpu().numpy()),
            batch.numbers.cpu().numpy(),
            constant.cpu().numpy(),
        )
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
    """Errors over a data set, read a few frames at a time.

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
    sums = ErrorSums()
    references = np.zeros(len(chemical_symbols))
    for number, energy in potential.head.references.items():
        references[number] = energy
    for start in range(0, len(dataset), batch_size):
        frames = [dataset[i] for i in range(start, min(start + batch_size, len(dataset)))]
        stress = not direct and any(frame.stress is not None for frame in frames)
        results = evaluate(
            [to_atoms(frame) for frame in frames],
            potential,
            properties=("energy", "forces", "stress") if stress else ("energy", "forces"),
            forces="direct" if direct else "conservative",
            tags="oc",
            on_error="keep",
        )
        for i, (frame, result) in enumerate(zip(frames, results, strict=True), start):
            if result.error is not None and not skip_bad:
                raise InputError(f"frame {i}: {result.error}") from result.error
            if result.error is None:
                constant = references[frame.numbers].sum() + potential.head.energy_mean
                assert result.forces is not None
                tension = None if result.stress is None else result.stress[None]
                predicted = Values(np.array([result.energy]), result.forces, tension)
                sums.add(predicted, _labels(frame), frame.numbers, np.array([constant]))
        if progress:
            progress(len(frames))
    if not sums.n_frames:
        raise InputError("there is no frame to evaluate: check the data set, or what was left out")
    return sums


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
