"""A training run small enough for tests: a rattled molecule in a harmonic well, a tiny network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.build import molecule
from factories import SIZES

from jmp_md.training.assembly import assemble
from jmp_md.training.data.frame import Dataset, Frame, FrameList, Subset, make_frame
from jmp_md.training.distributed import Ranks
from jmp_md.training.recipe import Recipe, from_yaml
from jmp_md.training.task import TaskData
from jmp_md.training.trainer import Trainer

ALONE = Ranks(0, 1, torch.device("cpu"))
TINY = {**SIZES, "num_blocks": 1}
STIFFNESS = 20.0  # eV/Å²
RECIPE = f"""
model:
  name: tiny
  sizes: {TINY}
  graph: {{main: 4.0, atom_edge: 4.0, quadruplet: 2.0, atom_atom: 4.0}}
data: {{train: train.npz, n_train: 8, n_validation: 3}}
optimiser: {{epochs: 3, batch_size: 4, learning_rate: 2.0e-3}}
"""

PRETRAIN = f"""
task: pretrain
model:
  name: tiny
  sizes: {TINY}
  graph: {{main: 4.0, atom_edge: 4.0, quadruplet: 2.0, atom_atom: 4.0}}
tasks:
  water: {{train: water.npz, level_of_theory: springs}}
  methanol:
    train: methanol.npz
    graph: {{kind: official, cutoff: 5.0, max_neighbors: 20}}
mix: {{n_validation: 3}}
optimiser: {{epochs: 2, batch_size: 4, learning_rate: 2.0e-3, edge_dropout: 0.1, warmup_steps: 2}}
"""


def well(n: int, formula: str = "H2O", seed: int = 0) -> list[Frame]:
    """Frames of a molecule whose atoms are held to their places by springs of every pair."""
    rng = np.random.default_rng(seed)
    atoms = molecule(formula)
    rest = atoms.get_all_distances()
    frames = []
    for k in range(n):
        positions = atoms.positions + 0.1 * rng.normal(size=(len(atoms), 3))
        vector = positions[:, None] - positions[None]
        length = np.linalg.norm(vector, axis=2) + np.eye(len(atoms))
        stretch = (length - rest) * (1 - np.eye(len(atoms)))
        forces = -(STIFFNESS * stretch / length)[:, :, None] * vector
        frame = make_frame(
            "well",
            k,
            numbers=atoms.numbers,
            positions=positions,
            energy=-1000.0 + 0.25 * STIFFNESS * np.sum(stretch**2),
            forces=forces.sum(axis=1),
            system=f"{formula}-{k // 2}",
        )
        frames.append(frame)
    return frames


def write_npz(path: Path, frames: list[Frame]) -> Path:
    """Frames in the concatenated layout."""
    np.savez(
        path,
        n_atoms=[len(f) for f in frames],
        numbers=np.concatenate([f.numbers for f in frames]),
        positions=np.concatenate([f.positions for f in frames]),
        forces=np.concatenate([f.forces for f in frames if f.forces is not None]),
        energy=[f.energy for f in frames],
        system_id=[f.system for f in frames],
    )
    return path


def tiny_recipe(*overrides: str) -> Recipe:
    """The recipe with ``section.key=value`` changed."""
    recipe = from_yaml(RECIPE, "test", list(overrides))
    assert isinstance(recipe, Recipe)
    return recipe


def tiny_trainer(
    output: Path, *overrides: str, dataset: Dataset | None = None, **options: Any
) -> Trainer:
    """A trainer of the tiny recipe on eight frames, three to validate."""
    frames = dataset or FrameList(well(11))
    train, validation = Subset(frames, range(8)), Subset(frames, range(8, len(frames)))
    recipe = tiny_recipe(*overrides)
    return fine_tuner(recipe, train, validation, output, **options)


def fine_tuner(
    recipe: Recipe, train: Dataset, validation: Dataset, output: Path, **options: Any
) -> Trainer:
    """A trainer of one head, in this process alone."""
    return assemble(
        recipe, {recipe.model.head: TaskData(train, validation)}, output, ALONE, **options
    )


def history(trainer: Trainer) -> list[dict[str, float]]:
    """What a run wrote down, without the time it took."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in trainer.progress.history]
