"""What trajectories say: structure, transport, vibrations, temperatures, and errors of means."""

from jmp_md.analysis.diffusion import Diffusion, diffusion, mean_squared_displacement
from jmp_md.analysis.findings import Analysis
from jmp_md.analysis.series import Series, read_series
from jmp_md.analysis.spectrum import Spectrum, velocity_autocorrelation, vibrational_spectrum
from jmp_md.analysis.statistics import blocked_errors, standard_error, statistical_inefficiency
from jmp_md.analysis.structure import RadialDistribution, bond_lengths, radial_distribution
from jmp_md.analysis.temperature import element_temperature_series, element_temperatures

__all__ = [
    "Analysis",
    "Diffusion",
    "RadialDistribution",
    "Series",
    "Spectrum",
    "blocked_errors",
    "bond_lengths",
    "diffusion",
    "element_temperature_series",
    "element_temperatures",
    "mean_squared_displacement",
    "radial_distribution",
    "read_series",
    "standard_error",
    "statistical_inefficiency",
    "velocity_autocorrelation",
    "vibrational_spectrum",
]
