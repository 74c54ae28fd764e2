"""What training data hold, for the header of a model; see :mod:`jmp_md.domain`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jmp_md.checkpoints.native import read_native, write_native
from jmp_md.errors import InputError
from jmp_md.header import ModelHeader
from jmp_md.training.data.hashing import sha256_of
from jmp_md.training.recipe import PretrainRecipe, Recipe, from_yaml
from jmp_md.training.summary import summarised


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
    summaries = {name: summarised(part) for name, part in found.items()}
    training = dict(header.training)
    if isinstance(recipe, PretrainRecipe):
        training["seen"] = {"heads": {name: part.seen() for name, part in summaries.items()}}
    else:
        [(name, summary)] = summaries.items()
        training["seen"] = summary.seen()
        if len(header.heads) > 1:
            others = header.training.get("seen", {}).get("heads", {})
            training["seen"] = {"heads": {**others, name: summary.seen()}}
        elif recipe.data.single_molecule:
            training["domain"] = summary.only_molecule()
    header = dataclasses.replace(header, training=training)
    write_native(path, header, state)
    return header
