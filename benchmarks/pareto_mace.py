"""MACE for pareto.py: trained by its own `run_train` (needs mace-torch, perhaps elsewhere).

Settings are the defaults of that program, with averaged weights and AMSGrad as in the examples of
its manual and the small batches of its paper (arXiv 2206.07697): Adam at 0.01, averages of decay
0.99, gradients clipped at 10, squared errors of energies and forces weighed 1 : 100. No second
stage for energies, as forces are what is compared. The rate is lowered by 0.8 where validations do
not improve, with their patience of 50 of 2,048 epochs scaled to the run; with `ExponentialLR` it
falls by the same factor each epoch instead.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import shutil
import time
from pathlib import Path
from typing import Any

# e3nn loads constants of its own by pickle.
os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"

from pareto_worker import ENERGY, FORCE, Job, frames_file, run

LAST_SHARE = 0.1  # of the learning rate, in the last epoch of ExponentialLR
SETTINGS = {
    "model": "MACE", "num_interactions": 2, "max_L": 0, "correlation": 3, "r_max": 4.5,
    "default_dtype": "float32", "device": "cpu", "E0s": "average",
    "energy_key": ENERGY, "forces_key": FORCE,
    "loss": "weighted", "energy_weight": 1, "forces_weight": 100,
    "batch_size": 5, "valid_batch_size": 10, "lr": 0.01, "ema_decay": 0.99, "clip_grad": 10,
    "scheduler": "ReduceLROnPlateau", "error_table": "TotalMAE",
    "plot": False, "pin_memory": False,
}  # fmt: skip
SWITCHES = ("amsgrad", "ema", "save_cpu")


class Clock(logging.Handler):
    """CPU seconds of this process when MACE reports a validation.

    Attributes:
        marks: Seconds before the first validation, and after each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        if re.match(r"Loss metrics on validation set|Initial: |Epoch \d+: ", record.getMessage()):
            self.marks.append(time.process_time())


def arguments(folder: Path, job: Job) -> list[str]:
    """The command line of ``mace_run_train``."""
    epochs = job["epochs"]
    own = {
        "name": "mace",
        "work_dir": str(folder / "mace"),
        "train_file": str(frames_file(job, job["train"])),
        "valid_file": str(frames_file(job, "validation")),
        "seed": job["seed"],
        "max_num_epochs": epochs,
        "patience": epochs + 1,  # none stops early
        "lr_scheduler_gamma": LAST_SHARE ** (1 / max(epochs - 1, 1)),
        "scheduler_patience": max(1, round(50 / 2048 * epochs)),
        **job["options"],
    }
    given = [f"--{name}={value}" for name, value in (SETTINGS | own).items()]
    return given + [f"--{name}" for name in SWITCHES]


def history(lines: list[dict[str, Any]], marks: list[float]) -> list[dict[str, float]]:
    """What each validation found, and CPU seconds until it was done, from 0 at the first step.

    MACE has wall times of steps and validations, by whose shares CPU seconds are divided.

    Args:
        lines: Of its file of results.
        marks: Of :class:`Clock`.
    """
    validations = sum(line["mode"] == "eval" for line in lines)
    if len(marks) != validations + 1:
        raise SystemExit(f"{len(marks)} marks for {validations} validations: is this another MACE?")
    rows, steps, spent = [], 0.0, 0.0
    for line in lines:
        if line["mode"] == "opt":
            steps += line["time"]
            continue
        cpu = marks[len(rows) + 1] - marks[len(rows)]
        spent += cpu
        share = line["time"] / (line["time"] + steps)
        row = {"cpu": spent, "validation_cpu": share * cpu, "force_mae": 1000 * line["mae_f"]}
        rows.append(row)
        steps = 0.0
    return rows


def train(folder: Path, job: Job) -> dict[str, Any]:
    """Train from the start: MACE's restart goes on from its best average, by another schedule."""
    import mace
    import torch
    from mace.cli.run_train import run as run_train
    from mace.tools import build_default_arg_parser

    shutil.rmtree(folder / "mace", ignore_errors=True)
    clock = Clock()
    logging.getLogger().addHandler(clock)
    run_train(build_default_arg_parser().parse_args(arguments(folder, job)))
    (results,) = (folder / "mace" / "results").glob("*_train.txt")
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    model = torch.load(folder / "mace" / "mace.model", map_location="cpu")
    return {
        "history": history(lines, clock.marks),
        "steps": sum(line["mode"] == "opt" for line in lines),
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": f"mace-torch {mace.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    }


def calculator(folder: Path) -> Any:
    """MACE's calculator, in float32 as it was trained."""
    from mace.calculators import MACECalculator

    path = folder / "mace" / "mace.model"
    return MACECalculator(model_paths=str(path), device="cpu", default_dtype="float32")


if __name__ == "__main__":
    run(train, calculator)
