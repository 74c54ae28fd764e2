"""From a recipe and its frames to a trainer, for every kind of run.

How a frame becomes a loss, in five sentences:

1. A reader in ``training/data`` turns each record of a file into a :class:`.Frame`: a structure
   with its labels, in Å, eV, eV/Å and eV/Å³.
2. A :class:`.Task` pairs a head with its training and validation frames, and with the references
   and scales that one pass over them gave (``summary.py``); a fine-tune and a property have one
   task, replay two, pre-training one for each data set.
3. In each step the sampler names frames as (task, index), each is searched for its pairs of
   atoms, and those of a task are joined to one batch (``batches.py``, where the keys of a batch
   are listed).
4. :func:`.residuals` runs the potential of the task on its batch and gives the errors of
   energies, forces and stress over the scales of the task, NaN where there is no label.
5. The objective joins them over the tasks to a sum and a number for each term of the loss;
   :class:`.Update` divides the sums of all processes by their numbers, weighs the terms, and
   takes one gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch_geometric.data import Batch

from jmp_md.errors import InputError
from jmp_md.nn.footprint import edges_in
from jmp_md.potential import Potential
from jmp_md.training.adaptation import adapt
from jmp_md.training.batches import CACHE, PairedFrames, TaskFrames, to_structures
from jmp_md.training.checks import LABELS, monitored
from jmp_md.training.data.frame import Dataset
from jmp_md.training.derivatives import Derivatives, Differences
from jmp_md.training.distributed import Ranks
from jmp_md.training.finetune import potential_task
from jmp_md.training.heads import Heads
from jmp_md.training.objective import Objective, PotentialObjective, PropertyObjective
from jmp_md.training.packing import packed
from jmp_md.training.pretrain import mixed_task
from jmp_md.training.property import PropertyModel
from jmp_md.training.property_task import property_task
from jmp_md.training.recipe import AnyRecipe, PretrainRecipe, PropertyRecipe, Recipe
from jmp_md.training.replay import replay_task
from jmp_md.training.sampling import EpochSampler, MixSampler, ReplaySampler, Sampler, SortedSampler
from jmp_md.training.scale_factors import fit_scale_factors
from jmp_md.training.shift import shifted_references
from jmp_md.training.start import Start, build, start_from
from jmp_md.training.task import Task, TaskData, training_about
from jmp_md.training.trainer import Trainer

REPLAYED_ENERGY = 0.1  # weight of the energies of a replayed head, where new ones have none
SCALED = 64  # frames that scale factors are fitted to
SCALED_OF_EACH = 16  # where there are several tasks
SCALED_BYTES = 2**33  # and fewer than would take these with gradients, a third without: those of
# large structures, for which the number must not depend on the machine


def assemble(
    recipe: AnyRecipe,
    data: Mapping[str, TaskData],
    output: Path,
    ranks: Ranks,
    cache: int = CACHE,
    replay: Dataset | None = None,
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
        replay: Frames for the section ``replay`` of the recipe, where it names a file.
        **options: Of :class:`Trainer`.

    Raises:
        InputError: Frames, labels or heads are not what the recipe needs.
    """
    start = start_from(recipe.model)
    tasks = make_tasks(recipe, start, data)
    if isinstance(recipe, Recipe) and recipe.replay is not None:
        structures = tasks[0].train if replay is None else replay
        tasks.append(replay_task(recipe, start, structures, replay is not None, ranks))
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
    frames = TaskFrames(train)
    trainer = Trainer(
        make_objective(recipe, model, tasks, validation),
        recipe,
        frames,
        make_sampler(recipe, tasks, frames),
        output,
        ranks,
        zero_shot=isinstance(recipe, Recipe) and tasks[0].start is not None,
        **options,
    )
    trainer.notes = _notes(start, tasks)
    if isinstance(model, Heads):
        trainer.notes += _notes_on(trainer.objective.derivatives, model.potential(tasks[0].name))
    return trainer


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
        single = build(lambda: PropertyModel(header, target), recipe.seed, ranks.device)
        model, parts = single, {names[0]: single}
    else:
        several = build(lambda: Heads(header), recipe.seed, ranks.device)
        model, parts = several, {name: several.potential(name) for name in names}
    start.load_into(parts[names[0]])
    for task in tasks:
        if task.start is not None:
            start.load_into(parts[task.name], task.start)
    if not start.state:
        _fit_scales(parts[names[0]], tasks, recipe.seed)
    for part in parts.values():
        part.graph.edge_dropout = recipe.optimiser.edge_dropout
    adapt(model, recipe.model, recipe.seed)
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
    if recipe.replay is not None and not recipe.loss.energy:
        weights["energy"] = REPLAYED_ENERGY
    return PotentialObjective(model, tasks, validation, weights, monitored(recipe.loss))


def make_sampler(recipe: AnyRecipe, tasks: list[Task], frames: TaskFrames) -> Sampler:
    """Which frames each step takes."""
    sampler, steps = _as_drawn(recipe, tasks), recipe.optimiser.sorted_steps
    return sampler if steps == 1 else SortedSampler(sampler, frames.n_atoms, steps, recipe.seed)


def _as_drawn(recipe: AnyRecipe, tasks: list[Task]) -> Sampler:
    """Which frames each step takes, of any sizes."""
    size, seed = recipe.optimiser.batch_size, recipe.seed
    if isinstance(recipe, PretrainRecipe):
        sizes = {task.name: len(task.train) for task in tasks}
        return MixSampler(sizes, recipe.mix.temperature, size, seed)
    if len(tasks) == 1:
        return EpochSampler(tasks[0].name, len(tasks[0].train), size, seed)
    assert isinstance(recipe, Recipe)
    assert recipe.replay is not None
    replayed = round(recipe.replay.share * size)
    if not 0 < replayed < size:
        raise InputError(
            f"optimiser.batch_size = {size}: replay.share = {recipe.replay.share} of it leaves a "
            "head without structures; raise optimiser.batch_size"
        )
    new, old = (
        EpochSampler(task.name, len(task.train), part, seed)
        for task, part in zip(tasks, (size - replayed, replayed), strict=True)
    )
    return ReplaySampler(new, old)


def _notes(start: Start, tasks: list[Task]) -> list[str]:
    """What a user should know of a run before its first step."""
    notes = []
    lost = [name for name in start.heads if name not in {task.start for task in tasks}]
    if lost:
        notes.append(
            f"heads of the base that the model will not have, as the network changes under them: "
            f"{', '.join(lost)}; section replay keeps one"
        )
    for task in tasks:
        if replay := task.about.get("replay"):
            source = "labelled by the base" if replay["labels"] == "base" else "with their labels"
            left = f", {replay['left_out']} left out" if replay["left_out"] else ""
            notes.append(
                f"head {task.name!r} is replayed on {replay['frames']} frames {source}{left}"
            )
    return notes


def _notes_on(derivatives: Derivatives, potential: Potential) -> list[str]:
    """What a user should know of how forces are learned."""
    if not isinstance(derivatives, Differences) or derivatives.problem(potential):
        return []
    return [
        "forces are learned by differences of kernels, in half the time that differentiating "
        "twice takes, which optimiser.derivatives = exact does"
    ]


def _fit_scales(model: Potential | PropertyModel, tasks: list[Task], seed: int) -> None:
    """Fit the scale factors of a new network to frames of all tasks, on the graphs of ``model``."""
    n = SCALED if len(tasks) == 1 else SCALED_OF_EACH
    frames = [PairedFrames(task.train, model.head.graph.cutoff, cache=0) for task in tasks]
    items = [item for part in frames for item in part.sample(n, seed)]
    limit = edges_in(SCALED_BYTES, model.header.architecture, model.embedding.weight)
    first = next(packed(model, items, limit))
    if len(first) < len(items):  # draw less, rather than those that come first in their files
        n = max(min(n, max(map(len, frames))) * len(first) // len(items), 1)
        items = [item for part in frames for item in part.sample(n, seed)]
    fit_scale_factors(model, to_structures(Batch.from_data_list(items)))
