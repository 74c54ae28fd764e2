"""A training run from recipe to finished model: data, split, progress, test errors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from jmp_md.errors import InputError
from jmp_md.memory import free_memory
from jmp_md.runs.folder import opened
from jmp_md.training.assembly import assemble
from jmp_md.training.checks import target_values
from jmp_md.training.config import Files, file_names
from jmp_md.training.data.frame import Concatenation, Dataset, Subset, frames, sampled
from jmp_md.training.data.hashing import Hash, hash_of_data
from jmp_md.training.data.open import PATH_OPTIONS, open_dataset
from jmp_md.training.data.references import is_lone_atom
from jmp_md.training.data.splits import (
    Split,
    matbench_fold,
    paper_split,
    random_split,
    same_split,
    split_by_stretch,
    split_by_system,
    write_split,
)
from jmp_md.training.data.tags import tagged
from jmp_md.training.distributed import Ranks, join, leave
from jmp_md.training.finetune import require_elements
from jmp_md.training.finish import finish
from jmp_md.training.pretrain import read_reference
from jmp_md.training.recipe import (
    AnyRecipe,
    PretrainRecipe,
    PropertyRecipe,
    Recipe,
    extended,
    load_recipe,
)
from jmp_md.training.sections import DataSection, ReplaySection, TaskSection
from jmp_md.training.task import TaskData
from jmp_md.training.trainer import LAST_FILE, MODEL_FILE, RECIPE_FILE, Trainer

VALIDATION_SHARES = (0.9, 0.1, 0.0)
LOOKED_AT = 10_000  # test frames whose elements are compared with those of training


def train(
    recipe: AnyRecipe,
    data: Path,
    output: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    max_minutes: float | None = None,
    workers: int = 0,
    tensorboard: bool = False,
    wandb: bool = False,
    shard: bool = False,
    cache: int | None = None,
) -> Path:
    """Run a recipe; returns the model file.

    Args:
        recipe: What to do.
        data: Folder the file names of the recipe refer to.
        output: Folder of the run.
        resume: Continue what is there.
        device: Where to compute; under torchrun, ``cuda`` is one device for each process.
        max_minutes: Stop cleanly after the validation before which this time is reached.
        workers: Processes per device that make batches; 0 makes them where they are used.
        tensorboard, wandb: Also log for TensorBoard, or Weights & Biases.
        shard: Split weights, moments and averages between the processes.
        cache: Bytes of memory for pairs of atoms, all processes together; None takes a quarter of
            what is free.

    Raises:
        InputError: Data missing or too few, or a run is there and ``resume`` was not asked for; or
            another process writes to ``output``.
        InterruptedRunError: SIGINT or SIGTERM came while it trained; ``resume`` goes on.
    """
    if workers < 0:
        raise InputError(f"workers = {workers}: must be at least 0")
    ranks = join(device)
    try:
        with opened(output, ()) if ranks.rank == 0 else nullcontext():
            if ranks.first((output / LAST_FILE).exists) and not resume:
                raise InputError(f"{output} holds a run: pass --restart, or another --output")
            processes = ranks.size * max(workers, 1)
            share = (cache or free_memory(torch.device("cpu")) // 4) // (2 * processes)
            logs = {"tensorboard": tensorboard, "wandb": wandb}
            options = {"workers": workers, "shard": shard, "cache": share, **logs}
            _train(recipe, data, output, ranks, options, resume, max_minutes)
    finally:
        leave()
    return output / MODEL_FILE


def _train(
    recipe: AnyRecipe,
    data: Path,
    output: Path,
    ranks: Ranks,
    options: dict[str, Any],
    resume: bool,
    max_minutes: float | None,
) -> None:
    """The run itself; on return its model is gone, as :func:`leave` needs it."""
    begun = output / RECIPE_FILE
    if resume and begun.exists():
        recipe = extended(recipe, load_recipe(begun))
    hashes = ranks.first(lambda: _hashes(recipe, data))
    trainer, test = _prepare(recipe, data, output, ranks, options)
    trainer.data = hashes
    if resume:
        trainer.resume()
    _run(trainer, max_minutes)
    finish(trainer, test)


def _hashes(recipe: AnyRecipe, data: Path) -> dict[str, Hash]:
    """Hashes of the files that a recipe names."""
    named: list[Files | None]
    if isinstance(recipe, PretrainRecipe):
        sections: list[DataSection | TaskSection] = list(recipe.tasks.values())
        named = [name for task in recipe.tasks.values() for name in (task.train, task.validation)]
    else:
        assert isinstance(recipe, Recipe | PropertyRecipe)
        sections = [recipe.data]
        named = [recipe.data.train, recipe.data.validation, recipe.data.test]
        if isinstance(recipe, Recipe) and recipe.replay is not None:
            named.append(recipe.replay.data)
    files: list[str | None] = [file for name in named for file in file_names(name)]
    files += [section.options.get(key) for section in sections for key in PATH_OPTIONS]
    return {file: hash_of_data(_existing(data, file)) for file in files if file is not None}


def _run(trainer: Trainer, max_minutes: float | None) -> None:
    steps, step = trainer.total_steps, trainer.progress.step
    monitor = trainer.objective.monitor
    hidden = trainer.ranks.rank > 0
    name = trainer.recipe.model.name
    with tqdm(total=steps, initial=step, desc=name, unit="step", disable=hidden) as bar:

        def report(row: dict[str, float]) -> None:
            if row["step"] == 0:
                bar.write(f"before any step, the base alone: {_errors(row, monitor)}")
                return
            first = trainer.progress.history[0]
            base = f" (base {first[monitor]:.4g})" if first["step"] == 0 else ""
            bar.set_postfix_str(
                f"epoch {row['epoch']:.0f}, loss {row['loss']:.4f}, {_errors(row, monitor)}{base}"
            )

        for note in [] if hidden else trainer.notes:
            bar.write(note)
        if trainer.finished:
            bar.write("the run is finished: with --restart, --epochs N extends it")
        trainer.run(max_minutes, report, bar.update)


def _errors(row: Mapping[str, float], monitor: str) -> str:
    """The error that chooses the best model, and that of energies.

    Energies count up to a constant, which references take up at the end.
    """
    words = f"{monitor} {row[monitor]:.4g}"
    rmse = row.get("energy_rmse_meV")
    if rmse is None or monitor.startswith("energy"):
        return words
    spread = np.sqrt(max(rmse**2 - (1000 * row.get("energy_shift_eV", 0.0)) ** 2, 0.0))
    return f"energy_std_meV {spread:.4g}, {words}"


def _prepare(
    recipe: AnyRecipe, data: Path, output: Path, ranks: Ranks, options: dict[str, Any]
) -> tuple[Trainer, Dataset | None]:
    """The trainer, and the frames to test on; splits go to the folder of the run."""
    if isinstance(recipe, PretrainRecipe):
        tasks = {}
        for name, task in recipe.tasks.items():
            tasks[name] = _task_data(recipe, data, task, output / f"split-{name}.json", ranks)
        return assemble(recipe, tasks, output, ranks, **options), None
    assert isinstance(recipe, Recipe | PropertyRecipe)
    section = recipe.data
    dataset = chosen_frames(section, data, section.train)
    split = split_of(recipe, dataset)
    validation: Dataset = Subset(dataset, split.val)
    test: Dataset = Subset(dataset, split.test)
    if section.validation is not None:
        validation = chosen_frames(section, data, section.validation)
    if section.test is not None:
        test = chosen_frames(section, data, section.test)
    _keep(output / "split.json", split, ranks)
    parts = Subset(dataset, split.train), validation
    for name, part in zip(("training", "validation"), parts, strict=True):
        if not len(part):
            raise InputError(f"the split leaves no {name} frames: see recipe section data")
    head = recipe.model.head if isinstance(recipe, Recipe) else recipe.target.name
    replay = recipe.replay if isinstance(recipe, Recipe) else None
    if replay is not None and replay.data is not None:
        options["replay"] = _open(data, replay.data, replay)
    trainer = assemble(recipe, {head: TaskData(*parts)}, output, ranks, **options)
    if isinstance(recipe, Recipe):
        some = np.random.default_rng(recipe.seed).permutation(len(test))[:LOOKED_AT]
        require_elements(trainer.objective.tasks[head].head, Subset(test, some), "test")
    return trainer, test


def training_frames(recipe: Recipe | PretrainRecipe, data: Path) -> dict[str, Dataset]:
    """What a recipe trains on, by head, from data in a folder.

    Raises:
        InputError: Data missing or too few.
    """
    if isinstance(recipe, PretrainRecipe):
        return {name: _trained_on(recipe, data, task) for name, task in recipe.tasks.items()}
    dataset = chosen_frames(recipe.data, data, recipe.data.train)
    return {recipe.model.head: Subset(dataset, split_of(recipe, dataset).train)}


def chosen_frames(section: DataSection, data: Path, names: Files) -> Dataset:
    """The frames of files that a section of a recipe takes, less those it leaves out.

    Args:
        section: Says how they are read, and what is left out.
        data: Folder the names refer to.
        names: One file, or several.

    Raises:
        InputError: A file that is not there or cannot be read.
    """
    parts = [_open(data, name, section) for name in file_names(names)]
    dataset = parts[0] if len(parts) == 1 else Concatenation(parts)
    if section.max_force is not None:
        dataset = Subset(dataset, _below(dataset, section.max_force))
    if not section.isolated_atoms:
        kept = [index for index, frame in enumerate(frames(dataset)) if not is_lone_atom(frame)]
        dataset = Subset(dataset, kept)
    return dataset


def split_of(recipe: Recipe | PropertyRecipe, dataset: Dataset) -> Split:
    """Which frames train, validate and test."""
    s = recipe.data
    if s.split == "frames":
        return random_split(len(dataset), (s.n_train, s.n_validation, s.n_test), s.split_seed)
    if s.split in ("systems", "stretches"):
        deal = split_by_system if s.split == "systems" else split_by_stretch
        return deal(dataset, _shares(s, len(dataset)), s.split_seed)
    if s.split == "matbench":
        if not isinstance(recipe, PropertyRecipe):
            raise InputError("data.split = 'matbench' is for recipes with task: property")
        targets = target_values("data", frames(dataset), recipe.target.name)
        return matbench_fold(targets, s.fold, recipe.target.kind == "classes", s.split_seed)
    return paper_split(s.split, len(dataset), s.split_seed)


def _shares(section: DataSection, n_frames: int) -> tuple[float, float, float]:
    """Sizes of the three parts as shares of all frames; null is what the others leave."""
    given = (section.n_train, section.n_validation, section.n_test)
    a, b, c = (size / n_frames if isinstance(size, int) else size for size in given)
    rest = 1.0 - sum(share for share in (a, b, c) if share is not None)
    if rest < -1e-9:
        raise InputError(
            f"data.n_train, n_validation and n_test = {given} are more than the {n_frames} frames"
        )
    rest = max(rest, 0.0)
    return (rest if a is None else a, rest if b is None else b, rest if c is None else c)


def _task_data(
    recipe: PretrainRecipe, data: Path, task: TaskSection, path: Path, ranks: Ranks
) -> TaskData:
    dataset = _task_frames(data, task)
    n = recipe.mix.n_validation
    known = (None, None) if task.reference is None else read_reference(data / task.reference)
    if task.validation is not None:
        held_out = _open(data, task.validation, task)
        return TaskData(dataset, sampled(held_out, n, recipe.seed), *known)
    split = split_by_system(dataset, VALIDATION_SHARES, recipe.seed)
    _keep(path, split, ranks)
    chosen = np.random.RandomState(recipe.seed).permutation(split.val)[:n]
    return TaskData(Subset(dataset, split.train), Subset(dataset, chosen), *known)


def _task_frames(data: Path, task: TaskSection) -> Dataset:
    dataset = _open(data, task.train, task)
    return dataset if task.max_force is None else Subset(dataset, _below(dataset, task.max_force))


def _trained_on(recipe: PretrainRecipe, data: Path, task: TaskSection) -> Dataset:
    dataset = _task_frames(data, task)
    if task.validation is not None:
        return dataset
    return Subset(dataset, split_by_system(dataset, VALIDATION_SHARES, recipe.seed).train)


def _below(dataset: Dataset, max_force: float) -> list[int]:
    """Frames without a force above ``max_force`` eV/Å."""
    return [
        index
        for index, frame in enumerate(frames(dataset))
        if frame.forces is None or np.linalg.norm(frame.forces, axis=1).max() <= max_force
    ]


def _keep(path: Path, split: Split, ranks: Ranks) -> None:
    """Write the split of a new run; of one that continues, see that it is the same."""
    if (path.parent / LAST_FILE).exists() and path.exists():
        if not same_split(path, split):
            raise InputError(
                f"the data or its split is not that of {path}, and frames that were trained on "
                "would be tested on: put the data back, or choose another --output"
            )
    elif ranks.rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_split(path, split)


def _open(folder: Path, name: str, section: DataSection | TaskSection | ReplaySection) -> Dataset:
    options = section.options
    files = {key: _existing(folder, options[key]) for key in PATH_OPTIONS if options.get(key)}
    found = open_dataset(_existing(folder, name), section.format, **(options | files))
    return tagged(found, section.tags)


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        raise InputError(f"{path} does not exist: give the folder that holds {name} as --data")
    return path
