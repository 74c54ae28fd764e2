"""Processor time until ``jmp-md finetune`` has a usable model, on any file of one's own.

    python benchmarks/finetune.py rmd17_ethanol_train_01.npz --base jmp-xs-organic --output runs/few

For each seed some frames are drawn to fine-tune on and others to test on. Usable is the first
validation whose force error is at most 1.2 times that of the model that the run ends with.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

import jmp_md
from jmp_md.checkpoints.native import read_header
from jmp_md.training.data.frame import Dataset
from jmp_md.training.data.open import open_dataset
from jmp_md.training.metrics import to_atoms

USABLE = 1.2  # times the error at the end
FORCES = "force_mae_meV_per_A"


def main() -> None:
    """Run the seeds and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="labelled frames")
    parser.add_argument("--base", default="jmp-xs-organic")
    parser.add_argument("--frames", type=int, default=48, help="to fine-tune on (default: 48)")
    parser.add_argument("--test", type=int, default=200, help="to test on (default: 200)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    args = parser.parse_args()
    os.environ["JMP_MD_HOME"] = str(args.output.resolve() / "home")  # names stay in here
    dataset = open_dataset(args.data)
    print("| seed | base untouched | test, meV/Å | energies, meV | CPU s in all | usable after |")
    print("|---|---|---|---|---|---|")
    for seed in range(args.seeds):
        print(measured(dataset, args, seed), flush=True)


def measured(dataset: Dataset, args: argparse.Namespace, seed: int) -> str:
    """One run, and its row of the table."""
    folder = args.output / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(seed).permutation(len(dataset))
    parts = (order[: args.frames], order[args.frames : args.frames + args.test])
    train = write(folder / "train.xyz", dataset, parts[0].tolist())
    test = write(folder / "test.xyz", dataset, parts[1].tolist())
    start, said = time.process_time(), []
    model = jmp_md.finetune(
        args.base,
        train,
        test=test,
        name=f"seed-{seed}",
        seed=seed,
        output=str(folder / "run"),
        overwrite=True,
        device="cpu",
        say=lambda line: said.append(time.process_time() - start),
    )
    assert model is not None
    total, looked = said[-1], max(s for s in said if s < said[-1] - 1)
    with (folder / "run" / "log.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    steps = rows[-1]["step"]
    goal = USABLE * min(row[FORCES] for row in rows)
    first = next(row["step"] for row in rows if row[FORCES] <= goal)
    usable = looked + (total - looked) * first / steps  # the look comes first, steps cost alike
    metrics = read_header(model).metrics
    untouched = f"{rows[0][FORCES]:.0f}" if rows[0]["step"] == 0 else "(new head)"
    return (
        f"| {seed} | {untouched} | {metrics[FORCES]:.1f} | {metrics['energy_mae_meV']:.1f} | "
        f"{total:.0f} | {usable:.0f} |"
    )


def write(path: Path, dataset: Dataset, chosen: list[int]) -> str:
    """Some frames as extended xyz."""
    images = []
    for frame in (dataset[index] for index in chosen):
        atoms = to_atoms(frame)
        atoms.calc = SinglePointCalculator(atoms, energy=frame.energy, forces=frame.forces)
        images.append(atoms)
    ase.io.write(path, images, format="extxyz")
    return str(path)


if __name__ == "__main__":
    main()
