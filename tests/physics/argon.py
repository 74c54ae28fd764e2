"""Argon of Lennard-Jones pairs, and what its lattices are by analysis.

Sums over lattices come from this file, not from a calculator: per atom of a lattice with nearest
neighbours at ``d``, E = 2 ε (A12 (σ/d)^12 - A6 (σ/d)^6), and so d_min = (2 A12 / A6)^(1/6) σ and
E_min = -ε A6² / (2 A12).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import GPa

EPSILON, SIGMA = 0.0104, 3.4  # eV, Å: argon
CUTOFF = 4.81 * SIGMA  # between two shells of the crystal


class Pairs(Calculator):
    """Lennard-Jones pairs up to a cutoff, without shift, images summed one by one."""

    implemented_properties: ClassVar = ["energy", "forces", "stress"]

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        cell = self.atoms.cell.array
        reach = [
            int(np.ceil(CUTOFF / h)) + 1 if periodic else 0
            for h, periodic in zip(_heights(cell), self.atoms.pbc, strict=True)
        ]
        grid = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1)
        shifts = grid.reshape(-1, 3) @ cell
        x = self.atoms.get_positions(wrap=True)  # so that no image is out of reach
        vectors = x[None, :, None] + shifts[None, None] - x[:, None, None]  # (i, j, image, 3)
        r2 = (vectors**2).sum(-1)
        near = (r2 > 1e-6) & (r2 < CUTOFF**2)
        s6 = np.where(near, (SIGMA**2 / np.where(near, r2, 1.0)) ** 3, 0.0)
        slope = np.where(near, -24 * EPSILON * (2 * s6**2 - s6) / np.where(near, r2, 1.0), 0.0)
        self.results = {
            "energy": float(2 * EPSILON * (s6**2 - s6).sum()),
            "forces": np.einsum("ijk,ijka->ia", slope, vectors),
        }
        if abs(np.linalg.det(cell)) > 0:
            virial = 0.5 * np.einsum("ijk,ijka,ijkb->ab", slope, vectors, vectors)
            self.results["stress"] = full_3x3_to_voigt_6_stress(virial / abs(np.linalg.det(cell)))


def _heights(cell: np.ndarray) -> np.ndarray:
    return 1 / np.linalg.norm(np.linalg.pinv(cell), axis=0).clip(1e-9)


def lattice_sums(vectors: np.ndarray, scale: float) -> tuple[float, float]:
    """A12 and A6 of a Bravais lattice with nearest neighbours at 1, up to the cutoff at scale."""
    n = int(np.ceil(CUTOFF / scale)) * 2 + 2
    grid = np.stack(np.meshgrid(*[np.arange(-n, n + 1)] * len(vectors), indexing="ij"), -1)
    r = np.linalg.norm(grid.reshape(-1, len(vectors)) @ vectors, axis=1)
    r = r[(r > 1e-9) & (r * scale < CUTOFF)]
    return float((r**-12).sum()), float((r**-6).sum())


FCC = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / np.sqrt(2)
TRIANGLES = np.array([[1, 0, 0], [0.5, np.sqrt(3) / 2, 0]])


def energy_per_atom(vectors: np.ndarray, d: float) -> float:
    a12, a6 = lattice_sums(vectors, d)
    return 2 * EPSILON * (a12 * (SIGMA / d) ** 12 - a6 * (SIGMA / d) ** 6)


def pressure_of(d: float) -> float:
    """GPa of the face-centred crystal, P = -dE/dV with V = d³ / sqrt(2)."""
    a12, a6 = lattice_sums(FCC, d)
    slope = 2 * EPSILON / d * (-12 * a12 * (SIGMA / d) ** 12 + 6 * a6 * (SIGMA / d) ** 6)
    return float(-slope * np.sqrt(2) / (3 * d**2) / GPa)
