"""Relax a rough aspirin with a shipped model, and list its lowest vibrations.

Run: python examples/aspirin_relaxation.py   (about a minute on one core)
"""

from __future__ import annotations

from pathlib import Path

from ase.io import read, write

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.simulate.relax import relax
from jmp_md.simulate.vibrations import vibrations


def main() -> None:
    atoms = read(Path(__file__).with_name("aspirin.xyz"))
    # Double precision: the last meV/Å of a relaxation and differences of forces need it.
    atoms.calc = JMPCalculator("jmp-xs-rmd17-aspirin", dtype="float64")
    result = relax(
        atoms,
        fmax=0.005,
        progress=lambda step, energy, fmax: print(f"{step:4d} {energy:14.5f} eV {fmax:9.5f} eV/Å"),
    )
    print(f"converged: {result.converged}, {result.energy_change:+.4f} eV in {result.steps} steps")
    modes = vibrations(result.atoms, atoms.calc)
    lowest = ", ".join(f"{frequency:.0f}" for frequency in modes.frequencies[:6])
    print(f"lowest frequencies: {lowest} cm⁻¹")
    write("aspirin-relaxed.xyz", result.atoms)


if __name__ == "__main__":
    main()
