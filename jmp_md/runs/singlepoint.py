"""Energies and forces of structures in a folder."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError
from jmp_md.files import atomic_write
from jmp_md.options import with_options
from jmp_md.report.page import NAME as REPORT
from jmp_md.runs.folder import by_name, opened
from jmp_md.runs.options import FolderOptions, divided
from jmp_md.simulate.options import SinglepointOptions
from jmp_md.simulate.summary import NAME as SUMMARY
from jmp_md.simulate.summary import describe, make_summary, write_summary
from jmp_md.structure_files import with_results

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from jmp_md.batch import Result

    Models = Sequence[tuple[str, Calculator]]

VERB, RESULTS = "singlepoint", "results"
FORMATS = ("extxyz", "json", "csv")
FILES = (f"{RESULTS}.*", SUMMARY, REPORT)


@dataclass(frozen=True)
class Computed:
    """Structures with what was found of them.

    Attributes:
        structures: As they were given.
        results: Of each.
        rows: Of a table: ``file``, ``index``, ``formula``, ``energy_eV``, ``fmax_eV_per_A``,
            ``error`` and ``model`` of each.
        summary: Parts of ``summary.json``.
    """

    structures: Sequence[Atoms]
    results: Sequence[Result]
    rows: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]

    @property
    def failed(self) -> int:
        """How many could not be computed."""
        return sum(found.error is not None for found in self.results)

    def with_table(self) -> dict[str, Any]:
        """What ``summary.json`` would say, with the table of the results."""
        return make_summary(VERB, **{**self.summary, "results": {"structures": list(self.rows)}})


def compute(
    structures: Sequence[Atoms],
    models: Models,
    options: SinglepointOptions,
    origins: Sequence[tuple[str, int]] | None = None,
) -> Computed:
    """Compute structures; those that share a model go through it together.

    Args:
        structures: Any number, of any sizes.
        models: Name and calculator for each.
        options: What to compute.
        origins: File of each, and its number there.
    """
    from jmp_md.simulate.watch import watch_domain

    by_name(models)
    started, places = time.monotonic(), origins or [("", i) for i in range(len(structures))]
    watches = watch_domain(structures, models)
    results = _in_order(structures, models, options.stress)
    rows = []
    for i, ((name, _), (file, index)) in enumerate(zip(models, places, strict=True)):
        watches[name].see(_with_result(structures[i], results[i]), f"structure {i}")
        formula = structures[i].get_chemical_formula(mode="hill")
        about = {"file": file, "index": index, "formula": formula}
        rows.append(about | _figures(results[i]) | {"model": name})
    failed = sum(found.error is not None for found in results)
    summary = {
        "model": {name: describe(calculator) for name, calculator in dict(models).items()},
        "settings": options.model_dump(),
        "results": {"n_structures": len(results), "n_failed": failed},
        "seconds": time.monotonic() - started,
        "domain": {name: watch.record() for name, watch in watches.items()},
    }
    return Computed(structures, results, rows, summary)


@with_options(SinglepointOptions, FolderOptions)
def run_singlepoint(
    structures: Sequence[Atoms],
    models: Models,
    output: str | Path,
    options: SinglepointOptions | None = None,
    *,
    origins: Sequence[tuple[str, int]] | None = None,
    format: str = "extxyz",
    **changes: Any,
) -> Computed:
    """Compute structures as they are; the folder gets the results, a summary and a report.

    Args:
        structures: Any number, of any sizes.
        models: Name and calculator for each.
        output: Folder of the run, created if need be.
        options: See :class:`~jmp_md.simulate.options.SinglepointOptions`; None for the defaults.
        origins: File of each, and its number there.
        format: Ending of ``results.FORMAT``: ``"extxyz"``, ``"json"`` or ``"csv"``, which has no
            forces.
        changes: Options by name, in place of those of ``options``, and ``overwrite``
            and ``report``, see :class:`~jmp_md.runs.options.FolderOptions`.

    Raises:
        InputError: An option that does not fit, or a folder that holds a run. Structures that
            cannot be computed are in the results with their errors.
    """
    if not structures:
        raise InputError("there are no structures: give 1 at least")
    if format not in FORMATS:
        raise InputError(f"format {format!r}: choose one of {', '.join(FORMATS)}")
    options, around = divided(options or SinglepointOptions(), changes, FolderOptions)
    folder = Path(output)
    with opened(folder, FILES, around):
        found = compute(structures, models, options, origins)
        _write(folder / f"{RESULTS}.{format}", found)
        summary = write_summary(folder, VERB, **found.summary)
        if around.report:
            from jmp_md.report.structures import write_singlepoint_report

            frames = [_with_result(*pair) for pair in zip(structures, found.results, strict=True)]
            for frame in frames:
                frame.set_constraint()  # which would hide forces
            names = [f"{row['file']}[{row['index']}]" for row in found.rows]
            write_singlepoint_report(folder, frames, names, summary)
    return found


def _in_order(structures: Sequence[Atoms], models: Models, stress: bool) -> list[Result]:
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


def _figures(result: Result) -> dict[str, Any]:
    import numpy as np

    if result.error is not None or result.forces is None:
        return {"energy_eV": None, "fmax_eV_per_A": None, "error": str(result.error)}
    largest = float(np.linalg.norm(result.forces, axis=1).max())
    return {"energy_eV": result.energy, "fmax_eV_per_A": largest, "error": None}


def _write(path: Path, found: Computed) -> None:
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, fieldnames=list(found.rows[0]))
            writer.writeheader()
            writer.writerows(found.rows)
        elif path.suffix == ".json":
            pairs = zip(found.rows, found.results, strict=True)
            json.dump([_with_arrays(*pair) for pair in pairs], file)
        else:
            _write_extxyz(file, found.structures, found.results)


def _with_arrays(row: Mapping[str, Any], result: Result) -> dict[str, Any]:
    """A row of the table with forces in eV/Å and, where there is one, stress in eV/Å³."""
    known = {"forces_eV_per_A": result.forces, "stress_eV_per_A3": result.stress}
    if result.error is not None:
        return dict(row)
    return {**row, **{name: each.tolist() for name, each in known.items() if each is not None}}


def _write_extxyz(file: Any, structures: Sequence[Atoms], results: Sequence[Result]) -> None:
    """Those structures that could be computed; ``index`` says which of all they are."""
    from ase.io.extxyz import write_extxyz

    for i, (given, result) in enumerate(zip(structures, results, strict=True)):
        if result.error is None:
            write_extxyz(file, [_with_result(given, result, index=i)])


def _with_result(atoms: Atoms, result: Result, **info: Any) -> Atoms:
    """A copy with its results, or with its error in ``info``, and with none of an earlier run."""
    from ase.stress import full_3x3_to_voigt_6_stress

    if result.error is not None:
        return with_results(atoms, {}, **info, error=str(result.error))
    atoms = atoms.copy()
    atoms.info.pop("error", None)
    known: dict[str, Any] = {"energy": result.energy, "forces": result.forces}
    if result.stress is not None:
        known["stress"] = full_3x3_to_voigt_6_stress(result.stress)
    return with_results(atoms, known, **info)
