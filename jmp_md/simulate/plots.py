"""Figures of simulations, with matplotlib where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from ase import Atoms


def plot_path(images: Sequence[Atoms], path: Path) -> None:
    """Draw the energies of a path, with a curve that has the slopes of the forces, as SVG.

    Args:
        images: Structures with energies and forces.
        path: File to write.
    """
    from ase.utils.forcecurve import fit_images

    fit = fit_images(images)
    figure = Figure(figsize=(5.0, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(fit.fit_path, fit.fit_energies, color="tab:blue", lw=1.5)
    axes.plot(fit.path, fit.energies, "o", color="tab:blue", ms=5)
    top = int(np.argmax(fit.energies))
    axes.annotate(
        f"{fit.energies[top]:.3f} eV",
        (fit.path[top], fit.energies[top]),
        textcoords="offset points",
        xytext=(0, 6),
        ha="center",
    )
    axes.margins(y=0.15)
    axes.set_xlabel("path length (Å)")
    axes.set_ylabel("energy (eV)")
    figure.savefig(path, format="svg")
