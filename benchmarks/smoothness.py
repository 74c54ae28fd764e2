"""How smooth the energy is: official graphs against smooth ones, same random weights.

    python benchmarks/smoothness.py [--time 2.0] [--svg FILE]

A cluster of three aspirins (63 atoms, random jmp-xs weights). Path: one atom moves along a line,
so that its neighbours swap ranks and pairs cross the cutoff. The jump of a step is what the energy
changes beyond the integral of the force (trapezoid); without discontinuities it falls with the
cube of the step. Dynamics: NVE at 300 K with a step of 0.5 fs; the drift is the slope of the total
energy per atom.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.io import read
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.graph.policy import GraphPolicy
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.nn.config import preset
from jmp_md.potential import Potential
from jmp_md.structures import single_structure
from jmp_md.training.scale_factors import fit_scale_factors

ASPIRIN = Path(__file__).resolve().parents[1] / "examples" / "aspirin.xyz"
POLICIES = {
    # As published for rMD17's cutoff and the base count of the other sets.
    "official": GraphPolicy.official(7.0, 30),
    "smooth": GraphPolicy("smooth", (7.0,) * 4, GraphPolicy.official(7.0, 30).counts),
    "smooth, own cutoffs": GraphPolicy.smooth(),
}


def cluster() -> Atoms:
    """Three aspirins side by side, the middle one turned."""
    one = read(ASPIRIN)
    assert isinstance(one, Atoms)
    atoms = one.copy()
    for k in (1, 2):
        other = one.copy()
        other.rotate(70 * k, "x", center="COM")
        other.translate((0, 0, 5.0 * k))
        atoms += other
    return atoms


def make_potential(policy: GraphPolicy, atoms: Atoms) -> Potential:
    """Random weights with fitted scale factors, an energy of some eV and forces of some eV/Å."""
    head = HeadInfo("energy", policy, energy_scale=2.0)
    torch.manual_seed(0)
    potential = Potential(ModelHeader("random", preset("jmp-xs"), (head,))).double()
    calculator = JMPCalculator(potential, dtype="float64")
    pairs, positions = calculator.neighbours.update(
        atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc
    )
    fit_scale_factors(
        potential, single_structure(positions, atoms.numbers, np.zeros((3, 3)), pairs)
    )
    return potential


def scan(potential: Potential, atoms: Atoms, steps: int) -> tuple[np.ndarray, float]:
    """Energies (eV) along the path of one atom, and the largest jump (eV)."""
    atoms = atoms.copy()
    atoms.calc = JMPCalculator(potential, dtype="float64")
    start, direction = atoms.positions[30].copy(), np.array([0.48, 0.6, 0.64])
    distances = np.linspace(0.0, 1.0, steps + 1)
    energies, forces = np.empty(steps + 1), np.empty(steps + 1)
    for i, distance in enumerate(distances):
        atoms.positions[30] = start + distance * direction
        energies[i] = atoms.get_potential_energy()
        forces[i] = atoms.get_forces()[30] @ direction
    expected = -0.5 * (forces[1:] + forces[:-1]) * np.diff(distances)
    return energies, float(np.abs(np.diff(energies) - expected).max())


def drift(potential: Potential, atoms: Atoms, picoseconds: float) -> float:
    """Slope of the total energy in NVE, meV/atom/ps."""
    atoms = atoms.copy()
    atoms.calc = JMPCalculator(potential, dtype="float64")
    rng = np.random.default_rng(0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=rng)
    Stationary(atoms)
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    times, totals = [], []

    def note() -> None:
        times.append(dynamics.get_time() / units.fs / 1000)
        totals.append(atoms.get_total_energy())

    dynamics.attach(note, interval=5)
    dynamics.run(round(picoseconds * 2000))
    return float(1e3 * np.polyfit(times, totals, 1)[0] / len(atoms))


def plot(path: Path, curves: dict[str, np.ndarray]) -> None:
    """Energies along the path, each from its own start, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, energies in curves.items():
        axes.plot(np.linspace(0, 1, len(energies)), energies - energies[0], label=name)
    axes.set(xlabel="displacement of one atom (Å)", ylabel="energy (eV)")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400, help="steps of the path of 1 Å")
    parser.add_argument("--time", type=float, default=0.0, help="ps of NVE; 0 for none")
    parser.add_argument("--svg", type=Path, help="draw the energies along the path here")
    args = parser.parse_args()
    atoms = cluster()
    curves = {}
    print(f"{'graphs':22} {'largest jump':>14} {'at half steps':>14} {'drift meV/atom/ps':>18}")
    for name, policy in POLICIES.items():
        potential = make_potential(policy, atoms)
        curves[name], jump = scan(potential, atoms, args.steps)
        _, finer = scan(potential, atoms, 2 * args.steps)
        slope = f"{drift(potential, atoms, args.time):18.4f}" if args.time else f"{'-':>18}"
        print(f"{name:22} {jump:11.2e} eV {finer:11.2e} eV {slope}", flush=True)
    if args.svg:
        plot(args.svg, curves)


if __name__ == "__main__":
    main()
