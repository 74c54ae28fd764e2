"""Thermostats: each acts for a time on the momenta alone, and keeps the canonical distribution.

What they take and give is accounted for, so that every ensemble has a conserved energy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from ase import units

from jmp_md.simulate.md.state import State

CHAIN = 3  # links of a Nosé-Hoover chain
# Suzuki's and Yoshida's weights of fourth order: Phys. Lett. A 150, 262 (1990).
_OUTER = 1.0 / (2.0 - 2.0 ** (1.0 / 3.0))
_WEIGHTS = (_OUTER, 1.0 - 2.0 * _OUTER, _OUTER)


class Thermostat(ABC):
    """Acts on momenta.

    Args:
        temperature: K.
        damping: Time constant, in ASE's unit of time.
    """

    def __init__(self, temperature: float, damping: float) -> None:
        self.temperature, self.damping = temperature, damping

    @property
    def kT(self) -> float:  # noqa: N802 - the field's name for it
        """eV."""
        return units.kB * self.temperature

    def begin(self, state: State) -> None:
        """Give the state the variables that the thermostat needs."""
        state.extended["heat"] = np.zeros(len(state))

    @abstractmethod
    def act(self, state: State, time: float) -> None:
        """Act for a time."""

    def energy(self, state: State) -> np.ndarray:
        """What to add to kinetic and potential energy for a conserved one: (n_structures,) eV."""
        return -state.extended["heat"]


class Isolated(Thermostat):
    """No thermostat."""

    def act(self, state: State, time: float) -> None:
        """Do nothing."""


class Langevin(Thermostat):
    """Friction and noise, as an exact Ornstein-Uhlenbeck process; ``damping`` is 1 / friction.

    In the middle of a step of Verlet's this is BAOAB: Leimkuhler and Matthews, Appl. Math. Res.
    Express 2013, 34; with constraints g-BAOAB, Proc. R. Soc. A 472, 20160138 (2016).
    """

    def act(self, state: State, time: float) -> None:
        """Act for a time."""
        before = state.kinetic()
        left = np.exp(-time / self.damping)
        width = np.sqrt(-np.expm1(-2.0 * time / self.damping) * self.kT * state.masses)
        noise = state.constraints.project(width * state.noise(), state.positions)
        state.momenta = left * state.momenta + noise
        state.extended["heat"] = state.extended["heat"] + state.kinetic() - before


class Bussi(Thermostat):
    """Stochastic velocity rescaling: Bussi, Donadio and Parrinello, J. Chem. Phys. 126, 014101
    (2007), eq. A7."""

    def act(self, state: State, time: float) -> None:
        """Act for a time."""
        freedom = state.constraints.freedom
        left = np.exp(-time / self.damping)
        pairs = zip(state.rngs, freedom.tolist(), strict=True)
        draws = [(rng.standard_normal(), 2.0 * rng.standard_gamma((n - 1) / 2)) for rng, n in pairs]
        first, others = np.array(draws).T
        kinetic = state.kinetic()
        # No start from rest: the direction of a motion cannot be scaled up from nothing.
        ratio = (1.0 - left) * 0.5 * self.kT / np.maximum(kinetic, 1e-12 * self.kT)
        square = left + ratio * (first**2 + others) + 2.0 * first * np.sqrt(left * ratio)
        sign = np.where(first + np.sqrt(left / ratio) < 0.0, -1.0, 1.0)
        scale = sign * np.sqrt(np.maximum(square, 0.0))
        state.momenta = state.momenta * state.segments.spread(scale)[:, None]
        state.extended["heat"] = state.extended["heat"] + kinetic * (scale**2 - 1.0)


class NoseHoover(Thermostat):
    """A Nosé-Hoover chain: Martyna, Klein and Tuckerman, J. Chem. Phys. 97, 2635 (1992), moved as
    Martyna, Tuckerman, Tobias and Klein, Mol. Phys. 87, 1117 (1996), have it.

    Where nothing is fixed, it acts on motion relative to the centre of mass: a chain would tie
    the total momentum, a constant of motion, to its own variables and sample something else.
    """

    def begin(self, state: State) -> None:
        """Give the state the chain, with velocities as they are in equilibrium."""
        masses = chain_masses(self.freedom(state), self.kT, self.damping)
        state.extended["chain"] = np.zeros_like(masses)
        state.extended["chain_velocity"] = np.sqrt(self.kT / masses) * state.normal((CHAIN,))

    def act(self, state: State, time: float) -> None:
        """Act for a time."""
        shared = self._drift(state)
        relative = state.momenta - shared
        twice = state.segments.sum((relative**2 / state.masses).sum(axis=1))
        masses = chain_masses(self.freedom(state), self.kT, self.damping)
        chain, velocity = state.extended["chain"], state.extended["chain_velocity"]
        chain, velocity, scale = move_chain(
            chain, velocity, masses, twice, self.freedom(state), self.kT, time
        )
        state.extended |= {"chain": chain, "chain_velocity": velocity}
        state.momenta = shared + relative * state.segments.spread(scale)[:, None]

    def energy(self, state: State) -> np.ndarray:
        """Energy of the chain: (n_structures,) eV."""
        freedom = self.freedom(state)
        masses = chain_masses(freedom, self.kT, self.damping)
        chain, velocity = state.extended["chain"], state.extended["chain_velocity"]
        return chain_energy(chain, velocity, masses, freedom, self.kT)

    def freedom(self, state: State) -> np.ndarray:
        """Degrees of freedom that the chain acts on: (n_structures,)."""
        return state.constraints.freedom - 3 * self._drifting(state)

    @staticmethod
    def _drifting(state: State) -> np.ndarray:
        held = state.constraints.centred | state.constraints.anchored
        return ~held & (state.constraints.freedom > 3)

    def _drift(self, state: State) -> np.ndarray:
        total = np.where(self._drifting(state)[:, None], state.segments.sum(state.momenta), 0.0)
        velocity = total / state.segments.sum(state.masses)
        return state.masses * state.segments.spread(velocity)


def chain_masses(freedom: np.ndarray, kT: float, damping: float) -> np.ndarray:
    """Masses (n, CHAIN) of chains on ``freedom`` (n,) degrees of freedom, in eV time²."""
    masses = np.full((len(freedom), CHAIN), kT * damping**2)
    masses[:, 0] *= freedom
    return masses


def chain_energy(
    chain: np.ndarray, velocity: np.ndarray, masses: np.ndarray, freedom: np.ndarray, kT: float
) -> np.ndarray:
    """Kinetic and potential energy (n,) in eV of chains; arguments as of :func:`move_chain`."""
    potential = kT * (freedom * chain[:, 0] + chain[:, 1:].sum(axis=1))
    return potential + 0.5 * (masses * velocity**2).sum(axis=1)


def move_chain(
    chain: np.ndarray,
    velocity: np.ndarray,
    masses: np.ndarray,
    twice: np.ndarray,
    freedom: np.ndarray,
    kT: float,
    time: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Move chains, and what hangs on them.

    Args:
        chain: (n, CHAIN) positions.
        velocity: (n, CHAIN).
        masses: (n, CHAIN).
        twice: (n,) twice the kinetic energy of what hangs on each.
        freedom: (n,) degrees of freedom of that.
        kT: eV.
        time: For how long.

    Returns:
        Positions, velocities, and factors (n,) that momenta are to be scaled by.
    """
    x, v = chain.copy(), velocity.copy()
    scale = np.ones(len(x))

    def pull(link: int) -> np.ndarray:
        if link == 0:
            return (twice * scale**2 - freedom * kT) / masses[:, 0]
        return (masses[:, link - 1] * v[:, link - 1] ** 2 - kT) / masses[:, link]

    def kick(link: int, part: float) -> None:
        slowed = np.exp(-0.25 * part * v[:, link + 1]) if link + 1 < CHAIN else 1.0
        v[:, link] = (v[:, link] * slowed + 0.5 * part * pull(link)) * slowed

    for weight in _WEIGHTS:
        part = weight * time
        for link in reversed(range(CHAIN)):
            kick(link, part)
        scale = scale * np.exp(-part * v[:, 0])
        x += part * v
        for link in range(CHAIN):
            kick(link, part)
    return x, v, scale
