"""From a recipe and its frames to a trainer, for every kind of run.

How a frame becomes a loss: see "From file to loss" in docs/training.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch_geometric.data import Batch

from jmp_md.potential import Potential
from jmp_md.training.batches import CACHE, PairedFrames, TaskFrames, to_structures
from jmp_md.training.checks import LABELS, monitored
from jmp_md.training.distributed import Ranks
from jmp_md.training.finetune import potential_task
from jmp_md.training.heads import Heads
from jmp_md.training.objective import Objective, PotentialObjective, PropertyObjective
from jmp_md.training.pretrain import mixed_task
from jmp_md.training.property import PropertyModel
from jmp_md.training.property_task import property_task
from jmp_md.training.recipe import AnyRecipe, PretrainRecipe, PropertyRecipe, Recipe
from jmp_md.training.sampling import EpochSampler, MixSampler, Sampler
from jmp_md.training.scale_factors import fit_scale_factors
from jmp_md.training.shift import shifted_references
from jmp_md.training.start import Start, build, start_from
from jmp_md.training.task import Task, TaskData, training_about
from jmp_md.training.trainer import Trainer

SCALED = 64  # frames that scale factors are fitted to
SCALED_OF_EACH = 16  # where there are several tasks


def assemble(
    recipe: AnyRecipe,
    data: Mapping[str, TaskData],
    output: Path,
    ranks: Ranks,
    cache: int = CACHE,
    **options: Any,
) -> Trainer:
    """A trainer for what a recipe asks for.

    Args:
        recipe: What to do.
        data: Frames of each head, that of the recipe first.
        output: Folder of the run.
        ranks: This process among those of the run.
        cache: Bytes for pairs of training frames, and again for those of validation frames; those
            of a mix, which hardly come twice, are searched each time.
        **options: Of :class:`Trainer`.

    Raises:
        InputError: Frames, labels or heads are not what the recipe needs.
    """
    start = start_from(recipe.model)
    tasks = make_tasks(recipe, start, data)
    model = make_model(recipe, start, tasks, ranks)
    policies = {task.name: task.head.graph for task in tasks}
    target = recipe.target.name if isinstance(recipe, PropertyRecipe) else None
    kept = 0 if isinstance(recipe, PretrainRecipe) else cache // len(tasks)
    train = {
        task.name: PairedFrames(task.train, policies[task.name].cutoff, target, kept, task.weights)
        for task in tasks
    }
    validation = {
        task.name: PairedFrames(
            task.validation, policies[task.name].cutoff, target, cache // len(tasks)
        )
        for task in tasks
    }
    if isinstance(model, Heads):
        for task in tasks:
            if task.shift == "before":
                shift = shifted_references(
                    model.potential(task.name), train[task.name], prior=task.prior
                )
                model.take_references(task.name, shift.references)
    return Trainer(
        make_objective(recipe, model, tasks, validation),
        recipe,
        TaskFrames(train),
        make_sampler(recipe, tasks),
        output,
        ranks,
        zero_shot=isinstance(recipe, Recipe) and tasks[0].start is not None,
        **options,
    )


def make_tasks(recipe: AnyRecipe, start: Start, data: Mapping[str, TaskData]) -> list[Task]:
    """What a run learns: a task for each head."""
    if isinstance(recipe, PretrainRecipe):
        return [mixed_task(recipe, start, name, part) for name, part in data.items()]
    [part] = data.values()
    if isinstance(recipe, PropertyRecipe):
        return [property_task(recipe, start, part)]
    assert isinstance(recipe, Recipe)
    return [potential_task(recipe, start, part)]


def make_model(
    recipe: AnyRecipe, start: Start, tasks: list[Task], ranks: Ranks
) -> Heads | PropertyModel:
    """The network with a head for each task: weights of the base, or drawn with fitted scales."""
    heads = tuple(task.head for task in tasks)
    names = [head.name for head in heads]
    default = recipe.model.head if len(heads) > 1 and recipe.model.head in names else None
    about = training_about(tasks)
    header = start.header(recipe.model, heads=heads, default_head=default, training=about)
    model: Heads | PropertyModel
    parts: dict[str, Potential | PropertyModel]
    if isinstance(recipe, PropertyRecipe):
        target = recipe.target
        model = build(lambda: PropertyModel(header, target), recipe.seed, ranks.device)
        parts = {names[0]: model}
    else:
        model = build(lambda: Heads(header), recipe.seed, ranks.device)
        parts = {name: model.potential(name) for name in names}
    start.load_into(parts[names[0]])
    for task in tasks:
        if task.start is not None:
            start.load_into(parts[task.name], task.start)
    if not start.state:
        _fit_scales(parts[names[0]], tasks, recipe.seed)
    for part in parts.values():
        part.graph.edge_dropout = recipe.optimiser.edge_dropout
    return model


def make_objective(
    recipe: AnyRecipe,
    model: Heads | PropertyModel,
    tasks: list[Task],
    validation: Mapping[str, PairedFrames],
) -> Objective:
    """What is minimised, with the weights of a recipe."""
    if isinstance(model, PropertyModel):
        return PropertyObjective(model, tasks, validation)
    if isinstance(recipe, PretrainRecipe):
        mix = recipe.mix
        alike = {"energy": 1.0, "forces": 1.0}
        return PotentialObjective(
            model, tasks, validation, alike, structure_wise=mix.structure_wise, apart=mix.pcgrad
        )
    assert isinstance(recipe, Recipe)
    weights = {name: getattr(recipe.loss, name) for name in LABELS}
    return PotentialObjective(model, tasks, validation, weights, monitored(recipe.loss))


def make_sampler(recipe: AnyRecipe, tasks: list[Task]) -> Sampler:
    """Which frames each step takes."""
    size, seed = recipe.optimiser.batch_size, recipe.seed
    if isinstance(recipe, PretrainRecipe):
        sizes = {task.name: len(task.train) for task in tasks}
        return MixSampler(sizes, recipe.mix.temperature, size, seed)
    [task] = tasks
    return EpochSampler(task.name, len(task.train), size, seed)


def _fit_scales(model: Potential | PropertyModel, tasks: list[Task], seed: int) -> None:
    """Fit the scale factors of a new network to frames of all tasks, on the graphs of ``model``."""
    n = SCALED if len(tasks) == 1 else SCALED_OF_EACH
    items = [
        item
        for task in tasks
        for item in PairedFrames(task.train, model.head.graph.cutoff, cache=0).sample(n, seed)
    ]
    fit_scale_factors(model, to_structures(Batch.from_data_list(items)))
