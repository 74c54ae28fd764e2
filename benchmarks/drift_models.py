"""Energy drift, temperature and equipartition of the shipped models, by replicas in one batch.

    python benchmarks/drift_models.py --minutes 30 --folder FOLDER
    python benchmarks/drift_models.py --minutes 30 --folder FOLDER      # goes on where it was

Every model moves replicas of its molecule at 300 K, without a thermostat (the drift of the total
energy, a slope for each replica) and, half as long, with Langevin dynamics (the temperature, of
all atoms and of each element). Models take turns, a slice at a time, until the time is over: the
table says how far they got.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import units
from ase.io import read

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.simulate.h5md import read_h5md
from jmp_md.simulate.relax import relax
from jmp_md.simulate.replicas import md_many
from jmp_md.simulate.state import load_state

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
MOLECULES = {  # model: head, molecule
    "jmp-xs-rmd17-ethanol": (None, "ethanol"),
    "jmp-xs-rmd17-malonaldehyde": (None, "malonaldehyde-diketone"),
    "jmp-xs-rmd17-aspirin": (None, "aspirin"),
    "jmp-xs-organic": (None, "malonaldehyde"),
    "jmp-xs": ("qm7x", "ethanol"),
}
TEMPERATURE = 300.0
SETTLED = 0.2  # share of a Langevin run that is left out


class Case:
    """A model and the runs it has made.

    Args:
        model: Name of a model.
        folder: Where its runs are.
        dtype: Precision.
        replicas: Runs in a batch.
    """

    def __init__(self, model: str, folder: Path, dtype: str, replicas: int) -> None:
        head, molecule = MOLECULES[model]
        self.model, self.folder, self.replicas = model, folder, replicas
        self.calculator = JMPCalculator(model, head=head, dtype=dtype)
        atoms = read(EXAMPLES / f"{molecule}.xyz")
        atoms.calc = self.calculator
        self.atoms = relax(atoms, fmax=0.05, steps=200).atoms

    def advance(self, ensemble: str, steps: int, timestep: float) -> None:
        """Go on by a slice.

        A minimum at rest has no potential energy to share: NVE starts with twice the temperature.
        """
        saved = load_state(self.folder / ensemble)
        done = 0 if saved is None else saved[1]["step"]
        options: dict[str, Any] = {"interval": 20, "save_interval": steps, "trajectory": "h5"}
        md_many(
            [self.atoms],
            self.calculator,
            self.folder / ensemble,
            replicas=self.replicas,
            ensemble=ensemble,
            temperature=TEMPERATURE * (2 if ensemble == "nve" else 1),
            timestep=timestep,
            steps=done + steps,
            restart=True,
            report=False,
            **options,
        )

    def logs(self, ensemble: str) -> list[np.ndarray]:
        """Logs of all replicas."""
        paths = sorted((self.folder / ensemble).glob("replica-*/log.csv"))
        return [np.genfromtxt(path, delimiter=",", names=True) for path in paths]

    def drift(self) -> str:
        """Length in ps and drift in meV per atom and ns, with its standard error."""
        logs = self.logs("nve")
        length = logs[0]["time_fs"][-1] / 1000
        per_atom = 1e3 / len(self.atoms)  # meV
        slopes = [
            1e3 * per_atom * np.polyfit(log["time_fs"] / 1000, log["total_eV"], 1)[0]
            for log in logs
        ]
        ripple = np.mean([per_atom * log["total_eV"].std() for log in logs])
        error = np.std(slopes, ddof=1) / np.sqrt(len(slopes))
        mean = np.mean([log["temperature_K"].mean() for log in logs])
        return (
            f"NVE {len(logs)} x {length:.2f} ps, {mean:.0f} K: drift {np.mean(slopes):+.2f} ± "
            f"{error:.2f} meV/atom/ns, largest of a replica {np.abs(slopes).max():.2f}, "
            f"fluctuation {ripple:.3f} meV/atom"
        )

    def temperatures(self) -> str:
        """Temperature of Langevin dynamics, of all atoms and by element, with standard errors."""
        logs = self.logs("nvt-langevin")
        length = logs[0]["time_fs"][-1] / 1000
        means = [log["temperature_K"][int(SETTLED * len(log)) :].mean() for log in logs]
        text = f"Langevin {len(logs)} x {length:.2f} ps: {_mean(means)} K"
        by_element: dict[str, list[float]] = {}
        freedom = 3 - 3 * self.atoms.get_masses() / self.atoms.get_masses().sum()  # without drift
        for path in sorted((self.folder / "nvt-langevin").glob("replica-*/trajectory.h5")):
            frames = read_h5md(path)
            p = np.array([a.get_momenta() for a in frames[int(SETTLED * len(frames)) :]])
            twice = (p**2).sum(axis=2) / self.atoms.get_masses() / units.kB
            for symbol in sorted(set(self.atoms.symbols)):
                own = self.atoms.symbols == symbol
                value = twice[:, own].sum(axis=1).mean() / freedom[own].sum()
                by_element.setdefault(symbol, []).append(value)
        return f"{text}; " + ", ".join(f"{s} {_mean(v)}" for s, v in by_element.items())


def _mean(values: list[float]) -> str:
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.1f} ± {error:.1f}"


def main() -> None:
    """Move all models until the time is over, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MOLECULES), default=list(MOLECULES))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every-round", action="store_true", help="print after every round")
    parser.add_argument("--longest", type=float, default=100.0, help="ps of all replicas together")
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--slice", type=int, default=200, help="steps")
    parser.add_argument("--timestep", type=float, default=0.5, help="fs")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--folder", type=Path, default=Path("drift"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.monotonic()
    cases = [Case(m, args.folder / m, args.dtype, args.replicas) for m in args.models]
    print(f"{args.dtype}, {args.timestep} fs, torch {torch.__version__}")
    while True:
        for case in cases:
            case.advance("nve", args.slice, args.timestep)
            case.advance("nvt-langevin", args.slice // 2, args.timestep)
        length = cases[0].logs("nve")[0]["time_fs"][-1] / 1000 * args.replicas
        over = length >= args.longest or time.monotonic() - begun > 60 * args.minutes
        if over or args.every_round:
            for case in cases:
                print(f"{case.model}, {case.atoms.symbols}\n  {case.drift()}")
                print(f"  {case.temperatures()}", flush=True)
        if over:
            return


if __name__ == "__main__":
    main()
