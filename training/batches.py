"""From frames of a data set to batches on the device, through torch-geometric."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch_geometric.data import Batch, Data

from jmp_md.errors import InputError
from jmp_md.graph.pairs import Pairs, complete_cell, find_pairs, near_origin
from jmp_md.structures import Structures
from jmp_md.training.data.frame import Dataset, Frame, n_atoms

Key = tuple[str, int]  # name of the task, index of the frame
CACHE = 2**30  # bytes for pairs, where nothing else is said


class StructureData(Data):
    """A structure with its pairs and labels; torch-geometric shifts the indices when it batches.

    What an item holds, and in the same form a batch of n_structures of them, float64 where nothing
    else is said:

    ==========  ======================  ======================================================
    key         shape                   meaning
    ==========  ======================  ======================================================
    positions   (n_atoms, 3)            Å, about the origin
    numbers     (n_atoms,) int64        atomic numbers
    tags        (n_atoms,) int64        of OC20; 2 for anything else
    cells       (n_structures, 3, 3)    Å, rows are lattice vectors, zero without
    pbc         (n_structures, 3) bool  directions in which it is periodic
    source      (n_pairs,) int32        atom the pair comes from, counted over the batch
    target      (n_pairs,) int32        atom it goes to
    offset      (n_pairs, 3) int8       cells between the two
    reverse     (n_pairs,) int32        the same pair the other way round
    energy      (n_structures,)         eV; NaN without label, as in all labels
    forces      (n_atoms, 3)            eV/Å; NaN on atoms that were held in place
    stress      (n_structures, 3, 3)    eV/Å³, positive under tension
    weight      (n_structures,)         of the structure in the loss
    property    (n_structures,)         in its own unit, where the task has one
    batch       (n_atoms,) int64        structure of each atom; of batches alone
    ==========  ======================  ======================================================

    Pairs are most of the memory, so kept in 15 bytes each; :func:`to_structures` widens them.
    """

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key in ("source", "target"):
            return self.num_nodes
        if key == "reverse":
            return self.reverse.numel()
        return super().__inc__(key, value, *args, **kwargs)


def to_data(
    frame: Frame, cutoff: float, target: str | None = None, weight: str | None = None
) -> StructureData:
    """Search pairs to ``cutoff`` Å and turn everything into tensors (float64).

    Positions are those of the same structure near the origin, as models are often float32.
    Labels a frame lacks are NaN, and so are forces on atoms that were held in place.

    Args:
        frame: The structure.
        cutoff: Å.
        target: Name of the property to keep, if any.
        weight: Name of the number that weighs the frame in the loss; None weighs all alike.

    Raises:
        InputError: The frame has no such property or weight.
    """
    cell = np.zeros((3, 3)) if frame.cell is None else frame.cell
    pbc = np.array(frame.pbc)
    complete = complete_cell(cell, pbc)
    periodic = np.where(pbc[:, None], complete, 0.0)
    positions = near_origin(frame.positions, np.linalg.inv(complete), periodic)
    pairs = find_pairs(positions, cell, pbc, cutoff)
    n = len(frame)
    forces = np.full((n, 3), np.nan) if frame.forces is None else frame.forces.copy()
    if frame.fixed is not None:
        forces[frame.fixed] = np.nan
    data = StructureData(
        positions=_tensor(positions),
        numbers=_tensor(frame.numbers, np.int64),
        tags=_tensor(np.full(n, 2) if frame.tags is None else frame.tags, np.int64),
        cells=_tensor(cell).view(1, 3, 3),
        pbc=_tensor([frame.pbc], np.bool_),
        **_compact(pairs),
        energy=_tensor([np.nan if frame.energy is None else frame.energy]),
        forces=_tensor(forces),
        stress=_tensor(np.full((3, 3), np.nan) if frame.stress is None else frame.stress)[None],
        weight=_tensor([1.0 if weight is None else _target(frame, weight)]),
        num_nodes=n,
    )
    if target is not None:
        data.property = _tensor([_target(frame, target)])
    return data


def _target(frame: Frame, name: str) -> float:
    if name not in frame.targets:
        raise InputError(
            f"a frame (system {frame.system!r}) has no target {name!r}; it has "
            f"{', '.join(frame.targets) or 'none'}"
        )
    return frame.targets[name]


class PairedFrames(torch.utils.data.Dataset):
    """Frames of a data set with their pairs.

    Args:
        dataset: Where frames come from.
        cutoff: Å, how far pairs reach.
        target: Name of the property to keep, if any.
        cache: Bytes of memory for those that were made; further ones are made again each time.
        weight: Name of the number that weighs a frame in the loss, if any.
    """

    def __init__(
        self,
        dataset: Dataset,
        cutoff: float,
        target: str | None = None,
        cache: int = CACHE,
        weight: str | None = None,
    ) -> None:
        self.dataset = dataset
        self.cutoff = cutoff
        self.target = target
        self.weight = weight
        self.cache = self._left = cache
        self._made: dict[int, StructureData] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> StructureData:
        if index in self._made:
            return self._made[index]
        data = to_data(self.dataset[index], self.cutoff, self.target, self.weight)
        size = sum(value.nbytes for _, value in data if isinstance(value, Tensor))
        if size <= self._left:  # frames come in random order: none is worth more than another
            self._left -= size
            self._made[index] = data
        return data

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}, "_left": self.cache}  # a worker keeps its own

    def n_atoms(self, index: int) -> int:
        """Atoms of a frame; a prepared data set knows without reading it."""
        if index in self._made:
            return int(self._made[index].num_nodes)
        return n_atoms(self.dataset, index)

    def sample(self, n: int, seed: int) -> list[StructureData]:
        """At most ``n`` frames, drawn with a seed."""
        chosen = np.random.default_rng(seed).permutation(len(self))[:n]
        return [self[index] for index in sorted(chosen.tolist())]


class TaskFrames(torch.utils.data.Dataset):
    """Frames of one task or several, batched task by task.

    Each task has graphs of its own, so its structures form a batch of their own; all go through
    the one backbone within a step.

    Args:
        tasks: Frames of each task.
    """

    def __init__(self, tasks: Mapping[str, PairedFrames]) -> None:
        self.tasks = dict(tasks)

    def __getitem__(self, key: Key) -> tuple[str, StructureData]:
        task, index = key
        return task, self.tasks[task][index]

    def n_atoms(self, key: Key) -> int:
        """Atoms of a frame."""
        task, index = key
        return self.tasks[task].n_atoms(index)

    def collate(self, items: list[tuple[str, StructureData]]) -> dict[str, Batch]:
        """A batch per task that occurs."""
        parts: dict[str, list[StructureData]] = {}
        for task, data in items:
            parts.setdefault(task, []).append(data)
        return {task: Batch.from_data_list(part) for task, part in parts.items()}


def to_structures(batch: Data) -> Structures:
    """A torch-geometric batch (or a single item) as the network takes it."""
    structure = batch.batch if "batch" in batch else torch.zeros(batch.num_nodes, dtype=torch.long)
    pairs = Pairs(*(batch[name].long() for name in Pairs._fields))
    return Structures(batch.positions, batch.numbers, batch.tags, structure, batch.cells, pairs)


def batches(
    frames: TaskFrames, keys: Iterable[Sequence[Key]], workers: int
) -> Iterator[dict[str, Batch]]:
    """Batches of the given keys, made by ``workers`` processes, or here where there are none.

    The processes, and what they keep, last as long as the iterator.
    """
    loader: DataLoader[Any] = DataLoader(
        frames,
        batch_sampler=keys,  # type: ignore[arg-type]
        collate_fn=frames.collate,
        num_workers=workers,
        worker_init_fn=_ignore_interrupts,
    )
    return iter(loader)


def _ignore_interrupts(worker: int) -> None:
    """Signals reach all processes of a terminal or a job; that which trains decides, and ends."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)


def labels(batch: Data, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Energies (n_structures,) in float64 eV and forces (n_atoms, 3) eV/Å; NaN where missing."""
    return batch.energy.to(device), batch.forces.to(device, dtype)


def _compact(pairs: Pairs) -> dict[str, Tensor]:
    """Pairs in fewer bytes.

    Raises:
        InputError: An offset of more cells than a byte holds.
    """
    if pairs.offset.numel() and int(pairs.offset.abs().max()) > 127:
        raise InputError(
            "a structure has pairs of atoms more than 127 cells apart: its cell vectors are too "
            "short, or its atoms too far outside the cell; wrap them into it"
        )
    dtypes = (torch.int32, torch.int32, torch.int8, torch.int32)
    return {n: x.to(d) for n, x, d in zip(Pairs._fields, pairs, dtypes, strict=True)}


def _tensor(values: Any, dtype: Any = np.float64) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=dtype))
