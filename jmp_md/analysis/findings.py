"""All that a trajectory says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jmp_md.analysis.diffusion import M2_PER_S, Diffusion
from jmp_md.analysis.series import Series
from jmp_md.analysis.spectrum import Spectrum
from jmp_md.analysis.statistics import standard_error
from jmp_md.analysis.structure import RadialDistribution
from jmp_md.simulate.verdict import Verdict, doubts


@dataclass(frozen=True)
class Analysis:
    """What a trajectory says; parts that it says nothing of are None or empty.

    Attributes:
        series: The motion.
        rdf: Radial distributions, of periodic structures.
        diffusion: Of each element and of all atoms (``"all"``), of periodic structures.
        correlation: (n,) autocorrelation of velocities.
        spectrum: Vibrational density of states.
        temperatures: (n,) K of each element, in some evenly spread frames.
        verdicts: Whether the figures stand.
    """

    series: Series
    rdf: RadialDistribution | None
    diffusion: Mapping[str, Diffusion]
    correlation: np.ndarray | None
    spectrum: Spectrum | None
    temperatures: Mapping[str, np.ndarray]
    verdicts: tuple[Verdict, ...]

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why figures may be wrong; empty where nothing speaks against them."""
        return doubts(self.verdicts)

    def figures(self) -> dict[str, Any]:
        """The headline numbers, with units in their names."""
        series = self.series
        found: dict[str, Any] = {
            "n_frames": len(series.times),
            "interval_fs": series.interval,
            "length_ps": float(series.times[-1] - series.times[0]) / 1000,
            "temperatures_K": {
                name: {"value": float(values.mean()), "error": standard_error(values)}
                for name, values in self.temperatures.items()
            },
        }
        if series.energies is not None:
            found["energy_eV"] = float(series.energies.mean())
            found["energy_error_eV"] = standard_error(series.energies)
        if self.rdf is not None and self.rdf.total.any():
            found["first_peak_of_g_A"] = {n: _peak(self.rdf, g) for n, g in self.rdf.pairs.items()}
        found["diffusion_m2_per_s"] = {
            name: {"value": each.coefficient * M2_PER_S, "error": each.error * M2_PER_S,
                   "exponent": each.exponent}
            for name, each in self.diffusion.items()
        }  # fmt: skip
        if self.spectrum is not None:
            found["spectrum_resolution_per_cm"] = self.spectrum.resolution
            found["spectrum_peaks_per_cm"] = self.spectrum.peaks.tolist()
        return found | {"doubts": list(self.doubts)}


def _peak(rdf: RadialDistribution, g: np.ndarray) -> float | None:
    """Å, where g is largest; None where there is no pair within reach."""
    return float(rdf.distances[int(np.argmax(g))]) if g.any() else None
