"""``jmp-md singlepoint``: energies and forces of the structures of files."""

from __future__ import annotations

import argparse
import csv
import json
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
from jmp_md.structure_files import with_results

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.batch import Result
    from jmp_md.calculators.ase import JMPCalculator
    from jmp_md.simulate.watch import DomainWatch

    Models = list[tuple[str, JMPCalculator]]

NAME = "singlepoint"
_ENDINGS = (".csv", ".json", ".extxyz")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("structures", nargs="+", type=Path, help="files of structures")
    add_model_arguments(parser, dtype="float32")
    add_tags_argument(parser)
    parser.add_argument("--stress", action="store_true", help="also stress, of periodic structures")
    parser.add_argument(
        "--output",
        type=Path,
        help="table .csv, or with forces .json or .extxyz (default: a table to the terminal)",
    )
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.errors import InputError

    if args.output is not None and args.output.suffix not in _ENDINGS:
        raise InputError(f"cannot write {args.output}: choose an ending of {', '.join(_ENDINGS)}")
    if args.output is not None and args.output.resolve() in [p.resolve() for p in args.structures]:
        raise InputError(f"{args.output} is an input and would be overwritten: choose another")
    if args.output is not None and not args.output.resolve().parent.is_dir():
        raise InputError(
            f"there is no folder {args.output.parent} for {args.output.name}: create it first"
        )
    structures, rows = [], []
    for path in args.structures:
        for i, atoms in enumerate(read_structures(path)):
            structures.append(atoms)
            formula = atoms.get_chemical_formula(mode="hill")
            rows.append({"file": str(path), "index": i, "formula": formula})
    from jmp_md.simulate.watch import watch_domain

    started = time.monotonic()
    models = calculators_for(structures, args)
    watches = watch_domain(structures, models)
    results = _compute(structures, models, args.stress)
    for i, (atoms, (name, _), result) in enumerate(zip(structures, models, results, strict=True)):
        watches[name].see(_with_result(atoms, result), f"structure {i}")
    for row, (name, _), result in zip(rows, models, results, strict=True):
        row |= _figures(result) | {"model": name}
    _write(args.output, structures, results, rows)
    failed = sum(result.error is not None for result in results)
    if args.output is not None:
        _summarise(args, models, watches, len(results), failed, time.monotonic() - started)
        print(f"wrote {args.output}: {len(results) - failed} of {len(results)} structures")
    return 2 if failed else 0


def _compute(structures: list[Atoms], models: Models, stress: bool) -> list[Result]:
    """Results in order; structures that share a model go through it together."""
    from jmp_md.simulate.singlepoint import singlepoint

    groups: dict[str, list[int]] = {}
    for i, (name, _) in enumerate(models):
        groups.setdefault(name, []).append(i)
    results: dict[int, Result] = {}
    for members in groups.values():
        calculator = models[members[0]][1]
        chosen = [structures[i] for i in members]
        found = singlepoint(chosen, calculator, stress=stress, on_error="keep")
        results.update(zip(members, found, strict=True))
    return [results[i] for i in range(len(structures))]


def _summarise(
    args: argparse.Namespace,
    models: Models,
    watches: dict[str, DomainWatch],
    count: int,
    failed: int,
    seconds: float,
) -> None:
    """Write ``OUTPUT.summary.json``, beside the result."""
    from jmp_md.simulate.summary import describe, write_summary

    write_summary(
        args.output.parent,
        NAME,
        model={name: describe(calculator) for name, calculator in dict(models).items()},
        settings={"stress": args.stress, "tags": args.tags},
        results={"n_structures": count, "n_failed": failed},
        seconds=seconds,
        domain={name: watch.record() for name, watch in watches.items()},
        name=f"{args.output.stem}.summary.json",
    )


def _figures(result: Result) -> dict[str, Any]:
    import numpy as np

    if result.error is not None or result.forces is None:
        return {"energy_eV": None, "fmax_eV_per_A": None, "error": str(result.error)}
    largest = float(np.linalg.norm(result.forces, axis=1).max())
    return {"energy_eV": result.energy, "fmax_eV_per_A": largest, "error": None}


def _write(
    output: Path | None, structures: list[Atoms], results: list[Result], rows: list[dict[str, Any]]
) -> None:
    from jmp_md.files import atomic_write

    if output is None:
        for row in rows:
            about = f"{row['file']}[{row['index']}]  {row['formula']}  model {row['model']}"
            print(about, end="  ")
            print(
                row["error"]
                or f"energy {row['energy_eV']:.6f} eV  fmax {row['fmax_eV_per_A']:.6f} eV/Å"
            )
        return
    with (
        atomic_write(output) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        if output.suffix == ".csv":
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        elif output.suffix == ".json":
            json.dump([_with_arrays(*pair) for pair in zip(rows, results, strict=True)], file)
        else:
            _write_extxyz(file, structures, results)


def _with_arrays(row: dict[str, Any], result: Result) -> dict[str, Any]:
    """A row of the table with forces in eV/Å and, where there is one, stress in eV/Å³."""
    known = {"forces_eV_per_A": result.forces, "stress_eV_per_A3": result.stress}
    if result.error is not None:
        return row
    return row | {name: array.tolist() for name, array in known.items() if array is not None}


def _write_extxyz(file: Any, structures: list[Atoms], results: list[Result]) -> None:
    """Those structures that could be computed; ``index`` says which of all they are."""
    from ase.io.extxyz import write_extxyz

    for i, (given, result) in enumerate(zip(structures, results, strict=True)):
        if result.error is None:
            write_extxyz(file, [_with_result(given, result, index=i)])


def _with_result(atoms: Atoms, result: Result, **info: Any) -> Atoms:
    from ase.stress import full_3x3_to_voigt_6_stress

    if result.error is not None:
        return with_results(atoms, {}, **info)
    known: dict[str, Any] = {"energy": result.energy, "forces": result.forces}
    if result.stress is not None:
        known["stress"] = full_3x3_to_voigt_6_stress(result.stress)
    return with_results(atoms, known, **info)
