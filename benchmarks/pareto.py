"""What a minute of processor time buys: jmp-xs and MACE trained on the same frames of rMD17.

    python benchmarks/pareto.py --data RMD17 --output runs/pareto --minutes 10 60 \
        --molecules ethanol aspirin --seeds 0 --peer-python OTHER/bin/python
    python benchmarks/pareto.py --data RMD17 --output runs/pareto --methods jmp-xs --minutes 10
    python benchmarks/pareto.py table --output runs/pareto

950 frames train and 50 choose the best weights, errors are those of the 1,000 frames of test
split 01. A budget is CPU seconds of steps and validations of one process with one thread. Two short
runs of every method, in turns, tell what its epochs take; then as many are trained as the budget
holds, by schedules that end with them. What was really spent is in the table. Steps of the trained
models are measured in turns, too, by their ASE calculators.

A run that is finished is only read again; one of jmp-xs that was stopped goes on, one of MACE
starts again. Remove `rates` from the folder if a method has become faster. MACE needs mace-torch in
the environment of `--peer-python`; its settings and their reasons are in `pareto_mace.py`.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import write
from engine import KEEP, processor
from pareto_ours import dealt_frames, make_recipe
from pareto_table import report
from pareto_worker import ENERGY, FORCE, FORCES, FRAMES, JOB, PARTS, TRAINING, read_json, write_json
from turns import take_turns

from jmp_md.files import atomic_write
from jmp_md.training.data.frame import Dataset, frames

HERE = Path(__file__).parent
MOLECULES = ("ethanol", "aspirin")
N_FRAMES = 950  # that the recipe trains on
History = list[dict[str, float]]
ROUNDS, RATE_EPOCHS, RATE_FRAMES = 2, 3, 100  # of the short runs


@dataclass(frozen=True)
class Method:
    """One way to a model.

    Attributes:
        program: Its script.
        peer: Whether that needs the other environment.
        options: Of its training, as the script understands them.
        short: What makes its training a short one.
    """

    program: str
    peer: bool
    options: dict[str, Any]
    short: dict[str, Any] = field(default_factory=dict)


_SHORT = {"data.n_train": RATE_FRAMES}
METHODS = {
    "jmp-xs": Method("pareto_ours.py", False, {"model.base": None}, _SHORT),
    "jmp-xs-organic": Method("pareto_ours.py", False, {"model.base": "jmp-xs-organic"}, _SHORT),
    "mace-96": Method("pareto_mace.py", True, {"num_channels": 96, "max_ell": 3}),
    "mace-32": Method("pareto_mace.py", True, {"num_channels": 32, "max_ell": 2}),
    "mace-32-falling": Method(
        "pareto_mace.py", True, {"num_channels": 32, "max_ell": 2, "scheduler": "ExponentialLR"}
    ),
}
DEFAULT = tuple(name for name in METHODS if not name.endswith("falling"))


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        minutes: Of processor time.
    """

    molecule: str
    minutes: float
    method: str
    seed: int

    def folder(self, output: Path) -> Path:
        return output / "runs" / f"{self.molecule}-{self.minutes:g}-{self.method}-{self.seed}"


class Bench:
    """Runs programs in their environments.

    Args:
        data: Folder of the rMD17 files.
        output: Folder of all runs.
        peer_python: Interpreter that has mace-torch.
    """

    def __init__(self, data: Path, output: Path, peer_python: str | None) -> None:
        self.data, self.output, self.peer_python = data.absolute(), output.absolute(), peer_python

    def command(self, method: str, action: str, folder: Path) -> list[str]:
        """Of a program, with one thread; freed memory is kept, as by the command line."""
        about = METHODS[method]
        python = self.peer_python if about.peer else sys.executable
        assert python is not None
        return ["env", "OMP_NUM_THREADS=1", "MKL_NUM_THREADS=1", KEEP,
                python, str(HERE / about.program), action, str(folder)]  # fmt: skip

    def call(self, method: str, action: str, folder: Path) -> None:
        """Run a program to its end; what it says goes to a file."""
        log = folder / "output.log"
        with log.open("a") as file:
            process = subprocess.Popen(
                self.command(method, action, folder), stdout=file, stderr=subprocess.STDOUT
            )
            try:
                code = process.wait()
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if code:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
            raise SystemExit(f"{tail}\n{method} ended with {code}, all it said is in {log}")

    def write_frames(self, molecule: str) -> Path:
        """The frames of a molecule, for MACE and for the test of all."""
        folder = self.output / FRAMES / molecule
        if not (folder / "test.xyz").exists():
            folder.mkdir(parents=True, exist_ok=True)
            dealt = dealt_frames(make_recipe(molecule, {}), self.data)
            origin = dealt["train"][0].energy
            parts = {part: to_atoms(dealt[part], origin) for part in PARTS}
            parts["few"] = parts["train"][:RATE_FRAMES]
            for part in ("few", *PARTS):
                with atomic_write(folder / f"{part}.xyz") as path:
                    write(path, parts[part], format="extxyz")
        return folder

    def train(self, method: str, molecule: str, folder: Path, job: dict[str, Any]) -> Any:
        """What is known of a training in a folder, which is run unless it is finished."""
        if not (folder / TRAINING).exists():
            folder.mkdir(parents=True, exist_ok=True)
            whole = {
                "molecule": molecule,
                "data": str(self.data),
                "frames": str(self.write_frames(molecule)),
                "train": "train",
                "options": METHODS[method].options,
                "machine": f"{processor()}, 1 thread",
            }
            write_json(folder / JOB, whole | job)
            self.call(method, "train", folder)
        return read_json(folder / TRAINING)

    def rates(self, methods: list[str], molecule: str) -> dict[str, tuple[float, float]]:
        """CPU seconds of every method for a frame that it trains on, and for a validation."""
        found: dict[str, list[History]] = {method: [] for method in methods}
        for k, method in itertools.product(range(ROUNDS), methods):
            options = METHODS[method].options | METHODS[method].short
            job = {"epochs": RATE_EPOCHS, "seed": k, "options": options, "train": "few"}
            folder = self.output / "rates" / f"{molecule}-{method}-{k}"
            found[method].append(self.train(method, molecule, folder, job)["history"])
        return {method: rate(histories, RATE_FRAMES) for method, histories in found.items()}

    def finish(self, run: Run, epochs: int) -> None:
        """Train one model and compute the forces of the test frames with it."""
        folder = run.folder(self.output)
        if not (folder / FORCES).exists():
            print(f"{folder.name}: {epochs} epochs", flush=True)
            job = read_json(folder / JOB) or {}  # a run that was stopped keeps its epochs
            job = asdict(run) | {"epochs": job.get("epochs", epochs)}
            self.train(run.method, run.molecule, folder, job)
            self.call(run.method, "forces", folder)

    def speed(self, molecule: str) -> None:
        """Times of steps of all methods that have trained a model of a molecule, in turns."""
        file = self.output / "speed" / f"{molecule}.json"
        kept = read_json(file) or {}
        folders: dict[str, Path] = {}
        for path in sorted(self.output.glob(f"runs/{molecule}-*/{FORCES}")):
            method = read_json(path.parent / JOB)["method"]
            if self.peer_python is not None or not METHODS[method].peer:
                folders.setdefault(method, path.parent)
        if folders.keys() - kept.keys():
            commands = {m: self.command(m, "serve", folder) for m, folder in folders.items()}
            for method, result in take_turns(commands, rounds=10, seconds=0.5).items():
                if result.error:
                    print(f"{method} was not timed: {result.error}", file=sys.stderr)
                else:
                    kept[method] = result.summary()
            file.parent.mkdir(exist_ok=True)
            write_json(file, kept)


def to_atoms(dataset: Dataset, origin: float | None) -> list[Atoms]:
    """Frames with their labels, in eV and eV/Å.

    Args:
        dataset: The frames.
        origin: eV, taken off energies: those of rMD17, down to -18,000 eV, would be rounded to
            1 meV in the float32 that MACE is trained in.
    """
    assert origin is not None
    atoms = []
    for frame in frames(dataset):
        assert frame.energy is not None
        one = Atoms(frame.numbers, frame.positions)
        one.info[ENERGY] = frame.energy - origin
        one.arrays[FORCE] = frame.forces
        atoms.append(one)
    return atoms


def rate(histories: list[History], n_frames: int) -> tuple[float, float]:
    """CPU seconds of a frame that is trained on, and of a validation, from short runs.

    That of the fastest epoch: others who share a core make a CPU second worth less. The first of
    each run is left out, as much happens once.
    """
    epochs = [
        (after["cpu"] - before["cpu"], after["validation_cpu"])
        for history in histories
        for before, after in itertools.pairwise(history[-RATE_EPOCHS:])
    ]
    fastest = min(seconds for seconds, _ in epochs)
    share = statistics.mean(validation / seconds for seconds, validation in epochs)
    return (1 - share) * fastest / n_frames, share * fastest


def epochs_within(seconds: float, frame: float, validation: float, n_frames: int) -> int:
    """Epochs, with a validation each and one before, that come nearest to a budget; 1 at least."""
    return max(1, round((seconds - validation) / (n_frames * frame + validation)))


def train_all(args: argparse.Namespace) -> None:
    """Do what is not done yet, the shortest first."""
    missing = [m for m in args.methods if METHODS[m].peer and args.peer_python is None]
    if missing:
        raise SystemExit(
            f"{', '.join(missing)}: give --peer-python, an interpreter whose environment has "
            "mace-torch, or leave them out of --methods"
        )
    bench = Bench(args.data, args.output, args.peer_python)
    for seed, minutes, molecule in itertools.product(args.seeds, args.minutes, args.molecules):
        runs = [Run(molecule, minutes, method, seed) for method in args.methods]
        left = [r for r in runs if not (r.folder(bench.output) / FORCES).exists()]
        rates = bench.rates([run.method for run in left], molecule)
        for run in left:
            epochs = epochs_within(60 * minutes, *rates[run.method], N_FRAMES)
            bench.finish(run, epochs)
            report(bench.output)
    for molecule in args.molecules:
        bench.speed(molecule)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # ends programs, too
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", nargs="?", choices=("train", "table"), default="train")
    parser.add_argument("--data", type=Path, help="folder of the rMD17 files")
    parser.add_argument("--output", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--minutes", nargs="+", type=float, default=[10.0, 60.0])
    parser.add_argument("--molecules", nargs="+", choices=MOLECULES, default=list(MOLECULES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(DEFAULT))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--peer-python", help="interpreter of an environment with mace-torch")
    args = parser.parse_args()
    if args.action == "train":
        if args.data is None:
            parser.error("--data: name the folder of the rMD17 files")
        train_all(args)
    report(args.output)


if __name__ == "__main__":
    main()
