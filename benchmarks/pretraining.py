"""Does pre-training pay? The JMP paper's claim in miniature: runs, and tables from their folders.

    python benchmarks/pretraining.py tasks runs/jmp-xs --data PRETRAIN
    python benchmarks/pretraining.py compare --frames 50 --epochs 30 --data RMD17 --output runs/few
    python benchmarks/pretraining.py compare --frames 950 --molecules ethanol --data RMD17 \
        --output runs/full
    python benchmarks/pretraining.py ablation --steps 120 --data PRETRAIN --output runs/ablation
    python benchmarks/pretraining.py organic runs/jmp-xs --data PRETRAIN --output data
    jmp-md train organic --data data
    python benchmarks/pretraining.py dynamics --ps 20 --output runs/dynamics

- tasks: errors of a pre-trained model on the systems it held out, against the trivial predictor.
- compare: fine-tuning against training from scratch, by one recipe, for the same number of steps.
- ablation: temperature of the mix and the structure-wise loss, in short runs.
- organic: the training and test files of the recipe of that name, apart by molecule.
- dynamics: ten molecules of formulas that no training set holds, in Langevin dynamics at 300 K.

A run that is finished is not run again, one that was stopped goes on; `--table` runs none.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.data import covalent_radii
from ase.io import read

import jmp_md
from jmp_md.calculators.ase import JMPCalculator
from jmp_md.checkpoints.native import read_header
from jmp_md.cli.train import find_recipe
from jmp_md.runs.md import run_md_replicas
from jmp_md.training.data.frame import Concatenation, Dataset, Frame, Subset, frames
from jmp_md.training.data.open import open_dataset
from jmp_md.training.data.splits import read_split
from jmp_md.training.metrics import dataset_errors
from jmp_md.training.recipe import PretrainRecipe, load_recipe
from jmp_md.training.session import train
from jmp_md.training.trainer import LAST_FILE, MODEL_FILE

MOLECULES = (
    "aspirin", "azobenzene", "benzene", "ethanol", "malonaldehyde",
    "naphthalene", "paracetamol", "salicylic", "toluene", "uracil",
)  # fmt: skip
STARTS = ("scratch", "pre-trained")
TEMPERATURES = (2.0, 1.0, float("inf"))
# Of ASE's G2 collection; none of these formulas occurs in the demonstration mix.
UNSEEN = (
    "C2H4", "C3H8", "trans-butane", "isobutane", "C3H6_Cs",
    "OCHCHO", "C4H4O", "H3CNH2", "H2CCHCN", "C5H5N",
)  # fmt: skip


def run(recipe: str, changes: Iterable[str], data: Path, folder: Path, **options: Any) -> None:
    """Run a packaged recipe, unless the folder holds a finished run."""
    changes = list(changes)
    if finished(folder) is None:
        print(f"{folder}: {recipe} {' '.join(changes)}", flush=True)
        resume = (folder / LAST_FILE).exists()
        train(load_recipe(find_recipe(recipe), changes), data, folder, resume=resume, **options)


def finished(folder: Path) -> dict[str, Any] | None:
    """Errors of a finished run, with its hours; None where there is none."""
    path = folder / MODEL_FILE
    header = read_header(path) if path.is_file() else None
    if header is None or "data_sha256" not in header.training:
        return None
    return {**header.metrics, "hours": header.training["hours"]}


def compare(args: argparse.Namespace) -> None:
    """Train each molecule from scratch and from the base; print the table of what is finished."""
    folders = {
        (seed, name, start): args.output / f"{name}-{args.frames}-{start}-{seed}"
        for seed in args.seeds
        for name in args.molecules
        for start in STARTS
    }
    for (seed, name, start), folder in folders.items():
        base = "null" if start == "scratch" else args.base
        few = args.frames < 500
        changes = [
            f"seed={seed}", f"model.molecule={name}", f"model.base={base}",
            f"data.n_train={args.frames}",
            f"optimiser.epochs={args.epochs}", f"optimiser.batch_size={5 if few else 8}",
            f"optimiser.learning_rate={args.learning_rate}",
        ]  # fmt: skip
        if few:  # seldom, as 50 validation frames take as long as 20 training frames
            steps = args.frames // 5 * args.epochs
            changes += [f"optimiser.validate_every={max(steps // 4, 1)}"]
        if not args.table:
            run("rmd17-xs", changes, args.data, folder)
    print("\nForce MAE on 1,000 test frames, meV/Å, mean and standard deviation of seeds;")
    print(f"{args.frames} training frames\n")
    print("| molecule | seeds | from scratch | pre-trained | improvement | hours each |")
    print("|---|---|---|---|---|---|")
    gains = []
    for name in args.molecules:
        found = [[finished(folders[seed, name, start]) for start in STARTS] for seed in args.seeds]
        both = [pair for pair in found if None not in pair]
        if both:
            errors = np.array([[f["force_mae_meV_per_A"] for f in pair] for pair in both])
            gain = 1 - errors[:, 1] / errors[:, 0]
            gains.append(gain.mean())
            hours = ", ".join(
                f"{h:.3f}" for h in np.mean([[f["hours"] for f in p] for p in both], 0)
            )
            cells = " | ".join(spread(e) for e in errors.T)
            print(f"| {name} | {len(both)} | {cells} | {spread(100 * gain)} % | {hours} |")
    if gains:
        print(f"| mean of {len(gains)} | | | | {np.mean(gains):.1%} | |")


def spread(values: np.ndarray) -> str:
    """Mean and standard deviation over seeds."""
    text = f"{values.mean():.1f}"
    return f"{text} ± {values.std(ddof=1):.1f}" if len(values) > 1 else text


def ablation(args: argparse.Namespace) -> None:
    """Short pre-training runs that differ in how the mix is sampled and weighed."""
    ending = "_force_mae_meV_per_A"
    rows: dict[tuple[float, bool], list[dict[str, Any]]] = {}
    for seed, wise, temperature in itertools.product(args.seeds, (True, False), TEMPERATURES):
        loss = "structure" if wise else "atom"
        folder = args.output / f"T{temperature:g}-{loss}-wise-{seed}"
        value = ".inf" if np.isinf(temperature) else temperature
        changes = [
            f"seed={seed}", f"mix.temperature={value}", f"mix.structure_wise={str(wise).lower()}",
            "mix.n_validation=50", f"optimiser.validate_every={args.steps}",
            f"optimiser.warmup_steps={args.steps // 5}", "optimiser.final_factor=1.0",
        ]  # fmt: skip
        if not args.table:
            run("pretrain-demo", changes, args.data, folder, max_minutes=0)
        if (found := finished(folder)) is not None:
            rows.setdefault((temperature, wise), []).append(found)
    names = [k for k in next(iter(rows.values()), [{}])[0] if k.endswith(ending)]
    tasks = [name[len("validation_") : -len(ending)] for name in names]
    print("\nForce MAE in meV/Å on held-out systems, mean and standard deviation of seeds, after "
          f"{args.steps} steps of 16 structures\n")  # fmt: skip
    print(f"| T | loss | seeds | {' | '.join(tasks)} | mean, % of zero forces |")
    print(f"|---|---|---|{'---|' * len(tasks)}---|")
    for (temperature, wise), found in rows.items():
        errors = " | ".join(spread(np.array([f[name] for f in found])) for name in names)
        mean = spread(100 * np.array([f["validation_relative_force_mae"] for f in found]))
        loss = "structure-wise" if wise else "over atoms"
        print(f"| {temperature:g} | {loss} | {len(found)} | {errors} | {mean} |")


def tasks(args: argparse.Namespace) -> None:
    """Errors on all held-out systems, against zero forces and linear reference energies."""
    print("\nHeld-out systems of elements seen in training: model (trivial)\n")
    print("| task | frames | forces, meV/Å | energies, meV per atom |\n|---|---|---|---|")
    for name, dataset, split in _tasks(args.run, args.data):
        potential = jmp_md.load_model(args.run / MODEL_FILE, head=name, device="cpu")
        seen = set(potential.head.elements)
        held_out = Subset(dataset, [k for k in split.val if seen.issuperset(dataset[k].numbers)])
        trivial_energy, trivial_force = [], []
        for frame in frames(held_out):
            assert frame.forces is not None
            assert frame.energy is not None
            free = ~frame.fixed if frame.fixed is not None else slice(None)
            trivial_force.append(np.abs(frame.forces[free]).ravel())
            constant = sum(potential.head.references.get(int(z), 0.0) for z in frame.numbers)
            trivial_energy.append(abs(frame.energy - constant))
        atoms = np.mean([len(frame) for frame in frames(held_out)])
        found = dataset_errors(potential, held_out).summary()
        zero = 1000 * np.concatenate(trivial_force).mean()
        linear = 1000 * np.mean(trivial_energy) / atoms
        energy = found["energy_mae_meV"] / atoms
        force, n = found["force_mae_meV_per_A"], f"{len(held_out)} of {len(split.val)}"
        print(f"| {name} | {n} | {force:.0f} ({zero:.0f}) | {energy:.0f} ({linear:.0f}) |")


def _tasks(folder: Path, data: Path) -> Iterator[tuple[str, Dataset, Any]]:
    """Name, frames and split of each task of a pre-training run."""
    recipe = load_recipe(folder / "recipe.yaml")
    assert isinstance(recipe, PretrainRecipe)
    for name, task in recipe.tasks.items():
        dataset: Dataset = open_dataset(data / task.train, task.format, **task.options)
        if task.max_force is not None:
            largest = [np.linalg.norm(f.forces, axis=1).max() for f in frames(dataset)]
            dataset = Subset(dataset, np.flatnonzero(np.array(largest) <= task.max_force))
        yield name, dataset, read_split(folder / f"split-{name}.json", dataset)


def organic(args: argparse.Namespace) -> None:
    """Write organic-train.npz and organic-test.npz along the split of a pre-training run."""
    parts: dict[str, list[Dataset]] = {"train": [], "test": []}
    for name, dataset, split in _tasks(args.run, args.data):
        if name in ("ani1x", "transition1x"):
            parts["train"].append(Subset(dataset, split.train))
            parts["test"].append(Subset(dataset, split.val))
    args.output.mkdir(parents=True, exist_ok=True)
    for part, datasets in parts.items():
        path = args.output / f"organic-{part}.npz"
        write_npz(path, list(frames(Concatenation(datasets))))
        print(f"{path}: {sum(map(len, datasets))} frames")


def write_npz(path: Path, chosen: list[Frame]) -> None:
    """Frames of molecules, one after the other, in eV and Å."""
    np.savez_compressed(
        path,
        n_atoms=np.array([len(f) for f in chosen]),
        numbers=np.concatenate([f.numbers for f in chosen]).astype(np.uint8),
        positions=np.concatenate([f.positions for f in chosen]).astype(np.float32),
        forces=np.concatenate([f.forces for f in chosen if f.forces is not None]),
        energy=np.array([f.energy for f in chosen]),
        system_id=np.array([f.system for f in chosen]),
    )


def dynamics(args: argparse.Namespace) -> None:
    """Langevin dynamics of all molecules in one batch; what broke, and the temperatures."""
    molecules = [molecule(name) for name in UNSEEN]
    calculator = JMPCalculator(args.model, head=args.head, device="cpu")
    steps = round(1000 * args.ps / args.timestep)
    began = time.perf_counter()
    runs = run_md_replicas(
        molecules, calculator, args.output, steps=steps, timestep=args.timestep, temperature=300.0,
        interval=20, restart=(args.output / "state.npz").exists(),
    )  # fmt: skip
    hours = (time.perf_counter() - began) / 3600
    print(f"\n{args.model}: {args.ps:g} ps at 300 K, {args.timestep} fs, {hours:.2f} h\n")
    print("| molecule | formula | mean temperature, K | bonds kept |\n|---|---|---|---|")
    for name, atoms, run in zip(UNSEEN, molecules, runs, strict=True):
        broken = first_change(atoms, read(run.trajectory, ":"))
        kept = "all" if broken is None and run.error is None else f"until {broken} fs"
        print(f"| {name} | {atoms.get_chemical_formula()} | {run.temperature:.0f} | {kept} |")


def first_change(atoms: Atoms, trajectory: list[Atoms]) -> float | None:
    """When, in fs, a bond is stretched to 1.5 covalent lengths or a new one made; None if never."""
    bonds = bonded(atoms, 1.2)
    for frame in trajectory:
        if (bonds & ~bonded(frame, 1.5)).any() or (bonded(frame, 0.95) & ~bonds).any():
            return float(frame.info["time_fs"])
    return None


def bonded(atoms: Atoms, factor: float) -> np.ndarray:
    """Pairs nearer than ``factor`` times the sum of their covalent radii: (n, n)."""
    radius = covalent_radii[atoms.numbers]
    near = atoms.get_all_distances() < factor * (radius[:, None] + radius)
    return near & ~np.eye(len(atoms), dtype=bool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for command in (tasks, compare, ablation, organic, dynamics):
        sub = commands.add_parser(command.__name__, help=(command.__doc__ or "").splitlines()[0])
        sub.set_defaults(command=command)
        if command in (tasks, organic):
            sub.add_argument("run", type=Path, help="folder of a pre-training run")
        if command is not dynamics:
            sub.add_argument("--data", type=Path, required=True, help="folder of the data")
        if command is not tasks:
            sub.add_argument("--output", type=Path, required=True, help="folder to write")
        if command in (compare, ablation):
            sub.add_argument("--table", action="store_true", help="train nothing, print the table")
            sub.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
        if command is compare:
            sub.add_argument("--frames", type=int, default=50)
            sub.add_argument("--epochs", type=int, default=30)
            sub.add_argument("--learning-rate", type=float, default=2e-3)
            sub.add_argument("--base", default="jmp-xs", help="pre-trained model, name or file")
            sub.add_argument("--molecules", nargs="+", choices=MOLECULES, default=list(MOLECULES))
        if command is ablation:
            sub.add_argument("--steps", type=int, default=120)
        if command is dynamics:
            sub.add_argument("--model", default="jmp-xs-organic")
            sub.add_argument("--head", help="of a model with several, e.g. ani1x")
            sub.add_argument("--ps", type=float, default=20.0)
            sub.add_argument("--timestep", type=float, default=0.5, help="fs")
    args = parser.parse_args()
    args.command(args)


if __name__ == "__main__":
    main()
