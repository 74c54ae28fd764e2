"""A training run from recipe to finished model: data, split, progress, test errors."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from tqdm import tqdm

from jmp_md.checkpoints.native import read_native, write_native
from jmp_md.errors import InputError
from jmp_md.potential import Potential
from jmp_md.training.batches import PairedFrames, ordered_batches
from jmp_md.training.data.frame import Dataset, Subset
from jmp_md.training.data.npz import open_npz
from jmp_md.training.data.splits import random_split, write_split
from jmp_md.training.finetune import MODEL_FILE, FineTuner
from jmp_md.training.metrics import errors
from jmp_md.training.recipe import Recipe


def train(
    recipe: Recipe,
    data: Path,
    output: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    max_minutes: float | None = None,
) -> Path:
    """Run a recipe; returns the model file.

    Args:
        recipe: What to do.
        data: Folder the file names of the recipe refer to.
        output: Folder of the run.
        resume: Continue what is there.
        device: Where to compute.
        max_minutes: Stop cleanly after the epoch in which this time is reached.

    Raises:
        InputError: Data missing or too few, or a run is there and ``resume`` was not asked for.
    """
    frames = _open(data, recipe.data.train)
    split = random_split(
        len(frames),
        (recipe.data.n_train, recipe.data.n_validation, None),
        recipe.data.split_seed,
    )
    if (output / "last.ckpt").exists() and not resume:
        raise InputError(f"{output} holds a run: pass --resume, or another --output")
    tuner = FineTuner(
        recipe, Subset(frames, split.train), Subset(frames, split.val), output, device
    )
    if resume:
        tuner.resume()
    output.mkdir(parents=True, exist_ok=True)
    write_split(output / "split.json", split)
    epochs = recipe.optimiser.epochs
    with tqdm(total=epochs, initial=tuner.progress.epoch, desc=recipe.model.name) as bar:

        def report(row: dict[str, float]) -> None:
            bar.set_postfix_str(
                f"loss {row['loss']:.4f}, force MAE {row['force_mae_meV_per_A']:.1f} meV/Å"
            )
            bar.update(1)

        tuner.run(max_minutes, report)
    model = output / MODEL_FILE
    _finish(model, recipe, data)
    return model


def _finish(model: Path, recipe: Recipe, data: Path) -> None:
    """Add test errors and the hashes of the data to the header of the best model."""
    header, state = read_native(model)
    metrics = dict(header.metrics)
    hashes = {recipe.data.train: _sha256(data / recipe.data.train)}
    if recipe.data.test is not None:
        hashes[recipe.data.test] = _sha256(data / recipe.data.test)
        potential = Potential.from_state(header, state)
        frames = PairedFrames(_open(data, recipe.data.test), potential.policy.cutoff)
        measured = errors(potential.float(), ordered_batches(frames, 32))
        measured.pop("energy_shift_eV", None)
        metrics.update(measured, test=recipe.data.test)
    training = {**header.training, "data_sha256": hashes}
    write_native(model, dataclasses.replace(header, metrics=metrics, training=training), state)


def _open(folder: Path, name: str) -> Dataset:
    path = folder / name
    if not path.is_file():
        raise InputError(f"{path} does not exist: give the folder that holds {name} as --data")
    return open_npz(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
