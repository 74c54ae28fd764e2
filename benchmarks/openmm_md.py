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
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch  # before openmm

# isort: split
from ase import Atoms, units
from ase.build import molecule
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet
from methods import make_potential
from structures import water

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.checkpoints.native import write_native
from jmp_md.export.neighbours import neighbours
from jmp_md.units import EV_IN_KJ_PER_MOL, NM_IN_ANGSTROM

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PARTS = ("agreement", "langevin", "speed", "nve")
ENGINES = ("ase", "python", "torch")
STEP = 0.5  # fs
EVERY = 20  # steps between samples
FEW = 4  # steps before it is the next engine's turn
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
TEMPERATURE = 300.0  # K
FRICTION = 0.05  # 1/fs
SPEED = 1000 * units.fs / NM_IN_ANGSTROM  # ASE's unit of velocity in nm/ps


@dataclass
class Run:
    """A simulation in one engine: potential and kinetic energy in eV, positions in Å."""

    step: Callable[[int], object]
    energies: Callable[[], tuple[float, float]]
    forces: Callable[[], np.ndarray]
    state: Callable[[], tuple[np.ndarray, np.ndarray]]  # positions, velocities in ASE's units


def simulation(
    engine: str,
    atoms: Atoms,
    model: str,
    *,
    dtype: str = "float32",
    friction: float = 0.0,
    seed: int = 1,
) -> Run:
    """Velocity Verlet, or Langevin dynamics at 300 K where there is friction (1/fs)."""
    if engine == "ase":
        return _ase(atoms.copy(), JMPCalculator(model, dtype=dtype, device="cpu"), friction, seed)
    import openmm

    from jmp_md.calculators.openmm import jmp_force

    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    periodic = bool(atoms.pbc.all())
    if periodic:
        system.setDefaultPeriodicBoxVectors(*atoms.cell.array / NM_IN_ANGSTROM)
    options: dict[str, Any] = {"device": "cpu", "periodic": periodic, "dtype": dtype}
    system.addForce(jmp_force(model, atoms.numbers, backend=engine, **options))
    integrator = openmm.VerletIntegrator(STEP / 1000)
    if friction:
        integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1000 * friction, STEP / 1000)
        integrator.setRandomNumberSeed(seed)
    # The platform that computes in double precision, where the potential takes all the time.
    reference = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, integrator, reference)
    context.setPositions(atoms.positions / NM_IN_ANGSTROM)
    context.setVelocities(atoms.get_velocities() * SPEED)

    def energies() -> tuple[float, float]:
        state = context.getState(energy=True)
        both = state.getPotentialEnergy()._value, state.getKineticEnergy()._value
        return both[0] / EV_IN_KJ_PER_MOL, both[1] / EV_IN_KJ_PER_MOL

    def forces() -> np.ndarray:
        found = context.getState(forces=True).getForces(asNumpy=True)._value
        return found / (EV_IN_KJ_PER_MOL * NM_IN_ANGSTROM)

    def state() -> tuple[np.ndarray, np.ndarray]:
        now = context.getState(positions=True, velocities=True)
        positions = now.getPositions(asNumpy=True)._value * NM_IN_ANGSTROM
        return positions, now.getVelocities(asNumpy=True)._value / SPEED

    # TorchScript would optimise for seconds and gain nothing; contexts are made with the optimiser.
    plain = torch.jit.optimized_execution(False)
    return Run(plain(integrator.step), plain(energies), plain(forces), state)


def _ase(atoms: Atoms, calculator: JMPCalculator, friction: float, seed: int) -> Run:
    atoms.calc = calculator
    if friction:
        dynamics = Langevin(
            atoms,
            STEP * units.fs,
            temperature_K=TEMPERATURE,
            friction=friction / units.fs,
            fixcm=False,
            rng=np.random.default_rng(seed),
        )
    else:
        dynamics = VelocityVerlet(atoms, STEP * units.fs)
    return Run(
        dynamics.run,
        lambda: (atoms.get_potential_energy(), atoms.get_kinetic_energy()),
        atoms.get_forces,
        lambda: (atoms.positions, atoms.get_velocities()),
    )


def systems(folder: Path) -> dict[str, tuple[Atoms, str]]:
    """Structures by name, with the model for each."""
    ethanol, aspirin = molecule("CH3CH2OH"), read(EXAMPLES / "aspirin.xyz")
    return {
        "ethanol": (ethanol, "jmp-xs-rmd17-ethanol"),
        "aspirin": (aspirin, "jmp-xs-rmd17-aspirin"),
        "water box": (water(8), str(folder / "random.safetensors")),
    }


def warm(atoms: Atoms) -> Atoms:
    """With velocities of 300 K, the same in all engines."""
    MaxwellBoltzmannDistribution(atoms, temperature_K=TEMPERATURE, rng=np.random.default_rng(2))
    Stationary(atoms)
    return atoms


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


def speed(folder: Path, engine: str, args: argparse.Namespace) -> dict[str, Any]:
    """Steps per second and the share of time outside the network, engines taking turns.

    With TorchForce all engines run, in its environment; with PythonForce, it and ASE.
    """
    found: dict[str, Any] = {}
    engines = ENGINES[: ENGINES.index(engine) + 1]
    clock = CLOCKS[args.clock]
    for name, (atoms, model) in list(systems(folder).items())[:2]:
        runs = {engine: simulation(engine, warm(atoms), model) for engine in engines}
        calls = {engine: (lambda run=run: run.step(FEW)) for engine, run in runs.items()}
        calls["network"] = _network(atoms, model)
        if engine == "torch":
            calls["neighbours"] = _without_network(atoms, model)
        for call in calls.values():
            call()
        times: dict[str, list[float]] = {each: [] for each in calls}
        for _ in range(args.rounds):
            for each, call in calls.items():
                start = clock()
                call()
                times[each].append((clock() - start) / FEW)
        median = {each: statistics.median(values) for each, values in times.items()}
        found[name] = {
            engine: {
                "steps_per_s": 1 / median[engine],
                # Scripted, the network takes another time than here.
                "outside_network": median["neighbours"] / median[engine]
                if engine == "torch"
                else 1 - median["network"] / median[engine],
            }
            for engine in engines
        }
    return found


def _network(atoms: Atoms, model: str) -> Callable[[], object]:
    """A few times the network and its gradient for one structure."""
    from jmp_md.graph.neighbours import NeighbourCache
    from jmp_md.load import load_model
    from jmp_md.structures import single_structure

    potential = load_model(model, dtype=torch.float32, device="cpu")
    cache = NeighbourCache(potential.policy.cutoff, 1.0)
    pairs, placed = cache.update(atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc)
    s = single_structure(placed, atoms.numbers, atoms.cell.array, pairs).to("cpu", torch.float32)

    def few() -> None:
        for _ in range(FEW):
            x = s.positions.detach().requires_grad_()
            energies, _ = potential.network(s._replace(positions=x))
            torch.autograd.grad(energies.sum(), x)

    return few


class NeighboursOnly(torch.nn.Module):
    """What an exported model does but the network: for TorchForce, with an energy of zero."""

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        x = positions.double() * 10.0
        cells, pbc = x.new_zeros(1, 3, 3), torch.zeros(1, 3, dtype=torch.bool)
        structure = torch.zeros(x.shape[0], dtype=torch.long)
        with torch.no_grad():
            _, placed = neighbours(x, structure, cells, pbc, self.cutoff)
        return 0.0 * (x - placed).sum()


def _without_network(atoms: Atoms, model: str) -> Callable[[], object]:
    """A few steps of TorchForce without the network."""
    import openmm
    import openmmtorch

    from jmp_md.load import load_model

    module = torch.jit.script(NeighboursOnly(load_model(model).policy.cutoff))
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    system.addForce(openmmtorch.TorchForce(module))
    reference = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(STEP / 1000), reference)
    context.setPositions(atoms.positions / NM_IN_ANGSTROM)

    @torch.jit.optimized_execution(False)
    def few() -> None:
        context.getIntegrator().step(FEW)

    return few


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
