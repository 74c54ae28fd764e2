"""Batched drivers against loops of ASE's, on one model.

    python benchmarks/drivers.py relax                  # 256 molecules of the G2 set
    python benchmarks/drivers.py relax examples/ethanol.xyz --model jmp-xs-rmd17-ethanol
    python benchmarks/drivers.py md                     # 32 replicas, Langevin
    python benchmarks/drivers.py neb [A.xyz B.xyz]      # our band and ASE's; malonaldehyde's proton
    python benchmarks/drivers.py vibrations [A.xyz]     # our frequencies and ASE's; malonaldehyde

Both ways use the same weights and precision. Times are those of this process (``--clock cpu``,
where others work on the machine) or of the wall; the loop runs over some of the structures only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import ase.optimize
import numpy as np
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.collections import g2
from ase.io import read
from ase.md.langevin import Langevin
from ase.mep import NEB
from ase.vibrations import Vibrations

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.runs.md import run_md_replicas
from jmp_md.runs.neb import run_neb
from jmp_md.simulate.relax import relax, relax_batched
from jmp_md.simulate.vibrations import vibrations

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Value = TypeVar("Value")


def timed(function: Callable[[], Value], clock: Callable[[], float]) -> tuple[Value, float]:
    """What a function returns, and its time in s."""
    start = clock()
    value = function()
    return value, clock() - start


def shaken(molecule: Atoms, count: int, width: float) -> list[Atoms]:
    """Copies with atoms displaced at random."""
    copies = [molecule.copy() for _ in range(count)]
    for seed, atoms in enumerate(copies):
        atoms.rattle(width, seed=seed)
    return copies


def small_molecules() -> list[Atoms]:
    """Molecules of hydrogen, carbon, nitrogen and oxygen in the G2 set, of 3 atoms or more."""
    molecules = [molecule(name) for name in g2.names]
    return [a for a in molecules if len(a) > 2 and set(a.numbers.tolist()) <= {1, 6, 7, 8}]


def malonaldehyde() -> list[Atoms]:
    """The enol with its proton at one oxygen, and at the other."""
    atoms = read(EXAMPLES / "malonaldehyde.xyz")
    other = atoms.copy()
    other.positions = atoms.positions[[2, 1, 0, 4, 3, 7, 6, 5, 8]] * [-1, 1, 1]
    return [atoms, other]


def loop_of_relaxations(
    structures: Sequence[Atoms], calculator: JMPCalculator, optimizer: str, fmax: float
) -> list[tuple[float, int]]:
    """Energies and steps of ASE's optimizer, one structure after the other."""
    ends = []
    for given in structures:
        atoms = given.copy()
        atoms.calc = calculator
        run = getattr(ase.optimize, optimizer)(atoms, logfile=None)
        run.run(fmax=fmax, steps=500)
        ends.append((float(atoms.get_potential_energy()), run.nsteps))
    return ends


def compare_relaxations(args: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Print a line per optimizer."""
    calculator = JMPCalculator(args.model, head=args.head, dtype=args.dtype)
    molecules = [read(path) for path in args.structures] or small_molecules()
    copies = -(-args.count // len(molecules))
    structures = [
        atoms
        for one in zip(*(shaken(m, copies, args.shake) for m in molecules), strict=True)
        for atoms in one
    ][: args.count]
    few = structures[:: max(args.count // args.singles, 1)]
    print(f"{len(structures)} structures of {np.mean([len(a) for a in structures]):.1f} atoms")
    loop_of_relaxations(few[:1], calculator, "FIRE", 1.0)
    print("optimizer  ASE s  batch s  faster  steps ASE/batch  converged  same minimum  worst meV")
    for optimizer in args.optimizers:
        alone, single = timed(
            lambda o=optimizer: loop_of_relaxations(few, calculator, o, args.fmax), clock
        )
        many, batch = timed(
            lambda o=optimizer: relax_batched(structures, calculator, optimizer=o, fmax=args.fmax),
            clock,
        )
        same = many[:: max(args.count // args.singles, 1)]
        apart = np.array([abs(a[0] - b.energy) for a, b in zip(alone, same, strict=True)]) * 1e3
        one, each = single / len(few), batch / len(structures)
        steps = [np.mean([n for _, n in alone]), np.mean([end.steps for end in same])]
        print(
            f"{optimizer:9}  {one:5.3f}  {each:7.3f}  {one / each:5.1f}x  {steps[0]:6.1f}/"
            f"{steps[1]:5.1f}  {sum(end.converged for end in many):4}/{len(many)}"
            f"  {int((apart <= 1).sum()):4}/{len(few)}  {apart.max():.2e}",
            flush=True,
        )


def compare_dynamics(args: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Print time per replica and step."""
    calculator = JMPCalculator(args.model, head=args.head, dtype=args.dtype)
    atoms = read(args.structures[0] if args.structures else EXAMPLES / "ethanol.xyz")
    options = {"temperature": 300.0, "steps": args.steps, "interval": 10, "trajectory": "h5"}
    with tempfile.TemporaryDirectory() as folder:
        run_md_replicas([atoms], calculator, f"{folder}/warm", steps=2)
        _, batch = timed(
            lambda: run_md_replicas(
                [atoms], calculator, f"{folder}/run", replicas=args.replicas, **options
            ),
            clock,
        )
    atoms.calc = calculator
    run = Langevin(atoms, 0.5 * units.fs, temperature_K=300, friction=0.01 / units.fs)
    _, single = timed(lambda: run.run(args.steps), clock)
    one, each = single / args.steps * 1e3, batch / args.steps / args.replicas * 1e3
    print(f"ASE Langevin {one:.2f} ms per step, {args.replicas} replicas {each:.2f}: ", end="")
    print(f"{one / each:.1f}x", flush=True)


def compare_bands(args: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Print barriers and times of our band and of ASE's between the same relaxed ends."""
    calculator = JMPCalculator(args.model, head=args.head, dtype="float64")
    ends = []
    for atoms in [read(path) for path in args.structures] or malonaldehyde():
        atoms.calc = calculator
        ends.append(relax(atoms, fmax=0.01).atoms)

    def theirs() -> float:
        images = [ends[0].copy() for _ in range(args.images - 1)] + [ends[1].copy()]
        band = NEB(
            images,
            k=0.1,
            climb=False,
            method="improvedtangent",
            remove_rotation_and_translation=True,
            allow_shared_calculator=True,
        )
        band.interpolate("idpp")
        for image in images:
            image.calc = calculator
        for band.climb, fmax in ((False, 5 * args.fmax), (True, args.fmax)):
            ase.optimize.FIRE(band, logfile=None).run(fmax=fmax, steps=500)
        energies = [image.get_potential_energy() for image in images]
        return float(max(energies) - energies[0])

    with tempfile.TemporaryDirectory() as folder:
        result, ours_s = timed(
            lambda: run_neb(
                ends,
                calculator,
                folder,
                n_images=args.images,
                fmax=args.fmax,
                relax_ends=False,
                verify=False,
                report=False,
            ),
            clock,
        )
    barrier, theirs_s = timed(theirs, clock)
    apart = 1000 * (result.barrier - barrier)
    print(f"barrier: ours {result.barrier:.5f} eV, ASE's {barrier:.5f} eV, {apart:+.3f} meV apart")
    print(f"time: ours {ours_s:.1f} s in {result.steps} steps, ASE's {theirs_s:.1f} s: ", end="")
    print(f"{theirs_s / ours_s:.1f}x", flush=True)


def compare_vibrations(args: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Print the largest difference between our frequencies and ASE's, and times."""
    calculator = JMPCalculator(args.model, head=args.head, dtype="float64")
    atoms = read(args.structures[0]) if args.structures else malonaldehyde()[0]
    atoms.calc = calculator
    atoms = relax(atoms, fmax=1e-4, steps=1000).atoms
    ours, ours_s = timed(lambda: vibrations(atoms, calculator), clock)
    atoms.calc = calculator
    with tempfile.TemporaryDirectory() as folder:
        theirs = Vibrations(atoms, name=f"{folder}/vib")
        _, theirs_s = timed(theirs.run, clock)
        expected = np.sort(theirs.get_frequencies().real)[-len(ours.frequencies) :]
    apart = np.abs(ours.frequencies - expected)
    print(
        f"{len(expected)} frequencies, {expected[0]:.1f} to {expected[-1]:.1f} cm-1: at most "
        f"{apart.max():.1e} apart"
    )
    print(f"time: ours {ours_s:.2f} s, ASE's {theirs_s:.2f} s: {theirs_s / ours_s:.1f}x")


COMPARE = {
    "relax": compare_relaxations,
    "md": compare_dynamics,
    "neb": compare_bands,
    "vibrations": compare_vibrations,
}


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("driver", choices=list(COMPARE))
    parser.add_argument("structures", nargs="*", default=[], help="default: G2, ethanol")
    parser.add_argument("--model", default="jmp-xs")
    parser.add_argument("--head", default=None, help="default: qm7x, of jmp-xs")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--optimizers", nargs="+", default=["LBFGS", "FIRE"])
    parser.add_argument("--count", type=int, default=256, help="structures to relax in batches")
    parser.add_argument("--singles", type=int, default=16, help="structures to relax one by one")
    parser.add_argument("--shake", type=float, default=0.1, help="Å, standard displacement")
    parser.add_argument("--fmax", type=float, default=0.05)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--replicas", type=int, default=32)
    parser.add_argument("--images", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args = parser.parse_args()
    if args.model == "jmp-xs":
        args.head = args.head or "qm7x"
    if args.driver in ("neb", "vibrations"):
        args.dtype = "float64"
    torch.set_num_threads(args.threads)
    versions = f"torch {torch.__version__}, ase {ase.__version__}"
    print(f"{args.model}, {args.dtype}, {versions}, {args.threads} threads, {args.clock} time")
    print(f"{sys.platform}, fmax {args.fmax} eV/Å")
    COMPARE[args.driver](args, CLOCKS[args.clock])


if __name__ == "__main__":
    main()
