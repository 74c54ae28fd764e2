"""From frames of a data set to batches on the device, through torch-geometric's loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from jmp_md.graph.pairs import Pairs, find_pairs
from jmp_md.structures import Structures
from jmp_md.training.data.frame import Dataset, Frame


class StructureData(Data):
    """A frame with its candidate pairs; torch-geometric shifts the indices when it batches."""

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key in ("source", "target"):
            return self.num_nodes
        if key == "reverse":
            return self.reverse.numel()
        return super().__inc__(key, value, *args, **kwargs)


def to_data(frame: Frame, cutoff: float) -> StructureData:
    """Search pairs to ``cutoff`` Å and turn everything into tensors (float64)."""
    cell = np.zeros((3, 3)) if frame.cell is None else frame.cell
    pairs = find_pairs(frame.positions, cell, np.array(frame.pbc), cutoff)
    n = len(frame)
    tags = np.full(n, 2) if frame.tags is None else frame.tags
    data = StructureData(
        positions=torch.from_numpy(np.ascontiguousarray(frame.positions)),
        numbers=torch.from_numpy(frame.numbers.astype(np.int64)),
        tags=torch.from_numpy(tags.astype(np.int64)),
        cells=torch.from_numpy(np.array(cell, dtype=np.float64)).view(1, 3, 3),
        **pairs._asdict(),
        num_nodes=n,
    )
    if frame.energy is not None:
        data.energy = torch.tensor([frame.energy], dtype=torch.float64)
    if frame.forces is not None:
        data.forces = torch.from_numpy(np.ascontiguousarray(frame.forces))
    return data


class PairedFrames(torch.utils.data.Dataset):
    """Frames of a data set with their pairs, kept in memory once they were made.

    Args:
        dataset: Where frames come from.
        cutoff: Å, how far pairs reach.
    """

    def __init__(self, dataset: Dataset, cutoff: float) -> None:
        self.dataset = dataset
        self.cutoff = cutoff
        self._made: dict[int, StructureData] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> StructureData:
        if index not in self._made:
            self._made[index] = to_data(self.dataset[index], self.cutoff)
        return self._made[index]


def to_structures(batch: Data) -> Structures:
    """A torch-geometric batch (or a single item) as the network takes it."""
    structure = batch.batch if "batch" in batch else torch.zeros(batch.num_nodes, dtype=torch.long)
    pairs = Pairs(batch.source, batch.target, batch.offset, batch.reverse)
    return Structures(batch.positions, batch.numbers, batch.tags, structure, batch.cells, pairs)


def epoch_batches(frames: PairedFrames, batch_size: int, seed: int, epoch: int) -> Iterable[Data]:
    """Shuffled batches of one epoch; the order depends on seed and epoch alone."""
    order = np.random.default_rng([seed, epoch]).permutation(len(frames))
    return DataLoader(frames, batch_size=batch_size, sampler=order.tolist())


def ordered_batches(frames: PairedFrames, batch_size: int) -> Iterator[Data]:
    """Batches in the order of the data set."""
    yield from DataLoader(frames, batch_size=batch_size, shuffle=False)


def labels(batch: Data, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Energies (n_structures,) in float64 eV and forces (n_atoms, 3) eV/Å; NaN where missing."""
    energy = batch.energy if "energy" in batch else torch.full((batch.cells.shape[0],), torch.nan)
    forces = batch.forces if "forces" in batch else torch.full_like(batch.positions, torch.nan)
    return energy.to(device), forces.to(device, dtype)
