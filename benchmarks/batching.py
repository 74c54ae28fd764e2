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
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from ase import Atoms
from methods import MODELS, make_potential
from structures import build, shaken

from jmp_md.batch import BatchPredictor
from jmp_md.calculators.ase import JMPCalculator
from jmp_md.evaluation import evaluate
from jmp_md.load import load_model
from jmp_md.potential import Potential

COUNTS = {"ethanol": 256, "aspirin": 64}
CLOCKS = {"ms": time.perf_counter, "cpu_ms": time.process_time}


def measure(
    molecules: Sequence[str] = tuple(COUNTS),
    *,
    model: str = "jmp-xs",
    max_edges: Sequence[int | None] = (None,),
    rounds: int = 5,
    singles: int = 16,
    clock: str = "ms",
) -> Iterator[dict[str, Any]]:
    """One row per molecule and size of batches.

    Args:
        molecules: Names in :data:`COUNTS`.
        model: Name in :data:`methods.MODELS`.
        max_edges: Sizes of batches; None leaves the choice to the package.
        rounds: Rounds of single calls and batches.
        singles: Single calls per round.
        clock: ``"ms"``, wall time, or ``"cpu_ms"``, time of the process.
    """
    potential = load_model(make_potential(model))  # as it is used, not as it is trained
    for name in molecules:
        structures = shaken(build(name), COUNTS[name])
        for limit in max_edges:
            times = take_rounds(potential, structures, limit, rounds, singles, CLOCKS[clock])
            one, many = (1e3 * statistics.median(t) for t in times)
            yield {
                "molecule": name,
                "count": COUNTS[name],
                "max_edges": limit or BatchPredictor(potential).max_edges,
                "single_ms": one,
                "batch_ms": many,
                "faster": one / many,
            }


def take_rounds(
    potential: Potential,
    structures: list[Atoms],
    max_edges: int | None,
    rounds: int,
    singles: int,
    clock: Callable[[], float],
) -> tuple[list[float], list[float]]:
    """Seconds per structure of single calls and of batches, one of each per round."""
    calculator = JMPCalculator(potential, skin=0.0)
    few = structures[:singles]

    def one_by_one() -> None:
        for atoms in few:
            calculator.calculate(atoms, ["energy", "forces"])

    def batched() -> None:
        evaluate(structures, potential, max_edges=max_edges)

    calculator.calculate(few[0], ["energy", "forces"])
    evaluate(few, potential)
    single, batch = [], []
    for _ in range(rounds):
        for function, count, times in (
            (one_by_one, len(few), single),
            (batched, len(structures), batch),
        ):
            began = clock()
            function()
            times.append((clock() - began) / count)
    return single, batch


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lines of the table."""
    yield f"{'batching':10} {'count':>6} {'max_edges':>9} {'single ms':>10} {'batch ms':>9} faster"
    for r in rows:
        yield (
            f"{r['molecule']:10} {r['count']:6d} {r['max_edges']:9d} {r['single_ms']:10.2f} "
            f"{r['batch_ms']:9.2f} {r['faster']:5.1f}x"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="jmp-xs", choices=list(MODELS))
    parser.add_argument("--molecules", nargs="+", choices=list(COUNTS), default=list(COUNTS))
    parser.add_argument("--max-edges", nargs="+", type=int, default=[None])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--singles", type=int, default=16, help="single calls per round")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="ms", help="cpu_ms: time of this process"
    )
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{args.model}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    rows = measure(
        args.molecules,
        model=args.model,
        max_edges=args.max_edges,
        rounds=args.rounds,
        singles=args.singles,
        clock=args.clock,
    )
    print("\n".join(table(list(rows))))


if __name__ == "__main__":
    main()
