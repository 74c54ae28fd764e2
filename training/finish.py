"""The end of a run: test errors and hashes in the header of the best model, and a report."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from jmp_md.checkpoints.native import read_native, write_native
from jmp_md.errors import InputError
from jmp_md.header import ModelHeader
from jmp_md.potential import Potential
from jmp_md.training.batches import PairedFrames
from jmp_md.training.config import file_names
from jmp_md.training.data.frame import Dataset, Subset, sampled
from jmp_md.training.parity import Pair
from jmp_md.training.property import PropertyModel
from jmp_md.training.property_metrics import predict_properties, property_summary
from jmp_md.training.recipe import PretrainRecipe, PropertyRecipe, Recipe
from jmp_md.training.shift import shifted_references
from jmp_md.training.trainer import LOG_FILE, MODEL_FILE, Trainer
from jmp_md.training.validation import SHOW_AFTER, potential_errors

MUCH_LEFT = 50.0  # meV per atom, several times what a usable potential leaves
Measured = tuple[dict[str, float], Mapping[str, Pair]]


def finish(trainer: Trainer, test: Dataset | None) -> None:
    """Measure the best model of a run, complete its header and write ``report.html``.

    All processes take part.

    Args:
        trainer: Of the run.
        test: Frames to test on; a mix of data sets has none, its plots show validation frames.

    Raises:
        InputError: The run gave no model.
    """
    from jmp_md.training.report import REPORT_FILE, write_training_report  # takes matplotlib along

    recipe, path = trainer.recipe, trainer.output / MODEL_FILE
    if trainer.ranks.rank == 0 and not path.exists():
        raise InputError(
            f"no validation gave a finite {trainer.objective.monitor}, so that there is no model: "
            f"look at {trainer.output / LOG_FILE}, and lower optimiser.learning_rate"
        )
    if trainer.ranks.rank == 0 and not isinstance(recipe, PropertyRecipe):
        _shift_references(trainer, path)
    header, state = trainer.ranks.first(lambda: read_native(path))
    metrics: dict[str, Any] = dict(header.metrics)
    pairs: Mapping[str, Pair] = {}
    if isinstance(recipe, PretrainRecipe):
        pairs = _validated(trainer, header, state)
    else:
        assert isinstance(recipe, Recipe | PropertyRecipe)
        if test is not None and len(test):
            chosen = sampled(test, recipe.data.max_test or len(test), recipe.data.split_seed)
            measured, pairs = _tested(trainer, header, state, chosen)
            files = ", ".join(file_names(recipe.data.test or recipe.data.train))
            name = files if recipe.data.test else f"{files}, split {recipe.data.split}"
            if len(chosen) < len(test):
                name += f": {len(chosen)} of {len(test)} frames, drawn at random"
            metrics.update(measured, test=name)
    if trainer.ranks.rank > 0:
        return
    training = {**header.training, "data_sha256": trainer.data}
    write_native(path, dataclasses.replace(header, metrics=metrics, training=training), state)
    history = trainer.progress.history
    write_training_report(trainer.output / REPORT_FILE, recipe, history, metrics, pairs)


def _shift_references(trainer: Trainer, path: Path) -> None:
    """Fit the references of all heads to what training left of the energies of its frames."""
    header, state = read_native(path)
    heads, about = [], {}
    for head in header.heads:
        if trainer.objective.tasks[head.name].shift == "never":
            heads.append(head)
            continue
        potential = Potential.from_state(header, state, head.name).float().to(trainer.ranks.device)
        shift = shifted_references(potential, trainer.frames.tasks[head.name], trainer.recipe.seed)
        heads.append(dataclasses.replace(head, references=shift.references))
        if not shift.change:
            continue
        about[head.name] = {
            "per_atom_meV": {symbol: 1000 * energy for symbol, energy in shift.change.items()},
            "mae_meV_per_atom_before": shift.before,
            "mae_meV_per_atom_after": shift.after,
        }
        if shift.after > MUCH_LEFT:
            warnings.warn(
                f"head {head.name!r}: energies of training frames are off by {shift.after:.0f} "
                "meV per atom on average after references were fitted: do not compare energies of "
                "different molecules with this model; raise loss.energy, or train longer",
                stacklevel=2,
            )
    training = {**header.training, "reference_shift": about}
    write_native(path, dataclasses.replace(header, heads=tuple(heads), training=training), state)


def _tested(
    trainer: Trainer, header: ModelHeader, state: dict[str, Tensor], test: Dataset
) -> Measured:
    device, ranks = trainer.ranks.device, trainer.ranks
    if isinstance(trainer.recipe, PropertyRecipe):
        model = PropertyModel.from_state(header, state, MODEL_FILE).to(device)
        mine = Subset(test, np.arange(ranks.rank, len(test), ranks.size))
        with tqdm(
            total=len(mine), desc="test", unit="frame", delay=SHOW_AFTER, disable=ranks.rank > 0
        ) as bar:
            own = predict_properties(model, mine, skip_bad=True, progress=bar.update)
        every = ranks.gathered((own.label, own.predicted))
        label, predicted = (np.concatenate(values) for values in zip(*every, strict=True))
        left_out = {"n_skipped": float(len(test) - len(predicted))}
        if not len(predicted):
            return left_out, {}
        errors = property_summary(model.target.kind, predicted, label)
        return {**errors, **left_out}, {model.target.name: Pair(label, predicted)}
    potential = Potential.from_state(header, state).float().to(device)
    frames = PairedFrames(test, potential.policy.cutoff, cache=0)
    sums = potential_errors(potential, frames, ranks, "test")
    metrics = sums.summary()
    metrics.pop("energy_shift_eV", None)
    return metrics, sums.parity.pairs()


def _validated(trainer: Trainer, header: ModelHeader, state: dict[str, Tensor]) -> dict[str, Pair]:
    """Labels and predictions for the validation frames of each task."""
    pairs = {}
    for task, frames in trainer.objective.validation.items():
        potential = Potential.from_state(header, state, task).float().to(trainer.ranks.device)
        sums = potential_errors(potential, frames, trainer.ranks, f"plots of {task}")
        for kind, pair in sums.parity.pairs().items():
            pairs[f"{task} {kind}"] = pair
    return pairs
