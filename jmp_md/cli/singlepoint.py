"""``jmp-md singlepoint``: energies and forces of the structures of files."""

from __future__ import annotations

import argparse
import csv
import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.cli.common import (
    add_model_arguments,
    add_run_arguments,
    calculators_for,
    finish,
    folder_of,
    read_structures,
    say_plan,
)
from jmp_md.cli.options import add_options, options_from
from jmp_md.errors import InputError
from jmp_md.files import exists
from jmp_md.simulate.options import SinglepointOptions
from jmp_md.structure_files import with_results

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.batch import Result
    from jmp_md.calculators.ase import JMPCalculator
    from jmp_md.simulate.watch import DomainWatch

    Models = list[tuple[str, JMPCalculator]]

NAME = "singlepoint"
OPTIONS = SinglepointOptions
RESULTS = "results"
FILES = (f"{RESULTS}.*", "summary.json")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("structures", nargs="+", type=Path, help="files of structures")
    add_model_arguments(parser, dtype="float32")
    add_run_arguments(parser, "a table to the terminal", report=False, restart=False)
    parser.add_argument(
        "--format",
        choices=("extxyz", "json", "csv"),
        default="extxyz",
        help="of results.FORMAT in the folder of --output; csv has no forces (default: extxyz)",
    )
    add_options(parser, SinglepointOptions)


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.runs.folder import opened
    from jmp_md.simulate.summary import make_summary, summary_text, write_summary
    from jmp_md.simulate.watch import watch_domain

    options = options_from(args, SinglepointOptions)
    output = folder_of(args.output)
    target = None if output is None else output / f"{RESULTS}.{args.format}"
    if target is not None and exists(target) and not args.overwrite:
        raise InputError(
            f"{output} holds a run: remove it with --overwrite, or choose another output"
        )
    structures, rows = [], []
    for path in args.structures:
        for i, atoms in enumerate(read_structures(path)):
            structures.append(atoms)
            formula = atoms.get_chemical_formula(mode="hill")
            rows.append({"file": str(path), "index": i, "formula": formula})
    started = time.monotonic()
    models = calculators_for(structures, args)
    if args.dry_run:
        say_plan(structures, models, output or Path("results"), options)
        return 0
    with opened(output, FILES, overwrite=args.overwrite) if output else nullcontext():
        watches = watch_domain(structures, models)
        results = _compute(structures, models, options.stress)
        for i, (name, _) in enumerate(models):
            watches[name].see(_with_result(structures[i], results[i]), f"structure {i}")
            rows[i] |= _figures(results[i]) | {"model": name}
        _write(target, structures, results, rows)
        failed = sum(found.error is not None for found in results)
        summary = _summary(
            models,
            watches,
            options.model_dump() | {"tags": args.tags},
            {"n_structures": len(results), "n_failed": failed},
            time.monotonic() - started,
        )
        if output is None:
            table = summary | {"results": {"structures": rows}}
            args.summary = summary_text(make_summary(NAME, **table))
        else:
            write_summary(output, NAME, **summary)
            print(f"wrote {target}: {len(results) - failed} of {len(results)} structures")
            finish(args, output)
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


def _summary(
    models: Models,
    watches: dict[str, DomainWatch],
    settings: dict[str, Any],
    counts: dict[str, int],
    seconds: float,
) -> dict[str, Any]:
    """The parts of ``summary.json``."""
    from jmp_md.simulate.summary import describe

    return {
        "model": {name: describe(calculator) for name, calculator in dict(models).items()},
        "settings": settings,
        "results": counts,
        "seconds": seconds,
        "domain": {name: watch.record() for name, watch in watches.items()},
    }


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
