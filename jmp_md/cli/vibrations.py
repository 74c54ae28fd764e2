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
    parser.add_argument(
        "--symmetry-number", type=int, help="e.g. 2 for water (default: found from the geometry)"
    )
    parser.add_argument(
        "--spin", type=float, help="total spin, e.g. 1 for O2 (default: the lowest, 0 or 0.5)"
    )


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.simulate.relax import relax
    from jmp_md.simulate.summary import describe, write_summary
    from jmp_md.simulate.thermochemistry import check_gas
    from jmp_md.simulate.vibrations import moving_atoms, vibrations
    from jmp_md.simulate.watch import DomainWatch

    started = time.monotonic()
    atoms = read_structures(args.structure)[-1]
    moving_atoms(atoms)
    if args.thermo:
        check_gas(atoms, **_gas_options(args))
    [(model, calculator)] = calculators_for([atoms], args)
    output = args.output or Path(f"{args.structure.stem}-vibrations")
    output.mkdir(parents=True, exist_ok=True)
    print(f"{atoms.get_chemical_formula(mode='hill')}, model {model}")
    watch = DomainWatch(calculator)
    watch.begin([atoms])
    converged = None
    if args.relax:
        atoms.calc = calculator
        result = relax(
            atoms,
            fmax=args.fmax,
            steps=args.steps,
            observer=lambda step, now: watch.see(now, f"step {step}"),
        )
        converged = result.converged
        how = "relaxed" if converged else "NOT relaxed"
        print(f"{how} in {result.steps} steps to fmax {result.fmax:.5f} eV/Å")
        atoms = result.atoms
    watch.end([atoms])
    modes = vibrations(atoms, calculator, delta=args.delta)
    for frequency in modes.frequencies:
        print(f"  {frequency:10.2f} cm⁻¹" + (" (imaginary)" if frequency < 0 else ""))
    _write_modes(modes, output / "modes.extxyz")
    relaxed = modes.fmax <= args.fmax if converged is None else converged
    doubts = list(modes.doubts)
    if not relaxed:
        doubts.append(f"NOT relaxed: forces of {modes.fmax:.4f} eV/Å, asked for {args.fmax}")
    results: dict[str, Any] = {
        "energy_eV": modes.energy,
        "relaxed": relaxed,
        "fmax_eV_per_A": modes.fmax,
        "hessian_asymmetry": modes.asymmetry,
        "frequencies_per_cm": modes.frequencies.tolist(),
    }
    settings = {name: getattr(args, name) for name in ("relax", "fmax", "steps", "delta")}
    if args.thermo:
        settings |= _gas_options(args)
        results["thermochemistry_eV_K_bar"], reasons = _gas(modes, args)
        doubts += reasons
    results["doubts"] = doubts
    write_summary(
        output,
        "vibrations",
        model=describe(calculator),
        settings=settings,
        results=results,
        seconds=time.monotonic() - started,
        domain=watch.record(),
    )
    for text in doubts:
        print(f"in doubt: {text}")
    print(f"wrote {output / 'modes.extxyz'} and {output / 'summary.json'}")
    return 2 if doubts else 0


def _gas_options(args: argparse.Namespace) -> dict[str, Any]:
    return {
        name: getattr(args, name) for name in ("temperature", "pressure", "symmetry_number", "spin")
    }


def _gas(modes: Vibrations, args: argparse.Namespace) -> tuple[dict[str, Any] | None, list[str]]:
    """Print the thermochemistry: its figures, or None and why there are none."""
    from jmp_md.errors import InputError
    from jmp_md.simulate.rotations import symmetry_number
    from jmp_md.simulate.thermochemistry import thermochemistry

    try:
        gas = thermochemistry(modes, **_gas_options(args))
    except InputError as error:
        return None, [f"NO thermochemistry: {error}"]
    print(
        f"at {gas.temperature} K and {gas.pressure} bar: enthalpy {gas.enthalpy:.4f} eV, "
        f"entropy {gas.entropy * 1000:.4f} meV/K, Gibbs energy {gas.gibbs_energy:.4f} eV"
    )
    print(
        f"  as a {gas.geometry} molecule with symmetry number {gas.symmetry_number} "
        f"({'found' if args.symmetry_number is None else 'given'}) and spin {gas.spin:g} "
        f"({'assumed' if args.spin is None else 'given'})"
    )
    found = symmetry_number(modes.data.get_atoms())
    if gas.symmetry_number != found:
        print(f"note: the geometry has the symmetry number {found}")
    return dataclasses.asdict(gas), []


def _write_modes(modes: Vibrations, path: Path) -> None:
    """One structure per mode, its displacements as an array."""
    import numpy as np
    from ase.units import invcm

    from jmp_md.structure_files import with_results, write_structures

    frames = []
    displacements = modes.data.get_modes(all_atoms=True)
    for energy, shape in zip(modes.data.get_energies(), displacements, strict=True):
        signed = float((energy.real - abs(energy.imag)) / invcm)
        frames.append(with_results(modes.data.get_atoms(), {}, frequency_per_cm=signed))
        frames[-1].set_array("mode", np.array(shape))
    write_structures(path, frames)
