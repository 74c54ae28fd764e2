"""Training of one conservative head, from scratch or from another model, on one data set."""

from __future__ import annotations

import csv
import dataclasses
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ase.symbols import Symbols
from torch import Tensor
from torch.nn import functional
from torch_geometric.data import Batch, Data

from jmp_md._version import __version__
from jmp_md.checkpoints.native import atomic_write, write_native
from jmp_md.errors import InputError
from jmp_md.graph.policy import GraphPolicy
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.nn.config import preset
from jmp_md.potential import Potential
from jmp_md.training.batches import (
    PairedFrames,
    epoch_batches,
    labels,
    ordered_batches,
    to_structures,
)
from jmp_md.training.data.frame import Dataset
from jmp_md.training.metrics import errors
from jmp_md.training.optimisation import (
    averaged,
    learning_rate_factor,
    make_optimiser,
    scale_shared_gradients,
)
from jmp_md.training.recipe import LossSection, Recipe, to_yaml
from jmp_md.training.scale_factors import fit_scale_factors

MODEL_FILE, LAST_FILE, LOG_FILE = "model.safetensors", "last.ckpt", "log.csv"
Report = Callable[[dict[str, float]], None]


@dataclass
class Progress:
    """What a run knows of itself between epochs, besides tensors."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best: float = float("inf")
    skipped: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class FineTuner:
    """Fits a potential to the forces, and the energies if asked, of one data set.

    Args:
        recipe: What to do.
        train: Training frames.
        validation: Frames that choose the best epoch.
        output: Folder of the run: ``model.safetensors`` (best averaged weights), ``last.ckpt``
            (to resume), ``log.csv`` and ``recipe.yaml``.
        device: Where to compute.

    Raises:
        InputError: No frames or no forces to train on.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: Dataset,
        validation: Dataset,
        output: Path,
        device: torch.device | str = "cpu",
    ) -> None:
        self.recipe = recipe
        self.output = output
        self.device = torch.device(device)
        self.progress = Progress()
        header = new_header(recipe, train)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.potential = Potential(header).float().to(self.device)
        cutoff = self.potential.policy.cutoff
        self.train = PairedFrames(train, cutoff)
        self.validation = PairedFrames(validation, cutoff)
        self._fit_scale_factors()
        self.average = averaged(self.potential, recipe.optimiser.ema_decay)
        self.optimiser = make_optimiser(self.potential, recipe.optimiser)
        self.steps_per_epoch = -(-len(self.train) // recipe.optimiser.batch_size)

    def run(self, max_minutes: float | None = None, report: Report | None = None) -> Progress:
        """Train to the last epoch of the recipe, or stop cleanly when time is up."""
        self.output.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.output / "recipe.yaml") as path:
            path.write_text(to_yaml(self.recipe))
        began = time.monotonic()
        while self.progress.epoch < self.recipe.optimiser.epochs:
            start = time.monotonic()
            loss = self._epoch()
            self.progress.epoch += 1
            measured = errors(self.best_guess, ordered_batches(self.validation, 32))
            self.progress.seconds += time.monotonic() - start
            row = {
                "epoch": self.progress.epoch,
                "learning_rate": self.optimiser.param_groups[0]["lr"],
                "loss": loss,
                "seconds": self.progress.seconds,
                **{k: v for k, v in measured.items() if k != "n_frames"},
            }
            self.progress.history.append(row)
            if measured["force_mae_meV_per_A"] < self.progress.best:
                self.progress.best = measured["force_mae_meV_per_A"]
                self.export(measured)
            self.save()
            if report:
                report(row)
            if max_minutes is not None and time.monotonic() - began > 60 * max_minutes:
                break
        return self.progress

    @property
    def best_guess(self) -> Potential:
        """The averaged weights as a potential."""
        module = self.average.module
        assert isinstance(module, Potential)
        return module

    def _epoch(self) -> float:
        section = self.recipe.optimiser
        total, count = 0.0, 0
        for batch in epoch_batches(
            self.train, section.batch_size, self.recipe.seed, self.progress.epoch
        ):
            factor = learning_rate_factor(self.progress.step, self.steps_per_epoch, section)
            for group in self.optimiser.param_groups:
                group["lr"] = section.learning_rate * factor
            value = self._step(batch)
            self.progress.step += 1
            if value is None:
                continue
            total, count = total + value, count + 1
        return total / max(count, 1)

    def _step(self, batch: Data) -> float | None:
        """One update; None when the loss or gradient was not finite and the batch was skipped."""
        section = self.recipe.optimiser
        self.optimiser.zero_grad(set_to_none=True)
        loss = training_loss(self.potential, batch, self.recipe.loss)
        loss.backward()
        scale_shared_gradients(self.potential.backbone)
        limit = section.clip_norm if section.clip_norm is not None else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.potential.parameters(), limit)
        if not torch.isfinite(norm + loss.detach()):
            self.progress.skipped += 1
            if self.progress.skipped > 100:
                raise InputError(
                    "more than 100 batches gave a loss or gradient that is not finite: lower "
                    "optimiser.learning_rate or look for broken frames in the data"
                )
            return None
        self.optimiser.step()
        self.average.update_parameters(self.potential)
        return float(loss.detach())

    def _fit_scale_factors(self) -> None:
        sample = [self.train[i] for i in range(min(len(self.train), 64))]
        fit_scale_factors(self.potential, to_structures(Batch.from_data_list(sample)))

    def export(self, metrics: dict[str, Any], path: Path | None = None) -> None:
        """Write the averaged weights as a model file."""
        shift = metrics.get("energy_shift_eV", 0.0)
        header = self.potential.header
        head = header.heads[0]
        head = dataclasses.replace(head, energy_mean=head.energy_mean + shift)
        training = {
            **header.training,
            "recipe": to_yaml(self.recipe),
            "epochs": self.progress.epoch,
            "hours": round(self.progress.seconds / 3600, 3),
            "machine": f"{self.device.type}, {torch.get_num_threads()} threads, "
            f"{platform.machine()}",
            "torch": torch.__version__,
            "jmp_md": __version__,
        }
        metrics = {f"validation_{k}": v for k, v in metrics.items() if k != "energy_shift_eV"}
        header = dataclasses.replace(header, heads=(head,), training=training, metrics=metrics)
        write_native(path or self.output / MODEL_FILE, header, self.best_guess.native_state())

    def save(self) -> None:
        """Write everything a resumed run needs, atomically, and the log."""
        state = {
            "recipe": to_yaml(self.recipe),
            "potential": self.potential.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "progress": dataclasses.asdict(self.progress),
        }
        with atomic_write(self.output / LAST_FILE) as path:
            torch.save(state, path)
        with atomic_write(self.output / LOG_FILE) as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.progress.history[0]))
            writer.writeheader()
            writer.writerows(self.progress.history)

    def resume(self) -> None:
        """Continue from ``last.ckpt``.

        Raises:
            InputError: No such file, or it belongs to another recipe.
        """
        path = self.output / LAST_FILE
        if not path.exists():
            raise InputError(f"nothing to resume: {path} does not exist; start without --resume")
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["recipe"] != to_yaml(self.recipe):
            raise InputError(
                f"{path} was written by another recipe: resume with {self.output / 'recipe.yaml'}, "
                "or choose another --output"
            )
        self.potential.load_state_dict(state["potential"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.progress = Progress(**state["progress"])


def training_loss(potential: Potential, batch: Data, weights: LossSection) -> Tensor:
    """Loss on normalised labels: mean |energy error| per structure, mean force error length.

    Both are divided by the energy scale of the head, so that one scale serves energy and forces.
    """
    parameter = potential.embedding.weight
    structures = to_structures(batch).to(parameter.device, parameter.dtype)
    positions = structures.positions.requires_grad_()
    energy = potential.interaction_energy(structures)
    scale = potential.head.energy_scale
    energy_label, force_label = labels(batch, parameter.dtype, parameter.device)
    loss = energy.new_zeros(())
    if weights.forces:
        forces = -torch.autograd.grad(energy.sum(), positions, create_graph=True)[0]
        loss = (
            loss
            + weights.forces
            * torch.linalg.norm((forces - force_label) / scale + 1e-6, dim=1).mean()
        )
    if weights.energy:
        constant = energy.new_zeros(len(energy), dtype=torch.float64).index_add(
            0, structures.structure, potential.constant_energies(structures)
        )
        target = (energy_label - constant).to(energy.dtype)
        loss = loss + weights.energy * functional.l1_loss(energy, target) / scale
    return loss


def new_header(recipe: Recipe, train: Dataset) -> ModelHeader:
    """Header of a new model: sizes and graphs from the recipe, normalisation from the data."""
    section = recipe.model
    frames = [train[i] for i in range(len(train))]
    forces = [torch.from_numpy(f.forces) for f in frames if f.forces is not None]
    if not frames or not forces:
        raise InputError("the training frames hold no forces: conservative training needs them")
    rms = float(torch.cat(forces).square().mean().sqrt())
    energies = [f.energy for f in frames if f.energy is not None]
    formulas = {Symbols(f.numbers).formula.format("hill") for f in frames}
    domain = {}
    if recipe.data.single_molecule:
        if len(formulas) > 1:
            raise InputError(
                f"data.single_molecule is set but the frames hold {len(formulas)} molecules"
            )
        domain = {"domain": {"formula": formulas.pop()}}
    options = dict(section.graph)
    kind = options.pop("kind", "smooth")
    graph = GraphPolicy.smooth(**options) if kind == "smooth" else GraphPolicy.official(**options)
    head = HeadInfo(
        name=section.head,
        graph=graph,
        energy_scale=rms,
        energy_mean=sum(energies) / len(energies) if energies else 0.0,
        elements=tuple(sorted({int(z) for f in frames for z in f.numbers})),
        level_of_theory=section.level_of_theory,
    )
    return ModelHeader(
        name=section.name,
        architecture=dataclasses.replace(preset(section.preset), **section.sizes),
        heads=(head,),
        licence=section.licence,
        data=section.data,
        training=domain,
        weights="ema",
    )
