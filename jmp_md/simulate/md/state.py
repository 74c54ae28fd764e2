"""Structures in motion: all that the next step depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import units

from jmp_md.simulate.md.constraints import Constraints
from jmp_md.simulate.md.segments import Segments

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.simulate.forces import Computed


@dataclass
class State:
    """Several structures, whose atoms stand in one row, on their way.

    Units are ASE's: eV, Å, amu and for time Å (amu/eV)^½, which is 10.18 fs, so that equations of
    motion have no factors.

    Attributes:
        segments: Which atoms belong to which structure.
        constraints: What holds them.
        positions: (n_atoms, 3).
        momenta: (n_atoms, 3).
        masses: (n_atoms, 1).
        cells: (n_structures, 3, 3), rows are lattice vectors.
        rngs: A source of random numbers for each structure.
        extended: Variables of thermostats and barostats by name, (n_structures, ...).
        computed: Energies, forces and stresses of where the atoms are.
        energy: (n_structures,) potential energy with that of springs.
        driving: (n_atoms, 3) forces that move atoms: with springs, without what constraints hold.
    """

    segments: Segments
    constraints: Constraints
    positions: np.ndarray
    momenta: np.ndarray
    masses: np.ndarray
    cells: np.ndarray
    rngs: list[np.random.Generator]
    extended: dict[str, np.ndarray] = field(default_factory=dict)
    computed: Computed = None  # type: ignore[assignment]
    energy: np.ndarray = None  # type: ignore[assignment]
    driving: np.ndarray = None  # type: ignore[assignment]

    @classmethod
    def of(
        cls,
        structures: Sequence[Atoms],
        rngs: Sequence[np.random.Generator],
        remove_drift: bool = True,
    ) -> State:
        """The state of structures with the momenta that they have.

        Args:
            structures: One atom or more each; see
                :func:`~jmp_md.simulate.md.constraints.check_constraints`.
            rngs: A source of random numbers for each.
            remove_drift: See :class:`~jmp_md.simulate.md.constraints.Constraints`.
        """
        state = cls(
            Segments([len(atoms) for atoms in structures]),
            Constraints(structures, remove_drift),
            np.concatenate([atoms.positions for atoms in structures]),
            np.concatenate([atoms.get_momenta() for atoms in structures]),
            np.concatenate([atoms.get_masses() for atoms in structures])[:, None],
            np.array([atoms.cell.array for atoms in structures]),
            list(rngs),
        )
        state.momenta = state.constraints.project(state.momenta, state.positions)
        return state

    def __len__(self) -> int:
        return len(self.segments)

    def take(self, computed: Computed) -> None:
        """Take energies and forces of where the atoms are."""
        self.computed = computed
        energy, own = self.constraints.springs(self.positions)
        self.energy = computed.energy + energy
        self.driving = self.constraints.project(computed.forces + own, self.positions)

    def draw_momenta(self, temperature: float, drawn: np.ndarray) -> None:
        """Draw momenta of a Maxwell-Boltzmann distribution, on average of ``temperature``.

        Nothing is rescaled: a microcanonical start would have no fluctuation.

        Args:
            temperature: K.
            drawn: (n_structures,) bool, those to draw for.
        """
        width = np.sqrt(self.masses * units.kB * temperature)
        momenta = self.constraints.project(width * self.noise(), self.positions)
        self.momenta = np.where(self.segments.spread(drawn)[:, None], momenta, self.momenta)

    def noise(self) -> np.ndarray:
        """Standard normal numbers (n_atoms, 3) from the sources of the structures."""
        counts = self.segments.counts.tolist()
        rows = [rng.standard_normal((n, 3)) for rng, n in zip(self.rngs, counts, strict=True)]
        return np.concatenate(rows)

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal numbers (n_structures, *shape)."""
        return np.array([rng.standard_normal(shape) for rng in self.rngs])

    def kinetic(self) -> np.ndarray:
        """Kinetic energy (n_structures,) in eV."""
        return 0.5 * self.segments.sum((self.momenta**2 / self.masses).sum(axis=1))

    def volumes(self) -> np.ndarray:
        """Volumes (n_structures,) in Å³ of the cells."""
        return np.abs(np.linalg.det(self.cells))

    def keep(self, kept: np.ndarray) -> None:
        """Go on with some of the structures: (n_structures,) bool."""
        atoms = self.segments.spread(kept)
        for name in ("positions", "momenta", "masses", "driving"):
            setattr(self, name, getattr(self, name)[atoms])
        self.cells, self.energy = self.cells[kept], self.energy[kept]
        self.computed.energy = self.computed.energy[kept]
        self.computed.forces = self.computed.forces[atoms]
        self.computed.stress = self.computed.stress[kept]
        self.computed.errors = {}
        self.extended = {name: values[kept] for name, values in self.extended.items()}
        self.rngs = [rng for rng, k in zip(self.rngs, kept, strict=True) if k]
        self.constraints.keep(kept)
        self.segments = self.segments.keep(kept)

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays that :meth:`restore` needs."""
        found = {"positions": self.positions, "momenta": self.momenta, "cells": self.cells}
        return found | {f"extended/{name}": value for name, value in self.extended.items()}

    def facts(self) -> dict[str, Any]:
        """What else it needs, as JSON can hold it."""
        return {"rngs": [rng.bit_generator.state for rng in self.rngs]}

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Take up what :meth:`arrays` and :meth:`facts` said of the same structures."""
        self.positions, self.momenta = arrays["positions"], arrays["momenta"]
        self.cells = arrays["cells"]
        for name in self.extended:
            self.extended[name] = arrays[f"extended/{name}"]
        for rng, state in zip(self.rngs, facts["rngs"], strict=True):
            rng.bit_generator.state = state


def thermometer(state: State, timestep: float) -> np.ndarray:
    """Temperature (n_structures,) in K, of momenta at the half steps before and after.

    With momenta p at the whole step and forces F, the mean of both is p²/2m + (F dt)²/8m.
    Positions of Verlet's scheme are those of a harmonic motion whose momenta at the half steps
    have the right mean square, while momenta at whole steps are too small by (ω dt)²/4: 3 % for
    an O-H bond at 0.5 fs. Eastwood et al., J. Chem. Theory Comput. 6, 2045 (2010).

    Args:
        state: Structures with forces.
        timestep: In ASE's unit.
    """
    squares = state.momenta**2 + (0.5 * timestep * state.driving) ** 2
    twice = state.segments.sum((squares / state.masses).sum(axis=1))
    return twice / (state.constraints.freedom * units.kB)
