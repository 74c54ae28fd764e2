"""The table and the figure of pareto.py, from the folders of its finished runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import figures
import numpy as np
from ase.io import read
from pareto_worker import FORCE, FORCES, FRAMES, JOB, TRAINING, read_json
from pretraining import spread

from jmp_md.files import atomic_write

LABELS = {
    "jmp-xs": "jmp-xs, from scratch",
    "jmp-xs-organic": "jmp-xs, from `jmp-xs-organic`",
    "mace-96": "MACE, 96 channels, l ≤ 3 (size of MACE-OFF small)",
    "mace-32": "MACE, 32 channels, l ≤ 2",
    "mace-32-falling": "the same, its rate falling each epoch",
}
FAR = 0.1  # of the budget


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        job: What it was asked to do.
        training: What it did.
        force_mae: Of the test frames, meV/Å.
        ms: Per step of the trained model in ASE; None where it was not measured.
    """

    job: dict[str, Any]
    training: dict[str, Any]
    force_mae: float
    ms: float | None

    @property
    def minutes(self) -> float:
        """Of processor time, that were spent."""
        return float(self.training["history"][-1]["cpu"]) / 60


@cache
def labelled_forces(file: Path) -> np.ndarray:
    """Labels of the test frames of a molecule: (frames, atoms, 3), eV/Å."""
    return np.array([atoms.arrays[FORCE] for atoms in read(file, ":")])


def load(output: Path) -> list[Result]:
    """All finished runs, in the order of the table."""
    found = []
    for path in sorted(output.glob(f"runs/*/{FORCES}")):
        job, training = read_json(path.parent / JOB), read_json(path.parent / TRAINING)
        error = np.load(path) - labelled_forces(output / FRAMES / job["molecule"] / "test.xyz")
        speeds = read_json(output / "speed" / f"{job['molecule']}.json") or {}
        ms = speeds.get(job["method"], {}).get("cpu_ms")
        found.append(Result(job, training, 1000 * float(np.abs(error).mean()), ms))
    methods = list(LABELS)
    return sorted(
        found,
        key=lambda r: (r.job["molecule"], r.job["minutes"], methods.index(r.job["method"]),
                       r.job["seed"]),
    )  # fmt: skip


def lines(results: list[Result]) -> Iterator[str]:
    """The table, and with what and where its numbers were measured."""
    yield "Force MAE on 1,000 test frames in meV/Å, mean and standard deviation of seeds.\n"
    yield (
        "| molecule | CPU minutes | spent | model | seeds | forces | epochs | ms per step "
        "| steps per s | parameters |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    columns = ("molecule", "minutes", "method")
    for key, group in itertools.groupby(results, lambda r: [r.job[name] for name in columns]):
        runs = list(group)
        molecule, minutes, method = key
        spent = np.mean([run.minutes for run in runs])
        far = " (!)" if abs(spent / minutes - 1) > FAR else ""
        ms = runs[0].ms
        speed = "not measured | " if ms is None else f"{ms:.1f} | {1000 / ms:.0f}"
        seeds = ", ".join(str(run.job["seed"]) for run in runs)
        epochs = ", ".join(str(run.job["epochs"]) for run in runs)
        error = spread(np.array([run.force_mae for run in runs]))
        yield (
            f"| {molecule} | {minutes:g} | {spent:.1f}{far} | {LABELS[method]} | {seeds} | {error} "
            f"| {epochs} | {speed} | {runs[0].training['parameters']:,} |"
        )
    yield ""
    if any(abs(run.minutes / run.job["minutes"] - 1) > FAR for run in results):
        yield f"(!): more than {FAR:.0%} from the budget.\n"
    for text in sorted({f"{r.job['machine']}: {r.training['versions']}" for r in results}):
        yield f"- {text}"


def report(output: Path) -> None:
    """Print the table of what is finished, and write it and the figure to the folder."""
    results = load(output)
    if not results:
        raise SystemExit(f"{output} holds no finished run")
    text = "\n".join(lines(results))
    print(text, flush=True)
    with atomic_write(output / "pareto.md") as path:
        path.write_text(text + "\n", encoding="utf-8")
    drawn = [
        r.job | {"history": r.training["history"], "force_mae": r.force_mae, "ms": r.ms}
        for r in results
    ]
    figures.save(figures.pareto(drawn, LABELS), output / "pareto.svg")
