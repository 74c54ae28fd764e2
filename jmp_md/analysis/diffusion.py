"""Diffusion: mean squared displacements and Einstein's relation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jmp_md.errors import InputError
from jmp_md.simulate.verdict import Verdict, doubts

M2_PER_S = 1e-5  # m²/s in an Å²/fs
FIRST, LAST = 0.02, 0.1  # shares of the trajectory between which the line is laid
_BLOCKS = 5  # each long enough for five times the longest lag
_LEAST_LAGS = 3
_FREE = 0.15  # by which the exponent may differ from the 1 of diffusion
_UNCERTAIN = 0.5  # share of the coefficient that its standard error may be


@dataclass(frozen=True)
class Diffusion:
    """Diffusion of some atoms.

    Attributes:
        lags: (n_lags,) fs.
        displacements: (n_lags,) Å², mean squared.
        coefficient: Å²/fs; times 1e-5 in m²/s.
        error: Å²/fs, standard error, by parts of the trajectory; NaN where it is too short.
        exponent: Of the growth of the displacements with time where the line is laid: 1 in
            diffusion, 2 in free flight, 0 where atoms stay.
        window: fs, between which the line is laid.
    """

    lags: np.ndarray
    displacements: np.ndarray
    coefficient: float
    error: float
    exponent: float
    window: tuple[float, float]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether the coefficient stands."""
        share = self.error / abs(self.coefficient) if self.coefficient else float("nan")
        return (
            Verdict(
                "diffusion",
                bool(abs(self.exponent - 1) <= _FREE),
                f"displacements grow as time to the power {self.exponent:.2f}",
                f"1 ± {_FREE}",
                "Einstein's relation holds where displacements grow as time",
                f"displacements grow as time to the power {self.exponent:.2f} from "
                f"{self.window[0]:g} to {self.window[1]:g} fs, not as time: atoms stay in their "
                "places, or the run is too short for diffusion",
            ),
            Verdict(
                "error of the diffusion coefficient",
                bool(share <= _UNCERTAIN) if np.isfinite(share) else None,
                f"{share:.0%}",
                f"at most {_UNCERTAIN:.0%}",
                f"standard error of {_BLOCKS} parts of the trajectory",
                f"the diffusion coefficient is uncertain by {share:.0%}: run longer",
            ),
        )

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the coefficient may be none; empty where nothing speaks against it."""
        return doubts(self.verdicts)


def mean_squared_displacement(positions: np.ndarray) -> np.ndarray:
    """Mean squared displacements over all atoms and starts.

    By Fourier transforms (Calandrini, Pellegrini, Calligari, Hinsen and Kneller, Collection SFN 12,
    201 (2011), equation 4.15).

    Args:
        positions: (n, n_atoms, 3) Å, evenly spaced in time, not folded into a cell.

    Returns:
        (n,) Å², for 0, 1, ... intervals.
    """
    n = len(positions)
    moved = positions - positions.mean(axis=0)  # the same displacements, without loss of digits
    spectrum = np.abs(np.fft.rfft(moved, 2 * n, axis=0)) ** 2
    products = np.fft.irfft(spectrum.sum(axis=(1, 2)))[:n]
    squares = (moved**2).sum(axis=(1, 2))
    total = np.concatenate([[0.0], np.cumsum(squares)])
    lags = np.arange(n)
    both = (total[n - lags] - total[0]) + (total[n] - total[lags])
    found: np.ndarray = (both - 2 * products) / (n - lags) / positions.shape[1]
    return np.maximum(found, 0.0)


def diffusion(
    positions: np.ndarray,
    interval: float,
    *,
    first: float = FIRST,
    last: float = LAST,
) -> Diffusion:
    """Diffusion coefficient by the slope of the mean squared displacement over time, divided by 6.

    A straight line of least squares is laid between two lags. In a small cell the coefficient is
    too small by 2.837 k T / (6 π η L), with viscosity η and length L (Yeh and Hummer, J. Phys.
    Chem. B 108, 15873 (2004)), which is not added.

    Args:
        positions: (n, n_atoms, 3) Å of the atoms meant, not folded into a cell, relative to the
            centre of mass of all atoms where that drifts.
        interval: fs between frames.
        first: Share of the trajectory's length at which the line begins.
        last: Share at which it ends.

    Raises:
        InputError: Too few frames, or shares that cannot be meant.
    """
    n = len(positions)
    begin, end = max(1, round(first * n)), round(last * n)
    if not 0 <= first < last <= 1 or end - begin + 1 < _LEAST_LAGS:
        raise InputError(
            f"lags from {first!r} to {last!r} of {n} frames: a line needs {_LEAST_LAGS} lags or "
            "more; run longer, or write frames more often"
        )
    displacements = mean_squared_displacement(positions)
    lags = interval * np.arange(n)
    slope = _slope(lags, displacements, begin, end)
    size = n // _BLOCKS
    error = float("nan")
    if end < size:
        parts = [mean_squared_displacement(positions[k * size : (k + 1) * size])
                 for k in range(_BLOCKS)]  # fmt: skip
        slopes = [_slope(lags, part, begin, end) for part in parts]
        error = float(np.std(slopes, ddof=1) / np.sqrt(_BLOCKS)) / 6
    logs = np.log(lags[begin : end + 1]), np.log(np.maximum(displacements[begin : end + 1], 1e-300))
    exponent = float(np.polyfit(*logs, 1)[0])
    window = (float(lags[begin]), float(lags[end]))
    return Diffusion(lags, displacements, slope / 6, error, exponent, window)


def _slope(lags: np.ndarray, displacements: np.ndarray, begin: int, end: int) -> float:
    part = slice(begin, end + 1)
    return float(np.polyfit(lags[part], displacements[part], 1)[0])
