"""``jmp-md evaluate``: errors of a model on labelled data, predictions of property models."""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jmp_md.cli.common import (
    add_model_arguments,
    add_run_arguments,
    calculators_for,
    finish,
    folder_of,
)
from jmp_md.cli.data import add_format_arguments, open_data
from jmp_md.cli.options import add_options, options_from
from jmp_md.options import Options, option
from jmp_md.runs.options import FolderOptions

if TYPE_CHECKING:
    from jmp_md.potential import Potential
    from jmp_md.training.data.frame import Dataset
    from jmp_md.training.parity import Pair
    from jmp_md.training.property_metrics import Predictions

NAME, PREDICTIONS = "evaluate", "predictions.csv"
FILES = (PREDICTIONS, "summary.json", "report.html")
WITHOUT_VALUE = {
    "--json": "--output FOLDER gets summary.json; --json alone writes it to standard output",
    "--report": "--output FOLDER gets report.html, unless --no-report is given",
}


class EvaluateOptions(Options):
    """Options of the command."""

    forces: Literal["conservative", "direct"] = option("conservative", "which forces")
    batch_size: int = option(256, "frames at a time", ge=1)
    skip_bad: bool = option(False, "leave out frames the model cannot evaluate")


OPTIONS = EvaluateOptions


@dataclass(frozen=True)
class Measured:
    """What was found: errors, labels with predictions, the model, predictions of a property."""

    report: dict[str, Any]
    pairs: Mapping[str, Pair]
    model: dict[str, Any]
    predictions: Predictions | None = None


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_model_arguments(parser, dtype="float32")
    parser.add_argument("--data", required=True, help="data set: file or folder, as published")
    add_format_arguments(parser)
    add_run_arguments(parser, "words to the terminal", FolderOptions)
    add_options(parser, EvaluateOptions)


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from jmp_md.errors import InputError
    from jmp_md.runs.folder import opened, refuse_used
    from jmp_md.simulate.summary import make_summary, summary_text
    from jmp_md.training.data.tags import tagged

    started = time.monotonic()
    options = options_from(args, EvaluateOptions)
    output = folder_of(args.output, formats=False)
    around = options_from(args, FolderOptions)
    if output is not None:
        refuse_used(output, FILES, around)
    dataset = tagged(open_data([args.data], args), args.tags)
    if not len(dataset):
        raise InputError(f"{args.data} holds no frames")
    if args.dry_run:
        print(f"dry run: {len(dataset)} frames of {args.data} were not evaluated")
        return 0
    path = _property_model(args.model)
    with opened(output, FILES, around) if output else nullcontext():
        if path is None:
            found = _potential(dataset, args, options)
        else:
            found = _property(dataset, path, args, options)
        report = found.report
        print("\n".join(_lines(report) if path is None else _property_lines(report)))
        summary = make_summary(
            NAME,
            model=found.model,
            settings=options.model_dump()
            | {"data": str(args.data), "dtype": args.dtype, "tags": args.tags},
            results=report,
            seconds=time.monotonic() - started,
        )
        args.summary = summary_text(summary)
        if output is not None:
            _write(output, found, args, summary)
            finish(args, output)
    return 0


def _write(
    output: Path, found: Measured, args: argparse.Namespace, summary: Mapping[str, Any]
) -> None:
    """The files of a folder."""
    from jmp_md.files import atomic_write
    from jmp_md.simulate.summary import NAME as SUMMARY

    if found.predictions is not None:
        _write_predictions(output / PREDICTIONS, found.report["target"], found.predictions)
    if args.report:
        from jmp_md.training.report import write_evaluation_report

        title = f"{found.report['model']} on {args.data}"
        write_evaluation_report(output, title, found.report, found.pairs, summary)
    with atomic_write(output / SUMMARY) as temporary:
        temporary.write_text(args.summary, encoding="utf-8")


def _property_model(name: str | None) -> Path | None:
    """File of a property model; None for potentials."""
    from jmp_md.checkpoints.native import SUFFIX, read_header
    from jmp_md.models.registry import resolve

    if name is None or (path := resolve(name)).suffix != SUFFIX:
        return None
    return path if "property" in read_header(path).training else None


def _potential(dataset: Dataset, args: argparse.Namespace, options: EvaluateOptions) -> Measured:
    """Errors of energies and forces."""
    from tqdm import tqdm

    from jmp_md.simulate.summary import describe
    from jmp_md.training.data.frame import frames
    from jmp_md.training.metrics import dataset_errors, to_atoms

    ((name, calculator),) = calculators_for([to_atoms(dataset[0])], args)
    with tqdm(total=len(dataset), unit=" frames", disable=args.quiet or None) as bar:
        sums = dataset_errors(
            calculator.potential,
            dataset,
            batch_size=options.batch_size,
            direct=options.forces == "direct",
            skip_bad=options.skip_bad,
            progress=bar.update,
        )
    by_element = sums.force_errors_by_element()
    report = {
        "model": name,
        "head": calculator.potential.head.name,
        "data": str(args.data),
        "n_skipped": len(dataset) - sums.n_frames,
        "n_fixed_atoms": sum(int(f.fixed.sum()) for f in frames(dataset) if f.fixed is not None),
        **sums.summary(),
        "size_inconsistency_eV": _size_inconsistency(dataset, calculator.potential),
        "labels": sums.labels(),
        "after_shift": sums.shifted_energy(),
        "force_mae_meV_per_A_by_element": {s: e["mae"] for s, e in by_element.items()},
        "force_rmse_meV_per_A_by_element": {s: e["rmse"] for s, e in by_element.items()},
    }
    return Measured(report, sums.parity.pairs(), describe(calculator))


def _size_inconsistency(dataset: Dataset, potential: Potential) -> float | None:
    """eV, how much twice the first frame differs from twice its energy."""
    from jmp_md.check.physics import size_consistency
    from jmp_md.check.subject import Subject
    from jmp_md.training.metrics import to_atoms

    subject = Subject(to_atoms(dataset[0]), potential, "float32", seed=0, steps=0, tags="oc")
    return size_consistency(subject).measured


def _property(
    dataset: Dataset, path: Path, args: argparse.Namespace, options: EvaluateOptions
) -> Measured:
    """Predictions of a property, and their errors where there are labels."""
    import torch
    from tqdm import tqdm

    from jmp_md.load import usable_device
    from jmp_md.training.parity import Parity
    from jmp_md.training.property import PropertyModel
    from jmp_md.training.property_metrics import (
        predict_properties,
        property_summary,
        summary_by_element,
    )

    dtype = torch.float64 if args.dtype == "float64" else torch.float32
    model = PropertyModel.load(path).to(usable_device(args.device), dtype)
    with tqdm(total=len(dataset), unit=" frames", disable=args.quiet or None) as bar:
        found = predict_properties(
            model,
            dataset,
            batch_size=options.batch_size,
            skip_bad=options.skip_bad,
            progress=bar.update,
        )
    kind = model.target.kind
    parity = Parity()
    parity.add(model.target.name, found.label, found.predicted)
    report = {
        "model": str(args.model),
        "target": model.target.name,
        "data": str(args.data),
        "n_predicted": len(found.predicted),
        "n_skipped": len(dataset) - len(found.predicted),
        **property_summary(kind, found.predicted, found.label),
        "by_element": summary_by_element(kind, found),
    }
    return Measured(report, parity.pairs(), {"file": str(path)}, found)


def _write_predictions(path: Path, target: str, found: Predictions) -> None:
    """A row per structure; the label is empty where there is none."""
    import numpy as np

    from jmp_md.files import atomic_write

    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("frame", "formula", f"predicted {target}", f"label {target}"))
        columns = (found.frame, found.formula, found.predicted, found.label)
        for frame, formula, predicted, label in zip(*columns, strict=True):
            known = "" if np.isnan(label) else float(label)
            writer.writerow((int(frame), formula, float(predicted), known))


def _property_lines(report: dict[str, Any]) -> list[str]:
    skipped = f", {report['n_skipped']} left out" if report["n_skipped"] else ""
    lines = [
        f"model {report['model']}, target {report['target']}",
        f"{report['data']}: {report['n_predicted']} frames, {report['n_frames']} with labels"
        f"{skipped}",
    ]
    names = [name for name in ("mae", "rmse", "cross_entropy", "accuracy", "roc_auc")
             if name in report]  # fmt: skip
    lines += [f"{name:14}{report[name]:12.6g}" for name in names]
    for symbol, errors in report["by_element"].items():
        lines.append(
            f"  with {symbol:7}{errors[names[0]]:12.6g}  ({names[0]}, {errors['n_frames']} frames)"
        )
    return lines


def _lines(report: dict[str, Any]) -> list[str]:
    """The report in words; the shift is told where most of the energy error comes from it."""
    skipped = f", {report['n_skipped']} left out" if report["n_skipped"] else ""
    lines = [
        f"model {report['model']}, head {report['head']}",
        f"{report['data']}: {report['n_frames']} frames{skipped}",
    ]
    if "energy_mae_meV" in report:
        lines.append(_row("energy", report["energy_mae_meV"], report["energy_rmse_meV"], "meV"))
        after = report["after_shift"]
        if report["energy_mae_meV"] > 2 * after["energy_mae_meV"] and report["n_frames"] > 1:
            row = _row("  shifted", after["energy_mae_meV"], after["energy_rmse_meV"], "meV")
            lines.append(f"{row}, once {report['energy_shift_eV']:+.4f} eV are added to each")
    else:
        lines.append("energy      no labels")
    inconsistency = report["size_inconsistency_eV"]
    lines.append(f"energy of twice the first frame less twice its energy: {inconsistency:.1e} eV")
    if "force_mae_meV_per_A" in report:
        lines.append(
            _row("forces", report["force_mae_meV_per_A"], report["force_rmse_meV_per_A"], "meV/Å")
        )
        if report["n_fixed_atoms"]:
            lines.append(f"  without those on {report['n_fixed_atoms']} atoms held by constraints")
        rmse = report["force_rmse_meV_per_A_by_element"]
        for symbol, mae in report["force_mae_meV_per_A_by_element"].items():
            lines.append(_row(f"  {symbol}", mae, rmse[symbol], "meV/Å"))
    else:
        lines.append("forces      no labels")
    if "stress_mae_meV_per_A3" in report:
        mae, rmse = report["stress_mae_meV_per_A3"], report["stress_rmse_meV_per_A3"]
        lines.append(_row("stress", mae, rmse, "meV/Å³"))
    return lines


def _row(name: str, mae: float, rmse: float, unit: str) -> str:
    return f"{name:10}  MAE {mae:10.2f}  RMSE {rmse:10.2f} {unit}"
