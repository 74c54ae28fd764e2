"""The task of a fine-tune: one head for energies, forces and stress, of the user's own frames."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

from ase.data import chemical_symbols

from jmp_md.errors import InputError
from jmp_md.header import HeadInfo
from jmp_md.training.checks import LABELS, monitored, refuse_missing, require_labels
from jmp_md.training.data.frame import Dataset, frames
from jmp_md.training.data.references import undetermined
from jmp_md.training.loss import Scales
from jmp_md.training.recipe import Recipe
from jmp_md.training.start import (
    Start,
    graph_policy,
    head_to_keep,
    prior_references,
    same_level,
)
from jmp_md.training.summary import Summary, summarised
from jmp_md.training.task import Task, TaskData


def potential_task(recipe: Recipe, start: Start, data: TaskData) -> Task:
    """The task of a recipe's own head.

    Graphs are the recipe's; normalisation comes from the data, or with a head that is kept.

    Args:
        recipe: What to do.
        start: What the run starts from.
        data: Its frames.

    Raises:
        InputError: Labels that the loss needs are missing, elements that only validation frames
            hold, or several molecules where the recipe says there is one.
    """
    section, loss = recipe.model, recipe.loss
    summary = summarised(data.train)
    terms = tuple(name for name in LABELS if getattr(loss, name))
    missing = [name for name in terms if name not in summary.labels]
    refuse_missing("training", missing, summary.others)
    kept = head_to_keep(section, start, summary.elements)
    direct = section.forces == "direct"
    head = HeadInfo(
        name=section.head,
        graph=graph_policy(section.graph, start, kept),
        energy_scale=summary.force_rms,  # one scale serves energies and their gradients
        force_scale=summary.force_rms if direct else None,
        repulsion=None if direct else section.repulsion,
        elements=tuple(sorted(summary.elements)),
        level_of_theory=section.level_of_theory,
    )
    about: dict[str, Any] = {}
    if recipe.data.single_molecule:
        molecule = summary.only_molecule()
        if recipe.replay is None:  # else the file is of more than this molecule
            about["domain"] = molecule
    shift = "end"
    prior = prior_references(section, summary.elements)
    if kept is not None:
        head = dataclasses.replace(
            kept,
            name=head.name,
            graph=head.graph,
            elements=tuple(sorted({*kept.elements, *head.elements})),
            level_of_theory=head.level_of_theory,
        )
        about["kept_head"] = kept.name
        if not same_level(kept.level_of_theory, section.level_of_theory):
            shift = "before"
    elif summary.energies:
        head = dataclasses.replace(head, references=summary.references(prior))
        about |= _undetermined_references(summary)
    require_elements(head, data.validation, "validation")
    require_labels("validation", frames(data.validation), [monitored(loss)])
    return Task(
        head,
        data.train,
        data.validation,
        scales=Scales(head.energy_scale, head.force_scale or head.energy_scale),
        terms=terms,
        start=kept.name if kept else None,
        shift=shift,
        prior=prior,
        weights=recipe.data.weights,
        seen=summary.seen(),
        about=about,
    )


def require_elements(head: HeadInfo, dataset: Dataset, part: str) -> None:
    """Refuse frames with elements whose energies the training frames do not tell.

    Raises:
        InputError: There are such elements; they are named.
    """
    strange = {int(z) for frame in frames(dataset) for z in frame.numbers} - set(head.elements)
    if strange:
        raise InputError(
            f"the {part} frames hold {', '.join(chemical_symbols[z] for z in sorted(strange))}, "
            "the training frames do not: take other frames, or a split that puts all elements "
            "into training"
        )


def _undetermined_references(summary: Summary) -> dict[str, Any]:
    """What a header says where compositions do not tell the energies of elements apart."""
    kinds = set(summary.compositions)
    free = [chemical_symbols[z] for z in undetermined(list(kinds))]
    if free and len(kinds) > 1:
        warnings.warn(
            f"the {len(kinds)} compositions in the training frames do not tell the energies of "
            f"{', '.join(free)} apart: energies of other compositions will be wrong by a constant "
            "per element; train on more kinds of structures, or compare structures of these "
            "compositions only",
            stacklevel=4,
        )
    return {"undetermined_references": free} if free else {}
