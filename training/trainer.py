"""The loop every kind of training runs in: steps, validation, checkpoints, resuming."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from jmp_md._version import __version__
from jmp_md.errors import InputError
from jmp_md.files import atomic_write
from jmp_md.signals import StopRequest
from jmp_md.training.batches import Key, TaskFrames, batches
from jmp_md.training.config import plain
from jmp_md.training.data.hashing import Hash
from jmp_md.training.distributed import Ranks, share
from jmp_md.training.interruption import InterruptedRunError, interrupted
from jmp_md.training.logs import Log, TensorBoardLog, WandbLog, write_table
from jmp_md.training.objective import Objective
from jmp_md.training.optimisation import Schedule
from jmp_md.training.progress import Progress
from jmp_md.training.recipe import AnyRecipe, differences_from, to_yaml
from jmp_md.training.sampling import Sampler
from jmp_md.training.store import load_checkpoint, save_checkpoint
from jmp_md.training.update import Update

MODEL_FILE, LAST_FILE, LOG_FILE = "model.safetensors", "last.ckpt", "log.csv"
RECIPE_FILE = "recipe.yaml"
BAD_BATCH_FILE = "not-finite.ckpt"
Report = Callable[[dict[str, float]], None]


class Trainer:
    """Runs a recipe's optimiser on an objective.

    Args:
        objective: What to minimise; its model is on the device already.
        recipe: What to do.
        frames: Training structures.
        sampler: Which of them each step takes.
        output: Folder of the run: ``model.safetensors`` (best averaged weights), ``last.ckpt``
            (to resume), ``log.csv`` and ``recipe.yaml``.
        ranks: This process among those of the run.
        workers: Processes that make batches; 0 makes them here.
        tensorboard, wandb: Also log for TensorBoard, or Weights & Biases.
        shard: Split the training state between the processes.
        zero_shot: Measure, and record as step 0, what the model does before any step.

    Attributes:
        notes: What a user should know before the first step.
        data: Hashes of the data files by name, for the header, and to resume with no others.
    """

    def __init__(
        self,
        objective: Objective,
        recipe: AnyRecipe,
        frames: TaskFrames,
        sampler: Sampler,
        output: Path,
        ranks: Ranks,
        workers: int = 0,
        tensorboard: bool = False,
        wandb: bool = False,
        shard: bool = False,
        zero_shot: bool = False,
    ) -> None:
        self.zero_shot = zero_shot
        self.objective, self.recipe, self.section = objective, recipe, recipe.optimiser
        self.frames, self.sampler = frames, sampler
        self.output, self.ranks, self.workers = output, ranks, workers
        self.progress = Progress()
        self.data: dict[str, Hash] = {}
        self.notes: list[str] = []
        if recipe.optimiser.batch_size < ranks.size:
            raise InputError(
                f"optimiser.batch_size = {recipe.optimiser.batch_size} for {ranks.size} processes: "
                "it counts the structures of all of them, so give at least one for each"
            )
        self.update = Update(objective, self.section, ranks, recipe.seed, shard)
        self.total_steps = self.section.epochs * sampler.steps_per_epoch
        self.interval = self.section.validate_every or sampler.steps_per_epoch
        self.schedule = Schedule(
            self.update.optimiser,
            self.update.factors,
            self.section,
            sampler.steps_per_epoch,
            self.interval,
        )
        self.stop_request = StopRequest()
        self._stream: Iterator[Any] = iter(())
        self.logs: list[Log] = []
        if tensorboard and ranks.rank == 0:
            self.logs.append(TensorBoardLog(output))
        if wandb and ranks.rank == 0:
            self.logs.append(WandbLog(output, plain(recipe)))

    @property
    def average(self) -> nn.Module:
        """The averaged weights."""
        return self.update.average

    def run(
        self,
        max_minutes: float | None = None,
        report: Report | None = None,
        stepped: Callable[[], object] | None = None,
    ) -> Progress:
        """Train until the recipe says to stop, or stop cleanly when time is up.

        Args:
            max_minutes: Stop after the validation before which this time is reached.
            report: Called with each row of the log, on the first process.
            stepped: Called after every step.

        Raises:
            InputError: Too many batches were not finite, or the disk is full.
            InterruptedRunError: SIGINT or SIGTERM came; the checkpoint is written.
        """
        if self.ranks.rank == 0:
            self.output.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.output / RECIPE_FILE) as path:
                path.write_text(to_yaml(self.recipe), encoding="utf-8")
        with self.stop_request.listening():
            self._run(max_minutes, report or (lambda row: None), stepped or (lambda: None))
        if self.progress.step and not self._taken():
            raise InputError(
                f"none of {self.progress.step} batches gave a finite loss and gradient, so that "
                "nothing was learned: look for broken frames with 'jmp-md data inspect', or lower "
                "optimiser.learning_rate"
            )
        return self.progress

    def _run(
        self, max_minutes: float | None, report: Report, stepped: Callable[[], object]
    ) -> None:
        p, began = self.progress, time.monotonic()
        # One iterator to the end, so that processes that make batches keep what they made. Keys
        # one by one: sharing a batch looks up sizes, which takes hours for all of millions.
        keys = (self._share(step) for step in range(p.step, self.total_steps))
        self._stream = batches(self.frames, keys, self.workers)
        try:
            if self.zero_shot and not p.history:
                self._validate(report)
            while not self.finished:
                self._steps(stepped)
                self._validate(report)
                late = max_minutes is not None and time.monotonic() - began > 60 * max_minutes
                if self.ranks.shared(late):
                    break
        except InterruptedRunError as stop:
            self.save()
            self.ranks.shared(None)  # none ends before the file is there
            raise InterruptedRunError(
                f"interrupted at step {p.step} of {self.total_steps}, nothing is lost: the same "
                "command with --restart goes on",
                stop.signum,
            ) from None
        finally:
            self._stream = iter(())

    def _taken(self) -> int:
        """Steps that changed the weights, or found a loss scale for fp16."""
        return self.progress.step - self.progress.skipped

    def _validate(self, report: Report) -> None:
        """Measure averaged and latest weights, and record the better of them.

        Early on the average lags behind the weights, at a constant rate it is the better one.
        """
        start, p, monitor = time.monotonic(), self.progress, self.objective.monitor
        models = {"ema": self.update.averages(), "raw": self.update.latest()}
        # Split models are whole on the first process alone.
        ranks = Ranks(0, 1, self.ranks.device) if self.update.sharded else self.ranks
        errors: dict[str, dict[str, float]] = {}
        self._stop_if_asked()
        with self.stop_request.raising(interrupted if self.ranks.size == 1 else None):
            for name, model in models.items():
                if model is not None:
                    errors[name] = self.objective.measure(model, ranks)
        errors = self.ranks.shared(errors)
        # NaN is never the better one.
        weights = min(errors, key=lambda name: np.nan_to_num(errors[name][monitor], nan=np.inf))
        both = {f"{name}_{monitor}": found[monitor] for name, found in errors.items()}
        p.epoch = p.step // self.sampler.steps_per_epoch
        p.seconds += time.monotonic() - start
        self._record(errors[weights] | both, models[weights], weights)
        if self.ranks.rank == 0:
            report(p.history[-1])

    @property
    def finished(self) -> bool:
        """Whether the recipe says to stop here."""
        s, p = self.section, self.progress
        patience = (s.patience or 0) * self.sampler.steps_per_epoch
        return (
            p.validated >= self.total_steps
            or (s.patience is not None and p.validated - p.best_step >= patience)
            or (p.step > self.schedule.end and self.schedule.rate < s.min_learning_rate)
        )

    def _record(self, measured: dict[str, float], model: nn.Module | None, weights: str) -> None:
        """Keep the model if it is the best, then everything needed to go on."""
        p = self.progress
        metric = measured[self.objective.monitor]
        row = {
            "epoch": p.epoch,
            "step": p.step,
            "learning_rate": self.schedule.rate,
            "loss": p.loss / p.losses if p.losses else float("nan"),
            "seconds": p.seconds,
            **{k: v for k, v in measured.items() if k != "n_frames"},
        }
        p.history.append(row)
        p.loss, p.losses = 0.0, 0
        better = metric < p.best
        if better:
            p.best, p.best_step = metric, p.step
        self.schedule.after_validation(p.step, metric)
        if better and (self._taken() or p.step == 0) and self.ranks.rank == 0 and model is not None:
            self.objective.export(model, self.output / MODEL_FILE, measured, self.about(), weights)
        self.save()
        for log in self.logs:
            log.write(row, p.step)

    def _steps(self, stepped: Callable[[], object]) -> None:
        """Steps up to the next validation."""
        p, start = self.progress, time.monotonic()
        end = min(self.total_steps, (p.validated // self.interval + 1) * self.interval)
        try:
            while p.step < end:
                self._stop_if_asked()
                batch = next(self._stream)
                self.schedule.before_step(p.step)
                value = self._step(batch)
                p.step += 1
                if value is not None:
                    p.loss, p.losses = p.loss + value, p.losses + 1
                elif not self.update.scale.overflowed:
                    self._skip(batch)
                stepped()
        finally:
            p.seconds += time.monotonic() - start

    def _stop_if_asked(self) -> None:
        """Leave where a signal came to any of the processes.

        Raises:
            InterruptedRunError: It did.
        """
        asked = self.stop_request.came()
        if self.ranks.size > 1:
            asked = bool(self.ranks.summed(torch.tensor(float(asked), device=self.ranks.device)))
        if asked:
            raise interrupted(self.stop_request.signum)

    def _share(self, step: int) -> list[Key]:
        """Keys of this process in a step; where there are too few, one that another has too."""
        keys = self.sampler.batch(step)
        if self.ranks.size == 1:
            return keys
        parts = share([self.frames.n_atoms(key) for key in keys], self.ranks.size)
        return [keys[k] for k in parts[self.ranks.rank]] or keys[:1]

    def _step(self, batch: Any) -> float | None:
        """One update; None when the loss or gradient was not finite."""
        step = self.progress.step
        return self.update(batch, step, len(self.sampler.batch(step)))

    def _skip(self, batch: Any) -> None:
        self.progress.skipped += 1
        if self.progress.skipped > self.section.max_skipped:
            path = self.output / BAD_BATCH_FILE
            if self.ranks.rank == 0:
                save_checkpoint(path, {name: part.to_dict() for name, part in batch.items()})
            raise InputError(
                f"more than {self.section.max_skipped} batches gave a loss or gradient that is not "
                f"finite, the last of them is in {path}: lower optimiser.learning_rate, or look "
                "for broken frames with 'jmp-md data inspect'"
            )

    def about(self) -> dict[str, Any]:
        """How the model was trained, for its header."""
        return {
            "recipe": to_yaml(self.recipe),
            "epochs": self.progress.epoch,
            "trained_parameters": sum(p.numel() for p in self.update.parameters),
            "hours": round(self.progress.seconds / 3600, 3),
            "machine": f"{self.ranks.size} x {self.ranks.device.type}, "
            f"{torch.get_num_threads()} threads, {platform.machine()}",
            "torch": torch.__version__,
            "jmp_md": __version__,
        }

    def save(self) -> None:
        """Write everything a resumed run needs, atomically, and the log.

        Raises:
            InputError: The disk is full.
        """
        state = {
            "recipe": to_yaml(self.recipe),
            "data": self.data,
            **self.update.state_dict(),
            "schedule": self.schedule.state_dict(),
            "progress": dataclasses.asdict(self.progress),
        }
        if self.ranks.rank > 0:
            return
        save_checkpoint(self.output / LAST_FILE, state)
        write_table(self.output / LOG_FILE, self.progress.history)

    def resume(self) -> None:
        """Continue from ``last.ckpt``.

        Raises:
            InputError: No such file, or one of another recipe, other data or another version.
        """
        path = self.output / LAST_FILE
        state = load_checkpoint(path, self.ranks.device)
        if other := differences_from(state["recipe"], str(path), self.recipe):
            raise InputError(
                f"{path} was written by another recipe, which differs in {', '.join(other)}: "
                f"resume with {self.output / RECIPE_FILE}, or choose another --output"
            )
        for file, value in state["data"].items():
            if self.data.get(file) != value:
                raise InputError(
                    f"data file {file} is not what it was when the run in {self.output} began, and "
                    "frames that were trained on would be tested on: put it back, or choose "
                    "another --output"
                )
        try:
            self.update.load_state_dict(state)
        except (RuntimeError, ValueError) as error:  # tensors of other names or shapes
            raise InputError(
                f"{path} is of another version of jmp-md: resume with that one, or start again in "
                "another --output"
            ) from error
        self.schedule.load_state_dict(state.get("schedule", {}))
        self.progress = Progress.from_dict(state["progress"], path)
