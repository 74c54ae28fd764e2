"""The tasks of pre-training: several data sets on one backbone (arXiv 2310.16802)."""

from __future__ import annotations

import json
from pathlib import Path

from ase.data import atomic_numbers

from jmp_md.errors import InputError
from jmp_md.header import HeadInfo
from jmp_md.training.checks import refuse_missing, require_labels
from jmp_md.training.data.frame import frames
from jmp_md.training.loss import Scales
from jmp_md.training.recipe import PretrainRecipe
from jmp_md.training.start import Start, graph_policy, same_level
from jmp_md.training.summary import summarised
from jmp_md.training.task import Task, TaskData


def mixed_task(recipe: PretrainRecipe, start: Start, name: str, data: TaskData) -> Task:
    """One task of a mix.

    Its head is that of the base where it has one of the same name, level of theory and elements.

    Raises:
        InputError: No energies or forces.
    """
    section = recipe.tasks[name]
    summary = summarised(data.train)
    missing = [label for label in ("energy", "forces") if label not in summary.labels]
    refuse_missing("training", missing, summary.others, name)
    require_labels("validation", frames(data.validation), ("forces",), name)
    references = data.references or summary.references()
    scales = data.scales or Scales(summary.energy_std(references), summary.force_rms)
    direct = recipe.model.forces == "direct"
    head = HeadInfo(
        name=name,
        graph=graph_policy(recipe.model.graph if section.graph is None else section.graph, start),
        energy_scale=scales.energy,
        references=dict(references),
        force_scale=scales.forces if direct else None,
        repulsion=None if direct else recipe.model.repulsion,
        elements=tuple(sorted(references)),
        level_of_theory=section.level_of_theory,
    )
    same = start.heads.get(name)
    kept = (
        same is not None
        and recipe.model.keep_head is not False
        and same_level(same.level_of_theory, section.level_of_theory)
        and same.elements == head.elements
    )
    if same is not None and kept:
        head, scales = same, Scales(same.energy_scale, scales.forces)
    weight = section.force_weight
    return Task(
        head,
        data.train,
        data.validation,
        scales=scales,
        margins=Scales(section.energy_margin, section.force_margin),
        force_weight=summary.n_atoms / summary.n_frames if weight is None else weight,
        start=name if kept else None,
        seen=summary.seen(),
    )


def read_reference(path: Path) -> tuple[dict[int, float], Scales]:
    """References and scales from a file of ``jmp-md data reference --json``.

    Raises:
        InputError: The file cannot be read as such.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        by_number = {atomic_numbers[s]: float(e) for s, e in content["references"].items()}
        scales = Scales(float(content["energy_std"]), float(content["force_rms"]))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not a file of references ({error!r}): write one with 'jmp-md data reference "
            "FILE --json'"
        ) from error
    return by_number, scales
