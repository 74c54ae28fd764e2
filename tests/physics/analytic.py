"""Systems whose statistics are known by analysis, many of them computed in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from jmp_md.simulate.forces import Computed
from jmp_md.simulate.md.integrators import Integrator
from jmp_md.simulate.md.options import MDOptions
from jmp_md.simulate.md.state import State, thermometer


class Analytic:
    """Forces of structures of one size: subclasses give energies, forces and stress of all."""

    def potential(
        self, positions: np.ndarray, cells: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Energies (s,), forces (s, n, 3), stresses (s, 3, 3) at (s, n, 3) and (s, 3, 3)."""
        raise NotImplementedError

    def compute(self, positions: np.ndarray, cells: np.ndarray) -> Computed:
        n = len(cells)
        energy, forces, stress = self.potential(positions.reshape(n, -1, 3), cells)
        if stress is None:
            stress = np.full((n, 3, 3), np.nan)
        return Computed(energy, forces.reshape(-1, 3), stress)

    def add(self, atoms: Atoms) -> None:
        pass

    def keep(self, kept: np.ndarray) -> None:
        pass

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def facts(self) -> dict[str, Any]:
        return {}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        pass


class Free(Analytic):
    """No forces at all."""

    def potential(self, positions, cells):
        return np.zeros(len(cells)), np.zeros_like(positions), None


class Wells(Analytic):
    """Each atom in a harmonic well of its own, of other stiffness along x, y and z (eV/Å²)."""

    def __init__(self, centres: np.ndarray, stiffness: Sequence[float] = (1.0, 2.0, 3.5)) -> None:
        self.centres, self.stiffness = centres, np.array(stiffness)

    def potential(self, positions, cells):
        moved = positions - self.centres
        return 0.5 * (self.stiffness * moved**2).sum(axis=(1, 2)), -self.stiffness * moved, None


class Quartic(Analytic):
    """Wells with a steep wall, and springs between atoms: no motion is apart from the others."""

    def __init__(self, centres: np.ndarray, stiffness: float = 1.0, coupling: float = 1.0) -> None:
        self.centres, self.stiffness, self.coupling = centres, stiffness, coupling

    def potential(self, positions, cells):
        moved = positions - self.centres
        square = (moved**2).sum(axis=2, keepdims=True)
        weight = np.array([1.0, 1.7, 2.3])
        energy = (0.5 * self.stiffness * weight * moved**2).sum(axis=(1, 2))
        energy += 5.0 * (square**2).sum(axis=(1, 2))
        forces = -self.stiffness * weight * moved - 20.0 * square * moved
        step = moved - np.roll(moved, 1, axis=1)
        energy += 0.5 * self.coupling * (step**2).sum(axis=(1, 2))
        forces -= self.coupling * (step - np.roll(step, -1, axis=1))
        return energy, forces, None


class LennardJones(Analytic):
    """All pairs, in a cubic or any cell with the nearest image, truncated smoothly (argon)."""

    epsilon, sigma, cutoff = 0.0104, 3.4, 8.0

    def potential(self, positions, cells):
        n = positions.shape[1]
        i, j = np.triu_indices(n, 1)
        apart = positions[:, j] - positions[:, i]
        volume = np.abs(np.linalg.det(cells))
        if (volume > 0).all():
            fractions = apart @ np.linalg.inv(cells)
            apart = (fractions - np.rint(fractions)) @ cells
        square = (apart**2).sum(axis=2)
        # (1 - (r/rc)²)³ takes the energy to zero with two derivatives
        u = np.maximum(1.0 - square / self.cutoff**2, 0.0)
        six = (self.sigma**2 / square) ** 3
        plain = 4 * self.epsilon * (six**2 - six)
        slope = 4 * self.epsilon * (-6 * six**2 + 3 * six) / square  # d/d(r²)
        energy = (plain * u**3).sum(axis=1)
        derivative = slope * u**3 - plain * 3 * u**2 / self.cutoff**2
        pull = 2 * derivative[:, :, None] * apart  # force on i
        forces = np.zeros_like(positions)
        for atom in range(n):
            forces[:, atom] = pull[:, i == atom].sum(axis=1) - pull[:, j == atom].sum(axis=1)
        stress = None
        if (volume > 0).all():
            stress = np.einsum("spa,spb->sab", pull, apart) / volume[:, None, None]
        return energy, forces, stress


class ElasticCell(Analytic):
    """Springs to sites that move with the cell, and an elastic energy of the cell alone.

    With u the distances of atoms from their sites, less the mean of all, and e the metric of the
    cell over that at the start, scaled to a determinant of 1,

        E = Σ (k/2 w u² + q u⁴) + B V0/2 (V/V0 - 1)² + c/2 |e - tr(e)/3|²

    The integral over u does not depend on the cell, so that the volume is distributed as
    exp(-(P V + U(V)) / kT) and, for large c, each off-diagonal element of e with variance kT/2c.
    """

    def __init__(self, cell: np.ndarray, sites: np.ndarray, bulk: float, shear: float) -> None:
        self.cell, self.sites = cell, sites  # fractional
        self.volume = abs(np.linalg.det(cell))
        self.bulk, self.shear, self.spring = bulk, shear, 3.0

    def metric(self, cells: np.ndarray) -> np.ndarray:
        """e: (s, 3, 3)."""
        change = np.linalg.inv(self.cell) @ cells
        e = np.swapaxes(change, 1, 2) @ change
        return e / np.linalg.det(e)[:, None, None] ** (1 / 3)

    def elastic(self, volume: np.ndarray) -> np.ndarray:
        """Energy in eV of volumes."""
        return 0.5 * self.bulk * self.volume * (volume / self.volume - 1.0) ** 2

    def potential(self, positions, cells):
        identity, volume = np.eye(3), np.abs(np.linalg.det(cells))
        e = self.metric(cells)
        off = e - np.trace(e, axis1=1, axis2=2)[:, None, None] / 3 * identity
        energy = self.elastic(volume) + 0.5 * self.shear * (off**2).sum(axis=(1, 2))
        # Derivatives with respect to a strain of the cell.
        strain = (self.bulk * (volume / self.volume - 1.0) * volume)[:, None, None] * identity
        product = e @ off
        trace = np.trace(product, axis1=1, axis2=2)[:, None, None]
        strain = strain + self.shear * (product + off @ e - 2 / 3 * trace * identity)
        moved = positions - self.sites @ cells
        moved = moved - moved.mean(axis=1, keepdims=True)
        square = (moved**2).sum(axis=2, keepdims=True)
        weight = self.spring * np.array([1.0, 1.5, 2.2])
        energy = energy + (0.5 * weight * moved**2).sum(axis=(1, 2))
        energy = energy + 10.0 * (square**2).sum(axis=(1, 2))
        pull = weight * moved + 40.0 * square * moved
        strain = strain + np.einsum("sna,snb->sab", moved, pull)  # u scales with the cell
        pull = pull - pull.mean(axis=1, keepdims=True)
        return energy, -pull, 0.5 * (strain + np.swapaxes(strain, 1, 2)) / volume[:, None, None]


def copies(atoms: Atoms, count: int, seed: int = 0, remove_drift: bool = True) -> State:
    """A state of many copies, each with random numbers of its own."""
    seeds = np.random.SeedSequence(seed).spawn(count)
    return State.of([atoms] * count, [np.random.default_rng(s) for s in seeds], remove_drift)


class Run:
    """Copies of a structure on analytic forces.

    Args:
        atoms: The structure.
        forces: Its forces.
        count: Copies.
        options: Of the dynamics.
    """

    def __init__(self, atoms: Atoms, forces: Analytic, count: int, **options: Any) -> None:
        self.options = MDOptions(**options)
        self.integrator, self.forces = Integrator(self.options), forces
        self.state = copies(atoms, count, self.options.seed, self.options.remove_drift)
        self.integrator.begin(self.state)
        self.state.draw_momenta(self.options.temperature, np.full(count, True))
        self.state.take(forces.compute(self.state.positions, self.state.cells))

    def restart(self, options: MDOptions, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on with other options from positions, momenta and cells of :meth:`State.arrays`."""
        self.options, self.integrator = options, Integrator(options)
        self.state.extended = {}
        self.integrator.begin(self.state)
        self.state.positions, self.state.momenta = arrays["positions"], arrays["momenta"]
        self.state.cells = arrays["cells"]
        self.state.take(self.forces.compute(self.state.positions, self.state.cells))

    def turn_back(self) -> None:
        """Reverse all velocities."""
        self.state.momenta = -self.state.momenta
        for name, value in self.state.extended.items():
            if name.endswith(("velocity", "rate")):
                self.state.extended[name] = -value

    def steps(self, count: int) -> None:
        """Take steps."""
        for _ in range(count):
            self.integrator.step(self.state, self.forces)

    def temperature(self) -> np.ndarray:
        """K, of each copy."""
        return thermometer(self.state, self.integrator.timestep)

    def conserved(self) -> np.ndarray:
        """eV, of each copy."""
        return self.integrator.conserved(self.state)
