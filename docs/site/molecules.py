"""Draws the pictures of the front page and of the gallery: python docs/site/molecules.py"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.io import read
from ase.visualize.plot import plot_atoms
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
TURNS = {"ethanol": "-70x,20y", "ammonia": "-70x,10y"}
TURNS |= {"silicon": "-80x,15y,5z", "copper (111)": "-75x,20y", "thiophene": "10x,70y"}


def draw(name: str, structures: Mapping[str, Atoms], columns: int, titles: bool) -> None:
    """Write a picture of structures side by side."""
    rows = -(-len(structures) // columns)
    figure = Figure(figsize=(9.0, 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, (title, atoms) in zip(panels, structures.items(), strict=False):
        turn = TURNS.get(title, "20x,15y")
        plot_atoms(atoms, axes, rotation=turn, radii=0.8, show_unit_cell=0)
        if titles:
            axes.set_title(title, fontsize=10, color="gray")
    figure.savefig(ROOT / f"docs/figures/{name}.png", dpi=90 if titles else 110, transparent=True)


front = {name: read(ROOT / f"examples/{name}.xyz") for name in ("ethanol", "benzene", "aspirin")}
front["silicon"] = bulk("Si", cubic=True) * (2, 2, 1)
draw("molecules", front, columns=4, titles=False)
more = {
    "malonaldehyde": read(ROOT / "examples/malonaldehyde.xyz"),
    "ammonia": molecule("NH3"),
    "thiophene": molecule("C4H4S"),
    "copper (111)": fcc111("Cu", (3, 3, 3), vacuum=4.0),
}
draw("gallery", front | more, columns=4, titles=True)
