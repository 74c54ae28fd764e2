"""``jmp-md evaluate``: errors of a model on labelled data."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from jmp_md.cli.common import add_model_arguments, calculators_for

NAME = "evaluate"
HELP = "energy and force errors of a model on labelled data"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_model_arguments(parser, dtype="float32")
    parser.add_argument("--data", required=True, help="data set: file or folder, as published")
    parser.add_argument("--format", help="format of the data, where it is not recognised")
    parser.add_argument(
        "--forces",
        choices=("conservative", "direct"),
        default="conservative",
        help="which forces (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=256, help="frames at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out frames the model cannot evaluate"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the errors as JSON")


def run(args: argparse.Namespace) -> int:
    """Execute the command."""
    from tqdm import tqdm

    from jmp_md.checkpoints.native import atomic_write
    from jmp_md.errors import InputError
    from jmp_md.training.data.open import open_dataset
    from jmp_md.training.metrics import dataset_errors, to_atoms

    dataset = open_dataset(args.data, args.format)
    if not len(dataset):
        raise InputError(f"{args.data} holds no frames")
    ((name, calculator),) = calculators_for([to_atoms(dataset[0])], args)
    with tqdm(total=len(dataset), unit=" frames", disable=None) as bar:
        sums = dataset_errors(
            calculator.potential,
            dataset,
            batch_size=args.batch_size,
            direct=args.forces == "direct",
            skip_bad=args.skip_bad,
            progress=bar.update,
        )
    report = {
        "model": name,
        "head": calculator.potential.head.name,
        "data": str(args.data),
        "n_skipped": len(dataset) - sums.n_frames,
        **sums.summary(),
        "after_shift": sums.shifted_energy(),
        "force_mae_meV_per_A_by_element": sums.force_mae_by_element(),
    }
    print("\n".join(_lines(report)))
    if args.json:
        with atomic_write(args.json) as path:
            path.write_text(json.dumps(report, indent=2) + "\n")
    return 0


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
    if "force_mae_meV_per_A" in report:
        lines.append(
            _row("forces", report["force_mae_meV_per_A"], report["force_rmse_meV_per_A"], "meV/Å")
        )
        for symbol, error in report["force_mae_meV_per_A_by_element"].items():
            lines.append(f"  {symbol:8}  MAE {error:10.2f} meV/Å")
    else:
        lines.append("forces      no labels")
    return lines


def _row(name: str, mae: float, rmse: float, unit: str) -> str:
    return f"{name:10}  MAE {mae:10.2f}  RMSE {rmse:10.2f} {unit}"
