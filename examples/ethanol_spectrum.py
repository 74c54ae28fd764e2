"""Vibrational spectrum of ethanol, from molecular dynamics and from normal modes.

Warm up at 300 K, run at constant energy, and transform the velocity autocorrelation: its peaks
should lie at, or somewhat below, the harmonic frequencies. A run that is stopped continues when
the script is started again.

Run: python examples/ethanol_spectrum.py [ps]   (4 ps by default: minutes on one core)
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ase.io import read
from matplotlib.figure import Figure

from jmp_md.analysis import read_series, vibrational_spectrum
from jmp_md.calculators.ase import JMPCalculator
from jmp_md.runs.md import run_md
from jmp_md.simulate.relax import relax
from jmp_md.simulate.vibrations import vibrations

TIMESTEP = 0.5  # fs
INTERVAL = 4  # steps between frames: 2 fs resolve frequencies up to 8000 cm⁻¹


def draw(wavenumbers: np.ndarray, power: np.ndarray, harmonic: np.ndarray) -> None:
    """``ethanol-spectrum.svg``: spectrum of the dynamics above lines of the normal modes."""
    figure = Figure(figsize=(7.0, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(wavenumbers, power, lw=1.0, label="dynamics at 300 K")
    axes.vlines(harmonic, -0.08, 0.0, color="C1", lw=1.2, label="normal modes")
    axes.set(xlim=(0, 4000), xlabel="wavenumber (cm⁻¹)", ylabel="power, relative", yticks=[])
    axes.legend(frameon=False)
    figure.savefig("ethanol-spectrum.svg", metadata={"Date": None})


def main() -> None:
    picoseconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    model = "jmp-xs-rmd17-ethanol"
    atoms = read(Path(__file__).with_name("ethanol.xyz"))
    atoms.calc = JMPCalculator(model, dtype="float64")
    atoms = relax(atoms, fmax=0.002).atoms
    harmonic = vibrations(atoms, atoms.calc).frequencies

    atoms.calc = JMPCalculator(model)
    warm = run_md(atoms, "ethanol-warm", ensemble="nvt-langevin", steps=1000, restart=True).atoms
    run = run_md(
        warm,
        "ethanol-nve",
        ensemble="nve",
        steps=round(1000 * picoseconds / TIMESTEP),
        timestep=TIMESTEP,
        interval=INTERVAL,
        restart=True,
        progress=lambda line: (
            print(f"{line['time_fs']:9.1f} fs {line['total_eV']:14.6f} eV")
            if line["step"] % 400 == 0
            else None
        ),
    )
    series = read_series(run.trajectory)
    found = vibrational_spectrum(series.velocities, series.interval, atoms.get_masses())
    wavenumbers, power = found.wavenumbers, found.density / found.density.max()
    print(f"mean temperature {run.temperature:.0f} K, drift {run.drift:+.4f} meV/atom/ps")
    print("harmonic:", " ".join(f"{frequency:.0f}" for frequency in harmonic), "cm⁻¹")
    print("dynamics:", " ".join(f"{frequency:.0f}" for frequency in found.peaks), "cm⁻¹")
    draw(wavenumbers, power, harmonic)
    np.savetxt("ethanol-spectrum.csv", np.c_[wavenumbers, power], delimiter=",")


if __name__ == "__main__":
    main()
