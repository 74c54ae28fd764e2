"""Everything that needs a GPU, in one command of less than eight minutes.

    pip download --only-binary=:all: --no-deps -d wheels ase matscipy h5py lmdb pydantic ...
    python benchmarks/gpu.py --output gpu --wheels wheels     # on a machine without a network
    python benchmarks/gpu.py --output gpu --device cpu --quick   # every line of it, anywhere

It runs the tests that need a GPU, measures the rows below, each in a process of its own with a
limit, and writes gpu.json, gpu.md and a profile of each row. What fails is in the table with its
error. Weights are random: they do not change what is computed. Times are wall times of a step
whose results are on the host again, medians; `searching` is a step that finds neighbours anew,
`device` is the time in kernels.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
CONTENTS = ("gpu.json", "gpu.md")


class Row(NamedTuple):
    """What is measured.

    Attributes:
        what: In the table.
        kind: Function of this script.
        model: Of ``methods.py``.
        structure: Of ``structures.py``.
        count: Copies in a batch, or structures in a training step.
        tf32: Whether the caller allows TF32 in products of matrices.
        goal: In the table.
    """

    what: str
    kind: str
    model: str
    structure: str
    count: int
    tf32: bool
    goal: str


ROWS = (
    Row("jmp-xs, aspirin, `JMPCalculator`", "single", "jmp-xs", "aspirin", 1, False,
        "1.5 ms, 0.8 ms in kernels"),
    Row("jmp-xs, 148 atoms", "single", "jmp-xs", "catcher", 1, False, "1.5 ms"),
    Row("jmp-xs, 1,029 atoms of water", "single", "jmp-xs", "water-343", 1, False,
        "6 ms at 1,200 atoms"),
    Row("jmp-xs, 1,024 aspirin, batched", "batch", "jmp-xs", "aspirin", 1024, False, "20 ms"),
    Row("jmp-xs, 1,024 ethanol, batched", "batch", "jmp-xs", "ethanol", 1024, False, ""),
    Row("JMP-S, 148 atoms, TF32", "single", "jmp-s", "catcher", 1, True, "4 ms"),
    Row("JMP-S, 148 atoms", "single", "jmp-s", "catcher", 1, False, ""),
    Row("JMP-L, 370 atoms, TF32", "single", "jmp-l", "nanotube", 1, True, "50 ms, 16 GiB"),
    Row("JMP-S, training on aspirin, batch 8", "training", "jmp-s", "aspirin", 8, False,
        "20 ms (400 samples/s)"),
    Row("JMP-S, training on aspirin, batch 8, TF32", "training", "jmp-s", "aspirin", 8, True, ""),
    Row("jmp-xs, training on aspirin, batch 8", "training", "jmp-xs", "aspirin", 8, False, ""),
)  # fmt: skip


class Step(NamedTuple):
    """What is timed.

    Attributes:
        run: A step.
        move_away: Has the next step search for neighbours; None where each does.
    """

    run: Callable[[], object]
    move_away: Callable[[], object] | None = None


def single(row: Row, device: str) -> Step:
    """A molecule whose atoms have moved, by the calculator."""
    from methods import calculator_step, make_potential
    from structures import build

    from jmp_md.calculators.ase import JMPCalculator

    calculator = JMPCalculator(make_potential(row.model).to(device))
    return Step(calculator_step(calculator, build(row.structure)), calculator.neighbours.forget)


def batch(row: Row, device: str) -> Step:
    """A step of velocity Verlet of many molecules."""
    import numpy as np
    from methods import make_potential
    from structures import build, shaken

    from jmp_md.systems import BatchedSystems

    molecules = shaken(build(row.structure), row.count)
    systems = BatchedSystems(make_potential(row.model).to(device), molecules)
    positions = np.concatenate([atoms.positions for atoms in molecules])
    masses = np.concatenate([atoms.get_masses() for atoms in molecules])[:, None]
    rng = np.random.default_rng(0)
    momenta = np.sqrt(masses * 0.025) * rng.normal(size=positions.shape)
    step = 0.05  # Å (amu/eV)^1/2, half a fs
    forces = np.zeros_like(positions)

    def run() -> object:
        nonlocal positions, momenta, forces
        momenta += 0.5 * step * np.clip(forces, -5, 5)  # random weights know no minimum
        positions = positions + step * momenta / masses
        forces = np.concatenate([found.forces for found in systems.compute(positions)])
        momenta += 0.5 * step * np.clip(forces, -5, 5)
        return forces

    def move_away() -> None:
        nonlocal positions
        positions = positions + 2.0

    return Step(run, move_away)


def training(row: Row, device: str) -> Step:
    """A step of conservative fine-tuning, on labels that do not matter."""
    import tempfile

    import torch
    from structures import build, shaken

    from jmp_md.cli.train import find_recipe
    from jmp_md.training.assembly import assemble
    from jmp_md.training.data.frame import Frame, FrameList
    from jmp_md.training.distributed import Ranks
    from jmp_md.training.recipe import load_recipe
    from jmp_md.training.task import TaskData

    changes = ["model.molecule=aspirin", "model.base=null", f"model.preset={row.model}",
               "data.train=none.npz", f"optimiser.batch_size={row.count}"]  # fmt: skip
    recipe = load_recipe(find_recipe("rmd17-xs" if row.model == "jmp-xs" else "rmd17"), changes)
    frames = FrameList([
        Frame(a.numbers, a.positions, energy=float(k % 7), forces=a.positions - a.positions.mean(0))
        for k, a in enumerate(shaken(build(row.structure), 64))
    ])  # fmt: skip
    data = {recipe.model.head: TaskData(frames, FrameList([frames[0]]))}
    with tempfile.TemporaryDirectory() as folder:
        trainer = assemble(recipe, data, Path(folder), Ranks(0, 1, torch.device(device)))
    steps = range(trainer.total_steps)
    made = [trainer.frames.collate([trainer.frames[key] for key in trainer.sampler.batch(step)])
            for step in steps[:8]]  # fmt: skip
    done = 0

    def run() -> object:
        nonlocal done
        done += 1
        return trainer.update(made[done % len(made)], done, row.count)

    return Step(run)


KINDS = {"single": single, "batch": batch, "training": training}


def work(row: Row, device: str, quick: bool, output: Path | None) -> dict[str, Any]:
    """Measure a row in this process."""
    import torch

    if quick:
        row = row._replace(count=min(row.count, 8))
    torch.backends.cuda.matmul.allow_tf32 = row.tf32
    torch.backends.cudnn.allow_tf32 = row.tf32
    cuda = device.startswith("cuda")
    began = time.perf_counter()
    run, move_away = KINDS[row.kind](row, device)
    run()
    first = time.perf_counter() - began

    def timed() -> float:
        began = time.perf_counter()
        run()
        if cuda:
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - began)

    times = []
    until = time.perf_counter() + (0.0 if quick else 4.0)
    while len(times) < 3 or time.perf_counter() < until:
        times.append(timed())
    found = {"ms": statistics.median(times), "first_s": first, "steps": len(times)}
    if move_away is not None:
        searching = []
        for _ in range(3):
            move_away()
            searching.append(timed())
        found["searching_ms"] = statistics.median(searching)
    if cuda:
        found["peak_GiB"] = torch.cuda.max_memory_allocated() / 2**30
    return found | profiled(run, cuda, output)


def profiled(run: Callable[[], object], cuda: bool, output: Path | None) -> dict[str, Any]:
    """Of one step: operations, and on a GPU launches, time in kernels, waits and copies."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda]
    with profile(activities=activities) as seen:
        run()
    events = seen.key_averages()
    if output:
        order = "self_device_time_total" if cuda else "self_cpu_time_total"
        output.write_text(events.table(sort_by=order, row_limit=40), encoding="utf-8")
    counts = {event.key: event.count for event in events}

    def number(*names: str) -> int:
        return sum(n for key, n in counts.items() if any(name in key for name in names))

    found = {"operations": sum(n for key, n in counts.items() if key.startswith("aten::"))}
    if cuda:
        found |= {
            "device_ms": sum(event.self_device_time_total for event in events) / 1e3,
            "launches": number("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch"),
            "waits": number("StreamSynchronize", "EventSynchronize", "DeviceSynchronize"),
            "copies": number("cudaMemcpyAsync"),
        }
    return found


def in_process(row: Row, args: argparse.Namespace) -> dict[str, Any]:
    """The same in a process of its own."""
    number = str(ROWS.index(row))
    command = [sys.executable, __file__, "--worker", number, "--device", args.device]
    command += ["--output", str(args.output), *["--quick"] * args.quick]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=args.limit)
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {args.limit:.0f} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"error": lines[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def cuda_tests(limit: float) -> str:
    """Last line of the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
               str(HERE.parent / "tests" / "test_cuda.py")]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"took more than {limit:.0f} s"
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return "; ".join([*failed, *done.stdout.strip().splitlines()[-1:]])


def table(results: dict[str, Any]) -> str:
    """As Markdown."""
    columns = (
        "ms",
        "searching_ms",
        "device_ms",
        "operations",
        "launches",
        "waits",
        "copies",
        "peak_GiB",
    )
    lines = [
        *(results["about"], "", f"Tests: {results['tests']}", ""),
        f"| row | {' | '.join(columns)} | goal |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for row in ROWS:
        found = results["rows"].get(row.what, {"error": "not run"})
        values = [f"{found[c]:.3g}" if c in found else "" for c in columns]
        values[0] = found.get("error", values[0])
        lines.append(f"| {row.what} | {' | '.join(values)} | {row.goal} |")
    return "\n".join(lines) + "\n"


def about(device: str) -> str:
    """Device, machine and versions."""
    import torch

    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor()
    return (
        f"{name or platform.machine()}, torch {torch.__version__}, Python {sys.version.split()[0]}"
    )


def install(wheels: Path) -> None:
    """Install what is not there from wheels, without a network."""
    missing = [
        str(wheel)
        for wheel in sorted(wheels.glob("*.whl"))
        if importlib.util.find_spec(wheel.name.split("-")[0].lower()) is None
    ]
    if missing:
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
        subprocess.run([*command, *missing], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install first")
    parser.add_argument("--quick", action="store_true", help="three steps and small batches")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for a row")
    parser.add_argument("--total", type=float, default=440.0, help="seconds for all of it")
    parser.add_argument("--rows", nargs="+", type=int, default=list(range(len(ROWS))))
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        profile = args.output / f"profile-{args.worker}.txt"
        print(json.dumps(work(ROWS[args.worker], args.device, args.quick, profile)))
        return
    began = time.monotonic()
    args.output.mkdir(parents=True, exist_ok=True)
    if args.wheels:
        install(args.wheels)
    results: dict[str, Any] = {"about": about(args.device), "tests": "not run", "rows": {}}
    for row in (ROWS[k] for k in args.rows):
        if time.monotonic() - began < args.total - args.limit:
            results["rows"][row.what] = in_process(row, args)
        (args.output / CONTENTS[0]).write_text(json.dumps(results, indent=1))
    left = args.total - (time.monotonic() - began)
    if args.device.startswith("cuda") and left > 10:
        results["tests"] = cuda_tests(left)
    (args.output / CONTENTS[0]).write_text(json.dumps(results, indent=1))
    (args.output / CONTENTS[1]).write_text(table(results), encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
