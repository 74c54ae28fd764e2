"""The checks of a careful user: does a model, on a structure, do what physics asks of it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from ase import Atoms

from jmp_md.check.numerics import (
    batch_independence,
    bfloat16,
    cached_neighbours,
    compiled,
    machine_code,
    single_precision,
)
from jmp_md.check.physics import (
    continuity,
    energy_drift,
    force_gradient,
    permutation,
    rotation,
    size_consistency,
    stress_gradient,
    translation,
)
from jmp_md.check.subject import Outcome, Subject
from jmp_md.check.training_data import training_data
from jmp_md.checkpoints.exported import FixedPotential
from jmp_md.errors import InputError
from jmp_md.load import load_model
from jmp_md.potential import Potential

CHECKS: tuple[Callable[[Subject], Outcome], ...] = (
    training_data,
    force_gradient,
    stress_gradient,
    translation,
    rotation,
    permutation,
    size_consistency,
    continuity,
    batch_independence,
    cached_neighbours,
    single_precision,
    bfloat16,
    compiled,
    machine_code,
    energy_drift,
)


def check(
    atoms: Atoms,
    model: str | Path | Potential,
    *,
    head: str | None = None,
    dtype: str = "float32",
    device: str | torch.device | None = None,
    seed: int = 0,
    steps: int = 200,
    compile: bool = False,
    trust: bool = False,
    tags: str | None = None,
) -> Iterator[Outcome]:
    """Check a model on a structure; outcomes come as they are found.

    Args:
        atoms: The structure, best near a minimum; constraints are left out.
        model: Name that ``jmp-md models`` lists, file of a model, or a loaded potential.
        head: Task of a model with several.
        dtype: ``"float32"`` or ``"float64"``, for the dynamics; other checks are in float64.
        device: E.g. ``"cuda:1"``; None takes CUDA where there is one.
        seed: Of random displacements, rotations and velocities.
        steps: Steps of the dynamics, of 0.5 fs.
        compile: Whether to compile the network, which can take minutes, and compare.
        trust: Whether ``model`` may be an exported file, whose code then runs.
        tags: None gives every atom OC20's tag 2; ``"oc"`` reads tags from the structure.

    Raises:
        InputError: A structure or option that cannot be used.
        ModelNotFoundError: The model is not at hand.
        CheckpointError: The file is damaged, or has no such head.
    """
    if steps < 10:
        raise InputError(f"steps = {steps}: a drift shows in 10 steps or more, 200 is usual")
    potential = load_model(model, head=head, dtype=torch.float64, device=device, trust=trust)
    if isinstance(potential, FixedPotential):
        dtype = "float64"  # as it was exported
    free = atoms.copy()
    free.set_constraint()
    subject = Subject(free, potential, dtype, seed, steps, compile, tags)
    for function in CHECKS:
        yield function(subject)
