"""Atoms in potentials whose minima and saddles are known from analysis or from the literature."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.constraints import FixCartesian

SCALE = 0.01  # eV for a unit of the plane of Müller and Brown, for forces as atoms have them
# Müller and Brown, Theor. Chim. Acta 53, 75 (1979): parameters; minima and saddles in the plane
_A = np.array([-200.0, -100.0, -170.0, 15.0])
_XX, _XY, _YY = np.array([[-1, -1, -6.5, 0.7], [0, 0, 11, 0.6], [-10, -10, -6.5, 0.7]])
_X, _Y = np.array([[1, 0, -0.5, -1], [0, 0.5, 1.5, 1]])
DEEP, MIDDLE, SHALLOW = (-0.558, 1.442), (-0.050, 0.467), (0.623, 0.028)
DEEP_ENERGY, MIDDLE_ENERGY, SHALLOW_ENERGY = -1.46700, -0.80768, -1.08167  # eV, scaled
HIGH_SADDLE, LOW_SADDLE = (-0.822, 0.624), (0.212, 0.293)
HIGH_ENERGY, LOW_ENERGY = -0.40665, -0.72249


class Landscape(Calculator):
    """One atom in an outer potential.

    Args:
        potential: Energy in eV and its gradient (3,) in eV/Å at a place (3,).
    """

    implemented_properties = ("energy", "forces")

    def __init__(self, potential: Callable[[np.ndarray], tuple[float, np.ndarray]]) -> None:
        super().__init__()
        self.potential = potential

    def calculate(
        self, atoms: Atoms | None = None, properties: tuple = (), changes: list = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        energy, gradient = self.potential(self.atoms.positions[0])
        self.results = {"energy": float(energy), "forces": -np.array([gradient])}


def mueller_brown(place: np.ndarray) -> tuple[float, np.ndarray]:
    """The plane of Müller and Brown, with a spring that keeps the atom in it."""
    x, y = place[0] - _X, place[1] - _Y
    terms = _A * np.exp(_XX * x**2 + _XY * x * y + _YY * y**2)
    along_x = (terms * (2 * _XX * x + _XY * y)).sum()
    along_y = (terms * (_XY * x + 2 * _YY * y)).sum()
    gradient = np.array([along_x, along_y, 100 * place[2]])
    return SCALE * (terms.sum() + 50 * place[2] ** 2), SCALE * gradient


def tilted(tilt: float) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """(x² - 1)² + tilt x, with springs across: extrema are the roots of 4 x³ - 4 x + tilt."""

    def potential(place: np.ndarray) -> tuple[float, np.ndarray]:
        x, across = place[0], place[1:]
        energy = (x**2 - 1) ** 2 + tilt * x + 5 * (across**2).sum()
        return energy, np.array([4 * x**3 - 4 * x + tilt, *(10 * across)])

    return potential


def waves(height: float, period: float) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Sites every ``period`` along x, barriers of ``height`` between them, in a winding valley."""

    def potential(place: np.ndarray) -> tuple[float, np.ndarray]:
        x, y, z = place
        phase = 2 * np.pi * x / period
        off = y - 5.0 - 0.2 * (1 - np.cos(phase))
        energy = height * (1 - np.cos(phase)) / 2 + 5 * off**2 + 5 * (z - 5.0) ** 2
        slope = (height / 2 - 10 * off * 0.2) * np.sin(phase) * 2 * np.pi / period
        return energy, np.array([slope, 10 * off, 10 * (z - 5.0)])

    return potential


def atom(*place: float, cell: float | None = None) -> Atoms:
    """An atom that moves in the plane; ``cell`` makes it periodic."""
    position = [*place, 0.0, 0.0][:3]
    atoms = Atoms("H", [position], cell=None if cell is None else [cell] * 3, pbc=cell is not None)
    atoms.set_constraint(FixCartesian([0], mask=(False, False, True)))
    return atoms
