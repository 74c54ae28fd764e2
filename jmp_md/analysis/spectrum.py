"""Vibrations in a trajectory: autocorrelation of velocities and its spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jmp_md.errors import InputError

CM_PER_FS = 2.99792458e-5  # light
_PEAK = 0.02  # of the highest, from which on a maximum is named


@dataclass(frozen=True)
class Spectrum:
    """Vibrational density of states.

    Attributes:
        wavenumbers: (n,) cm⁻¹, up to half the inverse of the interval between frames.
        density: (n,) per cm⁻¹; its integral is 1.
        resolution: cm⁻¹.
    """

    wavenumbers: np.ndarray
    density: np.ndarray
    resolution: float

    @property
    def peaks(self) -> np.ndarray:
        """cm⁻¹ of maxima of at least 2 % of the highest."""
        from scipy.signal import find_peaks

        places, _ = find_peaks(self.density, height=_PEAK * self.density.max())
        return np.array(self.wavenumbers[places])


def velocity_autocorrelation(velocities: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Σ m v(0) v(t), divided by its value at 0, over all starts.

    Args:
        velocities: (n, n_atoms, 3) Å/fs, evenly spaced in time.
        masses: (n_atoms,) amu.

    Returns:
        (n,) for 0, 1, ... intervals.
    """
    n = len(velocities)
    spectrum = np.abs(np.fft.rfft(velocities, 2 * n, axis=0)) ** 2
    weighted = (spectrum * np.asarray(masses)[:, None]).sum(axis=(1, 2))
    found: np.ndarray = np.fft.irfft(weighted)[:n] / np.arange(n, 0, -1)
    return found / found[0] if found[0] else found


def vibrational_spectrum(
    velocities: np.ndarray, interval: float, masses: np.ndarray, resolution: float = 10.0
) -> Spectrum:
    """Spectrum of the mass-weighted velocities, by Welch's method with Hann windows.

    It is the Fourier transform of :func:`velocity_autocorrelation` (Wiener-Khinchin): where motion
    is harmonic, each mode has the same area (Thomas, Brehm, Fligg, Vöhringer and Kirchner, Phys.
    Chem. Chem. Phys. 15, 6608 (2013), section 2.1). Motion faster than half the inverse of the
    interval shows at a wrong place.

    Args:
        velocities: (n, n_atoms, 3) Å/fs, evenly spaced in time.
        interval: fs between frames.
        masses: (n_atoms,) amu.
        resolution: cm⁻¹; windows are its inverse long, or as long as the trajectory.

    Raises:
        InputError: Fewer than eight frames, or no motion.
    """
    from scipy.signal import welch

    n = len(velocities)
    if n < 8:
        raise InputError(f"a spectrum of {n} frames shows nothing: 8 is the least")
    if not velocities.any():
        raise InputError("velocities are zero in all frames: there is no motion to analyse")
    length = int(np.clip(round(1 / (resolution * interval * CM_PER_FS)), 8, n))
    length -= length % 2  # so that the highest wavenumber is that of the interval
    weighted = velocities * np.sqrt(np.asarray(masses))[:, None]
    frequencies, power = welch(
        weighted.reshape(n, -1), fs=1 / interval, nperseg=length, detrend=False, axis=0
    )
    wavenumbers = frequencies / CM_PER_FS
    density = power.sum(axis=1)
    density /= density.sum() * (wavenumbers[1] - wavenumbers[0])
    return Spectrum(wavenumbers, density, 1 / (length * interval * CM_PER_FS))
