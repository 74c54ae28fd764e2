"""The end of a run: test errors and hashes in the header of the best model, and a report."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jmp_md.checkpoints.native import read_native, write_native
from jmp_md.errors import InputError
from jmp_md.potential import Potential
from jmp_md.training.batches import PairedFrames, ordered_batches
from jmp_md.training.data.frame import Dataset
from jmp_md.training.finetune import VALIDATION_BATCH
from jmp_md.training.metrics import ErrorSums, batch_errors
from jmp_md.training.mixture import MixedFrames
from jmp_md.training.parity import Pair
from jmp_md.training.pretrain import PretrainObjective
from jmp_md.training.property import PropertyModel
from jmp_md.training.property_metrics import predict_properties, property_summary
from jmp_md.training.recipe import PretrainRecipe, PropertyRecipe, Recipe
from jmp_md.training.shift import shifted_references
from jmp_md.training.trainer import LOG_FILE, MODEL_FILE, Trainer

MUCH_LEFT = 50.0  # meV per atom, several times what a usable potential leaves
Measured = tuple[dict[str, float], Mapping[str, Pair]]


def finish(trainer: Trainer, test: Dataset | None) -> None:
    """Measure the best model of a run, complete its header and write ``report.html``.

    Args:
        trainer: Of the run.
        test: Frames to test on; a mix of data sets has none, its plots show validation frames.

    Raises:
        InputError: The run gave no model.
    """
    from jmp_md.training.report import REPORT_FILE, write_training_report  # takes matplotlib along

    recipe, path = trainer.recipe, trainer.output / MODEL_FILE
    if not path.exists():
        raise InputError(
            f"no validation gave a finite {trainer.objective.monitor}, so that there is no model: "
            f"look at {trainer.output / LOG_FILE}, and lower optimiser.learning_rate"
        )
    if not isinstance(recipe, PropertyRecipe):
        _shift_references(trainer, path)
    header, state = read_native(path)
    metrics: dict[str, Any] = dict(header.metrics)
    pairs: Mapping[str, Pair] = {}
    if isinstance(recipe, PretrainRecipe):
        pairs = _validated(trainer, path)
    else:
        assert isinstance(recipe, Recipe | PropertyRecipe)
        if test is not None and len(test):
            measured, pairs = _tested(trainer, path, test)
            name = recipe.data.test or f"{recipe.data.train}, split {recipe.data.split}"
            metrics.update(measured, test=name)
    training = {**header.training, "data_sha256": trainer.data}
    write_native(path, dataclasses.replace(header, metrics=metrics, training=training), state)
    history = trainer.progress.history
    write_training_report(trainer.output / REPORT_FILE, recipe, history, metrics, pairs)


def _shift_references(trainer: Trainer, path: Path) -> None:
    """Fit the references of all heads to what training left of the energies of its frames."""
    header, state = read_native(path)
    frames = trainer.frames
    by_head = frames.tasks if isinstance(frames, MixedFrames) else {header.heads[0].name: frames}
    heads, about = [], {}
    for head in header.heads:
        potential = Potential.from_state(header, state, head.name).float().to(trainer.ranks.device)
        paired = by_head[head.name]
        assert isinstance(paired, PairedFrames)
        shift = shifted_references(potential, paired, trainer.recipe.seed)
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


def _tested(trainer: Trainer, path: Path, test: Dataset) -> Measured:
    device = trainer.ranks.device
    if isinstance(trainer.recipe, PropertyRecipe):
        model = PropertyModel.load(path).to(device)
        found = predict_properties(model, test, batch_size=VALIDATION_BATCH, skip_bad=True)
        left_out = {"n_skipped": float(len(test) - len(found.predicted))}
        if not len(found.predicted):
            return left_out, {}
        pairs = {model.target.name: Pair(found.label, found.predicted)}
        errors = property_summary(model.target.kind, found.predicted, found.label)
        return {**errors, **left_out}, pairs
    header, state = read_native(path)
    potential = Potential.from_state(header, state).float().to(device)
    sums = _errors(potential, PairedFrames(test, potential.policy.cutoff, keep=False))
    metrics = sums.summary()
    metrics.pop("energy_shift_eV", None)
    return metrics, sums.parity.pairs()


def _validated(trainer: Trainer, path: Path) -> dict[str, Pair]:
    """Labels and predictions for the validation frames of each task."""
    assert isinstance(trainer.objective, PretrainObjective)
    header, state = read_native(path)
    pairs = {}
    for task, frames in trainer.objective.validation.items():
        potential = Potential.from_state(header, state, task).float().to(trainer.ranks.device)
        for kind, pair in _errors(potential, frames).parity.pairs().items():
            pairs[f"{task} {kind}"] = pair
    return pairs


def _errors(potential: Potential, frames: PairedFrames) -> ErrorSums:
    batches = ordered_batches(frames, VALIDATION_BATCH)
    return batch_errors(potential, batches, direct=potential.force_head is not None)
