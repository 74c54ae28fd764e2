"""Peak memory and time of one epoch and one validation, on structures of the paper's sizes.

    python benchmarks/training_memory.py                                  # this checkout
    python benchmarks/training_memory.py --checkout . --checkout OLDER    # two, side by side

A row is one run of `jmp-md train` in a fresh process with one thread, from random weights, on
structures made here (atoms at random, no two too close; labels at random), with the graphs and the
batch size of the packaged recipe:

- qmof: 114 atoms in 2,500 Å³, 19 Å, a property;
- matbench: 30 atoms in 500 Å³, 12 Å, a property;
- md22: 364 atoms, two nanotubes, 12 Å, direct forces;
- oc20: 82 atoms of a slab with CO, 12 Å, direct forces, pre-training.

The process reads its own peak resident set, which it resets where a phase ends: `start` is
everything before the optimiser is made (imports, data, references, scale factors), `epoch` all
steps of one epoch, `validation` what follows until the log is written. Seconds are of the
processor, which other work on the machine changes less than those of a clock. It needs Linux.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule, nanotube
from ase.data import chemical_symbols

PHASES = ("start", "epoch", "validation")


@dataclass(frozen=True)
class Case:
    """A recipe, what changes in it, and how many structures train and validate.

    Attributes:
        recipe: Packaged recipe.
        changes: Of its keys.
        batch: Structures per step, those of the recipe unless it is the paper's thousand.
        train, validation: Numbers of structures.
    """

    recipe: str
    changes: tuple[str, ...]
    batch: int
    train: int
    validation: int


NANOTUBE = "model.molecule=double-walled-nanotube"
CASES = {
    "qmof": Case("qmof", (), 4, 16, 24),
    "matbench": Case("matbench", ("target.name=e_form", "target.pooling=mean"), 16, 48, 32),
    "md22": Case("md22", (NANOTUBE, "model.forces=direct"), 4, 4, 12),
    "oc20": Case("pretrain", (), 8, 16, 32),
}


def packed(rng: np.random.Generator, n_atoms: int, volume: float, numbers: list[int]) -> Atoms:
    """Atoms at random in a cube, each as far from the others as the best of 30 tries."""
    side = volume ** (1 / 3)
    places = rng.random((1, 3))
    for _ in range(n_atoms - 1):
        tried = rng.random((30, 3))
        apart = tried[:, None] - places[None]
        distance = np.linalg.norm(apart - np.round(apart), axis=2).min(axis=1)
        places = np.vstack([places, tried[distance.argmax()]])
    chosen = rng.choice(numbers, n_atoms)
    return Atoms(chosen, positions=places * side, cell=[side] * 3, pbc=True)


def structures(case: str, n: int) -> list[Atoms]:
    """Structures of a case, the same for every checkout."""
    rng = np.random.default_rng(0)
    if case == "qmof":
        return [packed(rng, 114, 2500.0, [1, 6, 7, 8, 30]) for _ in range(n)]
    if case == "matbench":
        return [packed(rng, 30, 500.0, [8, 12, 14, 26]) for _ in range(n)]
    if case == "md22":
        rest = nanotube(6, 6, length=6) + nanotube(11, 11, length=5)
        rest.pbc, rest.cell = False, np.zeros((3, 3))
    else:
        rest = fcc111("Cu", (4, 4, 5), vacuum=8.0)
        add_adsorbate(rest, molecule("CO"), 1.8, "ontop")
        rest.pbc = True
    moved = [rest.copy() for _ in range(n)]
    for atoms in moved:
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
    return moved


def write_data(case: str, folder: Path) -> list[str]:
    """Files of a case, in the published form; returns the changes that name them."""
    plan = CASES[case]
    n = plan.train + plan.validation + 1
    found, rng = structures(case, n), np.random.default_rng(1)
    split = ["data.split=frames", f"data.n_train={plan.train}"]
    split.append(f"data.n_validation={plan.validation}")
    if case == "matbench":
        rows = [[pymatgen(atoms), float(k % 7)] for k, atoms in enumerate(found)]
        table = {"index": list(range(n)), "columns": ["structure", "e_form"], "data": rows}
        with gzip.open(folder / "matbench_mp_e_form.json.gz", "wt") as file:
            json.dump(table, file)
        return [*split, "data.train=matbench_mp_e_form.json.gz"]
    if case == "qmof":
        (folder / "qmof").mkdir()
        entries = [{"qmof_id": f"q{k}", "structure": pymatgen(a)} for k, a in enumerate(found)]
        (folder / "qmof" / "qmof_structure_data.json").write_text(json.dumps(entries))
        with (folder / "qmof" / "qmof.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["qmof_id", "outputs.pbe.bandgap"])
            writer.writerows([f"q{k}", k % 7] for k in range(n))
        return split
    if case == "md22":
        np.savez(
            folder / "md22_double-walled-nanotube.npz",
            z=found[0].numbers,
            R=np.array([atoms.positions for atoms in found]),
            E=rng.normal(size=(n, 1)),
            F=rng.normal(size=(n, len(found[0]), 3)),
        )
        return split
    parts = {"oc20": found[: plan.train], "oc20-validation": found[plan.train : -1]}
    for name, part in parts.items():
        write_concatenated(folder / f"{name}.npz", part, rng)
    graph = "{kind: official, cutoff: 12.0, max_neighbors: 30}"
    task = (
        f"{{train: oc20.npz, validation: oc20-validation.npz, force_weight: 73.0, graph: {graph}}}"
    )
    return [f"tasks={{oc20: {task}}}", "optimiser.precision=float32", "optimiser.validate_every=2"]


def write_concatenated(path: Path, part: list[Atoms], rng: np.random.Generator) -> None:
    numbers = np.concatenate([atoms.numbers for atoms in part])
    np.savez(
        path,
        n_atoms=[len(atoms) for atoms in part],
        numbers=numbers,
        positions=np.concatenate([atoms.positions for atoms in part]),
        cell=[atoms.cell.array for atoms in part],
        energy=rng.normal(size=len(part)),
        forces=rng.normal(size=(len(numbers), 3)),
        system_id=np.arange(len(part)),
    )


def pymatgen(atoms: Atoms) -> dict[str, Any]:
    """The form in which MatBench and QMOF have a crystal."""
    sites = [
        {"species": [{"element": chemical_symbols[z], "occu": 1}], "abc": place.tolist()}
        for z, place in zip(atoms.numbers, atoms.get_scaled_positions(), strict=True)
    ]
    return {"lattice": {"matrix": atoms.cell.array.tolist()}, "sites": sites}


def worker(arguments: list[str], steps: int, log: Path) -> None:
    """Train in this process until the first row of the log; print peaks and times by phase."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from jmp_md.cli.main import main as jmp_md

    ends: list[tuple[float, float]] = []  # peak in MiB and processor time where each phase ends
    taken = 0
    make = torch.optim.AdamW.__init__

    def finished_phase() -> None:
        status = Path("/proc/self/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        ends.append((int(peak.split()[1]) / 1024, time.process_time()))
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak

    def made(self: torch.optim.AdamW, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        finished_phase()

    def stepped(optimiser: object, args: object, options: object) -> None:
        nonlocal taken
        taken += 1
        if taken == steps:
            finished_phase()

    def watch() -> None:
        while not log.exists():
            time.sleep(0.02)
        finished_phase()
        print(json.dumps(ends), flush=True)
        os._exit(0)  # what follows, the test and the report, is not measured

    torch.optim.AdamW.__init__ = made  # type: ignore[method-assign,assignment]
    register_optimizer_step_post_hook(stepped)
    threading.Thread(target=watch, daemon=True).start()
    raise SystemExit(jmp_md(arguments))


def measure(case: str, preset: str, checkout: Path) -> list[str]:
    """Peak in GiB and processor seconds of each phase of a run in a fresh process."""
    plan = CASES[case]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        changes = [*plan.changes, *write_data(case, folder), f"model.preset={preset}"]
        changes += [f"optimiser.batch_size={plan.batch}", "optimiser.epochs=1"]
        changes.append("optimiser.layer_factors={}")
        if plan.recipe != "pretrain":
            changes.append("model.base=null")
        command = ["train", plan.recipe, "--data", name, "--output", f"{name}/run"]
        command += [word for change in changes for word in ("--set", change)]
        steps = -(-plan.train // plan.batch)
        environment = os.environ | {"PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1"}
        script = [sys.executable, __file__, "--worker", f"{steps}", f"{name}/run/log.csv"]
        done = subprocess.run(
            [*script, *command], capture_output=True, text=True, env=environment, check=False
        )
    if done.returncode:
        return [f"exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"]
    cells, before = [], 0.0
    for peak, seconds in json.loads(done.stdout.splitlines()[-1]):
        cells += [f"{peak / 1024:.2f}", f"{seconds - before:.1f}"]
        before = seconds
    return cells


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        steps, log, *arguments = sys.argv[2:]
        worker(arguments, int(steps), Path(log))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--presets", nargs="+", default=["jmp-xs"], metavar="PRESET")
    parser.add_argument(
        "--checkout", type=Path, action="append", help="root of a checkout (default: this one)"
    )
    args = parser.parse_args()
    checkouts = args.checkout or [Path(__file__).resolve().parents[1]]
    names = [f"{phase}, {what}" for phase in PHASES for what in ("GiB", "CPU s")]
    print(f"| structures | network | checkout | {' | '.join(names)} |")
    print("|---|---|---|" + "---|" * len(names))
    for case in args.cases:
        for preset in args.presets:
            for checkout in checkouts:
                row = [case, preset, str(checkout), *measure(case, preset, checkout)]
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
