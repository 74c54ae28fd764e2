"""Molecules and crystals of springs, whose frequencies are known from analysis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list
from scipy import constants

EV, AMU = constants.e, constants.atomic_mass


def per_cm(stiffness: float, mass: float) -> float:
    """Wavenumber in cm⁻¹ of a force constant in eV/Å² on a mass in u."""
    angular = np.sqrt(stiffness * EV * 1e20 / (mass * AMU))
    return float(angular / (2 * np.pi * constants.c * 100))


def terahertz(stiffness: float, mass: float) -> float:
    """Frequency in THz of a force constant in eV/Å² on a mass in u."""
    return float(np.sqrt(stiffness * EV * 1e20 / (mass * AMU)) / (2 * np.pi) / 1e12)


class Harmonic(Calculator):
    """A molecule with a given Hessian at a given place.

    Args:
        positions: (n, 3) Å of the minimum.
        hessian: (3 n, 3 n) eV/Å².
    """

    implemented_properties = ("energy", "forces")

    def __init__(self, positions: np.ndarray, hessian: np.ndarray) -> None:
        super().__init__()
        self.positions, self.hessian = positions.copy(), hessian

    def calculate(
        self, atoms: Atoms | None = None, properties: tuple = (), changes: list = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        moved = (self.atoms.positions - self.positions).ravel()
        forces = -self.hessian @ moved
        self.results = {"energy": -0.5 * float(forces @ moved), "forces": forces.reshape(-1, 3)}


def with_frequencies(atoms: Atoms, wavenumbers: Sequence[float]) -> Harmonic:
    """A calculator that gives a free molecule these frequencies in cm⁻¹, in some modes."""
    root = np.sqrt(atoms.get_masses())[:, None]
    arms = atoms.positions - atoms.get_center_of_mass()
    rigid = [root * axis for axis in np.eye(3)]
    rigid += [root * np.cross(axis, arms) for axis in np.eye(3)]
    columns = np.array([motion.ravel() for motion in rigid]).T
    left, sizes, _ = np.linalg.svd(columns)
    modes = left[:, int((sizes > 1e-6).sum()) :]
    assert modes.shape[1] == len(wavenumbers)
    angular = 2 * np.pi * constants.c * 100 * np.array(wavenumbers)
    stiffness = angular**2 * AMU / (EV * 1e20)  # eV/Å² per u
    weights = np.repeat(root, 3)
    hessian = (modes * stiffness) @ modes.T * np.outer(weights, weights)
    return Harmonic(atoms.positions, hessian)


class Springs(Calculator):
    """Neighbours of a crystal on harmonic springs of one length.

    Args:
        stiffness: eV/Å².
        length: Å.
    """

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, stiffness: float, length: float) -> None:
        super().__init__()
        self.stiffness, self.length = stiffness, length

    def calculate(
        self, atoms: Atoms | None = None, properties: tuple = (), changes: list = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        i, d, vectors = neighbor_list("idD", self.atoms, 1.2 * self.length)
        pull = self.stiffness * (d - self.length)
        pair = (pull / d)[:, None] * vectors
        forces = np.zeros((len(self.atoms), 3))
        np.add.at(forces, i, pair)
        virial = 0.5 * np.einsum("ni,nj->ij", pair, vectors) / abs(self.atoms.cell.volume)
        energy = 0.25 * float((pull**2).sum()) / self.stiffness
        stress = virial.ravel()[[0, 4, 8, 5, 2, 1]]
        self.results = {"energy": energy, "forces": forces, "stress": stress}


class LennardJones(Calculator):
    """Lennard-Jones between all neighbours to a cutoff, shifted to zero there.

    Args:
        epsilon: eV.
        sigma: Å.
        cutoff: Å.
    """

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, epsilon: float, sigma: float, cutoff: float) -> None:
        super().__init__()
        self.epsilon, self.sigma, self.cutoff = epsilon, sigma, cutoff

    def pair(self, r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Energy of a pair and its first two derivatives."""
        six = (self.sigma / r) ** 6
        energy = 4 * self.epsilon * (six**2 - six)
        slope = 4 * self.epsilon * (-12 * six**2 + 6 * six) / r
        curvature = 4 * self.epsilon * (156 * six**2 - 42 * six) / r**2
        return energy, slope, curvature

    def calculate(
        self, atoms: Atoms | None = None, properties: tuple = (), changes: list = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        i, d, vectors = neighbor_list("idD", self.atoms, self.cutoff)
        energy, slope, _ = self.pair(d)
        energy = energy - self.pair(np.array(self.cutoff))[0]
        pair = (slope / d)[:, None] * vectors
        forces = np.zeros((len(self.atoms), 3))
        np.add.at(forces, i, pair)
        virial = 0.5 * np.einsum("ni,nj->ij", pair, vectors) / abs(self.atoms.cell.volume)
        stress = virial.ravel()[[0, 4, 8, 5, 2, 1]]
        self.results = {"energy": 0.5 * float(energy.sum()), "forces": forces, "stress": stress}


class Keating(Calculator):
    """Diamond with Keating's potential, Phys. Rev. 145, 637 (1966): bonds and angles.

    With the lattice constant a, C11 = (alpha + 3 beta) / a, C12 = (alpha - beta) / a and, ions
    relaxed, C44 = 4 alpha beta / (alpha + beta) / a, clamped (alpha + beta) / a; the optical mode
    at Γ has m omega² = 8 (alpha + beta).

    Args:
        alpha: eV/Å², of bonds.
        beta: eV/Å², of angles.
        side: Å, the lattice constant.
    """

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, alpha: float, beta: float, side: float) -> None:
        super().__init__()
        self.alpha, self.beta, self.bond = alpha, beta, side * np.sqrt(3) / 4

    def calculate(
        self, atoms: Atoms | None = None, properties: tuple = (), changes: list = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        i, j, shifts = neighbor_list("ijS", self.atoms, 1.3 * self.bond)
        order = np.argsort(i, kind="stable")
        i, j, shifts = i[order], j[order], shifts[order]
        assert len(i) == 4 * len(self.atoms)
        places = torch.tensor(self.atoms.positions, requires_grad=True)
        strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
        moved = places @ (torch.eye(3) + strain)
        cell = torch.tensor(self.atoms.cell.array) @ (torch.eye(3) + strain)
        arms = moved[j] - moved[i] + torch.tensor(shifts, dtype=torch.float64) @ cell
        arms = arms.reshape(-1, 4, 3)
        products = arms @ arms.transpose(1, 2)
        square = self.bond**2
        lengths = products.diagonal(dim1=1, dim2=2) - square
        above = torch.triu(torch.ones(4, 4), 1).bool()
        angles = products[:, above] + square / 3
        bonds = self.alpha * (lengths**2).sum() / 2  # each is seen from both ends
        energy = 3 / (8 * square) * (bonds + self.beta * (angles**2).sum())
        slopes = torch.autograd.grad(energy, (places, strain))
        stress = (slopes[1] + slopes[1].T).numpy() / 2 / abs(self.atoms.cell.volume)
        self.results = {
            "energy": energy.item(),
            "forces": -slopes[0].numpy(),
            "stress": stress.ravel()[[0, 4, 8, 5, 2, 1]],
        }


class ElasticBody(Calculator):
    """A body of given elastic constants, whatever atoms are in it.

    Args:
        stiffness: (6, 6) eV/Å³.
        cell: (3, 3) Å without stress.
        stress: (6,) eV/Å³ that is there without strain.
    """

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, stiffness: np.ndarray, cell: np.ndarray, stress: np.ndarray) -> None:
        super().__init__()
        self.stiffness, self.cell, self.stress = stiffness, np.array(cell), np.array(stress)

    def calculate(
        self, atoms: Atoms | None = None, properties: tuple = (), changes: list = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        change = np.linalg.solve(self.cell, self.atoms.cell.array) - np.eye(3)
        full = (change + change.T) / 2
        strain = full.ravel()[[0, 4, 8, 5, 2, 1]] * [1, 1, 1, 2, 2, 2]
        volume = abs(np.linalg.det(self.cell))
        energy = volume * float(strain @ (self.stiffness @ strain / 2 + self.stress))
        stress = self.stiffness @ strain + self.stress
        forces = np.zeros((len(self.atoms), 3))
        self.results = {"energy": energy, "forces": forces, "stress": stress}
