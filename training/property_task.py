"""The task of a property of whole structures: QM9, MatBench, QMOF, PDBBind."""

from __future__ import annotations

import numpy as np

from jmp_md.errors import InputError
from jmp_md.header import HeadInfo
from jmp_md.training.checks import target_values
from jmp_md.training.data.frame import frames
from jmp_md.training.data.references import fit_references
from jmp_md.training.recipe import PropertyRecipe
from jmp_md.training.sections import TargetSection
from jmp_md.training.start import Start, graph_policy
from jmp_md.training.summary import Summary, summarised
from jmp_md.training.task import Task, TaskData


def property_task(recipe: PropertyRecipe, start: Start, data: TaskData) -> Task:
    """The task of a recipe's target.

    Raises:
        InputError: A frame lacks the target, or classes are not 0 and 1.
    """
    target = recipe.target
    summary = summarised(data.train, target.name)
    target_values("validation", frames(data.validation), target.name)
    mean, references, std = _normalisation(target, summary)
    head = HeadInfo(
        name=target.name,
        graph=graph_policy(recipe.model.graph, start),
        energy_scale=std,
        energy_mean=mean,
        references=references,
        elements=tuple(sorted(summary.elements)),
        level_of_theory=recipe.model.level_of_theory,
    )
    return Task(head, data.train, data.validation, terms=("property",), shift="never")


def _normalisation(
    target: TargetSection, summary: Summary
) -> tuple[float, dict[int, float], float]:
    """Mean or references of the target, and the standard deviation of what they leave.

    Classes have neither, an extent has no mean taken off.
    """
    values = np.array(summary.values)
    if target.kind == "classes":
        if not np.isin(values, (0, 1)).all():
            raise InputError(f"target.kind = 'classes': {target.name} has values besides 0 and 1")
        return 0.0, {}, 1.0
    if target.references:
        references = fit_references(summary.kinds, summary.values)
        fitted = [sum(count * references[z] for z, count in kind) for kind in summary.kinds]
        return 0.0, references, float((values - fitted).std()) or 1.0
    mean = 0.0 if target.kind == "extent" else float(values.mean())
    return mean, {}, float(values.std()) or 1.0
