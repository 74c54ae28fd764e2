"""Time and memory of energy + conservative forces: the table, the goals and the figures.

    python benchmarks/engine.py --json engine.json --svg docs/figures
    python benchmarks/engine.py --parts steps --rows jmp-s:catcher --methods fast oracle floor
    python benchmarks/engine.py --peer-python OTHER/bin/python     # mace-torch is there
    python benchmarks/engine.py --json engine.json --parts         # nothing new, the table again

Parts:

- steps: a step of every model on every structure by every method. Each method has a process of
  its own; all methods of a row take turns.
- split: where the time of a step goes. growth: time and memory against the number of atoms.
  batching: many molecules at once. Each is a script of its own, too.

With `--json` results are kept after every row, and rows that are there are not measured again.
The methods, in `methods.py`: fast, plain, lean, bf16, compiled, fast64 and plain64 are ways to run
this network, plain without kernels of its own, 64 in float64; oracle is the enumerating network of
the tests, the algorithm of the official code; floor is the dense layers on edges alone; mace is a
MACE of the size of MACE-OFF small. Weights are random. All but lean keep freed memory, as the
command line does. Peak memory is the growth of the resident set over the process with weights
loaded.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import batching
import figures
import goals
import growth
import split
import torch
from methods import OURS
from structures import build
from turns import take_turns

from jmp_md.files import atomic_write

HERE = Path(__file__).parent
PARTS = ("steps", "split", "growth", "batching")
# What keep_freed_memory does, for a process without this package.
KEEP = f"GLIBC_TUNABLES=glibc.malloc.mmap_threshold={2**30}:glibc.malloc.trim_threshold={2**40}"
METHODS = (*OURS, "oracle", "floor", "mace")
# By model: what is compared. Small models have nothing to gain from less memory.
COMPARED = {
    "jmp-xs": ("fast", "plain", "compiled", "oracle", "floor", "mace"),
    "jmp-xs-official": ("fast", "plain", "compiled", "oracle", "floor"),
    "jmp-s": ("fast", "lean", "bf16", "compiled", "oracle", "floor"),
    "jmp-l": ("fast", "lean", "bf16", "oracle", "floor"),
}
STRUCTURES = {
    "jmp-xs": (
        *("ethanol", "aspirin", "ammonia", "catcher", "tube", "nanotube"),
        *("water-64", "water-512", "water-4096"),
    ),
    "jmp-xs-official": ("aspirin", "ammonia", "catcher", "tube"),
    "jmp-s": ("aspirin", "ammonia", "catcher", "nanotube"),
    "jmp-l": ("aspirin", "ammonia", "catcher", "nanotube"),
}
ROWS = tuple(f"{model}:{name}" for model, names in STRUCTURES.items() for name in names)


def main() -> None:
    """Measure what is asked for and show all there is."""
    args = _arguments()
    warnings.simplefilter("ignore")  # of energies without references: weights are random
    results: dict[str, Any] = {"steps": {}, "split": [], "growth": [], "batching": []}
    if args.json and args.json.exists():
        results |= json.loads(args.json.read_text())
    results["clock"] = args.clock
    results["about"] = about()
    for _ in measure(args, results):
        if args.json:
            with atomic_write(args.json) as temporary:
                temporary.write_text(json.dumps(results, indent=1))
    print("\n".join(report(results)))
    if args.svg:
        args.svg.mkdir(parents=True, exist_ok=True)
        if results["steps"]:
            figure = figures.step_times(results["steps"], args.clock)
            figures.save(figure, args.svg / "engine-steps.svg")
        if results["growth"]:
            figure = figures.growth(results["growth"], args.clock)
            figures.save(figure, args.svg / "engine-growth.svg")


def about() -> str:
    """Machine, versions and threads."""
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' * (threads != 1)}, torch {torch.__version__}"


def processor() -> str:
    """What the processor calls itself."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((li for li in info.read_text().splitlines() if "model name" in li), cpu)
    return cpu.partition(": ")[2] or cpu


def measure(args: argparse.Namespace, results: dict[str, Any]) -> Iterator[None]:
    """Fill ``results``; yields whenever there is more."""
    if "steps" in args.parts:
        for row in args.rows:
            done = results["steps"].setdefault(row, {})
            chosen = args.methods or COMPARED[row.partition(":")[0]]
            missing = [m for m in chosen if m not in done or args.again]
            if missing:
                done |= measure_row(row, missing, args)
                results["steps"][row] = {m: done[m] for m in METHODS if m in done}
                print("\n".join(row_lines(row, results["steps"][row], args.clock)), flush=True)
                yield
    if "split" in args.parts and (args.again or not results["split"]):
        results["split"] = [split.measure("jmp-xs", name) for name in split.STRUCTURES]
        yield
    if "growth" in args.parts:
        for method in ("fast", "lean"):
            known = {r["atoms"] for r in results["growth"] if r["method"] == method}
            missing = [n for n in growth.MOLECULES if args.again or 3 * n not in known]
            limits = {"memory": args.memory, "timeout": args.timeout}
            for row in growth.measure(missing, method=method, keep=method == "fast", **limits):
                same = (row["method"], row["atoms"])
                others = [r for r in results["growth"] if (r["method"], r["atoms"]) != same]
                results["growth"] = [*others, row]
                yield
    if "batching" in args.parts and (args.again or not results["batching"]):
        results["batching"] = list(batching.measure(clock=args.clock))
        yield


def measure_row(row: str, methods: Sequence[str], args: argparse.Namespace) -> dict[str, Any]:
    """One model on one structure by several methods, side by side."""
    model, name = row.split(":", 1)
    atoms = build(name, args.structures)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "structure.extxyz"
        atoms.write(file)
        commands = {}
        for method in methods:
            own = [sys.executable, str(HERE / "methods.py"), model, method]
            peer = ["env", KEEP, args.peer_python, str(HERE / "peer.py")]
            if method != "lean":  # which is for the least memory
                own.append("--keep")
            command = peer if method == "mace" else own
            commands[method] = [*command, str(file), "--memory", str(args.memory)]
        measured = take_turns(
            commands, rounds=args.rounds, seconds=args.seconds, timeout=args.timeout
        )
    return {m: {"atoms": len(atoms)} | result.summary() for m, result in measured.items()}


def report(results: dict[str, Any]) -> Iterator[str]:
    """All tables."""
    clock = results["clock"]
    kind = "time of the process" if clock == "cpu_ms" else "wall time"
    yield f"\n{results['about']}; medians, {kind}"
    if results["steps"]:
        yield f"{'row':26} {'method':9} {'atoms':>6} {'ms':>10} {'first ms':>10} {'peak MiB':>9}"
        for row, methods in results["steps"].items():
            yield from row_lines(row, methods, clock)
    if results["split"]:
        yield ""
        yield from split.table(results["split"])
    if results["growth"]:
        yield ""
        yield from growth.table(results["growth"], clock)
    if results["batching"]:
        yield ""
        yield from batching.table(results["batching"])
    yield ""
    yield from goals.lines(results)


def row_lines(row: str, methods: dict[str, Any], clock: str) -> Iterator[str]:
    """Lines of the table for one row."""
    for method, r in methods.items():
        start = f"{row:26} {method:9} {r['atoms']:6d}"
        if "error" in r:
            yield f"{start} {r['error']}"
        else:
            yield f"{start} {r[clock]:10.1f} {r['first_ms']:10.1f} {r['peak_MiB']:9.0f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), metavar="MODEL:STRUCTURE")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="default: by model")
    parser.add_argument("--structures", type=Path, metavar="DIR", help="holds MD22 structures")
    parser.add_argument("--peer-python", default=sys.executable, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="least length of a turn")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one turn")
    parser.add_argument("--memory", type=float, default=8.0, help="GiB a process may take")
    parser.add_argument(
        "--clock",
        default="ms",
        choices=["ms", "cpu_ms"],
        help="cpu_ms: time of the process, for one thread on a machine that others use",
    )
    parser.add_argument("--json", type=Path, help="keep results here")
    parser.add_argument("--again", action="store_true", help="measure what is there already")
    parser.add_argument("--svg", type=Path, metavar="DIR", help="draw figures here")
    args = parser.parse_args()
    for row in args.rows:
        if row.partition(":")[0] not in COMPARED:
            parser.error(f"row {row!r}: write MODEL:STRUCTURE with one of {', '.join(COMPARED)}")
    return args


if __name__ == "__main__":
    main()
