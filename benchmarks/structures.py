"""Structures that benchmarks run on, by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule, nanotube
from ase.io import read

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CATCHER = "md22_buckyball_catcher.xyz"
SPACING = 3.104  # Å, one water molecule per cube at 1 g/cm3


def build(name: str, folder: Path | None = None) -> Atoms:
    """A structure: a name of :data:`NAMES`, ``water-N`` with N molecules, or a file.

    Args:
        name: What to build.
        folder: Holds the file :data:`CATCHER` where the real buckyball catcher is wanted.
    """
    if name.startswith("water-"):
        return water(int(name.removeprefix("water-")))
    if name == "catcher":
        file = folder / CATCHER if folder else None
        return _read(file) if file and file.is_file() else fullerenes()
    if name in NAMES:
        return NAMES[name]()
    return _read(Path(name))


def water(molecules: int) -> Atoms:
    """Periodic water at 1 g/cm3 on a slightly shaken lattice."""
    per_side = round(molecules ** (1 / 3))
    if per_side**3 != molecules:
        raise SystemExit(f"water-{molecules}: the number of molecules must be a cube")
    one = molecule("H2O")
    one.cell = np.eye(3) * SPACING
    box = one.repeat(per_side)
    box.pbc = True
    box.rattle(0.05, seed=1)
    return box


def ammonia() -> Atoms:
    """64 atoms: a cluster of ammonia on a slightly shaken lattice."""
    one = molecule("NH3")
    one.cell = np.eye(3) * 3.6
    box = one.repeat((2, 2, 4))
    box.rattle(0.05, seed=1)
    return Atoms(box.numbers, box.positions)


def fullerenes() -> Atoms:
    """148 atoms, C120H28 as the buckyball catcher: two C60 and hydrogen between them."""
    ball, hydrogen = molecule("C60"), molecule("H2")
    atoms = ball.copy()
    ball.translate((0, 0, 12.0))
    atoms += ball
    for k in range(14):
        turn = 2 * np.pi * k / 7
        place = (5.5 * np.cos(turn), 5.5 * np.sin(turn), 4.5 if k < 7 else 7.5)
        one = hydrogen.copy()
        one.translate(place)
        atoms += one
    return atoms


def tube() -> Atoms:
    """200 atoms: a carbon nanotube with open ends."""
    carbon = nanotube(5, 5, length=10)
    return Atoms(carbon.numbers, carbon.positions)


def double_tube() -> Atoms:
    """370 atoms, C296H74: a (14, 0) nanotube in a (23, 0) one, capped with hydrogen."""
    inner, outer = _capped(14), _capped(23)
    outer.translate(inner.get_center_of_mass() - outer.get_center_of_mass())
    return inner + outer


def _capped(n: int) -> Atoms:
    """Two cells of an (n, 0) nanotube; the bonds that stand out at its ends hold hydrogen."""
    carbon = nanotube(n, 0, length=2)
    height = carbon.positions[:, 2]
    order = np.argsort(height)
    capped = Atoms(carbon.numbers, carbon.positions)
    for ends, side in ((order[:n], -1.0), (order[-n:], 1.0)):
        capped += Atoms(f"H{n}", carbon.positions[ends] + [0, 0, side * 1.09])
    return capped


def aspirins() -> Atoms:
    """63 atoms: three aspirins on top of each other, turned about the common axis."""
    flat = _read(EXAMPLES / "aspirin.xyz")
    _, axes = flat.get_moments_of_inertia(vectors=True)
    flat.positions = (flat.positions - flat.get_center_of_mass()) @ axes.T  # flattest along z
    atoms = Atoms()
    for k in range(3):
        one = flat.copy()
        one.rotate(70 * k, "z")
        one.translate((0, 0, 4.5 * k))
        atoms += one
    return atoms


def shaken(one: Atoms, count: int) -> list[Atoms]:
    """Copies with atoms displaced by some 0.05 Å."""
    copies = [one.copy() for _ in range(count)]
    for seed, atoms in enumerate(copies):
        atoms.rattle(0.05, seed=seed)
    return copies


def _read(path: Path) -> Atoms:
    atoms = read(path)
    assert isinstance(atoms, Atoms)
    return atoms


NAMES = {
    "ethanol": lambda: _read(EXAMPLES / "ethanol.xyz"),
    "aspirin": lambda: _read(EXAMPLES / "aspirin.xyz"),
    "aspirins": aspirins,
    "ammonia": ammonia,
    "catcher": fullerenes,
    "tube": tube,
    "nanotube": double_tube,
}
