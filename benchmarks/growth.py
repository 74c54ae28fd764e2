"""Time and memory of a step against the number of atoms, for periodic water.

    python benchmarks/growth.py                         # jmp-xs, 192 to 12,288 atoms

Every size runs in a fresh process that may take so much memory and no more. Growth is linear where
time and memory per atom stay the same.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import figures
from methods import MODELS, OURS
from structures import build
from turns import take_turns

METHODS_SCRIPT = Path(__file__).with_name("methods.py")
MOLECULES = (64, 216, 512, 1728, 4096)


def measure(
    molecules: Sequence[int] = MOLECULES,
    *,
    model: str = "jmp-xs",
    method: str = "fast",
    memory: float = 8.0,
    keep: bool = False,
    rounds: int = 3,
    timeout: float = 300.0,
) -> Iterator[dict[str, Any]]:
    """One row per size: atoms and what :class:`turns.Measurement` sums up."""
    with tempfile.TemporaryDirectory() as folder:
        for n in molecules:
            atoms = build(f"water-{n}")
            file = Path(folder) / f"water-{n}.extxyz"
            atoms.write(file)
            command = [sys.executable, str(METHODS_SCRIPT), model, method, str(file)]
            command += ["--memory", str(memory), *(["--keep"] if keep else [])]
            turns = take_turns({"": command}, rounds=rounds, budget=90.0, timeout=timeout)
            yield {"method": method, "atoms": len(atoms)} | turns[""].summary()


def deviation(rows: Sequence[dict[str, Any]], key: str) -> float:
    """Largest distance of a quantity per atom from its median, relative."""
    per_atom = [row[key] / row["atoms"] for row in rows if key in row]
    middle = statistics.median(per_atom)
    return max(abs(x / middle - 1) for x in per_atom)


def table(rows: Sequence[dict[str, Any]], clock: str) -> Iterator[str]:
    """Lines of the table."""
    yield f"{'growth':10} {'atoms':>7} {'ms':>10} {'ms/atom':>9} {'peak MiB':>9} {'MiB/atom':>9}"
    for row in rows:
        start = f"{row['method']:10} {row['atoms']:7d}"
        if "error" in row:
            yield f"{start} {row['error']}"
            continue
        ms, peak, n = row[clock], row["peak_MiB"], row["atoms"]
        yield f"{start} {ms:10.1f} {ms / n:9.3f} {peak:9.0f} {peak / n:9.3f}"
    for method in dict.fromkeys(row["method"] for row in rows):
        done = [row for row in rows if row["method"] == method and "error" not in row]
        if len(done) > 1:
            time, memory = deviation(done, clock), deviation(done, "peak_MiB")
            yield f"{method}: linear within {time:.0%} in time, {memory:.0%} in memory"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="jmp-xs", choices=list(MODELS))
    parser.add_argument("--method", default="fast", choices=list(OURS))
    parser.add_argument("--molecules", nargs="+", type=int, default=list(MOLECULES))
    parser.add_argument("--memory", type=float, default=8.0, help="GiB a process may take")
    parser.add_argument("--keep", action="store_true", help="keep freed memory for the next step")
    parser.add_argument("--clock", default="cpu_ms", choices=["ms", "cpu_ms"])
    parser.add_argument("--svg", type=Path, help="draw the figure here")
    args = parser.parse_args()
    options = {"model": args.model, "method": args.method, "memory": args.memory}
    rows = list(measure(args.molecules, keep=args.keep, **options))
    print("\n".join(table(rows, args.clock)))
    if args.svg:
        figures.save(figures.growth(rows, args.clock), args.svg)


if __name__ == "__main__":
    main()
