"""Errors of a potential on a batch as training sees them: normalised, differentiable."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from jmp_md.potential import Potential
from jmp_md.training.batches import labels, to_structures
from jmp_md.training.derivatives import Derivatives, exact


class Scales(NamedTuple):
    """What errors are divided by: eV for energies and stress (as eV/Å³), eV/Å for forces."""

    energy: float
    forces: float


class Residuals(NamedTuple):
    """Errors of what is labelled, times the weights of the structures, and NaN elsewhere.

    Attributes:
        energy: (n_structures,) absolute.
        forces: (n_atoms,) length of the error of each atom; None when not asked for.
        stress: (n_structures,) mean absolute error of the components; None when not asked for.
    """

    energy: Tensor
    forces: Tensor | None
    stress: Tensor | None


NO_MARGINS = Scales(0.0, 0.0)
UNSCALED = Scales(1.0, 1.0)


def residuals(
    potential: Potential,
    batch: Data,
    scales: Scales,
    *,
    forces: bool = True,
    stress: bool = False,
    margins: Scales = NO_MARGINS,
    gradient_scale: float = 1.0,
    derivatives: Derivatives = exact,
) -> Residuals:
    """Errors of a batch, from a direct force head where the potential has one.

    Args:
        potential: What is trained.
        batch: Structures with their labels; those without stress labels need no cell.
        scales: What errors are divided by.
        forces: Whether forces are wanted.
        stress: Whether the stress is wanted.
        margins: Errors that count as none: of an energy in eV, and of the force on an atom, as a
            mean over its components, in eV/Å.
        gradient_scale: Factor of the energy while its gradient is taken, lest it vanish in fp16.
        derivatives: The way to gradients that can be differentiated by the weights.
    """
    parameter = potential.embedding.weight
    direct = potential.force_head is not None
    s = to_structures(batch).to(parameter.device, parameter.dtype)
    found = derivatives(
        potential, s, positions=forces and not direct, strain=stress, scale=gradient_scale
    )
    energies = found.energies
    head = potential.head
    total = energies.new_zeros(len(s.cells)).index_add(0, s.structure, energies)
    total = total * head.energy_scale

    energy_label, force_label = labels(batch, parameter.dtype, parameter.device)
    constant = potential.constant_energies(s)
    target = energy_label.index_add(0, s.structure, -constant).to(total.dtype)
    error = _difference(total, target).abs()
    error = error * (error.detach() >= margins.energy)
    energy_error = _marked(error / scales.energy, target)

    force_error = None
    if forces:
        predicted = found.direct_forces * (head.force_scale or 1.0)
        if found.by_positions is not None:
            predicted = -found.by_positions
        difference = _difference(predicted, force_label)
        counts = difference.detach().abs().mean(dim=1) >= margins.forces
        # 1e-6 keeps the gradient of the length finite where the error is zero.
        length = torch.linalg.norm(difference / scales.forces + 1e-6, dim=1)
        force_error = _marked(length * counts, force_label[:, 0])
    stress_error = None
    if found.by_strain is not None:
        volume = torch.linalg.det(s.cells).abs().view(-1, 1, 1)
        volume = torch.where(volume > 0, volume, 1.0)  # molecules, which have no stress label
        stress_label = batch.stress.to(total.device, total.dtype)
        difference = _difference(found.by_strain / volume, stress_label)
        stress_error = difference.abs().mean(dim=(1, 2)) / scales.energy
        stress_error = _marked(stress_error, stress_label[:, 0, 0])
    weight = batch.weight.to(total.device, total.dtype)
    return Residuals(
        energy_error * weight,
        None if force_error is None else force_error * weight[s.structure],
        None if stress_error is None else stress_error * weight,
    )


def mean_terms(errors: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Sum and number of the labelled entries of each kind of error: two tensors (n_kinds,)."""
    sums = torch.stack([error[~error.isnan()].sum() for error in errors])
    counts = torch.stack([(~error.isnan()).sum() for error in errors])
    return sums, counts.to(sums.dtype)


def structure_means(values: Tensor, structure: Tensor, n_structures: int) -> Tensor:
    """Mean over the atoms of each structure that have a value: (n_structures,), else NaN."""
    labelled = ~values.isnan()
    total = values.new_zeros(n_structures).index_add(0, structure[labelled], values[labelled])
    count = torch.bincount(structure[labelled], minlength=n_structures)
    return torch.where(count > 0, total / count.clamp(min=1), torch.nan)


def _difference(predicted: Tensor, label: Tensor) -> Tensor:
    """Prediction less label, zero where there is no label: NaN would spoil all gradients."""
    return torch.where(label.isnan(), 0.0, predicted - label.nan_to_num())


def _marked(error: Tensor, label: Tensor) -> Tensor:
    """NaN where there is no label."""
    return error.masked_fill(label.isnan(), torch.nan)
