"""What training data hold, for the header of a model; see :mod:`jmp_md.domain`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.symbols import Symbols

from jmp_md.checkpoints.native import read_native, write_native
from jmp_md.domain import forms, seen
from jmp_md.errors import InputError
from jmp_md.header import ModelHeader
from jmp_md.training.data.frame import Dataset, Subset, frames
from jmp_md.training.data.hashing import sha256_of
from jmp_md.training.recipe import PretrainRecipe, Recipe, from_yaml

SAMPLE = 2000  # frames that are looked at


def seen_in(train: Dataset) -> dict[str, Any]:
    """The largest force of all frames, and of a sample of them what geometries there are."""
    forces = (frame.forces for frame in frames(train))
    lengths = [np.linalg.norm(f, axis=1).max() for f in forces if f is not None and len(f)]
    largest = float(max(lengths)) if lengths else None
    return seen(_structures(train), largest, len(train))


def only_molecule(train: Dataset) -> dict[str, Any]:
    """The molecule that all frames are: its formula, and the forms it occurs in.

    Raises:
        InputError: They are of several compositions.
    """
    formulas = {Symbols(f.numbers).formula.format("hill") for f in frames(train)}
    if len(formulas) > 1:
        raise InputError(
            f"data.single_molecule is set but the frames hold {len(formulas)} molecules"
        )
    return {"formula": formulas.pop(), "molecules": forms(_structures(train))}


def record(path: Path, data: Path) -> ModelHeader:
    """Write into a model file what its training data held, for models older than the record.

    The frames are those its recipe trained on, from files whose hashes the header has; weights and
    everything else in the file stay.

    Args:
        path: Native model file that jmp-md trained.
        data: Folder of the data its recipe names.

    Raises:
        InputError: The header has no recipe for energies and forces, or the data are others.
        CheckpointError: The file is damaged or cannot be written.
    """
    from jmp_md.training.session import training_frames

    header, state = read_native(path)
    recipe = from_yaml(str(header.training.get("recipe", "")), f"the recipe in {path}")
    if not isinstance(recipe, Recipe | PretrainRecipe):
        raise InputError(f"{path} is no model of energies and forces: nothing is recorded for it")
    for name, known in header.training.get("data_sha256", {}).items():
        if (data / name).exists() and sha256_of(data / name) != known:
            raise InputError(f"{data / name} is not the file that {header.name!r} was trained on")
    found = training_frames(recipe, data)
    training = dict(header.training)
    if isinstance(recipe, PretrainRecipe):
        training["seen"] = {"heads": {name: seen_in(part) for name, part in found.items()}}
    else:
        [part] = found.values()
        training["seen"] = seen_in(part)
        if recipe.data.single_molecule:
            training["domain"] = only_molecule(part)
    header = dataclasses.replace(header, training=training)
    write_native(path, header, state)
    return header


def _structures(train: Dataset) -> list[Atoms]:
    chosen = Subset(train, np.unique(np.linspace(0, len(train) - 1, SAMPLE).round().astype(int)))
    return [Atoms(f.numbers, f.positions, cell=f.cell, pbc=f.pbc) for f in frames(chosen)]
