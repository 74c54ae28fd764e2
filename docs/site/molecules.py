"""Draws the picture of the front page: python docs/site/molecules.py"""

from __future__ import annotations

from pathlib import Path

from ase.build import bulk
from ase.io import read
from ase.visualize.plot import plot_atoms
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
figure = Figure(figsize=(9.0, 2.6), layout="constrained")
shown = {name: read(ROOT / f"examples/{name}.xyz") for name in ("ethanol", "benzene", "aspirin")}
shown["silicon"] = bulk("Si", cubic=True) * (2, 2, 1)
turns = {"ethanol": "-70x,20y", "silicon": "-80x,15y,5z"}
for axes, (name, atoms) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
    plot_atoms(atoms, axes, rotation=turns.get(name, "20x,15y"), radii=0.45, show_unit_cell=0)
    axes.set_axis_off()
figure.savefig(ROOT / "docs/figures/molecules.png", dpi=110, transparent=True)
