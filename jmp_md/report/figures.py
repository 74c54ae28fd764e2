"""The figures of reports, as matplotlib figures that no global state knows of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from ase import Atoms

_WIDE, _SQUARE = (5.5, 2.8), (4.2, 4.0)
_MANY = 5000  # points, from which on they are drawn as an image


def time_series(
    time: np.ndarray,
    series: Mapping[str, np.ndarray],
    label: str,
    trend: bool = False,
    target: float | None = None,
) -> Figure:
    """Curves over time in ps.

    Args:
        time: (n,) ps.
        series: Name and values (n,) of each curve.
        label: What is drawn, with its unit.
        trend: Draw the straight line of least squares through each curve.
        target: A value to mark.
    """
    figure = Figure(figsize=_WIDE, layout="constrained")
    axes = figure.add_subplot()
    for name, values in series.items():
        (line,) = axes.plot(time, values, lw=0.9, label=name)
        if trend and len(time) > 2:
            fit = np.polyval(np.polyfit(time, values, 1), time)
            axes.plot(time, fit, "--", color=line.get_color(), lw=1.2, label=f"{name}, trend")
    if target is not None:
        axes.axhline(target, color="gray", lw=0.8, ls=":")
    axes.set(xlabel="time (ps)", ylabel=label)
    axes.ticklabel_format(axis="y", useOffset=False)
    if len(series) > 1 or trend:
        axes.legend(fontsize="small", frameon=False)
    return figure


def histogram(
    values: Mapping[str, np.ndarray], label: str, marks: Mapping[str, np.ndarray] | None = None
) -> Figure:
    """Distributions, each scaled to an area of one, with ``marks`` as short lines below."""
    figure = Figure(figsize=_WIDE, layout="constrained")
    axes = figure.add_subplot()
    everything = np.concatenate(list(values.values()))
    bins = np.histogram_bin_edges(everything, bins=60)
    for i, (name, sample) in enumerate(values.items()):
        density, _ = np.histogram(sample, bins=bins, density=True)
        axes.stairs(density, bins, lw=1.2, color=f"C{i}", label=name)
        if marks is not None:
            axes.plot(marks[name], np.zeros_like(marks[name]), "|", ms=18, color=f"C{i}")
    axes.set(xlabel=label, ylabel="density")
    if len(values) > 1:
        axes.legend(fontsize="small", frameon=False)
    return figure


def numbered(numbers: np.ndarray, values: np.ndarray, label: str) -> Figure:
    """A value of each structure, over its number."""
    figure = Figure(figsize=_WIDE, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(numbers, values, ".", ms=4, rasterized=len(numbers) > _MANY)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="structure", ylabel=label)
    axes.ticklabel_format(axis="y", useOffset=False)
    return figure


def parity(reference: np.ndarray, predicted: np.ndarray, label: str) -> Figure:
    """Predicted against reference values, with the diagonal."""
    figure = Figure(figsize=_SQUARE, layout="constrained")
    axes = figure.add_subplot()
    low = float(min(reference.min(), predicted.min()))
    high = float(max(reference.max(), predicted.max()))
    axes.plot([low, high], [low, high], color="gray", lw=0.8)
    axes.plot(reference, predicted, ".", ms=2, alpha=0.5, rasterized=len(reference) > _MANY)
    axes.set(xlabel=f"reference {label}", ylabel=f"predicted {label}", aspect="equal")
    return figure


def radial_distribution(distances: np.ndarray, curves: Mapping[str, np.ndarray]) -> Figure:
    """g(r) of a periodic system, of each pair; r in Å."""
    figure = Figure(figsize=_WIDE, layout="constrained")
    axes = figure.add_subplot()
    for name, g in curves.items():
        axes.plot(distances, g, lw=1.2, label=name)
    if len(curves) > 1:
        axes.legend(fontsize="small", frameon=False)
    axes.axhline(1.0, color="gray", lw=0.8, ls=":")
    axes.set(xlabel="distance (Å)", ylabel="g(r)")
    return figure


def energy_path(images: Sequence[Atoms]) -> Figure:
    """Energies along a path, with a curve that has the slopes of the forces.

    Args:
        images: Structures with energies and forces.
    """
    from jmp_md.simulate.path_curve import path_curve

    curve = path_curve(images)
    figure = Figure(figsize=(5.0, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(curve.fine_path, curve.fine_energies, color="tab:blue", lw=1.5)
    axes.plot(curve.path, curve.energies, "o", color="tab:blue", ms=5)
    top = int(np.argmax(curve.energies))
    axes.annotate(
        f"{curve.energies[top]:.3f} eV",
        (curve.path[top], curve.energies[top]),
        textcoords="offset points",
        xytext=(0, 6),
        ha="center",
    )
    axes.margins(y=0.15)
    axes.set(xlabel="path length (Å)", ylabel="energy (eV)")
    return figure
