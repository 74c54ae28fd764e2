"""Conformers of aspirin: 200 guesses by random torsions, relaxed in one batch, ranked by energy.

Run: python examples/aspirin_conformers.py [GUESSES]   (minutes on one core)
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read, write
from matplotlib.figure import Figure

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.simulate.relax import RelaxResult, relax_batched

# Torsions that turn: acetyl about ester oxygen, ester about ring, acid about ring, its proton;
# each as four atoms and the atoms that move along.
ACETYL, ACID = [0, 1, 2, 13, 14, 15], [11, 12, 20]
TORSIONS = (
    ((0, 1, 3, 4), [0, 2, 13, 14, 15]),
    ((1, 3, 4, 5), ACETYL),
    ((5, 9, 10, 11), ACID),
    ((9, 10, 12, 20), [20]),
)
CLOSEST = 1.4  # Å between atoms of different groups: closer guesses are thrown away
SAME = 0.002  # eV


def guesses(start: Atoms, count: int, seed: int = 0) -> list[Atoms]:
    """Structures with random torsions and no atoms on top of each other."""
    rng = np.random.default_rng(seed)
    bonded = start.get_all_distances() < 1.7
    found: list[Atoms] = []
    while len(found) < count:
        atoms = start.copy()
        for torsion, moving in TORSIONS:
            atoms.set_dihedral(*torsion, rng.uniform(0, 360), indices=moving)
        if atoms.get_all_distances()[~bonded].min() > CLOSEST:
            found.append(atoms)
    return found


def distinct(results: list[RelaxResult]) -> list[tuple[RelaxResult, int]]:
    """Conformers by rising energy, each with how many guesses fell into it."""
    ranked: list[tuple[RelaxResult, int]] = []
    for result in sorted((r for r in results if r.converged), key=lambda r: r.energy):
        if ranked and result.energy - ranked[-1][0].energy < SAME:
            ranked[-1] = (ranked[-1][0], ranked[-1][1] + 1)
        else:
            ranked.append((result, 1))
    return ranked


def draw(energies: list[float]) -> None:
    """``aspirin-conformers.svg``: the ladder of energies in meV."""
    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(range(1, len(energies) + 1), energies, "_", ms=9)
    axes.set(xlabel="conformer", ylabel="energy above the lowest (meV)")
    figure.savefig("aspirin-conformers.svg", metadata={"Date": None})


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    start = read(Path(__file__).with_name("aspirin.xyz"))
    calculator = JMPCalculator("jmp-xs-rmd17-aspirin")
    results = relax_batched(
        guesses(start, count),
        calculator,
        fmax=0.02,
        progress=lambda i, end: print(f"guess {i:4d}: {end.energy:14.4f} eV, {end.steps} steps"),
    )
    ranked = distinct(results)
    print(f"{sum(r.converged for r in results)} of {count} converged to {len(ranked)} conformers")
    lowest = ranked[0][0].energy
    for i, (conformer, times) in enumerate(ranked[:10]):
        print(f"{i + 1:3d}  {1000 * (conformer.energy - lowest):8.1f} meV  found {times} times")
    draw([1000 * (conformer.energy - lowest) for conformer, _ in ranked])
    write("aspirin-conformers.extxyz", [conformer.atoms for conformer, _ in ranked])


if __name__ == "__main__":
    main()
