"""``jmp-md relax``: relax the structures of a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jmp_md.cli.common import (
    add_model_arguments,
    calculators_for,
    check_output,
    frozen,
    read_structures,
    write_structures,
)
from jmp_md.simulate.relax import OPTIMIZERS, RelaxResult, relax

if TYPE_CHECKING:
    from ase import Atoms

NAME = "relax"
HELP = "relax structures; exit code 2 where one did not converge"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments, with the defaults of :func:`jmp_md.simulate.relax.relax`."""
    parser.add_argument("structure", type=Path, help="file of one or more structures")
    add_model_arguments(parser, dtype="float64")
    parser.add_argument("--fmax", type=float, help="eV/Å to stop at (default: %(default)s)")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, help="default: %(default)s")
    parser.add_argument("--relax-cell", action="store_true", help="relax the cell too")
    parser.add_argument("--steps", type=int, help="most steps to take (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, help="result, any format of ASE (default: STEM-relaxed.extxyz here)"
    )
    parser.add_argument("--trajectory", type=Path, help="ASE trajectory of all steps, .traj")
    parser.add_argument("--log", type=Path, help="log of ASE's optimizer")
    parser.set_defaults(**(relax.__kwdefaults__ or {}))


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    structures = read_structures(args.structure)
    output = args.output or Path(f"{args.structure.stem}-relaxed.extxyz")
    check_output(output, args.structure, len(structures))
    models = calculators_for(structures, args)
    done: list[Atoms] = []
    converged = True
    try:
        for i, (atoms, (model, calculator)) in enumerate(zip(structures, models, strict=True)):
            formula = atoms.get_chemical_formula(mode="hill")
            print(f"structure {i + 1} of {len(structures)}: {formula}, model {model}")
            atoms.calc = calculator
            several = len(structures) > 1
            result = relax(
                atoms,
                fmax=args.fmax,
                optimizer=args.optimizer,
                relax_cell=args.relax_cell,
                steps=args.steps,
                trajectory=_numbered(args.trajectory, i) if several else args.trajectory,
                log=_numbered(args.log, i) if several else args.log,
                progress=_print_step,
            )
            print(_summary(result))
            done.append(frozen(result.atoms))
            converged = converged and result.converged
    finally:  # an error or an interrupt does not cost what is done
        if done:
            write_structures(output, done)
            print(f"wrote {output}: {len(done)} of {len(structures)} structures")
    return 0 if converged else 2


def _print_step(step: int, energy: float, fmax: float) -> None:
    print(f"  step {step:4d}  energy {energy:16.6f} eV  fmax {fmax:10.5f} eV/Å", flush=True)


def _summary(result: RelaxResult) -> str:
    how = "converged" if result.converged else "NOT converged"
    return (
        f"  {how} after {result.steps} steps: energy {result.energy:.6f} eV "
        f"({result.energy_change:+.6f} eV), fmax {result.fmax:.5f} eV/Å"
    )


def _numbered(path: Path | None, index: int) -> Path | None:
    """A file for each structure: relax.traj becomes relax-1.traj, relax-2.traj, ..."""
    return path and path.with_name(f"{path.stem}-{index + 1}{path.suffix}")
