"""Kill runs at random moments, continue them, and count frames that are lost or there twice.

    OMP_NUM_THREADS=1 python benchmarks/kill.py --kills 50

Dynamics (one run and replicas), relaxation (one and a batch) and a reaction path take turns; every
one is killed with SIGKILL and continued until it ends by itself, and begun anew until the kills are
spent. Dynamics is NVE: what was killed must equal, byte for byte, a run that was not.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read
from killing import killed

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.runs.md import run_md, run_md_replicas
from jmp_md.runs.neb import run_neb
from jmp_md.simulate.options import RelaxOptions
from jmp_md.simulate.relax import relax, relax_batched
from jmp_md.simulate.relax.state import DONE, RelaxState
from jmp_md.simulate.state import load_state
from jmp_md.simulate.trajectory.formats import read_frames

ETHANOL = Path(__file__).resolve().parents[1] / "examples/ethanol.xyz"


@dataclass
class Count:
    """What was found: frames in all, those lost or doubled, and whether all is as it should be."""

    frames: int = 0
    lost: int = 0
    doubled: int = 0
    same: bool = True

    def add(self, found: list[Any], expected: list[Any]) -> None:
        """Compare the frames of a run with those it should have."""
        self.frames += len(expected)
        self.lost += len(set(expected) - set(found))
        self.doubled += len(found) - len(set(found))


class Trial:
    """A kind of run that can be continued.

    Args:
        model: Name of a model that knows ethanol.
        folder: Where its files go.
    """

    def __init__(self, model: str, folder: Path) -> None:
        self.calculator = JMPCalculator(model, dtype="float64")
        self.folder = folder
        self.ethanol = read(ETHANOL)
        self.seen: Any = None

    def shaken(self, seed: int) -> Atoms:
        """Ethanol with its atoms displaced."""
        atoms = self.ethanol.copy()
        atoms.rattle(0.05, seed=seed)  # not so far that another minimum is as near
        atoms.calc = self.calculator
        return atoms

    def run(self, folder: Path) -> None:
        """Begin, or continue."""

    def look(self, folder: Path, count: Count) -> None:
        """Look at what a kill has left."""

    def check(self, folder: Path, whole: Path, count: Count) -> None:
        """Compare a run that was killed with one that was not."""


class OneRun(Trial):
    """Dynamics of one structure."""

    trajectory = "extxyz"

    def run(self, folder: Path) -> None:
        options = {"ensemble": "nve", "steps": 120, "interval": 1, "save_interval": 7}
        run_md(
            self.shaken(0),
            folder,
            restart=True,
            report=False,
            trajectory=self.trajectory,
            **options,
        )

    def check(self, folder: Path, whole: Path, count: Count) -> None:
        frames = read_frames(folder / f"trajectory.{self.trajectory}")
        count.add([atoms.info["step"] for atoms in frames], list(range(121)))
        others = read_frames(whole / f"trajectory.{self.trajectory}")
        count.same &= all(
            np.array_equal(a.positions, b.positions) for a, b in zip(frames, others, strict=True)
        )
        log = (folder / "log.csv").read_bytes()
        count.same &= log == (whole / "log.csv").read_bytes()


class OneRunH5(OneRun):
    """The same, to HDF5."""

    trajectory = "h5"


class Replicas(Trial):
    """Dynamics of several structures."""

    def run(self, folder: Path) -> None:
        options: dict[str, Any] = {"ensemble": "nve", "steps": 60, "interval": 1}
        options |= {"save_interval": 5, "trajectory": "h5"}
        run_md_replicas(
            [self.shaken(0)],
            self.calculator,
            folder,
            replicas=3,
            restart=True,
            report=False,
            **options,
        )

    def check(self, folder: Path, whole: Path, count: Count) -> None:
        for own in sorted(folder.glob("replica-*")):
            frames = read_frames(own / "trajectory.h5")
            count.add([atoms.info["step"] for atoms in frames], list(range(61)))
            log = (own / "log.csv").read_bytes()
            count.same &= log == (whole / own.name / "log.csv").read_bytes()


class OneRelaxation(Trial):
    """Relaxation of one structure; its steps depend on where the optimizer forgot its past."""

    def run(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        path = folder / "steps.traj"
        end = relax(self.shaken(1), fmax=0.02, optimizer="FIRE", trajectory=path, restart=True)
        (folder / "end").write_text(f"{end.energy} {end.steps}")

    def look(self, folder: Path, count: Count) -> None:
        path = folder / "steps.traj"
        frames = read_frames(path) if path.exists() and path.stat().st_size > 100 else []
        found = [atoms.positions.tobytes() for atoms in frames]
        count.lost += len(set(self.seen or ()) - set(found))
        self.seen = found

    def check(self, folder: Path, whole: Path, count: Count) -> None:
        frames = [atoms.positions.tobytes() for atoms in read_frames(folder / "steps.traj")]
        energy, steps = (float(word) for word in (folder / "end").read_text().split())
        other = float((whole / "end").read_text().split()[0])
        count.add(frames, frames)
        count.lost += int(steps) + 1 - len(frames)
        count.same &= abs(energy - other) < 1e-3
        self.seen = None


class ManyRelaxations(Trial):
    """Relaxation of several structures in a batch; a frame is a structure that is done."""

    def run(self, folder: Path) -> None:
        structures = [self.shaken(seed) for seed in range(8)]
        options = RelaxOptions(fmax=0.02)
        with RelaxState(folder, self.calculator, options, restart=True) as state:
            ends = relax_batched(structures, self.calculator, options, batch_size=4, record=state)
        (folder / "ends").write_text(" ".join(str(end.energy) for end in ends))

    def look(self, folder: Path, count: Count) -> None:
        path = folder / DONE
        done = set(path.read_bytes().splitlines()) if path.exists() else set()
        count.lost += len((self.seen or set()) - done)
        self.seen = done

    def check(self, folder: Path, whole: Path, count: Count) -> None:
        energies = np.array((folder / "ends").read_text().split(), dtype=float)
        count.add(list(range(len(energies))), list(range(8)))
        others = np.array((whole / "ends").read_text().split(), dtype=float)
        count.same &= bool((abs(energies - others) < 1e-3).all())
        self.seen = None


class ReactionPath(Trial):
    """A reaction path: the methyl group of ethanol turns; a frame is an image."""

    def run(self, folder: Path) -> None:
        ends = [self.ethanol.copy(), self.ethanol.copy()]
        ends[1].positions = _turned(ends[0])
        options = {"n_images": 5, "fmax": 0.1, "atom_order": "given"}  # the turn is meant
        result = run_neb(ends, self.calculator, folder, restart=True, report=False, **options)
        (folder / "end").write_text(str(result.barrier))

    def look(self, folder: Path, count: Count) -> None:
        saved = load_state(folder)
        step = -1 if saved is None else saved[1]["step"]
        count.lost += int(step < (self.seen or -1))
        self.seen = step

    def check(self, folder: Path, whole: Path, count: Count) -> None:
        count.add(list(range(len(read_frames(folder / "path.extxyz")))), list(range(5)))
        barriers = [float((place / "end").read_text()) for place in (folder, whole)]
        count.same &= abs(barriers[0] - barriers[1]) < 5e-3
        self.seen = None


def _turned(atoms: Atoms) -> np.ndarray:
    """Positions with the hydrogen atoms of the methyl group each in the place of the next."""
    carbon = [i for i, z in enumerate(atoms.numbers) if z == 6]
    near = {c: [i for i in range(len(atoms)) if atoms.get_distance(c, i) < 1.3] for c in carbon}
    methyl = next(
        hydrogen
        for near_c in near.values()
        if len(hydrogen := [i for i in near_c if atoms.numbers[i] == 1]) == 3
    )
    positions = atoms.positions.copy()
    positions[methyl] = positions[np.roll(methyl, 1)]
    return positions


TRIALS: dict[str, Callable[[str, Path], Trial]] = {
    "md, extxyz": OneRun,
    "md, h5": OneRunH5,
    "md, 3 replicas, h5": Replicas,
    "relax": OneRelaxation,
    "relax, batch of 4": ManyRelaxations,
    "neb": ReactionPath,
}


def continue_run(name: str, model: str, folder: Path) -> None:
    """Continue a run of a kind, in a process that knows nothing of the ones before."""
    TRIALS[name](model, folder.parent).run(folder)


def spend(
    name: str, model: str, place: Path, kills: int, longest: float, rng: np.random.Generator
) -> Count:
    """Kill and continue runs of a kind until the kills are spent."""
    trial, count = TRIALS[name](model, place), Count()
    whole = trial.folder / "whole"
    trial.run(whole)
    done, round_ = 0, 0
    while done < kills:
        folder = trial.folder / str(round_)
        round_ += 1
        given = (continue_run, name, model, folder)
        while done < kills and killed(rng.uniform(0.05, longest), *given):
            done += 1
            trial.look(folder, count)
        if killed(600.0, *given):
            raise RuntimeError(f"the run in {folder} did not end in 10 minutes")
        trial.check(folder, whole, count)
    return count


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--runs", nargs="+", choices=list(TRIALS), default=list(TRIALS))
    parser.add_argument("--longest", type=float, default=2.0, help="s until a kill")
    parser.add_argument("--model", default="jmp-xs-rmd17-ethanol")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    shares = np.bincount(np.arange(args.kills) % len(args.runs), minlength=len(args.runs))
    print("run                  kills  frames  lost  doubled  as uninterrupted")
    total = Count()
    for name, kills in zip(args.runs, shares, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            count = spend(name, args.model, Path(folder), int(kills), args.longest, rng)
        total.frames, total.lost = total.frames + count.frames, total.lost + count.lost
        total.doubled, total.same = total.doubled + count.doubled, total.same and count.same
        print(
            f"{name:20} {kills:5}  {count.frames:6}  {count.lost:4}  {count.doubled:7}  "
            f"{'yes' if count.same else 'NO'}",
            flush=True,
        )
    print(f"{'all':20} {args.kills:5}  {total.frames:6}  {total.lost:4}  {total.doubled:7}")


if __name__ == "__main__":
    main()
