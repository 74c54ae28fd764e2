"""``jmp-md vibrations``: frequencies and thermochemistry of a molecule."""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.cli.common import (
    add_model_arguments,
    add_tags_argument,
    calculators_for,
    read_structures,
)
from jmp_md.cli.config import add_config

if TYPE_CHECKING:
    from jmp_md.simulate.vibrations import Vibrations

NAME = "vibrations"
HELP = "vibrational frequencies, and thermochemistry as an ideal gas; exit code 2 if not relaxed"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("structure", type=Path, help="file of a structure; the last of several")
    add_model_arguments(parser, dtype="float64")
    add_tags_argument(parser)
    parser.add_argument("--output", type=Path, help="folder (default: STEM-vibrations here)")
    add_config(parser)
    parser.add_argument(
        "--relax", action=argparse.BooleanOptionalAction, default=True, help="relax first, to fmax"
    )
    parser.add_argument("--fmax", type=float, default=1e-3, help="eV/Å (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=500, help="most steps to relax, %(default)s")
    parser.add_argument("--delta", type=float, default=0.01, help="Å displaced, %(default)s")
    parser.add_argument("--thermo", action="store_true", help="also thermochemistry")
    parser.add_argument("--temperature", type=float, default=298.15, help="K, %(default)s")
    parser.add_argument("--pressure", type=float, default=1.0, help="bar, %(default)s")
    parser.add_argument("--symmetry-number", type=int, default=1, help="e.g. 2 for water")
    parser.add_argument("--spin", type=float, default=0.0, help="total spin, 0.5 for a radical")


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.simulate.relax import relax
    from jmp_md.simulate.summary import describe, write_summary
    from jmp_md.simulate.vibrations import thermochemistry, vibrations

    started = time.monotonic()
    atoms = read_structures(args.structure)[-1]
    [(model, calculator)] = calculators_for([atoms], args)
    output = args.output or Path(f"{args.structure.stem}-vibrations")
    output.mkdir(parents=True, exist_ok=True)
    print(f"{atoms.get_chemical_formula(mode='hill')}, model {model}")
    converged = True
    if args.relax:
        atoms.calc = calculator
        result = relax(atoms, fmax=args.fmax, steps=args.steps)
        converged = result.converged
        how = "relaxed" if converged else "NOT relaxed"
        print(f"{how} in {result.steps} steps to fmax {result.fmax:.5f} eV/Å")
        atoms = result.atoms
    modes = vibrations(atoms, calculator, delta=args.delta)
    for frequency in modes.frequencies:
        print(f"  {frequency:10.2f} cm⁻¹" + (" (imaginary)" if frequency < 0 else ""))
    _write_modes(modes, output / "modes.extxyz")
    results: dict[str, Any] = {
        "energy_eV": modes.energy,
        "relaxed": converged,
        "fmax_eV_per_A": modes.fmax,
        "frequencies_per_cm": modes.frequencies.tolist(),
    }
    if args.thermo:
        gas = thermochemistry(
            modes,
            temperature=args.temperature,
            pressure=args.pressure,
            symmetry_number=args.symmetry_number,
            spin=args.spin,
        )
        results["thermochemistry_eV_K_bar"] = dataclasses.asdict(gas)
        print(
            f"at {gas.temperature} K and {gas.pressure} bar: enthalpy {gas.enthalpy:.4f} eV, "
            f"entropy {gas.entropy * 1000:.4f} meV/K, Gibbs energy {gas.gibbs_energy:.4f} eV"
        )
    names = ("relax", "fmax", "steps", "delta")
    write_summary(
        output,
        "vibrations",
        model=describe(calculator),
        settings={name: getattr(args, name) for name in names},
        results=results,
        seconds=time.monotonic() - started,
    )
    print(f"wrote {output / 'modes.extxyz'} and {output / 'summary.json'}")
    return 0 if converged else 2


def _write_modes(modes: Vibrations, path: Path) -> None:
    """One structure per mode, its displacements as an array."""
    import numpy as np
    from ase.io import write
    from ase.units import invcm

    from jmp_md.files import atomic_write

    frames = []
    displacements = modes.data.get_modes(all_atoms=True)
    for energy, shape in zip(modes.data.get_energies(), displacements, strict=True):
        frames.append(modes.data.get_atoms())
        frames[-1].set_array("mode", np.array(shape))
        signed = (energy.real - abs(energy.imag)) / invcm
        frames[-1].info["frequency_per_cm"] = float(signed)
    with atomic_write(path) as temporary:
        write(temporary, frames, format="extxyz")
