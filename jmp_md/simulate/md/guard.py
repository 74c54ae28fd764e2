"""Notices runs that have exploded."""

from __future__ import annotations

import numpy as np
from ase import units

_WINDOW = 20  # steps in which the conserved energy may not jump
_TOO_HOT = 30.0  # times the temperature asked for
_NEVER_TOO_HOT = 3000.0  # K, which a strained structure can reach as it relaxes
_RARE = 30.0  # a fluctuation of probability exp(-30)


class Guard:
    """Finds structures whose energy jumps or whose temperature nothing explains.

    Energy that should be conserved may change by as much as the kinetic energy that no fluctuation
    at the temperature of the run reaches: steps that are too long bring more within a few of them,
    while honest errors of steps and slow drifts stay far below. The bound is that of Laurent and
    Massart for a χ² variable (Ann. Stat. 28, 1302 (2000)).

    Args:
        temperatures: (n_structures,) K, the highest of those asked for and that at the start.
        freedom: (n_structures,) degrees of freedom.
        timestep: fs, for the message.
    """

    def __init__(self, temperatures: np.ndarray, freedom: np.ndarray, timestep: float) -> None:
        self.temperatures, self._timestep = temperatures, timestep
        self._hottest = np.maximum(_TOO_HOT * temperatures, _NEVER_TOO_HOT)
        bound = freedom + 2.0 * np.sqrt(_RARE * freedom) + 2.0 * _RARE
        self._jump = 0.5 * units.kB * temperatures * bound
        self._before: np.ndarray | None = None

    def look(self, step: int, conserved: np.ndarray, temperatures: np.ndarray) -> dict[int, str]:
        """What is wrong after a step, by place.

        Args:
            step: Its number.
            conserved: (n_structures,) eV, the conserved energy.
            temperatures: (n_structures,) K.
        """
        if self._before is None:
            self._before = conserved
        change = conserved - self._before
        found = {}
        for i in np.flatnonzero(~(temperatures < self._hottest) | ~(abs(change) < self._jump)):
            if not temperatures[i] < self._hottest[i]:
                what = f"its temperature is {temperatures[i]:.3g} K"
            else:
                what = f"the energy that should be conserved jumped by {change[i]:.3g} eV"
            found[int(i)] = (
                f"it exploded: {what}; take a timestep below {self._timestep:g} fs, or relax the "
                "structure first"
            )
        if step % _WINDOW == 0:
            self._before = conserved
        return found

    def keep(self, kept: np.ndarray) -> None:
        """Go on with some of the structures: (n_structures,) bool."""
        self.temperatures, self._hottest = self.temperatures[kept], self._hottest[kept]
        self._jump = self._jump[kept]
        self._before = None if self._before is None else self._before[kept]
