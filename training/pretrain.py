"""Pre-training of one backbone on several data sets, each with its own head (arXiv 2310.16802)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor, nn
from torch_geometric.data import Batch

from jmp_md.checkpoints.native import write_native
from jmp_md.errors import InputError
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.potential import Potential
from jmp_md.training.batches import CACHE, PairedFrames, to_structures
from jmp_md.training.checks import require_labels
from jmp_md.training.data.frame import Dataset, frames
from jmp_md.training.data.references import linear_references
from jmp_md.training.data.statistics import normalisation
from jmp_md.training.distributed import Ranks
from jmp_md.training.finetune import validation_metrics
from jmp_md.training.loss import Scales, mean_terms, residuals
from jmp_md.training.mixture import MixedFrames, MixSampler
from jmp_md.training.objective import Objective
from jmp_md.training.recipe import PretrainRecipe
from jmp_md.training.scale_factors import fit_scale_factors
from jmp_md.training.sections import MixSection
from jmp_md.training.seen import seen_in
from jmp_md.training.start import Start, build, graph_policy, same_level, start_from
from jmp_md.training.trainer import Trainer
from jmp_md.training.validation import potential_errors

SAMPLE = 16  # frames of each task that scale factors are fitted to
Reference = tuple[dict[int, float], Scales]


@dataclass(frozen=True)
class TaskData:
    """Frames of one task.

    Attributes:
        train: To train on.
        validation: To validate on; of other systems.
        reference: References and scales, where they need not be fitted.
    """

    train: Dataset
    validation: Dataset
    reference: Reference | None = None


class MultiTask(nn.Module):
    """Potentials that share embedding and backbone, by task.

    Args:
        header: A head for each task.
    """

    def __init__(self, header: ModelHeader) -> None:
        super().__init__()
        self.header = header
        self.tasks = nn.ModuleDict(
            {head.name: Potential(header, head.name) for head in header.heads}
        )
        first = self.potential(header.heads[0].name)
        self.embedding, self.backbone = first.embedding, first.backbone
        for name in self.tasks:
            potential = self.potential(name)
            potential.embedding, potential.backbone = self.embedding, self.backbone

    def potential(self, task: str) -> Potential:
        """The potential of a task."""
        potential = self.tasks[task]
        assert isinstance(potential, Potential)
        return potential

    def native_state(self) -> dict[str, Tensor]:
        """The tensors of all heads under the names of the native format."""
        state: dict[str, Tensor] = {}
        for name in self.tasks:
            state |= self.potential(name).native_state()
        return state


class PretrainObjective(Objective):
    """Energies (L1) and forces (L2) of all tasks on normalised labels.

    Every structure counts alike: the loss is the mean over the structures of a batch of
    |energy error| + lambda_F x (mean over its atoms of the length of the force error), with
    lambda_F the mean number of atoms of the task. Without ``structure_wise`` the force term is the
    mean over all atoms of the batch.

    Args:
        model: What is trained.
        validation: Frames of each task to validate on.
        scales: Standard deviation of energies and rms of forces of each task.
        force_weights: lambda_F of each task.
        mix: How tasks are weighed.
        margins: Errors of each task that count as none; see :func:`residuals`.
    """

    weights = (1.0, 1.0)
    monitor = "relative_force_mae"

    def __init__(
        self,
        model: MultiTask,
        validation: Mapping[str, PairedFrames],
        scales: Mapping[str, Scales],
        force_weights: Mapping[str, float],
        mix: MixSection,
        margins: Mapping[str, Scales],
    ) -> None:
        super().__init__()
        self.model: MultiTask = model
        self.validation = validation
        self.scales = scales
        self.force_weights = force_weights
        self.structure_wise = mix.structure_wise
        self.margins = margins
        self.tasks = tuple(model.tasks) if mix.pcgrad else ()

    def forward(self, batch: dict[str, Batch]) -> tuple[Tensor, Tensor]:
        """See :class:`Objective`: the energy and the force term."""
        energies, forces = [], []
        for task, part in batch.items():
            found = residuals(
                self.model.potential(task),
                part,
                self.scales[task],
                margins=self.margins[task],
                gradient_scale=self.gradient_scale,
            )
            assert found.forces is not None
            energies.append(found.energy)
            by_atom = found.forces * self.force_weights[task]
            if self.structure_wise:
                by_atom = structure_means(by_atom, part.batch.to(by_atom.device), part.num_graphs)
            forces.append(by_atom)
        return mean_terms([torch.cat(energies), torch.cat(forces)])

    def measure(self, model: nn.Module, ranks: Ranks) -> dict[str, float]:
        """Errors of each task in meV and meV/Å, and the mean of force errors over their rms."""
        assert isinstance(model, MultiTask)
        result: dict[str, float] = {}
        relative = []
        for task, paired in self.validation.items():
            potential = model.potential(task)
            found = potential_errors(potential, paired, ranks, f"validation of {task}").summary()
            found.pop("n_frames")
            result |= {f"{task}_{name}": value for name, value in found.items()}
            relative.append(found["force_mae_meV_per_A"] / (1000 * self.scales[task].forces))
        return result | {self.monitor: float(np.mean(relative))}

    def export(
        self,
        model: nn.Module,
        path: Path,
        metrics: dict[str, float],
        training: dict[str, Any],
        weights: str,
    ) -> None:
        """Write a model file with a head per task."""
        assert isinstance(model, MultiTask)
        kept = {k: v for k, v in metrics.items() if not k.endswith("energy_shift_eV")}
        header = dataclasses.replace(
            model.header,
            training={**model.header.training, **training},
            weights=weights,
            metrics=validation_metrics(kept),
        )
        write_native(path, header, model.native_state())


def structure_means(values: Tensor, structure: Tensor, n_structures: int) -> Tensor:
    """Mean over the atoms of each structure that have a value: (n_structures,), else NaN."""
    labelled = ~values.isnan()
    total = values.new_zeros(n_structures).index_add(0, structure[labelled], values[labelled])
    count = torch.bincount(structure[labelled], minlength=n_structures)
    return torch.where(count > 0, total / count.clamp(min=1), torch.nan)


def pretrainer(
    recipe: PretrainRecipe,
    tasks: Mapping[str, TaskData],
    output: Path,
    ranks: Ranks,
    cache: int = CACHE,
    **options: Any,
) -> Trainer:
    """A trainer for a mix of data sets.

    Args:
        recipe: What to do.
        tasks: Frames of each task.
        output: Folder of the run.
        ranks: This process among those of the run.
        cache: Bytes for pairs of validation frames; training frames hardly come twice.
        **options: Of :class:`Trainer`.
    """
    start = start_from(recipe.model)
    heads, scales, weights = [], {}, {}
    for name, data in tasks.items():
        head, scales[name], weights[name] = _head(recipe, start, name, data)
        heads.append(head)
    known = {name: seen_in(data.train) for name, data in tasks.items()}
    default = recipe.model.head if recipe.model.head in tasks else None
    about = {"seen": {"heads": known}}
    header = start.header(recipe.model, heads=tuple(heads), default_head=default, training=about)
    model: MultiTask = build(lambda: MultiTask(header), recipe.seed, ranks.device)
    first = model.potential(heads[0].name)
    start.load_into(first)
    for head in heads:
        if head is start.heads.get(head.name):  # kept, not merely equal
            start.load_into(model.potential(head.name), head.name)
    if not start.state:
        sample = [
            item
            for data in tasks.values()
            for item in PairedFrames(data.train, first.policy.cutoff, cache=0)
            .sample(SAMPLE, recipe.seed)
            .to_data_list()
        ]
        fit_scale_factors(first, to_structures(Batch.from_data_list(sample)))
    paired, validation = {}, {}
    for name, data in tasks.items():
        potential = model.potential(name)
        potential.graph.edge_dropout = recipe.optimiser.edge_dropout
        cutoff = potential.policy.cutoff
        paired[name] = PairedFrames(data.train, cutoff, cache=0)
        validation[name] = PairedFrames(data.validation, cutoff, cache=cache // len(tasks))
    margins = {name: Scales(t.energy_margin, t.force_margin) for name, t in recipe.tasks.items()}
    objective = PretrainObjective(model, validation, scales, weights, recipe.mix, margins)
    sizes = {name: len(data.train) for name, data in tasks.items()}
    section = recipe.optimiser
    sampler = MixSampler(sizes, recipe.mix.temperature, section.batch_size, recipe.seed)
    return Trainer(objective, recipe, MixedFrames(paired), sampler, output, ranks, **options)


def _head(
    recipe: PretrainRecipe, start: Start, name: str, data: TaskData
) -> tuple[HeadInfo, Scales, float]:
    """The head of a task, the scales of its labels and its lambda_F.

    It is that of the base where it has one of the same name, level of theory and elements.
    """
    task = recipe.tasks[name]
    some = [data.train[k] for k in range(min(SAMPLE, len(data.train)))]
    require_labels("training", some, ("energy", "forces"), name)
    require_labels("validation", frames(data.validation), ("forces",), name)
    references, scales = data.reference or fit_reference(data.train)
    graph = recipe.model.graph if task.graph is None else task.graph
    direct = recipe.model.forces == "direct"
    weight = task.force_weight
    if weight is None:
        weight = sum(len(frame) for frame in frames(data.train)) / len(data.train)
    same = start.heads.get(name)
    if (
        same is not None
        and recipe.model.keep_head is not False
        and same_level(same.level_of_theory, task.level_of_theory)
        and same.elements == tuple(sorted(references))
    ):
        return same, Scales(same.energy_scale, scales.forces), weight
    head = HeadInfo(
        name=name,
        graph=graph_policy(graph, start),
        energy_scale=scales.energy,
        references=references,
        force_scale=scales.forces if direct else None,
        repulsion=None if direct else recipe.model.repulsion,
        elements=tuple(sorted(references)),
        level_of_theory=task.level_of_theory,
    )
    return head, scales, weight


def fit_reference(dataset: Dataset) -> Reference:
    """References in eV by atomic number, and the scales of what they leave."""
    references = linear_references(dataset)
    found = normalisation(dataset, references)
    return references, Scales(found.energy_std, found.force_rms)


def read_reference(path: Path) -> Reference:
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
