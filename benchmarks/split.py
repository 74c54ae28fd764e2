"""Where the time of a step goes: neighbours, selection of edges, network, the rest.

    python benchmarks/split.py                              # jmp-xs: aspirin, 1,536 atoms of water
    python benchmarks/split.py --model jmp-s --structures aspirin

A step of `JMPCalculator` in dynamics reuses neighbours; every `--search-every` steps (what a
molecular dynamics at 300 K with a skin of 1 Å needs) they are searched for. Both are timed apart.
Times are those of the process: run with one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from methods import MODELS, OURS, calculator_step, make_potential
from structures import build

from jmp_md.calculators.ase import JMPCalculator

STRUCTURES = ("aspirin", "water-512")
PARTS = ("neighbours", "selection", "network", "rest")


def measure(
    model: str,
    structure: str,
    method: str = "fast",
    *,
    steps: int = 50,
    search_every: int = 20,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Milliseconds of each part of a step, medians.

    ``search_ms`` is one neighbour search; ``neighbours`` has its share in a step. Large
    structures take fewer steps.
    """
    atoms = build(structure, folder)
    calculator = JMPCalculator(make_potential(model), **OURS[method])
    run = calculator_step(calculator, atoms)
    spent: dict[str, list[float]] = defaultdict(list)
    run()  # searches for neighbours, and compiles
    with timing(calculator, spent):
        for _ in range(max(3, min(steps, 3000 // len(atoms)))):
            began = time.process_time()
            run()
            spent["step"].append(time.process_time() - began)
        reuse = statistics.median(spent["update"])
        spent["update"].clear()
        for _ in range(3):
            calculator.neighbours.forget()
            calculator.neighbours.update(
                atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc
            )
    median = {name: 1e3 * statistics.median(values) for name, values in spent.items()}
    search, step = median["update"], median["step"]
    neighbours = 1e3 * reuse + median["check"]
    result = {
        "model": model,
        "structure": structure,
        "method": method,
        "atoms": len(atoms),
        "search_ms": search,
        "neighbours": neighbours + search / search_every,
        "selection": median["selection"],
        "network": median["predict"] - median["selection"],
        "rest": max(step - neighbours - median["predict"], 0.0),
    }
    result["step"] = sum(result[part] for part in PARTS)
    result["neighbour_share"] = result["neighbours"] / result["step"]
    return result


@contextmanager
def timing(calculator: JMPCalculator, spent: dict[str, list[float]]) -> Iterator[None]:
    """Note the time of the parts of a calculator while this lasts."""
    import jmp_md.moving as module

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            began = time.process_time()
            result = function(*args, **options)
            spent[name].append(time.process_time() - began)
            return result

        return run

    potential, checked = calculator.potential, module.check_distances
    calculator.neighbours.update = timed("update", calculator.neighbours.update)
    potential.predict = timed("predict", potential.predict)
    potential.graph_of = timed("selection", potential.graph_of)
    module.check_distances = timed("check", checked)
    try:
        yield
    finally:
        module.check_distances = checked
        del calculator.neighbours.update, potential.predict, potential.graph_of


def table(results: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of the table."""
    yield f"{'split of a step, ms':28} {'step':>9}" + "".join(f"{p:>12}" for p in PARTS)
    for r in results:
        name = f"{r['model']}:{r['structure']} {r['method']}"
        parts = "".join(f"{r[p]:7.1f} {r[p] / r['step']:4.0%}" for p in PARTS)
        yield f"{name:28} {r['step']:9.1f}{parts}   one search {r['search_ms']:.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="jmp-xs", choices=list(MODELS))
    parser.add_argument("--structures", nargs="+", default=list(STRUCTURES))
    parser.add_argument("--method", default="fast", choices=list(OURS))
    parser.add_argument("--steps", type=int, default=50, help="fewer for large structures")
    parser.add_argument("--search-every", type=int, default=20, metavar="STEPS")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, process time")
    results = [
        measure(args.model, s, args.method, steps=args.steps, search_every=args.search_every)
        for s in args.structures
    ]
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
