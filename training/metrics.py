"""Errors of a potential on labelled frames."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch_geometric.data import Data

from jmp_md.potential import Potential
from jmp_md.training.batches import labels, to_structures

MEV = 1000.0


def errors(
    potential: Potential, batches: Iterable[Data], *, direct: bool = False
) -> dict[str, float]:
    """Mean absolute and root-mean-square errors, in meV and meV/Å, over frames and components.

    Frames without a label leave the errors it would give out. Keys: ``energy_mae_meV``,
    ``energy_rmse_meV``, ``force_mae_meV_per_A``, ``force_rmse_meV_per_A``, ``n_frames``, and
    ``energy_shift_eV``, the mean of reference minus prediction.
    """
    energy_errors, force_errors = [], []
    n_frames = 0
    weight = potential.embedding.weight
    for batch in batches:
        energy, forces = labels(batch, torch.float64, weight.device)
        prediction = potential.predict(to_structures(batch), direct=direct)
        assert prediction.forces is not None
        energy_errors.append(prediction.energy - energy)
        force_errors.append((prediction.forces.double() - forces).flatten())
        n_frames += len(energy)
    result: dict[str, float] = {"n_frames": n_frames}
    for name, unit, parts in (
        ("energy", "meV", energy_errors),
        ("force", "meV_per_A", force_errors),
    ):
        error = torch.cat(parts)
        error = error[~error.isnan()]
        if len(error):
            result[f"{name}_mae_{unit}"] = float(error.abs().mean()) * MEV
            result[f"{name}_rmse_{unit}"] = float(error.square().mean().sqrt()) * MEV
        if name == "energy" and len(error):
            result["energy_shift_eV"] = -float(error.mean())
    return result
