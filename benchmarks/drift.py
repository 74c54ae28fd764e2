"""Energy conservation: NVE with official graphs and with smooth ones, same random weights.

    python benchmarks/drift.py runs/drift --ps 20 --svg FILE
    python benchmarks/drift.py runs/drift --ps 20 --minutes 8       # goes on where it stopped

Three aspirins (63 atoms) at 300 K, 0.5 fs. Random weights (jmp-xs, forces of 0.5 eV/Å) bind
nothing, so that a spring of 2 eV/Å^2 holds every atom near its place; springs conserve energy.
The drift is the slope of the total energy by least squares; the scatter is what is left of it.
Both policies have the same cutoffs and counts; float32, as in simulations.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import figures
import numpy as np
from ase import Atoms, units
from ase.constraints import Hookean
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from smoothness import random_potentials
from structures import aspirins

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.files import atomic_write
from jmp_md.potential import Potential

GRAPHS = ("official", "smooth")
STEP, SPRING, EVERY = 0.5, 2.0, 200  # fs, eV/Å^2, steps between saves


def start() -> Atoms:
    """The cluster with springs and velocities of 600 K; springs take half of it."""
    atoms = aspirins()
    thermalize_momenta(atoms, temperature_K=600, rng=np.random.default_rng(0))
    Stationary(atoms)
    places = atoms.positions.copy()
    atoms.set_constraint([Hookean(i, tuple(place), SPRING, 0.0) for i, place in enumerate(places)])
    return atoms


def go_on(file: Path, potential: Potential, steps: int, until: float, dtype: str) -> int:
    """Continue a run to ``steps`` steps or the time ``until``; returns the steps done.

    The file holds positions, momenta and the total energy (eV) after every step.
    """
    atoms, energies = start(), np.empty(0)
    if file.exists():
        saved = np.load(file)
        energies = saved["energies"]
        atoms.set_positions(saved["positions"], apply_constraint=False)
        atoms.set_momenta(saved["momenta"], apply_constraint=False)
    atoms.calc = JMPCalculator(potential, dtype=dtype)
    dynamics = VelocityVerlet(atoms, STEP * units.fs)
    while len(energies) < steps and time.monotonic() < until:
        new = []
        for _ in range(min(EVERY, steps - len(energies))):
            dynamics.run(1)
            new.append(atoms.get_total_energy())
        energies = np.append(energies, new)
        with atomic_write(file) as temporary, temporary.open("wb") as stream:
            state = {"positions": atoms.positions, "momenta": atoms.get_momenta()}
            np.savez(stream, energies=energies, **state)
    return len(energies)


def main() -> None:
    """Run what is missing, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where runs are kept")
    parser.add_argument("--ps", type=float, default=20.0)
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so long")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--svg", type=Path, help="draw the total energies here")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    args.folder.mkdir(parents=True, exist_ok=True)
    steps, until = round(1000 * args.ps / STEP), time.monotonic() + 60 * args.minutes
    potentials = random_potentials(aspirins(), rms_force=0.5)
    files = {name: args.folder / f"{name}.npz" for name in GRAPHS}
    for part in np.linspace(0, steps, 21)[1:]:  # side by side, so that a stop finds both alike
        for name, file in files.items():
            go_on(file, potentials[name], round(part), until, args.dtype)
    curves = {}
    print("graphs         ps   drift meV/atom/ps   scatter meV/atom")
    for name, file in files.items():
        energy = 1e3 * np.load(file)["energies"] / len(aspirins())
        ps = 1e-3 * STEP * np.arange(1, len(energy) + 1)
        slope, intercept = np.polyfit(ps, energy, 1)
        scatter = np.std(energy - slope * ps - intercept)
        print(f"{name:10} {ps[-1]:6.2f} {slope:19.5f} {scatter:18.5f}")
        curves[name] = ps, energy - energy[0]
    if args.svg:
        figures.save(figures.drift(curves), args.svg)


if __name__ == "__main__":
    main()
