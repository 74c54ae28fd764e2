"""Energy drift, temperature and equipartition of the shipped models.

    python benchmarks/drift_models.py --minutes 30 --folder FOLDER
    python benchmarks/drift_models.py --minutes 30 --folder FOLDER      # goes on where it was

Every model moves its molecule at 300 K: without a thermostat, one long run by compiled code (the
drift of the total energy), and with Langevin dynamics, replicas in one batch (the temperature, of
all atoms and of each element). Models take turns, a slice at a time, until all is done or the time
is over: the table says how far they got.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from ase.md.velocitydistribution import Stationary, force_temperature, thermalize_momenta

from jmp_md.analysis import element_temperatures
from jmp_md.calculators.ase import JMPCalculator
from jmp_md.runs.md import run_md, run_md_replicas
from jmp_md.simulate.relax import relax
from jmp_md.simulate.state import load_state
from jmp_md.simulate.trajectory.h5md import read_h5md

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
MOLECULES = {  # model: head, molecule
    "jmp-xs-rmd17-ethanol": (None, "ethanol"),
    "jmp-xs-rmd17-malonaldehyde": (None, "malonaldehyde-diketone"),
    "jmp-xs-rmd17-benzene": (None, "benzene"),
    "jmp-xs-rmd17-aspirin": (None, "aspirin"),
    "jmp-xs-organic": (None, "malonaldehyde"),
    "jmp-xs": ("qm7x", "ethanol"),
}
TEMPERATURE = 300.0  # K
SETTLING, SETTLING_SHARE = 1000.0, 0.2  # fs that are left out at the start, or less of a short run
BLOCKS = 20  # for the error of a slope


class Case:
    """A model and the runs it has made.

    Args:
        model: Name of a model.
        args: Options of the command line.
    """

    def __init__(self, model: str, args: argparse.Namespace) -> None:
        head, molecule = MOLECULES[model]
        self.model, self.args, self.folder = model, args, args.folder / model
        self.calculator = JMPCalculator(model, head=head, dtype=args.dtype)
        self.compiled = self.calculator
        if not args.eager:
            self.compiled = JMPCalculator(model, head=head, dtype=args.dtype, compile=True)
        atoms = read(EXAMPLES / f"{molecule}.xyz")
        atoms.calc = self.calculator
        self.atoms = relax(atoms, fmax=0.05, steps=200).atoms

    def advance(self) -> bool:
        """Go on with both runs by a slice; False once they are as long as they should be."""
        args = self.args
        options = {"timestep": args.timestep, "interval": 20, "save_interval": args.slice}
        options |= {"trajectory": "h5", "restart": True, "report": False}
        nve = self._next("nve", args.nve)
        if nve:
            run_md(self._hot(), self.folder / "nve", ensemble="nve", steps=nve, **options)
        langevin = self._next("langevin", args.langevin / args.replicas)
        if langevin:
            options |= {"replicas": args.replicas, "temperature": TEMPERATURE}
            structures, folder = [self.atoms], self.folder / "langevin"
            run_md_replicas(structures, self.calculator, folder, steps=langevin, **options)
        return bool(nve or langevin)

    def _hot(self) -> Atoms:
        """The minimum, at twice the temperature: it has no potential energy to share."""
        atoms = self.atoms.copy()
        atoms.calc = self.compiled
        rng = np.random.default_rng(0)
        thermalize_momenta(atoms, temperature_K=2 * TEMPERATURE, rng=rng)
        Stationary(atoms)
        force_temperature(atoms, 2 * TEMPERATURE)
        return atoms

    def _next(self, run: str, ps: float) -> int:
        """Steps a run has after its next slice; 0 if it is done."""
        saved = load_state(self.folder / run)
        done = 0 if saved is None else saved[1]["step"]
        steps = round(1000 * ps / self.args.timestep)
        return 0 if done >= steps else min(done + self.args.slice, steps)

    def drift(self) -> str:
        """Drift in meV per atom and ns with its standard error, by means over blocks."""
        log = _settled(self.folder / "nve")
        energy = 1e3 * log["total_eV"] / len(self.atoms)
        ns = 1e-6 * log["time_fs"]
        blocks = min(BLOCKS, len(ns))
        parts = zip(np.array_split(ns, blocks), np.array_split(energy, blocks), strict=True)
        means = [(t.mean(), e.mean()) for t, e in parts]
        (slope, _), errors = np.polyfit(*np.array(means).T, 1, cov=True)
        return (
            f"NVE {1e3 * ns[-1]:.1f} ps, {log['temperature_K'].mean():.0f} K: drift {slope:+.3f} ± "
            f"{errors[0, 0] ** 0.5:.3f} meV/atom/ns, fluctuation {energy.std():.3f} meV/atom, "
            f"largest deviation {np.abs(energy - energy.mean()).max():.3f}"
        )

    def temperatures(self) -> str:
        """Temperature of Langevin dynamics, of all atoms and by element, with standard errors."""
        folders = sorted((self.folder / "langevin").glob("replica-*"))
        logs = [_settled(folder) for folder in folders]
        means = [log["temperature_K"].mean() for log in logs]
        text = f"Langevin {len(logs)} x {logs[0]['time_fs'][-1] / 1000:.2f} ps: {_mean(means)} K"
        by_element: dict[str, list[float]] = {}
        for folder, log in zip(folders, logs, strict=True):
            frames = read_h5md(folder / "trajectory.h5")[-len(log) :]
            for symbol, value in sorted(element_temperatures(frames).items()):
                by_element.setdefault(symbol, []).append(value)
        return f"{text}; " + ", ".join(f"{s} {_mean(v)}" for s, v in by_element.items())


def _settled(folder: Path) -> np.ndarray:
    """Log of a run without its start."""
    log = np.genfromtxt(folder / "log.csv", delimiter=",", names=True)
    return log[log["time_fs"] > min(SETTLING, SETTLING_SHARE * log["time_fs"][-1])]


def _mean(values: list[float]) -> str:
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.1f} ± {error:.1f}"


def main() -> None:
    """Move all models until they are done or the time is over, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MOLECULES), default=list(MOLECULES))
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so long")
    parser.add_argument("--nve", type=float, default=100.0, help="ps without a thermostat")
    parser.add_argument("--langevin", type=float, default=50.0, help="ps of all replicas together")
    parser.add_argument("--replicas", type=int, default=8, help="with Langevin")
    parser.add_argument("--slice", type=int, default=5000, help="steps")
    parser.add_argument("--timestep", type=float, default=0.5, help="fs")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--folder", type=Path, default=Path("drift"))
    args = parser.parse_args()
    until = time.monotonic() + 60 * args.minutes
    cases = moving = [Case(model, args) for model in args.models]
    while moving and time.monotonic() < until:
        moving = [case for case in moving if case.advance()]
    print(f"{args.dtype}, {args.timestep} fs, torch {torch.__version__}")
    for case in cases:
        print(f"{case.model}, {case.atoms.symbols}\n  {case.drift()}\n  {case.temperatures()}")


if __name__ == "__main__":
    main()
