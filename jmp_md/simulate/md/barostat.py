"""Constant pressure: the cell moves, too, after Martyna, Tuckerman, Tobias and Klein.

Mol. Phys. 87, 1117 (1996). The equations for a cell that changes its shape, with a symmetric
velocity so that it does not turn; where the shape is kept, their isotropic part.
"""

from __future__ import annotations

import numpy as np
from ase import units

from jmp_md.simulate.md.state import State
from jmp_md.simulate.md.thermostats import NoseHoover, chain_energy, chain_masses, move_chain

_LARGEST = 1e100  # of a rate that can be squared
_STRAIN, _CHAIN, _CHAIN_VELOCITY = "strain_rate", "cell_chain", "cell_chain_velocity"


class Barostat:
    """Moves cells, and with them atoms and momenta.

    Args:
        thermostat: Of the atoms; a chain like it acts on the cell.
        pressure: eV/Å³.
        damping: Time constant, in ASE's unit of time.
        shape: Whether the shape of the cell changes.
    """

    def __init__(
        self, thermostat: NoseHoover, pressure: float, damping: float, shape: bool
    ) -> None:
        self._thermostat, self._pressure = thermostat, pressure
        self._damping, self._shape = damping, shape

    def begin(self, state: State) -> None:
        """Give the state the variables of the cell, with velocities as they are in equilibrium."""
        kT = self._thermostat.kT
        noise = state.normal((3, 3))
        rate = 0.5 * (noise + np.swapaxes(noise, 1, 2))  # of weight 1/2 off the diagonal
        if not self._shape:
            rate = np.trace(rate, axis1=1, axis2=2)[:, None, None] / 3 * np.eye(3)
        state.extended[_STRAIN] = rate * np.sqrt(kT / self._mass(state))[:, None, None]
        masses = chain_masses(self._freedom(state), kT, self._damping)
        state.extended[_CHAIN] = np.zeros_like(masses)
        state.extended[_CHAIN_VELOCITY] = np.sqrt(kT / masses) * state.normal(masses.shape[1:])

    def push(self, state: State, time: float) -> None:
        """Accelerate the cell for a time, by the difference of pressures."""
        freedom = state.constraints.freedom[:, None, None]
        volume = state.volumes()[:, None, None]
        outer = state.momenta[:, :, None] * state.momenta[:, None, :] / state.masses[:, :, None]
        kinetic = state.segments.sum(outer)
        inner = kinetic - volume * state.computed.stress  # times the volume
        extra = np.trace(kinetic, axis1=1, axis2=2)[:, None, None] / freedom
        force = inner + (extra - volume * self._pressure) * np.eye(3)
        if not self._shape:
            force = np.trace(force, axis1=1, axis2=2)[:, None, None] / 3 * np.eye(3)
        force = 0.5 * (force + np.swapaxes(force, 1, 2))
        rate = state.extended[_STRAIN] + time * force / self._mass(state)[:, None, None]
        state.extended[_STRAIN] = np.nan_to_num(rate, posinf=0.0, neginf=0.0)

    def kick(self, state: State, time: float) -> None:
        """Accelerate atoms for a time: dp/dt = F - (v + tr(v) / N_f) p, solved exactly."""
        rate = state.extended[_STRAIN]
        share = np.trace(rate, axis1=1, axis2=2) / state.constraints.freedom
        values, vectors = _principal(rate)
        values = state.segments.spread(values + share[:, None]) * time
        momenta = _to(state, vectors, state.momenta) * np.exp(-values)
        momenta += _to(state, vectors, state.driving) * time * _expm1_ratio(-values)
        state.momenta = state.constraints.project(_from(state, vectors, momenta), state.positions)

    def drift(self, state: State, time: float) -> None:
        """Move atoms and cells for a time: dx/dt = p/m + v x, dh/dt = v h, solved exactly."""
        values, vectors = _principal(state.extended[_STRAIN])
        values = np.clip(values * time, -1.0, 1.0)  # one that has exploded is found by its energy
        own = state.segments.spread(values)
        positions = _to(state, vectors, state.positions) * np.exp(own)
        positions += _to(state, vectors, state.momenta / state.masses) * time * _expm1_ratio(own)
        state.positions = _from(state, vectors, positions)
        cells = (state.cells @ vectors) * np.exp(values)[:, None, :]
        state.cells = cells @ np.swapaxes(vectors, 1, 2)

    def act(self, state: State, time: float) -> None:
        """Let the chain act on the cell for a time."""
        freedom, kT = self._freedom(state), self._thermostat.kT
        chain, velocity, scale = move_chain(
            state.extended[_CHAIN],
            state.extended[_CHAIN_VELOCITY],
            chain_masses(freedom, kT, self._damping),
            2.0 * self._kinetic(state),
            freedom,
            kT,
            time,
        )
        state.extended |= {_CHAIN: chain, _CHAIN_VELOCITY: velocity}
        state.extended[_STRAIN] = state.extended[_STRAIN] * scale[:, None, None]

    def energy(self, state: State) -> np.ndarray:
        """What the cell adds to the conserved energy: (n_structures,) eV."""
        freedom, kT = self._freedom(state), self._thermostat.kT
        masses = chain_masses(freedom, kT, self._damping)
        chain, velocity = state.extended[_CHAIN], state.extended[_CHAIN_VELOCITY]
        own = self._kinetic(state) + self._pressure * state.volumes()
        return own + chain_energy(chain, velocity, masses, freedom, kT)

    def _freedom(self, state: State) -> np.ndarray:
        return np.full(len(state), 6.0 if self._shape else 1.0)

    def _mass(self, state: State) -> np.ndarray:
        """Of each element of the cell's velocity; a third of that of the volume's logarithm / 3."""
        freedom = state.constraints.freedom
        return (freedom + 3) * self._thermostat.kT * self._damping**2 / 3.0

    def _kinetic(self, state: State) -> np.ndarray:
        return 0.5 * self._mass(state) * (state.extended[_STRAIN] ** 2).sum(axis=(1, 2))


def pressure(state: State, temperature: np.ndarray) -> np.ndarray:
    """Pressure (n_structures,) in eV/Å³: N k T / V of all atoms, and the virial.

    A centre of mass at rest takes no part in the kinetic energy; it does in the pressure of the
    system that is simulated, hence N and not the degrees of freedom.

    Args:
        state: Structures with stresses.
        temperature: (n_structures,) K, from :func:`jmp_md.simulate.md.state.thermometer`.
    """
    ideal = state.segments.counts * units.kB * temperature / state.volumes()
    return ideal - np.trace(state.computed.stress, axis1=1, axis2=2) / 3.0


def _principal(rate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and axes of (n_structures, 3, 3); zero for those that have exploded.

    Their energies say so, and end one run without the others.
    """
    finite = np.isfinite(rate).all(axis=(1, 2)) & (np.abs(rate).max(axis=(1, 2)) < _LARGEST)
    return np.linalg.eigh(np.where(finite[:, None, None], rate, 0.0))


def _to(state: State, vectors: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(n_atoms, 3) vectors along the axes (n_structures, 3, 3) of their structure."""
    return np.einsum("ni,nij->nj", values, state.segments.spread(vectors))


def _from(state: State, vectors: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.einsum("nj,nij->ni", values, state.segments.spread(vectors))


def _expm1_ratio(x: np.ndarray) -> np.ndarray:
    """(exp(x) - 1) / x."""
    small = np.abs(x) < 1e-8
    safe = np.where(small, 1.0, x)
    return np.where(small, 1.0 + 0.5 * x, np.expm1(safe) / safe)
