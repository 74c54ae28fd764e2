"""The steps of all ensembles, for one structure and for many.

A step is half a kick, half a drift, the thermostat, half a drift and half a kick (B A T A B): with
no thermostat velocity Verlet, with Langevin's BAOAB. In the middle of the step a thermostat leaves
positions free of errors of the step length where motion is harmonic: Zhang, Liu, Yan, Tuckerman
and Liu, J. Phys. Chem. B 121, 7039 (2017).
"""

from __future__ import annotations

import numpy as np
from ase import units

from jmp_md.simulate.forces import Forces
from jmp_md.simulate.md.barostat import Barostat
from jmp_md.simulate.md.options import MDOptions
from jmp_md.simulate.md.state import State, thermometer
from jmp_md.simulate.md.thermostats import Bussi, Isolated, Langevin, NoseHoover, Thermostat

_THERMOSTATS: dict[str, type[Thermostat]] = {
    "nve": Isolated,
    "nvt-langevin": Langevin,
    "nvt-bussi": Bussi,
    "nvt-nose-hoover": NoseHoover,
    "npt": NoseHoover,
    "npt-full": NoseHoover,
}


class Integrator:
    """Takes states to the next step; all that changes is in the state.

    Args:
        options: Ensemble, timestep, temperature, pressure and time constants.

    Attributes:
        timestep: In ASE's unit of time.
        thermostat: Whose temperature may change.
    """

    def __init__(self, options: MDOptions) -> None:
        self.timestep = options.timestep * units.fs
        kind = _THERMOSTATS[options.ensemble]
        self.thermostat = kind(options.temperature, options.tdamp * units.fs)
        self._barostat: Barostat | None = None
        if isinstance(self.thermostat, NoseHoover) and options.ensemble.startswith("npt"):
            shape = options.ensemble == "npt-full"
            pressure, damping = options.pressure * units.GPa, options.pdamp * units.fs
            self._barostat = Barostat(self.thermostat, pressure, damping, shape)

    def begin(self, state: State) -> None:
        """Give a state the variables of thermostat and barostat."""
        self.thermostat.begin(state)
        if self._barostat is not None:
            self._barostat.begin(state)

    def step(self, state: State, forces: Forces) -> None:
        """Take a step, from a state with forces to the next one."""
        half = 0.5 * self.timestep
        self._kick(state, half, first=True)
        self._drift(state, half)
        self.thermostat.act(state, self.timestep)
        if self._barostat is not None:
            self._barostat.act(state, self.timestep)
        self._drift(state, half)
        state.take(forces.compute(state.positions, state.cells))
        self._kick(state, half, first=False)

    def temperature(self, state: State) -> np.ndarray:
        """Temperature (n_structures,) in K, see :func:`jmp_md.simulate.md.state.thermometer`."""
        return thermometer(state, self.timestep)

    def conserved(self, state: State) -> np.ndarray:
        """Energy (n_structures,) in eV that exact integration would keep, in every ensemble."""
        energy = state.energy + state.kinetic() + self.thermostat.energy(state)
        return energy if self._barostat is None else energy + self._barostat.energy(state)

    def _kick(self, state: State, time: float, first: bool) -> None:
        if self._barostat is None:
            momenta = state.momenta + time * state.driving
            state.momenta = state.constraints.project(momenta, state.positions)
            return
        if first:
            self._barostat.push(state, time)
        self._barostat.kick(state, time)
        if not first:
            self._barostat.push(state, time)

    def _drift(self, state: State, time: float) -> None:
        if self._barostat is not None:
            self._barostat.drift(state, time)
            return
        state.positions, state.momenta = state.constraints.drift(
            state.positions, state.momenta, time
        )
