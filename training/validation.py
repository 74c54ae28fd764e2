"""Models measured while they train: in batches that fit in memory, shared by the processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from torch import nn
from torch_geometric.data import Batch
from tqdm import tqdm

from jmp_md.batch import make_item
from jmp_md.load import kernel_folder
from jmp_md.potential import Potential
from jmp_md.step import FoldedStep
from jmp_md.training.batches import PairedFrames, to_structures
from jmp_md.training.distributed import Ranks
from jmp_md.training.metrics import ErrorSums, Labelled, Values, errors_of
from jmp_md.training.packing import Model, packed
from jmp_md.training.property import PropertyModel
from jmp_md.training.property_metrics import property_summary

SHOW_AFTER = 2.0  # seconds after which there is a progress bar


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluate a model without gradients of its weights, which would take as much as training."""
    asked = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trained = [module for module in model.modules() if module.training]
    model.requires_grad_(False).eval()
    potentials = [module for module in model.modules() if isinstance(module, Potential)]
    for potential in potentials:
        potential.step = FoldedStep(potential, kernel_folder())
    try:
        yield
    finally:
        for potential in potentials:
            potential.step = None
        for parameter in asked:
            parameter.requires_grad_(True)
        for module in trained:
            module.training = True


def potential_errors(
    potential: Potential, frames: PairedFrames, ranks: Ranks, title: str = "validation"
) -> ErrorSums:
    """Errors over frames that the processes share; all of them get those over all frames.

    Forces are those of the direct head where there is one.
    """
    numbers = range(ranks.rank, len(frames), ranks.size)
    structures = (_labelled(potential, frames, number) for number in numbers)
    direct = potential.force_head is not None
    with frozen(potential), _bar(len(numbers), title, ranks) as bar:
        mine = errors_of(potential, structures, direct=direct, progress=bar.update)
    return sum(ranks.gathered(mine), ErrorSums())


def _labelled(potential: Potential, frames: PairedFrames, number: int) -> Labelled:
    """A frame with the pairs that were kept of it."""
    data = frames[number]
    item = make_item(to_structures(data), data.pbc[0].numpy(), potential.policy)
    labels = (data.energy, data.forces, data.stress)
    return Labelled(number, item, Values(*(label.numpy() for label in labels)))


def property_errors(model: PropertyModel, frames: PairedFrames, ranks: Ranks) -> dict[str, float]:
    """Errors over labelled frames that the processes share, as for all frames."""
    predicted, expected = [np.empty(0)], [np.empty(0)]
    with frozen(model):
        for batch in shared_batches(model, frames, ranks):
            predicted.append(model.predict(to_structures(batch)).cpu().numpy())
            expected.append(batch.property.numpy())
    every = ranks.gathered((np.concatenate(predicted), np.concatenate(expected)))
    found, wanted = (np.concatenate(values) for values in zip(*every, strict=True))
    return property_summary(model.target.kind, found, wanted)


def shared_batches(
    model: Model, frames: PairedFrames, ranks: Ranks, title: str = "validation"
) -> Iterator[Batch]:
    """Batches of the frames that fall to this process, with a progress bar on the first.

    Args:
        model: What will evaluate them; its size and graph decide how many go together.
        frames: All frames.
        ranks: This process among those that share them.
        title: Of the bar.
    """
    mine = range(ranks.rank, len(frames), ranks.size)
    items = (frames[index] for index in mine)
    with _bar(len(mine), title, ranks) as bar:
        for part in packed(model, items):
            yield Batch.from_data_list(part)
            bar.update(len(part))


def _bar(total: int, title: str, ranks: Ranks) -> tqdm:
    """A progress bar, on the first process."""
    hidden = ranks.rank > 0
    return tqdm(
        total=total, desc=title, unit="frame", leave=False, delay=SHOW_AFTER, disable=hidden
    )
