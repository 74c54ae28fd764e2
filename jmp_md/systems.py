"""Structures with neighbours of their own: one, or many that move together."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from ase import Atoms

from jmp_md.batch import BatchPredictor, Item, Result
from jmp_md.errors import InputError
from jmp_md.potential import Potential
from jmp_md.structures import Structures
from jmp_md.system import System, search_systems
from jmp_md.together import Together
from jmp_md.validate import ignored_electrons


class BatchedSystems:
    """Structures that move together: one call per step computes them all, neighbours are reused.

    Systems can come and go between steps, as when some of many relaxations have converged.
    Everything that has one entry per system is in the order of :attr:`keys`.

    Args:
        potential: The model, as :func:`jmp_md.load_model` gives it.
        structures: First systems.
        stress: Whether stress is wanted, where a structure has one.
        direct: Take forces from the direct force head.
        oc_tags: Whether tags of structures are OC20's; otherwise every atom gets tag 2.
        skin: Å by which neighbours are searched beyond the cutoff, to search less often; None
            takes what is fast on the device.
        max_edges: Largest number of main-graph edge slots in a batch; None finds it from the
            free memory.

    Raises:
        InputError: A structure the model cannot be used for.
    """

    def __init__(
        self,
        potential: Potential,
        structures: Iterable[Atoms] = (),
        *,
        stress: bool = False,
        direct: bool = False,
        oc_tags: bool = False,
        skin: float | None = None,
        max_edges: int | None = None,
    ) -> None:
        self._predictor = BatchPredictor(
            potential, stress=stress, direct=direct, max_edges=max_edges
        )
        self._oc_tags, self._skin = oc_tags, skin
        self._systems: dict[int, System] = {}
        self._batches: list[Together] = []
        self._added = 0
        self._warned = False
        for atoms in structures:
            self.add(atoms)

    def __len__(self) -> int:
        return len(self._systems)

    @property
    def keys(self) -> list[int]:
        """Keys of the systems, in the order they were added."""
        return list(self._systems)

    @property
    def rebuilds(self) -> int:
        """Neighbour searches of the present systems so far."""
        return sum(system.neighbours.rebuilds for system in self._systems.values())

    @property
    def max_edges(self) -> int:
        """Largest number of main-graph edge slots in a batch; it decides what is computed together,
        and so about the last bits of results."""
        return self._predictor.max_edges

    def __getitem__(self, key: int) -> System:
        return self._systems[key]

    def add(self, atoms: Atoms) -> int:
        """Add a structure; returns its key, which is never used again."""
        key = self._added
        with _naming(key):
            self._systems[key] = System(atoms, self._predictor.potential, self._skin, self._oc_tags)
        if not self._warned and (message := ignored_electrons(atoms)):
            self._warned = True
            warnings.warn(message, stacklevel=2)
        self._added += 1
        return key

    def remove(self, key: int) -> None:
        """Remove a system.

        Raises:
            InputError: There is none with that key.
        """
        if key not in self._systems:
            raise InputError(f"there is no system {key}: the keys are {self.keys}")
        del self._systems[key]

    def compute(
        self,
        positions: np.ndarray | Sequence[np.ndarray] | None = None,
        cells: Sequence[np.ndarray] | None = None,
        *,
        on_error: str = "raise",
    ) -> list[Result]:
        """Energies, forces and stress of all systems.

        Args:
            positions: One (n_atoms, 3) Å per system, or all atoms in one array; None leaves
                atoms where they are.
            cells: One (3, 3) Å per system; None leaves cells as they are.
            on_error: What becomes of a system that cannot be computed: ``"raise"``, or ``"keep"``
                to get a result of NaN with the error as its attribute ``error``.

        Raises:
            InputError: Arrays that do not fit the systems, or a system that cannot be computed.
        """
        if positions is not None:
            self._move(positions)
        results: dict[int, Result] = {}
        if cells is not None:
            self._deform(cells, results)
        here = [batch.here() for batch in self._batches]
        if any(structures is None for structures in here) or self._strangers(results):
            here = self._packed(here, results)
        for batch, structures in zip(self._batches, here, strict=True):
            results |= self._computed(batch, structures)
        if on_error == "raise":
            for key in self._systems:
                if (failure := results[key].error) is not None:
                    raise InputError(f"system {key}: {failure}") from failure
        return [results[key] for key in self._systems]

    def _deform(self, cells: Sequence[np.ndarray], failed: dict[int, Result]) -> None:
        """Take cells; systems they are nothing for are added to ``failed``."""
        self._require_one_each("cells", cells)
        for (key, system), given in zip(self._systems.items(), cells, strict=True):
            cell = _array(f"the cell of system {key}", given, (3, 3))
            if not np.array_equal(cell, system.cell):
                system.cell = cell
            try:
                system.check()
            except InputError as error:
                failed[key] = Result.failed(len(system.numbers), error)

    def _strangers(self, failed: Mapping[int, Result]) -> bool:
        """Whether batches hold other systems than those there are, but for the failed."""
        held = [key for batch in self._batches for key in batch.items]
        return sorted(held) != [key for key in self._systems if key not in failed]

    def _packed(
        self, here: Sequence[Structures | None], failed: dict[int, Result]
    ) -> list[Structures | None]:
        """Make those batches anew that do not hold; what all are now.

        Systems that cannot be computed are added to ``failed``.
        """
        kept = {}
        for batch, structures in zip(self._batches, here, strict=True):
            if structures is None:
                batch.forget()  # all of it: the others would not hold much longer
            else:
                kept[tuple(batch.items)] = batch
        items: dict[int, Item] = {}
        search_systems(s for key, s in self._systems.items() if key not in failed)
        for key, system in self._systems.items():
            if key not in failed:
                try:
                    items[key] = system.item()
                except InputError as error:
                    failed[key] = Result.failed(len(system.numbers), error)
        keys, self._batches = list(items), []
        for chosen in self._predictor.packed(list(items.values())):
            own = {keys[i]: items[keys[i]] for i in chosen}
            known = kept.get(tuple(own))
            fresh = known or Together(self._predictor.potential, self._systems, own)
            self._batches.append(fresh)
        return [batch.here() for batch in self._batches]

    def _computed(self, batch: Together, here: Structures | None) -> dict[int, Result]:
        """Results of a batch, by key."""
        found = self._predictor.joined(here, list(batch.items.values())) if here else []
        if not found:  # too large, or something is not finite: by other ways, and packed anew
            self._batches = []
            found = self._predictor.predict([self._systems[k].item_here() for k in batch.items])
        return dict(zip(batch.items, found, strict=True))

    def _move(self, positions: np.ndarray | Sequence[np.ndarray]) -> None:
        sizes = [len(system.numbers) for system in self._systems.values()]
        if isinstance(positions, np.ndarray):
            flat = _array("positions of all systems", positions, (sum(sizes), 3))
            positions = np.split(flat, np.cumsum(sizes)[:-1]) if sizes else []
        self._require_one_each("positions", positions)
        for (key, system), given in zip(self._systems.items(), positions, strict=True):
            system.positions = _array(f"positions of system {key}", given, system.positions.shape)

    def _require_one_each(self, name: str, given: Sequence[np.ndarray]) -> None:
        if len(given) != len(self):
            raise InputError(f"{len(given)} {name} for {len(self)} systems: give one for each")


def _array(what: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.array(value, dtype=np.float64)
    if array.shape != shape:
        raise InputError(f"{what} have shape {array.shape} instead of {shape}")
    return array


@contextmanager
def _naming(key: int) -> Iterator[None]:
    """Say which system an error is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"system {key}: {error}") from error
