"""Checks of what physics asks of a potential."""

from __future__ import annotations

import numpy as np
from ase import units
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from ase.stress import voigt_6_to_full_3x3_stress
from scipy.spatial.transform import Rotation

from jmp_md.batch import Result
from jmp_md.calculators.ase import JMPCalculator
from jmp_md.check.subject import MEV, Outcome, Subject, difference, forces_of
from jmp_md.graph.pairs import find_pairs, pair_distances
from jmp_md.structures import periodic_stress

# Five-point rule for the first derivative, error of fourth order in the step.
_STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))
_STEP, _STRAIN = 1e-3, 5e-4  # Å and share of the cell
_STRAINS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
_ATOMS_DISPLACED = 4
_SCAN = np.arange(-40, 41) * 0.0025  # Å
_TIMESTEP, _TEMPERATURE = 0.5, 300.0  # fs, K


def force_gradient(s: Subject) -> Outcome:
    """Forces against finite differences of the energy, for a few atoms."""
    n = len(s.atoms)
    chosen = s.rng.choice(n, min(n, _ATOMS_DISPLACED), replace=False)
    places = [(int(i), axis) for i in chosen for axis in range(3)]
    displaced = []
    for i, axis in places:
        for step, _ in _STENCIL:
            positions = s.atoms.positions.copy()
            positions[i, axis] += step * _STEP
            displaced.append(s.moved(positions))
    numeric = -_derivatives(s.energies(displaced), _STEP)
    analytic = forces_of(s.own)[tuple(np.array(places).T)]
    error = float(np.abs(numeric - analytic).max())
    return Outcome("forces are the gradient", error, 1e-5, "eV/Å", f"{len(chosen)} atoms displaced")


def stress_gradient(s: Subject) -> Outcome:
    """Stress against finite differences of the energy, for all six strains."""
    name, unit = "stress is the gradient", "eV/Å³"
    if s.own.stress is None:
        return Outcome(name, None, None, unit, "not periodic in a cell with a volume")
    strained = []
    for i, j in _STRAINS:
        for step, _ in _STENCIL:
            deformation = np.eye(3)
            deformation[i, j] += 0.5 * step * _STRAIN
            deformation[j, i] += 0.5 * step * _STRAIN
            copy = s.atoms.copy()
            copy.set_cell(copy.cell.array @ deformation, scale_atoms=True)
            strained.append(copy)
    slopes = _derivatives(s.energies(strained), _STRAIN) / s.atoms.get_volume()
    numeric = periodic_stress(voigt_6_to_full_3x3_stress(slopes), s.atoms.cell.array, s.atoms.pbc)
    return Outcome(name, float(np.abs(numeric - s.own.stress).max()), 1e-6, unit)


def translation(s: Subject) -> Outcome:
    """The structure elsewhere, periodic ones wrapped differently."""
    shift = s.rng.uniform(-20, 20, 3)
    (result,) = s.results([s.moved(s.atoms.positions + shift)])
    return Outcome("translation", difference(result, s.own), 1e-8, "eV, eV/Å")


def rotation(s: Subject) -> Outcome:
    """The structure and its cell turned at random."""
    turn = Rotation.random(random_state=s.seed).as_matrix()
    turned = s.atoms.copy()
    turned.set_cell(turned.cell.array @ turn.T)
    turned.positions = s.atoms.positions @ turn.T
    (result,) = s.results([turned])
    back = Result(result.energy, result.energies, forces_of(result) @ turn)
    return Outcome("rotation", difference(back, s.own), 1e-8, "eV, eV/Å")


def permutation(s: Subject) -> Outcome:
    """The atoms in reverse order."""
    order = np.arange(len(s.atoms))[::-1]
    (result,) = s.results([s.atoms[order]])
    back = np.argsort(order)
    restored = Result(result.energy, result.energies[back], forces_of(result)[back])
    note = "the official main graph depends on the order of atoms where it is truncated"
    error = difference(restored, s.own)
    return Outcome("order of atoms", error, 1e-8, "eV, eV/Å", note if error > 1e-8 else "")


def size_consistency(s: Subject) -> Outcome:
    """Twice the structure has twice its energy: out of each other's reach, or as a supercell."""
    if s.atoms.pbc.any():
        axis = int(np.argmax(s.atoms.pbc))
        twice, how = s.atoms.repeat([2 if i == axis else 1 for i in range(3)]), "a supercell"
    else:
        extent = np.ptp(s.atoms.positions[:, 0]) if len(s.atoms) else 0.0
        copy = s.moved(s.atoms.positions + [extent + 2 * s.potential.policy.cutoff, 0, 0])
        twice, how = s.atoms + copy, "two copies far apart"
    one, two = s.energies([s.atoms, twice])
    error = abs(float(two - 2 * one))
    return Outcome("energy is extensive", error, 1e-6, "eV", how)


def continuity(s: Subject) -> Outcome:
    """Jumps of the energy, beyond what the forces explain, while all atoms move straight on."""
    direction = s.rng.standard_normal(s.atoms.positions.shape)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    results = s.results([s.moved(s.atoms.positions + x * direction) for x in _SCAN])
    energy = np.array([r.energy for r in results])
    slope = -np.array([np.vdot(forces_of(r), direction) for r in results])
    work = (slope[:-2] + 4 * slope[1:-1] + slope[2:]) * (_SCAN[1] - _SCAN[0]) / 3  # Simpson
    jump = energy[2:] - energy[:-2] - work
    note = f"atoms moved by up to {_SCAN[-1]:.1f} Å; {_truncation(s)}"
    return Outcome("energy has no jumps", MEV * float(np.abs(jump).max()), 0.1, "meV", note)


def energy_drift(s: Subject) -> Outcome:
    """Drift of the total energy in dynamics at constant energy, by a straight line."""
    name, unit = "energy is conserved", "meV/atom"
    if len(s.atoms) < 2:
        return Outcome(name, None, None, unit, "dynamics needs two atoms or more")
    atoms = s.atoms.copy()
    device = s.potential.embedding.weight.device
    atoms.calc = JMPCalculator(s.potential, dtype=s.dtype, device=device, tags=s.tags)
    width = np.sqrt(units.kB * _TEMPERATURE * atoms.get_masses())  # Maxwell and Boltzmann
    atoms.set_momenta(s.rng.standard_normal((len(atoms), 3)) * width[:, None])
    Stationary(atoms)
    dynamics = VelocityVerlet(atoms, timestep=_TIMESTEP * units.fs)
    total = [atoms.get_total_energy() for _ in dynamics.irun(s.steps)]
    slope = np.polyfit(np.arange(len(total)), total, 1)[0]
    drift = MEV * abs(float(slope)) * s.steps / len(atoms)
    note = f"{s.steps * _TIMESTEP:g} fs of NVE from {_TEMPERATURE:g} K, {s.dtype}"
    return Outcome(name, drift, 0.5, unit, note)


def _derivatives(energies: np.ndarray, step: float) -> np.ndarray:
    """First derivatives from energies at the points of the stencil, one row per derivative."""
    weights = np.array([weight for _, weight in _STENCIL])
    # Less the first of a row: the difference matters, and energies may be large.
    rows = energies.reshape(-1, len(_STENCIL))
    derivatives: np.ndarray = (rows - rows[:, :1]) @ weights / step
    return derivatives


def _truncation(s: Subject) -> str:
    """How many atoms have more neighbours within a cutoff than a graph keeps."""
    policy, atoms = s.potential.policy, s.atoms
    cell, pbc = atoms.cell.array, atoms.pbc
    pairs = find_pairs(atoms.positions, cell, pbc, policy.cutoff)
    source, target, offset = (p.numpy() for p in (pairs.source, pairs.target, pairs.offset))
    distance = pair_distances(atoms.positions, cell, source, target, offset)
    truncated = np.zeros(len(atoms), dtype=bool)
    for cutoff, count in zip(policy.cutoffs, policy.counts, strict=True):
        if count is not None:
            near = np.bincount(target[distance <= cutoff], minlength=len(atoms))
            truncated |= near > count
    if not truncated.any():
        return "no neighbours are left out"
    return f"{truncated.sum()} of {len(atoms)} atoms have more neighbours than the graphs keep"
