"""Batches of many structures, packed so that they fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from jmp_md.errors import InputError
from jmp_md.forks import expect_threads
from jmp_md.graph.pairs import pair_distances
from jmp_md.graph.policy import GraphPolicy
from jmp_md.memory import is_out_of_memory
from jmp_md.nn.config import BackboneConfig
from jmp_md.nn.footprint import edges_that_fit
from jmp_md.potential import Potential, Prediction
from jmp_md.structures import Structures, concatenate, has_stress, periodic_stress

PAIRS_AT_ONCE = 2_000_000  # about 100 MB; the pairs of a long list would not fit in memory
# A processor gains nothing from larger batches (benchmarks/batching.py); an accelerator does.
_MOST_EDGES, _MOST_EDGES_CUDA = 4_096, 262_144
# Empty slots that take as long as a call of its own takes before it computes anything.
_CALL, _CALL_CUDA = 370, 30_000

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Result:
    """What a model says of one structure.

    Attributes:
        energy: eV.
        energies: (n_atoms,) eV; they sum to ``energy``.
        forces: (n_atoms, 3) eV/Å, or None when not asked for.
        stress: (3, 3) eV/Å³, positive under tension; None when not asked for or where the
            structure is not periodic or its cell has no volume; of strains within its periodic
            directions, see :func:`jmp_md.structures.periodic_stress`.
        error: Why the structure could not be computed; energies and forces are NaN then.
    """

    energy: float
    energies: np.ndarray
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None
    error: InputError | None = None

    @classmethod
    def failed(cls, n_atoms: int, error: InputError) -> Result:
        """The result of a structure that could not be computed."""
        missing = np.full((n_atoms, 3), np.nan)
        return cls(float("nan"), missing[:, 0], missing, error=error)


class Item(NamedTuple):
    """One structure with what packing needs to know.

    Attributes:
        structures: The structure.
        pbc: (3,) bool, the directions in which it is periodic.
        degree: Largest number of edges of the main graph into one atom, as estimated.
    """

    structures: Structures
    pbc: np.ndarray
    degree: int

    @property
    def has_stress(self) -> bool:
        """Whether it is periodic, in a cell that has a volume."""
        return has_stress(self.structures.cells[0].numpy(), self.pbc)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.structures.numbers)


def make_item(structures: Structures, pbc: np.ndarray, policy: GraphPolicy) -> Item:
    """Count the neighbours that the main graph of ``policy`` will have in a single structure.

    Official graphs keep the nearest neighbours of either atom, so that a count can be exceeded
    by a little: an estimate is enough here.
    """
    pairs = structures.pairs
    positions, cell = structures.positions.numpy(), structures.cells[0].numpy()
    source, target, offset = (p.numpy() for p in (pairs.source, pairs.target, pairs.offset))
    near = pair_distances(positions, cell, source, target, offset) <= policy.cutoffs[0]
    degree = int(np.bincount(target[near], minlength=1).max())
    return Item(structures, pbc, min(degree, policy.counts[0] or degree))


def in_parts(
    structures: Iterable[T], item: Callable[[T], Item], at_once: int | None = None
) -> Iterator[list[T]]:
    """Structures a few at a time, so that a long list is never in memory as a whole.

    Args:
        structures: Whatever holds a structure, made as it is asked for.
        item: Its item.
        at_once: How many at most; by default as many as have :data:`PAIRS_AT_ONCE` pairs.
    """
    part: list[T] = []
    n_pairs = 0
    for each in structures:
        part.append(each)
        n_pairs += len(item(each).structures.pairs.source)
        if n_pairs > PAIRS_AT_ONCE or len(part) == at_once:
            yield part
            part, n_pairs = [], 0
    if part:
        yield part


class BatchPredictor:
    """Predicts any number of structures in batches that fit in memory.

    The network gives every atom of a batch as many edge slots as the atom with the most edges
    has. Structures of alike density therefore go together, and a batch is measured by its slots.
    Where memory runs out all the same, the batch is halved and the limit stays lower from then on.

    Args:
        potential: The model.
        forces: Whether forces are wanted.
        stress: Whether stress is wanted, where a structure has one.
        direct: Take forces from the direct force head.
        max_edges: Largest number of main-graph edge slots in a batch; None finds it from the
            free memory.

    Attributes:
        max_edges: The limit in force.

    Raises:
        InputError: A limit below 1.
    """

    def __init__(
        self,
        potential: Potential,
        *,
        forces: bool = True,
        stress: bool = False,
        direct: bool = False,
        max_edges: int | None = None,
    ) -> None:
        if max_edges is not None and max_edges < 1:
            raise InputError(f"max_edges = {max_edges}: must be at least 1; 10000 is usual")
        self.potential = potential
        self.max_edges = max_edges or usual_edges(
            potential.header.architecture, potential.embedding.weight
        )
        self._call = _CALL_CUDA if potential.embedding.weight.is_cuda else _CALL
        self._forces, self._stress, self._direct = forces, stress, direct

    def predict(self, items: Sequence[Item]) -> list[Result]:
        """Results in the order of ``items``; a structure that fails does not affect others."""
        expect_threads()
        results: dict[int, Result] = {}
        pending = sorted(range(len(items)), key=lambda i: self._place(items[i]))
        while pending:
            batch = self._next(items, pending)
            chosen = [items[i] for i in batch]
            prediction = self._if_it_fits(concatenate([i.structures for i in chosen]), chosen)
            if prediction is None and len(batch) > 1:
                self.max_edges = max(_slots(chosen) // 2, 1)
                _release_memory(self.potential)
                continue
            results.update(zip(batch, self._results(prediction, chosen), strict=True))
            pending = pending[len(batch) :]
        return [results[i] for i in range(len(items))]

    def packed(self, items: Sequence[Item]) -> list[list[int]]:
        """Indices of the items that go together."""
        pending = sorted(range(len(items)), key=lambda i: self._place(items[i]))
        batches: list[list[int]] = []
        while pending:
            batches.append(self._next(items, pending))
            pending = pending[len(batches[-1]) :]
        return batches

    def joined(self, structures: Structures, items: Sequence[Item]) -> list[Result]:
        """Results of one batch.

        Args:
            structures: The batch.
            items: What it consists of.

        Returns:
            The results; none where memory ran out or a value is not finite, for which
            :meth:`predict` knows a way.
        """
        expect_threads()
        prediction = self._if_it_fits(structures, items)
        if prediction is None or not _is_finite(prediction):
            return []
        return list(_split(prediction, items))

    def _next(self, items: Sequence[Item], pending: list[int]) -> list[int]:
        """The first of ``pending`` that fit together; at least one."""
        n_atoms = n_edges = 0
        kind = self._place(items[pending[0]])[0]
        for count, i in enumerate(pending):
            n_atoms += items[i].n_atoms
            n_edges += items[i].n_atoms * items[i].degree
            apart = self._place(items[i])[0] != kind
            slots = n_atoms * items[i].degree
            if count and (apart or slots > self.max_edges or slots - n_edges > self._call):
                return pending[:count]
        return pending

    def _place(self, item: Item) -> tuple[bool, int, int]:
        """Sort key: those with a stress last, then by degree and size."""
        return self._stress and item.has_stress, item.degree, item.n_atoms

    def _results(self, prediction: Prediction | None, items: Sequence[Item]) -> list[Result]:
        """What a batch gives; of one that memory is too small for, why."""
        if prediction is None:
            return [_too_large(item) for item in items]
        if _is_finite(prediction):
            return list(_split(prediction, items))
        if len(items) > 1:  # not finite times the zero of an empty slot spoils the others, too
            alone = ((self._if_it_fits(i.structures, [i]), [i]) for i in items)
            return [result for each in alone for result in self._results(*each)]
        error = InputError(
            f"model {self.potential.header.name!r} gives values that are not finite: the structure "
            "is too far from its training data; check for atoms too close"
        )
        return [Result.failed(items[0].n_atoms, error)]

    def _if_it_fits(self, structures: Structures, items: Sequence[Item]) -> Prediction | None:
        """On the host; None where memory ran out."""
        try:
            return self._prediction(structures, items)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return None  # outside of the handler: the traceback of the error keeps tensors alive

    def _prediction(self, structures: Structures, items: Sequence[Item]) -> Prediction:
        """On the host."""
        return self.potential.predict(
            structures,
            forces=self._forces,
            stress=self._stress and items[0].has_stress,
            direct=self._direct,
        ).on_host()


def _slots(items: Iterable[Item]) -> int:
    """Main-graph edge slots of a batch: atoms times the largest degree."""
    items = list(items)
    return sum(item.n_atoms for item in items) * max(item.degree for item in items)


def _split(prediction: Prediction, items: Sequence[Item]) -> Iterator[Result]:
    """A result per structure from those of a batch."""
    energies, forces, stress = (
        None if t is None else t.double().numpy()
        for t in (prediction.energies, prediction.forces, prediction.stress)
    )
    assert energies is not None
    start = 0
    for k, (energy, item) in enumerate(zip(prediction.energy.tolist(), items, strict=True)):
        own = slice(start, start + item.n_atoms)
        start += item.n_atoms
        cell = item.structures.cells[0].numpy()
        yield Result(
            energy,
            energies[own],
            None if forces is None else forces[own],
            None if stress is None else periodic_stress(stress[k], cell, item.pbc),
        )


def _is_finite(prediction: Prediction) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in prediction if t is not None)


def _too_large(item: Item) -> Result:
    error = InputError(
        f"the structure, of {item.n_atoms} atoms, does not fit in memory even alone: use float32, "
        "a device with more memory, or a smaller model"
    )
    return Result.failed(item.n_atoms, error)


def _release_memory(potential: Potential) -> None:
    if potential.embedding.weight.is_cuda:
        torch.cuda.empty_cache()  # what the failed batch left in pieces


def usual_edges(sizes: BackboneConfig, weight: torch.Tensor) -> int:
    """Slots that half of the free memory holds, but no more than are of use.

    Args:
        sizes: Of the network.
        weight: One of its weights, which tells the device and the type.
    """
    fitting = edges_that_fit(sizes, weight)
    return max(min(fitting, _MOST_EDGES_CUDA if weight.is_cuda else _MOST_EDGES), 1)
