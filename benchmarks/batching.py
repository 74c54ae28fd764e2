"""Time per structure: batches against one call after the other.

    python benchmarks/batching.py                                # 256 ethanol, 64 aspirin
    python benchmarks/batching.py --max-edges 2048 8192 32768    # how large batches should be

Both ways find neighbours and give energies and forces of shaken copies of a molecule. They take
turns, so that other work on the machine slows both; the table shows medians over the rounds.
Weights are random: they do not change what is computed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from ase import Atoms
from ase.io import read

from jmp_md.batch import BatchPredictor
from jmp_md.calculators.ase import JMPCalculator
from jmp_md.evaluation import evaluate
from jmp_md.graph.policy import GraphPolicy
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.nn.config import preset
from jmp_md.potential import Potential

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
COUNTS = {"ethanol": 256, "aspirin": 64}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def make_potential(size: str) -> Potential:
    """Random weights of a size, with the graphs it is used with."""
    graph = GraphPolicy.smooth() if size == "jmp-xs" else GraphPolicy.official(12.0, 30)
    header = ModelHeader(size, preset(size), (HeadInfo(name="energy", graph=graph),))
    torch.manual_seed(0)
    return Potential(header).float().requires_grad_(False)


def shaken(molecule: Atoms, count: int) -> list[Atoms]:
    """Copies with atoms displaced by 0.05 Å."""
    copies = [molecule.copy() for _ in range(count)]
    for seed, atoms in enumerate(copies):
        atoms.rattle(0.05, seed=seed)
    return copies


def seconds(function: Callable[[], object], clock: Callable[[], float]) -> float:
    """Time of a call."""
    start = clock()
    function()
    return clock() - start


def measure(
    potential: Potential, structures: list[Atoms], max_edges: int | None, args: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """Seconds per structure of single calls and of batches, one of each per round."""
    calculator = JMPCalculator(potential, skin=0.0)
    few = structures[: args.singles]
    clock = CLOCKS[args.clock]

    def one_by_one() -> None:
        for atoms in few:
            calculator.calculate(atoms, ["energy", "forces"])

    def batched() -> None:
        evaluate(structures, potential, max_edges=max_edges)

    calculator.calculate(few[0], ["energy", "forces"])
    evaluate(few, potential)
    single, batch = [], []
    for _ in range(args.rounds):
        single.append(seconds(one_by_one, clock) / len(few))
        batch.append(seconds(batched, clock) / len(structures))
    return single, batch


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="jmp-xs", help="jmp-xs, jmp-s or jmp-l")
    parser.add_argument("--molecules", nargs="+", choices=list(COUNTS), default=list(COUNTS))
    parser.add_argument("--max-edges", nargs="+", type=int, default=[None])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--singles", type=int, default=16, help="single calls per round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: time of this process, where others run",
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    potential = make_potential(args.size)
    about = f"torch {torch.__version__}, {args.threads} threads, {args.clock} time"
    print(f"{args.size}, {about}, {sys.platform}")
    print("molecule  count  max_edges  single ms  batch ms  faster")
    for name in args.molecules:
        structures = shaken(read(EXAMPLES / f"{name}.xyz"), COUNTS[name])
        for max_edges in args.max_edges:
            single, batch = measure(potential, structures, max_edges, args)
            one, many = statistics.median(single), statistics.median(batch)
            limit = max_edges or BatchPredictor(potential).max_edges
            print(
                f"{name:8}  {COUNTS[name]:5}  {limit:9}  {one * 1e3:9.2f}  {many * 1e3:8.2f}  "
                f"{one / many:5.1f}x",
                flush=True,
            )


if __name__ == "__main__":
    main()
