"""Training of one head for energies and forces, from scratch or from another model."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor, nn
from torch_geometric.data import Data

from jmp_md.checkpoints.native import write_native
from jmp_md.errors import InputError
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.potential import Potential
from jmp_md.training.batches import CACHE, EpochSampler, PairedFrames, to_structures
from jmp_md.training.checks import LABELS, monitored, require_labels
from jmp_md.training.data.frame import Dataset, Frame, frames
from jmp_md.training.data.references import composition, linear_references, undetermined
from jmp_md.training.data.statistics import NOTHING_LEFT
from jmp_md.training.distributed import Ranks
from jmp_md.training.loss import Scales, mean_terms, residuals
from jmp_md.training.objective import Objective
from jmp_md.training.recipe import Recipe
from jmp_md.training.scale_factors import fit_scale_factors
from jmp_md.training.sections import LossSection
from jmp_md.training.seen import only_molecule, seen_in
from jmp_md.training.shift import shifted_references
from jmp_md.training.start import (
    Start,
    build,
    graph_policy,
    head_to_keep,
    same_level,
    start_from,
)
from jmp_md.training.trainer import Trainer
from jmp_md.training.validation import potential_errors

MONITORS = {
    "forces": "force_mae_meV_per_A",
    "energy": "energy_mae_meV",
    "stress": "stress_mae_meV_per_A3",
}
SCALED = 64  # frames that scale factors are fitted to


class PotentialObjective(Objective):
    """Energies, forces and stress of one potential.

    Args:
        potential: What is trained.
        validation: Frames that choose the best epoch.
        loss: Weights of the terms.
    """

    def __init__(self, potential: Potential, validation: PairedFrames, loss: LossSection) -> None:
        super().__init__()
        self.model: Potential = potential
        self.validation = validation
        self.loss = loss
        self.weights = tuple(w for w in (loss.energy, loss.forces, loss.stress) if w)
        self.monitor = MONITORS[monitored(loss)]
        # Of the head; one scale serves energies and their gradients.
        head = potential.head
        self.scales = Scales(head.energy_scale, head.force_scale or head.energy_scale)

    def forward(self, batch: Data) -> tuple[Tensor, Tensor]:
        """See :class:`Objective`: a term for each weight that is not zero."""
        loss = self.loss
        found = residuals(
            self.model,
            batch,
            self.scales,
            forces=bool(loss.forces),
            stress=bool(loss.stress),
            gradient_scale=self.gradient_scale,
        )
        return mean_terms([found.energy if loss.energy else None, found.forces, found.stress])

    def measure(self, model: nn.Module, ranks: Ranks) -> dict[str, float]:
        """Errors on the validation frames in meV, meV/Å and meV/Å³."""
        assert isinstance(model, Potential)
        return potential_errors(model, self.validation, ranks).summary()

    def export(
        self,
        model: nn.Module,
        path: Path,
        metrics: dict[str, float],
        training: dict[str, Any],
        weights: str,
    ) -> None:
        """Write a model file."""
        assert isinstance(model, Potential)
        header = dataclasses.replace(
            model.header,
            training={**model.header.training, **training},
            metrics=validation_metrics(metrics),
            weights=weights,
        )
        write_native(path, header, model.native_state())


def fine_tuner(
    recipe: Recipe,
    train: Dataset,
    validation: Dataset,
    output: Path,
    ranks: Ranks,
    cache: int = CACHE,
    **options: Any,
) -> Trainer:
    """A trainer for one potential.

    Args:
        recipe: What to do.
        train: Training frames.
        validation: Frames that choose the best epoch.
        output: Folder of the run.
        ranks: This process among those of the run.
        cache: Bytes for pairs of training frames, and again for those of validation frames.
        **options: Of :class:`Trainer`.

    Raises:
        InputError: No frames, or labels are missing that the loss needs.
    """
    start = start_from(recipe.model)
    elements = sorted({int(z) for frame in frames(train) for z in frame.numbers})
    kept = head_to_keep(recipe.model, start, elements)
    header = new_header(recipe, start, train, kept)
    require_elements(header.heads[0], validation, "validation")
    require_labels("validation", frames(validation), [monitored(recipe.loss)])
    potential: Potential = build(lambda: Potential(header), recipe.seed, ranks.device)
    start.load_into(potential, kept.name if kept else None)
    cutoff = potential.policy.cutoff
    paired = PairedFrames(train, cutoff, cache=cache)
    if kept and not same_level(kept.level_of_theory, recipe.model.level_of_theory):
        potential.take_references(shifted_references(potential, paired).references)
    if not start.state:
        fit_scale_factors(potential, to_structures(paired.sample(SCALED, recipe.seed)))
    potential.graph.edge_dropout = recipe.optimiser.edge_dropout
    held_out = PairedFrames(validation, cutoff, cache=cache)
    objective = PotentialObjective(potential, held_out, recipe.loss)
    sampler = EpochSampler(len(train), recipe.optimiser.batch_size, recipe.seed)
    return Trainer(
        objective, recipe, paired, sampler, output, ranks, zero_shot=bool(kept), **options
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


def new_header(
    recipe: Recipe, start: Start, train: Dataset, kept: HeadInfo | None = None
) -> ModelHeader:
    """Header of a new model: graphs from the recipe, normalisation from the data or a kept head.

    Raises:
        InputError: No frames, labels that the loss needs are missing, or several molecules where
            the recipe says there is one.
    """
    section = recipe.model
    everything = list(frames(train))
    require_labels("training", everything, (n for n in LABELS if getattr(recipe.loss, n)))
    forces = [f.forces[~f.fixed] if f.fixed is not None else f.forces
              for f in everything if f.forces is not None]  # fmt: skip
    rms = float(torch.from_numpy(np.concatenate(forces)).square().mean().sqrt()) if forces else 0.0
    scale = rms if rms > NOTHING_LEFT else 1.0  # perfect crystals and lone atoms have no forces
    domain = {"domain": only_molecule(train)} if recipe.data.single_molecule else {}
    direct = section.forces == "direct"
    head = HeadInfo(
        name=section.head,
        graph=graph_policy(section.graph, start, kept),
        energy_scale=scale,
        force_scale=scale if direct else None,
        repulsion=None if direct else section.repulsion,
        elements=tuple(sorted({int(z) for f in everything for z in f.numbers})),
        level_of_theory=section.level_of_theory,
    )
    about: dict[str, Any] = {**domain, "seen": seen_in(train)}
    if kept is not None:
        head = dataclasses.replace(
            kept,
            name=head.name,
            graph=head.graph,
            elements=tuple(sorted({*kept.elements, *head.elements})),
            level_of_theory=head.level_of_theory,
        )
        about["kept_head"] = kept.name
    elif any(frame.energy is not None for frame in everything):
        head = dataclasses.replace(head, references=linear_references(train))
        about |= undetermined_references(everything)
    return start.header(section, heads=(head,), training=about)


def undetermined_references(everything: list[Frame]) -> dict[str, Any]:
    """What a header says where compositions do not tell the energies of elements apart."""
    kinds = {composition(f) for f in everything if f.energy is not None}
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


def validation_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """Errors as headers have them, named after the validation set.

    Without energies: they were measured before references took up the shift.
    """
    return {f"validation_{k}": v for k, v in metrics.items() if not k.startswith("energy_")}
