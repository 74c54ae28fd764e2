"""The same molecules in ASE, PythonForce and TorchForce: numbers, dynamics and speed.

    PYTHONPATH=. python benchmarks/openmm_md.py results --torchforce OTHER/bin/python

OTHER is an environment with the extra ``torchforce``; without it, its rows are left out. Each part
of each engine runs in a process of its own and writes into the folder ``results``; give the same
folder again and finished parts are kept, and trajectories go on where they were.

- agreement: energies and forces of ethanol, aspirin and a periodic box of water (random weights),
  against ASE in float32 and in float64.
- nve: ethanol, 300 K at the start, steps of 0.5 fs; drift of the total energy.
- langevin: 16 ethanol molecules out of each other's reach, 300 K, 50/ps; the kinetic temperature.
- speed: steps per second, engines of one environment taking turns, and time outside the network.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch  # before openmm

# isort: split
from ase import Atoms, units
from ase.build import molecule
from methods import make_potential
from openmm_engines import ENGINES, STEP, simulation, systems, warm
from openmm_speed import CLOCKS, speed

from jmp_md.checkpoints.native import write_native

PARTS = ("agreement", "langevin", "speed", "nve")
EVERY = 20  # steps between samples
FRICTION = 0.05  # 1/fs


def agreement(folder: Path, engine: str, _: argparse.Namespace) -> dict[str, Any]:
    """Energies in eV and forces in eV/Å of each structure, in both precisions."""
    found = {}
    for name, (atoms, model) in systems(folder).items():
        for dtype in ("float32", "float64"):
            run = simulation(engine, atoms, model, dtype=dtype)
            found[f"{name}, {dtype}"] = (run.energies()[0], run.forces().tolist())
    return found


def trajectory(
    folder: Path, part: str, engine: str, atoms: Atoms, ps: float, friction: float
) -> None:
    """Energies every 10 fs; goes on where it was killed, and loses at most 0.2 ps."""
    path, piece = folder / f"{part}-{engine}.npz", 400
    energies, seconds = np.zeros((0, 2)), 0.0
    if path.exists():
        saved = np.load(path)
        energies, seconds = saved["energies"], float(saved["seconds"])
        atoms.positions = saved["positions"]
        atoms.set_velocities(saved["velocities"])
    seed = 1 + len(energies)
    run = simulation(engine, atoms, "jmp-xs-rmd17-ethanol", friction=friction, seed=seed)
    while len(energies) * EVERY * STEP < 1000 * ps:
        start = time.perf_counter()
        for _ in range(piece // EVERY):
            run.step(EVERY)
            energies = np.vstack([energies, run.energies()])
        seconds += time.perf_counter() - start
        positions, velocities = run.state()
        now = {"positions": positions, "velocities": velocities}
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, energies=energies, seconds=seconds, **now)
        temporary.replace(path)


def nve(folder: Path, engine: str, args: argparse.Namespace) -> dict[str, Any]:
    """Drift and fluctuation of the total energy, in meV per atom."""
    atoms = warm(molecule("CH3CH2OH"))
    trajectory(folder, "nve", engine, atoms, args.ps, 0.0)
    saved = np.load(folder / f"nve-{engine}.npz")
    total = 1000 * saved["energies"].sum(axis=1) / len(atoms)
    ps = np.arange(1, len(total) + 1) * EVERY * STEP / 1000
    slope, start = np.polyfit(ps, total, 1)
    kelvin = 2 * saved["energies"][:, 1].mean() / ((3 * len(atoms) - 6) * units.kB)
    rms = float(np.std(total - slope * ps - start))
    return {"ps": float(ps[-1]), "drift": float(slope), "rms": rms, "K": float(kelvin)}


def langevin(folder: Path, engine: str, args: argparse.Namespace) -> dict[str, Any]:
    """Mean kinetic temperature after 0.4 ps, and its standard error from the scatter of blocks."""
    atoms = Atoms()
    for place in np.ndindex(4, 4, 1):  # out of each other's reach
        one = molecule("CH3CH2OH")
        one.translate(30.0 * np.array(place))
        atoms += one
    trajectory(folder, "langevin", engine, warm(atoms), args.langevin_ps + 0.4, FRICTION)
    kinetic = np.load(folder / f"langevin-{engine}.npz")["energies"][40:, 1]
    kelvin = 2 * kinetic / (3 * len(atoms) * units.kB)
    blocks = [block.mean() for block in np.array_split(kelvin, 15)]
    error = float(np.std(blocks, ddof=1) / np.sqrt(len(blocks)))
    ps = len(kelvin) * EVERY * STEP / 1000
    return {"ps": ps, "K": float(kelvin.mean()), "error": error}


def work(args: argparse.Namespace) -> None:
    """Compute one part in this process, and write what was found."""
    warnings.simplefilter("ignore")
    parts = {"agreement": agreement, "nve": nve, "langevin": langevin, "speed": speed}
    found = parts[args.part](args.folder, args.engine, args)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    if "openmm" in sys.modules:
        versions["openmm"] = sys.modules["openmm"].__version__
    path = args.folder / f"{args.part}-{args.engine}.json"
    path.write_text(json.dumps({"versions": versions, **found}))


def tables(folder: Path, engines: tuple[str, ...]) -> dict[str, Any]:
    """Print what is in the folder so far, and return it."""

    def read_part(part: str, engine: str) -> dict[str, Any] | None:
        path = folder / f"{part}-{engine}.json"
        return json.loads(path.read_text()) if path.exists() else None

    found: dict[str, Any] = {part: {e: read_part(part, e) for e in engines} for part in PARTS}
    reference = found["agreement"]["ase"]
    print("\nagreement                engine  energy (eV)         from ASE     forces from ASE")
    for name in reference or ():
        for engine, numbers in found["agreement"].items():
            if name == "versions" or numbers is None:
                continue
            energy, forces = numbers[name]
            apart = abs(energy - reference[name][0]) / abs(reference[name][0])
            wanted = np.array(reference[name][1])
            worst = np.abs(np.array(forces) - wanted).max() / np.abs(wanted).max()
            print(f"{name:24} {engine:7} {energy:18.9f} {apart:10.1e} {worst:15.1e}")
    print("\nnve      ps    drift (meV/atom/ps)  rms (meV/atom)  K")
    for engine, r in found["nve"].items():
        if r:
            print(f"{engine:7} {r['ps']:5.1f} {r['drift']:16.5f} {r['rms']:16.3f} {r['K']:8.1f}")
    print("\nlangevin ps    K")
    for engine, r in found["langevin"].items():
        if r:
            print(f"{engine:7} {r['ps']:5.1f} {r['K']:8.2f} +- {r['error']:.2f}")
    print("\nspeed, per second of the clock     steps/s  outside the network")
    for r in found["speed"].values():
        for name in ("ethanol", "aspirin") if r else ():
            for engine, each in r[name].items():
                label = f"torch {r['versions']['torch']:10} {name} {engine:7}"
                print(f"{label:32} {each['steps_per_s']:8.1f} {each['outside_network']:10.0%}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where results are, and go")
    parser.add_argument("--torchforce", help="Python of an environment with the extra torchforce")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--ps", type=float, default=50.0, help="length of NVE (default: 50)")
    parser.add_argument("--langevin-ps", type=float, default=3.0, help="default: 3")
    parser.add_argument("--rounds", type=int, default=15, help="of the speed measurement")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="of the speed")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        return work(args)
    args.folder.mkdir(parents=True, exist_ok=True)
    model = args.folder / "random.safetensors"
    if not model.exists():
        potential = make_potential("jmp-xs")
        write_native(model, potential.header, potential.native_state())
    for part in args.parts:
        for engine in args.engines:
            python = args.torchforce if engine == "torch" else sys.executable
            done = (args.folder / f"{part}-{engine}.json").exists() and part in (
                "agreement",
                "speed",
            )
            if done or python is None or (part, engine) == ("speed", "ase"):
                continue
            print(f"{part}, {engine} ...", flush=True)
            options = [f"--ps={args.ps}", f"--langevin-ps={args.langevin_ps}"]
            options += [f"--rounds={args.rounds}", f"--clock={args.clock}"]
            command = [python, __file__, str(args.folder), *options]
            subprocess.run([*command, "--part", part, "--engine", engine], check=True)
    summary = args.folder / "summary.json"
    summary.write_text(json.dumps(tables(args.folder, ENGINES), indent=1))


if __name__ == "__main__":
    main()
