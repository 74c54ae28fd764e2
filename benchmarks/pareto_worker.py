"""What the programs that pareto.py trains in share; it needs ASE alone, as MACE may live elsewhere.

    PYTHON benchmarks/pareto_NAME.py train FOLDER     # as FOLDER/job.json says
    PYTHON benchmarks/pareto_NAME.py forces FOLDER    # of the test frames, to FOLDER/forces.npy
    PYTHON benchmarks/pareto_NAME.py serve FOLDER     # steps, in turns with other programs

Each runs in a process of its own, so that CPU seconds of the process are those of the method.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator
from ase.io import read
from turns import serve

JOB, TRAINING, FORCES = "job.json", "training.json", "forces.npy"
FRAMES = "frames"  # folder of those of all molecules
PARTS = ("train", "validation", "test")
ENERGY, FORCE = "REF_energy", "REF_forces"  # what MACE calls them, in eV and eV/Å

Job = dict[str, Any]


def frames_file(job: Job, part: str) -> Path:
    """Frames to train, validate or test with, as extended XYZ."""
    return Path(job["frames"]) / f"{part}.xyz"


def write_json(path: Path, value: Any) -> None:
    """Write a file as a whole."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
    os.replace(temporary, path)


def read_json(path: Path) -> Any:
    """The content of a file; None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def run(
    train: Callable[[Path, Job], dict[str, Any]], calculator: Callable[[Path], Calculator]
) -> None:
    """The command line of a program.

    Args:
        train: Trains in a folder as its job says; returns what is known of the training.
        calculator: Of the model that a folder holds.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("train", "forces", "serve"))
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    folder = args.folder
    job = read_json(folder / JOB)
    with (folder / ".lock").open("w") as lock:
        if args.action != "serve":
            _hold(lock.fileno(), folder)
        if args.action == "train":
            write_json(folder / TRAINING, train(folder, job))
            return
        frames = read(frames_file(job, "test"), ":")
        moving = frames[0].copy()
        moving.calc = calculator(folder)
        places = itertools.cycle([frame.positions for frame in frames])

        def step() -> np.ndarray:
            moving.positions = next(places)
            return moving.get_forces()

        if args.action == "serve":
            serve(step)
            return
        forces = np.array([step() for _ in frames])
        temporary = folder / ".forces.npy"
        np.save(temporary, forces)
        os.replace(temporary, folder / FORCES)


def _hold(file: int, folder: Path) -> None:
    """Take a lock for as long as this process lives, also where its parent has died."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(f"another process trains in {folder}: wait for it, or end it") from None
