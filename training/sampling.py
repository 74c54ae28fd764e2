"""Which frames each step takes, of one task or several."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from jmp_md.errors import InputError
from jmp_md.training.batches import Key
from jmp_md.training.shuffle import Shuffle


class Sampler(Protocol):
    """Which structures each step takes: a function of the step alone, so that runs can resume."""

    steps_per_epoch: int

    def batch(self, step: int) -> list[Key]:
        """Task and index of each structure of a step, counted from 0 over all epochs."""
        ...


class EpochSampler:
    """Every frame of a task once per epoch, in an order that depends on seed and epoch alone.

    Args:
        task: Name of the task.
        n_frames: Frames of the data set.
        batch_size: Frames per step; the last step of an epoch takes what is left.
        seed: Of the shuffles.
    """

    def __init__(self, task: str, n_frames: int, batch_size: int, seed: int) -> None:
        self.task, self.n_frames = task, n_frames
        self.batch_size = batch_size
        self.seed = seed
        self.steps_per_epoch = -(-n_frames // batch_size)
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def batch(self, step: int) -> list[Key]:
        """Task and index of each frame of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.n_frames)
        chosen = self._order[place * self.batch_size :][: self.batch_size]
        return [(self.task, index) for index in chosen.tolist()]


def expanded_sizes(sizes: Sequence[int], temperature: float) -> list[int]:
    """Times each data set is repeated in an epoch, as numbers of frames (arXiv 2310.16802, 3.1).

    With p_i ~ n_i^(1/T) and f_i = p_i / n_i, a set of n_i frames counts ceil(n_i f_i / min f).

    Args:
        sizes: Frames of each set.
        temperature: T; 1 leaves the sets as they are, infinity makes all as large as the largest.
    """
    n = np.asarray(sizes, dtype=np.float64)
    if not len(n) or n.min() < 1:
        raise InputError("every task of a mix needs at least one training frame")
    # Relative to the largest set, for which f is smallest, this is n_i (n_max / n_i)^(1 - 1/T).
    repeats = (n.max() / n) ** (1.0 - 1.0 / temperature)
    if temperature < 1:
        repeats /= repeats.min()
    return [math.ceil(x - 1e-9 * x) for x in n * repeats]


class ReplaySampler:
    """Frames of a new head and of one that is replayed, in fixed shares of each step.

    Args:
        new, replayed: Sampler of each; epochs are those of the new one.
    """

    def __init__(self, new: EpochSampler, replayed: EpochSampler) -> None:
        self.new, self.replayed = new, replayed
        self.steps_per_epoch = new.steps_per_epoch

    def batch(self, step: int) -> list[Key]:
        """Task and index of each frame of a step."""
        return self.new.batch(step) + self.replayed.batch(step)


class MixSampler:
    """Frames of several data sets in proportions by temperature, shuffled without any list.

    Args:
        sizes: Frames of each task.
        temperature: See :func:`expanded_sizes`.
        batch_size: Frames per step; what is left at the end of an epoch takes no step.
        seed: Of the shuffles.
    """

    def __init__(
        self, sizes: Mapping[str, int], temperature: float, batch_size: int, seed: int
    ) -> None:
        self.tasks = list(sizes)
        self.sizes = list(sizes.values())
        self.ends = np.cumsum(expanded_sizes(self.sizes, temperature))
        self.batch_size = batch_size
        self.seed = seed
        self.steps_per_epoch = max(int(self.ends[-1]) // batch_size, 1)
        self._epoch = -1

    def batch(self, step: int) -> list[Key]:
        """Task and index of each frame of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, Shuffle(int(self.ends[-1]), [self.seed, epoch])
        start = place * self.batch_size
        end = min(start + self.batch_size, int(self.ends[-1]))
        chosen = self._order[np.arange(start, end)]
        tasks = np.searchsorted(self.ends, chosen, side="right")
        within = chosen - np.concatenate([[0], self.ends])[tasks]
        return [(self.tasks[t], int(k) % self.sizes[t]) for t, k in zip(tasks, within, strict=True)]


class SortedSampler:
    """Batches of structures of similar size, which pad little.

    The structures of consecutive steps are sorted by their numbers of atoms and cut into batches
    again, which then come in an order drawn at random. A batch keeps its number of structures, an
    epoch its structures.

    Args:
        sampler: Which structures there are.
        n_atoms: Atoms of one of them.
        steps: How many steps are sorted together; those at the end of an epoch may be fewer.
        seed: Of the order of the batches.
    """

    def __init__(
        self, sampler: Sampler, n_atoms: Callable[[Key], int], steps: int, seed: int
    ) -> None:
        self.sampler, self.n_atoms, self.steps, self.seed = sampler, n_atoms, steps, seed
        self.steps_per_epoch = sampler.steps_per_epoch
        self._window = (-1, -1)
        self._batches: list[list[Key]] = []

    def batch(self, step: int) -> list[Key]:
        """Task and index of each frame of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        number, within = divmod(place, self.steps)
        if (epoch, number) != self._window:
            first, end = number * self.steps, min((number + 1) * self.steps, self.steps_per_epoch)
            drawn = [
                self.sampler.batch(epoch * self.steps_per_epoch + k) for k in range(first, end)
            ]
            keys = sorted((key for keys in drawn for key in keys), key=self.n_atoms)
            ends = np.cumsum([len(keys) for keys in drawn])
            parts = [keys[e - len(own) : e] for e, own in zip(ends, drawn, strict=True)]
            order = np.random.default_rng([self.seed, epoch, number]).permutation(len(parts))
            self._window, self._batches = (epoch, number), [parts[k] for k in order]
        return self._batches[within]
