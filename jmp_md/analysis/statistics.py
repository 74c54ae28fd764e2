"""Errors of means of correlated series."""

from __future__ import annotations

import numpy as np

_LEAST_BLOCKS = 8  # of which a standard deviation means something


def statistical_inefficiency(values: np.ndarray) -> float:
    """How many values of a correlated series are worth one independent value, 1 or more.

    1 + 2 Σ (1 - t / n) C(t) with the normalized autocorrelation C, up to its first zero (Chodera,
    Swope, Pitera, Seok and Dill, J. Chem. Theory Comput. 3, 26 (2007), equation 28).

    Args:
        values: (n,) evenly spaced in time.
    """
    n = len(values)
    moved = values - values.mean()
    if n < 2 or not moved.any():
        return 1.0
    spectrum = np.abs(np.fft.rfft(moved, 2 * n)) ** 2
    correlation = np.fft.irfft(spectrum)[:n] / np.arange(n, 0, -1)
    correlation /= correlation[0]
    end = int(np.argmax(correlation <= 0)) or n
    shares = 1 - np.arange(1, end) / n
    return max(1.0, 1.0 + 2.0 * float((shares * correlation[1:end]).sum()))


def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean of a correlated series, in its unit; NaN of fewer than two.

    Args:
        values: (n,) evenly spaced in time.
    """
    if len(values) < 2:
        return float("nan")
    return float(values.std(ddof=1) * np.sqrt(statistical_inefficiency(values) / len(values)))


def blocked_errors(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors of the mean by the spread of means of blocks, for longer and longer blocks.

    Where blocks are longer than correlations last, the errors stay the same (Flyvbjerg and
    Petersen, J. Chem. Phys. 91, 461 (1989)).

    Args:
        values: (n,) evenly spaced in time.

    Returns:
        Lengths of blocks, powers of two, and the errors, in the unit of ``values``; both are empty
        where there are fewer than eight.
    """
    lengths, errors = [], []
    blocks = np.asarray(values, dtype=float)
    length = 1
    while len(blocks) >= _LEAST_BLOCKS:
        lengths.append(length)
        errors.append(float(blocks.std(ddof=1) / np.sqrt(len(blocks))))
        even = blocks[: len(blocks) // 2 * 2]
        blocks, length = even.reshape(-1, 2).mean(axis=1), 2 * length
    return np.array(lengths, dtype=int), np.array(errors)
