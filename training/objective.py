"""What a training run minimises, whatever it trains: from a batch to the terms of the loss."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.data import Batch

from jmp_md.checkpoints.native import write_native
from jmp_md.header import ModelHeader
from jmp_md.training.adaptation import merged
from jmp_md.training.batches import PairedFrames, to_structures
from jmp_md.training.derivatives import Derivatives, exact
from jmp_md.training.distributed import Ranks
from jmp_md.training.heads import Heads
from jmp_md.training.loss import mean_terms, residuals, structure_means
from jmp_md.training.property import PropertyModel
from jmp_md.training.task import Task
from jmp_md.training.validation import potential_errors, property_errors

RELATIVE = "relative_force_mae"  # force errors over the rms of the forces, mean over tasks
MONITORS = {
    "forces": "force_mae_meV_per_A",
    "energy": "energy_mae_meV",
    "stress": "stress_mae_meV_per_A3",
}


SHIFTED = ("energy_mae_meV", "energy_rmse_meV")  # by references, once training is over


class Trained(Protocol):
    """A model that can be written."""

    header: ModelHeader

    def native_state(self) -> dict[str, Tensor]:
        """Its tensors under the names of the native format."""
        ...


class Objective(nn.Module, ABC):
    """A model, its loss on a batch, and the errors that choose the best epoch.

    Attributes:
        model: What is trained; it has an ``embedding`` and a ``backbone``.
        tasks: What it learns, by head.
        validation: Frames of each task that choose the best epoch.
        weights: Weight of each term of the loss.
        monitor: Name of the error to lower.
        apart: Tasks whose gradients are not to conflict, which then can be evaluated one by one;
            empty where there is one gradient of all.
        gradient_scale: Factor of energies while forces are taken from them, see
            :class:`~jmp_md.training.gradients.LossScale`.
        derivatives: The way to gradients of energies.
    """

    model: nn.Module
    weights: tuple[float, ...]
    monitor: str
    apart: tuple[str, ...] = ()
    gradient_scale: float = 1.0
    derivatives: Derivatives

    def __init__(self, tasks: Sequence[Task], validation: Mapping[str, PairedFrames]) -> None:
        super().__init__()
        self.tasks = {task.name: task for task in tasks}
        self.validation = validation
        self.derivatives = exact

    @abstractmethod
    def forward(self, batch: dict[str, Batch]) -> tuple[Tensor, Tensor]:
        """Sum and number of the errors in each term: two tensors (n_terms,).

        Sums and numbers, not means, so that several processes add up to the mean of all.

        Args:
            batch: The structures of each task that occurs in it.
        """

    @abstractmethod
    def measure(self, model: nn.Module, ranks: Ranks) -> dict[str, float]:
        """Validation errors of ``model``, which is built like the one that is trained.

        The processes in ``ranks`` share the frames; all of them get the errors over all frames.
        """

    def export(
        self,
        model: Any,
        path: Path,
        metrics: dict[str, float],
        training: dict[str, Any],
        weights: str,
    ) -> None:
        """Write ``model`` as a file, with its errors and how it was trained.

        Energy errors of heads whose references will take up a shift are left out.

        Args:
            model: Built like the one that is trained.
            path: File to write.
            metrics: Its errors.
            training: How it was trained.
            weights: ``"ema"`` for averaged ones, ``"raw"`` for those of the last step.
        """
        trained: Trained = model
        header = dataclasses.replace(
            trained.header,
            training={**trained.header.training, **training},
            metrics={
                f"validation_{name}": value
                for name, value in metrics.items()
                if name not in SHIFTED and not name.endswith("energy_shift_eV")
            },
            weights=weights,
        )
        write_native(path, header, merged(trained.native_state()))


class PotentialObjective(Objective):
    """Errors of energies, forces and stress of one potential, or of several that share a network.

    Each term is a mean over all entries of a batch that have the label, of all tasks together:
    absolute errors of energies, lengths of the force errors of atoms times the ``force_weight`` of
    the task, absolute errors of stress, each over the scale of its task. With ``structure_wise``
    the force term is a mean over structures of means over their atoms.

    Args:
        model: What is trained.
        tasks: What it learns.
        validation: Frames of each task to validate on.
        weights: Of the terms ``energy``, ``forces`` and ``stress``; those of zero are left out.
        monitor: Which of them chooses the best epoch by the error of the first task; None chooses
            by the mean over tasks of the force error over the rms of the forces.
        structure_wise: How force errors are averaged.
        apart: Whether gradients of the tasks are not to conflict.
    """

    def __init__(
        self,
        model: Heads,
        tasks: Sequence[Task],
        validation: Mapping[str, PairedFrames],
        weights: Mapping[str, float],
        monitor: str | None = None,
        structure_wise: bool = False,
        apart: bool = False,
    ) -> None:
        super().__init__(tasks, validation)
        self.model: Heads = model
        self.terms = tuple(name for name, weight in weights.items() if weight)
        self.weights = tuple(weights[name] for name in self.terms)
        self.main = tasks[0].name if monitor else None
        self.monitor = MONITORS[monitor] if monitor else RELATIVE
        self.structure_wise = structure_wise
        self.apart = tuple(self.tasks) if apart else ()

    def forward(self, batch: dict[str, Batch]) -> tuple[Tensor, Tensor]:
        """See :class:`Objective`: a term for each weight that is not zero."""
        # A process may have no structure of the task that alone has a term.
        nothing = self.model.embedding.weight.new_zeros(0)
        errors: dict[str, list[Tensor]] = {name: [nothing] for name in self.terms}
        for name, part in batch.items():
            task = self.tasks[name]
            found = residuals(
                self.model.potential(name),
                part,
                task.scales,
                forces="forces" in task.terms,
                stress="stress" in task.terms,
                margins=task.margins,
                gradient_scale=self.gradient_scale,
                derivatives=self.derivatives,
            )
            if found.forces is not None:
                by_atom = found.forces * task.force_weight
                if self.structure_wise:
                    place = part.batch.to(by_atom.device)
                    by_atom = structure_means(by_atom, place, part.num_graphs)
                found = found._replace(forces=by_atom)
            for term in task.terms:
                errors[term].append(getattr(found, term))
        return mean_terms([torch.cat(errors[name]) for name in self.terms])

    def measure(self, model: nn.Module, ranks: Ranks) -> dict[str, float]:
        """Errors in meV, meV/Å and meV/Å³; those of further tasks after the name of the task."""
        assert isinstance(model, Heads)
        result: dict[str, float] = {}
        relative = []
        for name, paired in self.validation.items():
            title = "validation" if name == self.main else f"validation of {name}"
            found = potential_errors(model.potential(name), paired, ranks, title).summary()
            if name == self.main:
                result |= found
                continue
            found.pop("n_frames")
            result |= {f"{name}_{key}": value for key, value in found.items()}
            relative.append(found[MONITORS["forces"]] / (1000 * self.tasks[name].scales.forces))
        return result if self.main else result | {RELATIVE: float(np.mean(relative))}


class PropertyObjective(Objective):
    """Absolute error of a normalised property, or cross-entropy of classes.

    Args:
        model: What is trained.
        tasks: The one it learns.
        validation: Structures that choose the best epoch.
    """

    weights = (1.0,)

    def __init__(
        self, model: PropertyModel, tasks: Sequence[Task], validation: Mapping[str, PairedFrames]
    ) -> None:
        super().__init__(tasks, validation)
        self.model: PropertyModel = model
        self.monitor = "cross_entropy" if model.target.kind == "classes" else "mae"

    def forward(self, batch: dict[str, Batch]) -> tuple[Tensor, Tensor]:
        """See :class:`Objective`: one term."""
        [part] = batch.values()
        weight = self.model.embedding.weight
        structures = to_structures(part)
        output = self.model(structures.to(weight.device, weight.dtype))
        label = part.property.to(weight.device)
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
        [paired] = self.validation.values()
        return property_errors(model, paired, ranks)
