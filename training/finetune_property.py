"""Training of a property of whole structures: QM9, MatBench, QMOF, PDBBind."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Data

from jmp_md.errors import InputError
from jmp_md.header import HeadInfo
from jmp_md.training.batches import CACHE, EpochSampler, PairedFrames, to_structures
from jmp_md.training.checks import target_values
from jmp_md.training.data.frame import Dataset, frames
from jmp_md.training.data.references import composition, fit_references
from jmp_md.training.distributed import Ranks
from jmp_md.training.finetune import SCALED, validation_metrics
from jmp_md.training.objective import Objective
from jmp_md.training.property import PropertyModel
from jmp_md.training.recipe import PropertyRecipe
from jmp_md.training.scale_factors import fit_scale_factors
from jmp_md.training.start import build, graph_policy, start_from
from jmp_md.training.trainer import Trainer
from jmp_md.training.validation import property_errors


class PropertyObjective(Objective):
    """Absolute error of a normalised property, or cross-entropy of classes.

    Args:
        model: What is trained.
        validation: Structures that choose the best epoch.
    """

    def __init__(self, model: PropertyModel, validation: PairedFrames) -> None:
        super().__init__()
        self.model: PropertyModel = model
        self.validation = validation
        self.weights = (1.0,)
        self.monitor = "cross_entropy" if model.target.kind == "classes" else "mae"

    def forward(self, batch: Data) -> tuple[Tensor, Tensor]:
        """See :class:`Objective`: one term."""
        weight = self.model.embedding.weight
        structures = to_structures(batch)
        output = self.model(structures.to(weight.device, weight.dtype))
        label = batch.property.to(weight.device)
        if self.model.target.kind == "classes":
            total = functional.cross_entropy(output, label.long(), reduction="sum")
        else:
            head = self.model.head
            constant = self.model.constant(structures).to(weight.device)
            wanted = ((label - constant) / head.energy_scale).to(output.dtype)
            total = (output - wanted).abs().sum()
        return total.view(1), total.new_full((1,), len(label))

    def measure(self, model: nn.Module, ranks: Ranks) -> dict[str, float]:
        """Errors on the validation structures in the unit of the target."""
        assert isinstance(model, PropertyModel)
        return property_errors(model, self.validation, ranks)

    def export(
        self,
        model: nn.Module,
        path: Path,
        metrics: dict[str, float],
        training: dict[str, Any],
        weights: str,
    ) -> None:
        """Write a model file."""
        assert isinstance(model, PropertyModel)
        header = dataclasses.replace(
            model.header,
            training={**model.header.training, **training},
            weights=weights,
            metrics=validation_metrics(metrics),
        )
        model.save(path, header)


def property_tuner(
    recipe: PropertyRecipe,
    train: Dataset,
    validation: Dataset,
    output: Path,
    ranks: Ranks,
    cache: int = CACHE,
    **options: Any,
) -> Trainer:
    """A trainer for a property; arguments as for :func:`jmp_md.training.finetune.fine_tuner`.

    Raises:
        InputError: A frame lacks the target, or classes are not 0 and 1.
    """
    start = start_from(recipe.model)
    policy = graph_policy(recipe.model.graph, start)
    paired = PairedFrames(train, policy.cutoff, recipe.target.name, cache)
    mean, references, std = _normalisation(recipe, train)
    target_values("validation", frames(validation), recipe.target.name)
    head = HeadInfo(
        name=recipe.target.name,
        graph=policy,
        energy_scale=std,
        energy_mean=mean,
        references=references,
        elements=tuple(sorted({int(z) for f in frames(train) for z in f.numbers})),
        level_of_theory=recipe.model.level_of_theory,
    )
    header = start.header(recipe.model, heads=(head,))
    model: PropertyModel = build(
        lambda: PropertyModel(header, recipe.target), recipe.seed, ranks.device
    )
    start.load_into(model)
    if not start.state:
        fit_scale_factors(model, to_structures(paired.sample(SCALED, recipe.seed)))
    model.graph.edge_dropout = recipe.optimiser.edge_dropout
    objective = PropertyObjective(
        model, PairedFrames(validation, policy.cutoff, recipe.target.name, cache)
    )
    sampler = EpochSampler(len(train), recipe.optimiser.batch_size, recipe.seed)
    return Trainer(objective, recipe, paired, sampler, output, ranks, **options)


def _normalisation(recipe: PropertyRecipe, train: Dataset) -> tuple[float, dict[int, float], float]:
    """Mean or references of the target, and the standard deviation of what they leave.

    Classes have neither, an extent has no mean taken off.
    """
    name = recipe.target.name
    values = target_values("training", frames(train), name)
    if recipe.target.kind == "classes":
        if not np.isin(values, (0, 1)).all():
            raise InputError(f"target.kind = 'classes': {name} has values besides 0 and 1")
        return 0.0, {}, 1.0
    if recipe.target.references:
        kinds = [composition(frame) for frame in frames(train)]
        references = fit_references(kinds, values.tolist())
        fitted = [sum(count * references[z] for z, count in kind) for kind in kinds]
        return 0.0, references, float((values - fitted).std()) or 1.0
    mean = 0.0 if recipe.target.kind == "extent" else float(values.mean())
    return mean, {}, float(values.std()) or 1.0
