"""jmp-xs for pareto.py: the recipe `rmd17-xs`, whose cosine ends with the run."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import torch
from pareto_worker import Job, read_json, run, write_json

import jmp_md
from jmp_md.calculators.ase import JMPCalculator
from jmp_md.cli.train import find_recipe
from jmp_md.training.assembly import assemble
from jmp_md.training.data.frame import Dataset, Subset
from jmp_md.training.data.hashing import hash_of_data
from jmp_md.training.distributed import Ranks
from jmp_md.training.finish import finish
from jmp_md.training.recipe import Recipe, load_recipe
from jmp_md.training.session import chosen_frames, split_of
from jmp_md.training.task import TaskData
from jmp_md.training.trainer import LAST_FILE, MODEL_FILE, Trainer

CLOCK = "clock.json"


def make_recipe(molecule: str, options: dict[str, Any]) -> Recipe:
    """The recipe, with some of its values changed."""
    changes = [f"{key}={'null' if value is None else value}" for key, value in options.items()]
    recipe = load_recipe(find_recipe("rmd17-xs"), [f"model.molecule={molecule}", *changes])
    assert isinstance(recipe, Recipe)
    return recipe


def dealt_frames(recipe: Recipe, data: Path) -> dict[str, Dataset]:
    """Frames to train, validate and test with, as the recipe deals them."""
    assert recipe.data.test is not None
    dataset = chosen_frames(recipe.data, data, recipe.data.train)
    split = split_of(recipe, dataset)
    test = chosen_frames(recipe.data, data, recipe.data.test)
    return {
        "train": Subset(dataset, split.train),
        "validation": Subset(dataset, split.val),
        "test": test,
    }


class Clock:
    """CPU seconds of this process at each validation, kept for a run that goes on.

    Args:
        folder: Of the run.
        trainer: Whose steps and validations are timed.
    """

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self.path, self.trainer = folder / CLOCK, trainer
        kept = read_json(self.path) or {"rows": [], "step": 0, "cpu": 0.0}
        self.rows = [row for row in kept["rows"] if row["step"] <= trainer.progress.validated]
        self.before = self.rows[-1]["cpu"] if self.rows else 0.0
        if kept["step"] == trainer.progress.step:  # stopped between two validations
            self.before = kept["cpu"]
        self.began = self.last_step = time.process_time()

    @property
    def cpu(self) -> float:
        """Seconds of the run, all its processes together."""
        return self.before + time.process_time() - self.began

    def stepped(self) -> None:
        self.last_step = time.process_time()

    def report(self, row: dict[str, float]) -> None:
        timed = {
            "step": row["step"],
            "cpu": self.cpu,
            "validation_cpu": time.process_time() - self.last_step,
            "force_mae": row[self.trainer.objective.monitor],
        }
        self.rows.append(timed)
        self.keep()
        self.stepped()

    def keep(self) -> None:
        kept = {"rows": self.rows, "step": self.trainer.progress.step, "cpu": self.cpu}
        write_json(self.path, kept)


def train(folder: Path, job: Job) -> dict[str, Any]:
    """Train, or go on with what was stopped."""
    options = {"seed": job["seed"], "optimiser.epochs": job["epochs"], **job["options"]}
    recipe, data = make_recipe(job["molecule"], options), Path(job["data"])
    frames = dealt_frames(recipe, data)
    parts = TaskData(frames["train"], frames["validation"])
    trainer = assemble(recipe, {recipe.model.head: parts}, folder, Ranks(0, 1, torch.device("cpu")))
    name = recipe.data.train
    assert isinstance(name, str)
    trainer.data = {name: hash_of_data(data / name)}
    if (folder / LAST_FILE).exists():
        trainer.resume()
    clock = Clock(folder, trainer)
    try:
        trainer.run(report=clock.report, stepped=clock.stepped)
    finally:
        clock.keep()
    finish(trainer, None)
    return {
        "history": clock.rows,
        "steps": trainer.progress.step,
        "parameters": sum(p.numel() for p in trainer.objective.model.parameters()),
        "versions": f"jmp-md {jmp_md.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    }


def calculator(folder: Path) -> JMPCalculator:
    """The default calculator."""
    return JMPCalculator(folder / MODEL_FILE, device="cpu")


if __name__ == "__main__":
    run(train, calculator)
