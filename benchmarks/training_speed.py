"""Speed and memory of conservative fine-tuning on aspirin, against enumerating triplets and all.

    python benchmarks/training_speed.py --data RMD17                  # the table
    python benchmarks/training_speed.py --data RMD17 --rows jmp-xs:4 jmp-s:2

A row is a network and a batch size: jmp-xs with its own smooth graphs, jmp-s with the official ones
of the paper's rMD17 runs (7 Å, 100 neighbours). Each method runs in a fresh process:

- ours: the trainer as it is; exact: with `optimiser.derivatives`, differentiating twice, as do
  lean: with `optimiser.recompute`; bf16: with `optimiser.precision`;
  direct: with a force head, as in pre-training, not conservative.
- oracle: the same trainer on the same batches, the network replaced by the enumerating reference
  of the tests, the algorithm of the official code.

A step is everything: pairs from memory, energy, forces, the gradient of their loss, AdamW and
averaged weights. Times are CPU seconds of the process, which others on the machine hardly change:
give it one thread (`OMP_NUM_THREADS=1`). Peak memory is the growth of the resident set over the
process ready to train. Methods take turns `--rounds` times; the table has medians.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from network_oracle import official_names, switch

from jmp_md.cli.train import find_recipe
from jmp_md.potential import Potential
from jmp_md.structures import Structures
from jmp_md.training.assembly import assemble
from jmp_md.training.data.frame import Subset
from jmp_md.training.data.open import open_dataset
from jmp_md.training.distributed import Ranks
from jmp_md.training.recipe import Recipe, load_recipe
from jmp_md.training.task import TaskData
from jmp_md.training.trainer import Trainer

METHODS = ("ours", "exact", "oracle", "lean", "bf16", "direct")
ROWS = ("jmp-xs:4", "jmp-xs:8", "jmp-s:1", "jmp-s:4")
SAMPLE = 16  # frames that batches are drawn from


def make_trainer(row: str, method: str, data: Path, output: Path) -> Trainer:
    """The trainer of the packaged recipe, from random weights."""
    size, batch_size = row.split(":")
    changes = ["model.molecule=aspirin", "model.base=null", f"model.preset={size}",
               "data.train=rmd17_aspirin_train_01.npz", f"optimiser.batch_size={batch_size}",
               f"optimiser.derivatives={'auto' if method == 'ours' else 'exact'}",
               f"optimiser.recompute={str(method == 'lean').lower()}",
               f"optimiser.precision={'bf16' if method == 'bf16' else 'float32'}",
               f"model.forces={'direct' if method == 'direct' else 'conservative'}"]  # fmt: skip
    recipe = load_recipe(find_recipe("rmd17-xs" if size == "jmp-xs" else "rmd17"), changes)
    assert isinstance(recipe, Recipe)
    frames = open_dataset(data / recipe.data.train)
    train, validation = Subset(frames, range(SAMPLE)), Subset(frames, [SAMPLE])
    parts = {recipe.model.head: TaskData(train, validation)}
    trainer = assemble(recipe, parts, output, Ranks(0, 1, torch.device("cpu")))
    if method == "oracle":
        enumerate_instead(trainer.objective.model.potential())
    return trainer


def enumerate_instead(potential: Potential) -> None:
    """Replace the network of a potential by the enumerating one, with the same parameters.

    A batch of molecules is to it one structure of parts that do not see each other.
    """
    from oracle import oracle_forward
    from oracle_graphs import OracleEdges

    policy = potential.policy
    smooth = policy.kind == "smooth"
    inline = (lambda sin2: switch(sin2 / policy.inline_sin2)) if smooth else None

    def network(s: Structures) -> tuple[Tensor, Tensor]:
        graph = potential.graph(s.positions, s.cells, s.structure, s.tags, s.pairs)
        graphs = {}
        for name, e in zip(
            ("main", "atom_edge", "quadruplet", "atom_atom"), graph[:4], strict=True
        ):
            offset = torch.zeros(len(e.source), 3, dtype=torch.long)
            graphs[name] = OracleEdges(e.source, e.target, offset, e.weight if smooth else None)
        state = official_names(potential.state_dict(keep_vars=True))
        output = oracle_forward(
            state, potential.header.architecture, s.numbers, s.positions, s.cells[0], graphs,
            inline_switch=inline,
        )  # fmt: skip
        return potential.energy_head(output["X_E"]).squeeze(-1), s.positions.new_zeros(0, 3)

    potential.network = network  # type: ignore[method-assign]


def worker(row: str, method: str, data: Path, steps: int) -> dict[str, float]:
    """Measure one row in this process."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(row, method, data, Path(folder))
    batches = []
    for step in range(steps + 1):
        keys = [(task, k % SAMPLE) for task, k in trainer.sampler.batch(step)]
        batches.append(trainer.frames.collate([trainer.frames[k] for k in keys]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times, losses = [], []
    for step, batch in enumerate(batches):
        began = time.process_time()
        losses.append(trainer._step(batch))
        structures = sum(part.num_graphs for part in batch.values())
        times.append((time.process_time() - began) / structures)
        trainer.progress.step = step + 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": statistics.median(times[1:]),
        "peak_MiB": (peak - before) / 1024,
        "loss": losses[-1] or float("nan"),
    }


def measure(row: str, method: str, args: argparse.Namespace) -> dict[str, float]:
    """The same in a fresh process."""
    command = [sys.executable, __file__, "--worker", row, method, "--data", str(args.data)]
    command += ["--steps", str(args.steps)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise SystemExit(f"{row} {method}: exit code {done.returncode} (-9: out of memory)")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the rMD17 files")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), metavar="SIZE:BATCH")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--steps", type=int, default=4, help="measured after a first one")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--worker", nargs=2, metavar=("ROW", "METHOD"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(worker(*args.worker, args.data, args.steps)))
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    print("| network, batch | method | samples per CPU s | peak, MiB | last loss |")
    print("|---|---|---|---|---|")
    for row in args.rows:
        found: dict[str, list[dict[str, float]]] = {method: [] for method in args.methods}
        for _ in range(args.rounds):
            for method in args.methods:
                found[method].append(measure(row, method, args))
        for method, results in found.items():
            seconds, peak = (
                statistics.median(r[name] for r in results) for name in ("seconds", "peak_MiB")
            )
            print(f"| {row} | {method} | {1 / seconds:.3g} | {peak:.0f} "
                  f"| {results[0]['loss']:.5f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
