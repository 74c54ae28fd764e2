"""Temperatures of parts of a structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms


def element_temperatures(frames: Sequence[Atoms]) -> dict[str, float]:
    """Mean of :func:`element_temperature_series` over all frames, K."""
    return {s: float(values.mean()) for s, values in element_temperature_series(frames).items()}


def element_temperature_series(frames: Sequence[Atoms]) -> dict[str, np.ndarray]:
    """Kinetic temperatures (n_frames,) in K of each element.

    Empty without momenta or with constraints.

    Equipartition gives all the same. It is that of motion relative to the centre of mass, which
    may drift: an atom of mass m then has 3 - 3 m / M degrees of freedom, with M the mass of all;
    rotations are not taken out.

    Args:
        frames: Of one trajectory.
    """
    from ase import units

    first = frames[0]
    momenta = np.array([frame.get_momenta() for frame in frames])
    if first.constraints or len(first) < 2 or not momenta.any():
        return {}
    masses = first.get_masses()
    momenta -= momenta.sum(axis=1, keepdims=True) * (masses / masses.sum())[:, None]
    freedom = 3 - 3 * masses / masses.sum()
    twice = (momenta**2).sum(axis=2) / masses / units.kB
    symbols = np.array(first.get_chemical_symbols())
    kinds = dict.fromkeys(symbols.tolist())
    return {s: twice[:, symbols == s].sum(axis=1) / freedom[symbols == s].sum() for s in kinds}
