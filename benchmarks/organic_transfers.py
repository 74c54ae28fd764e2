"""Protons on their way along hydrogen bonds, for the recipe `organic`.

    python benchmarks/organic_transfers.py PRETRAIN/aimnet2.npz bonds1.npz rings.npz \\
        --teacher MODELS --output transfers.npz

takes frames with short hydrogen bonds X-H...Y (of the pool, of organic_labels.py, and of enols and
acids built by RDKit), and pulls the proton from X to Y in even steps of the difference of its two
distances, everything else relaxed, by the networks that label the pool (see organic_labels.py). Two
hydrogen bonds in a ring, as acids have, are pulled one by one or both together.

    python benchmarks/organic_transfers.py --teacher MODELS --compare jmp-xs-organic

compares models with those networks along transfers in molecules that no training has seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.optimize import BFGS
from organic_data import read
from organic_pairs import POLAR
from organic_teacher import Row, Teacher, TeacherCalculator, relaxed

from jmp_md import JMPCalculator

ENOLS = r"""
O=C/C=C\O CC(=O)/C=C(/C)O O=C/C(C)=C\O O=C/C(F)=C\O O=C/C(Cl)=C\O O=C/C=C(/C)O N=C/C=C\O
O=C/C=C\N O=C/C=C\S NC(=O)/C=C\O O=Cc1ccccc1O CC(=O)c1ccccc1O OC(=O)c1ccccc1O NC(=O)c1ccccc1O
N=Cc1ccccc1O O=C1C=CC=CC=C1O NC1=CC=CC=CC1=O OC(=O)/C=C\C(=O)O OC(=O)CO OCC=O
""".split()  # noqa: SIM905
UNSEEN = r"""
O=CC1=CC=C/C1=C/O O=Cc1c(O)ccc2ccccc12 CC(=O)/C=C(/O)C(F)(F)F c1ccc(/N=C/c2ccccc2O)cc1
O=C/C=C(/N)O O=C/C(C=O)=C\O CC(=O)C(C)=C(C)O COC(=O)/C=C(/C)O OC(=O)c1ccccn1
""".split()  # noqa: SIM905
STEPS = np.linspace(-0.9, 0.9, 13)  # Å, of X-H less H...Y
SPRING = 40.0  # eV/Å²
Bond = tuple[int, int, int]  # X, H, Y
Start = tuple[str, np.ndarray, np.ndarray]  # name, numbers, positions


def hydrogen_bonds(numbers: np.ndarray, positions: np.ndarray) -> list[Bond]:
    """Hydrogen bonds shorter than 2 Å that are not bent below 120 degrees, the shortest first."""
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    polar = np.flatnonzero(np.isin(numbers, POLAR))
    found = []
    for h in np.flatnonzero(numbers == 1):
        near = polar[np.argsort(distances[h, polar])][:2]
        if len(near) == 2 and distances[h, near[0]] < 1.15 and distances[h, near[1]] < 2.0:
            x, y = positions[near] - positions[h]
            if x @ y < -0.5 * np.linalg.norm(x) * np.linalg.norm(y):
                found.append((int(near[0]), int(h), int(near[1])))
    return sorted(found, key=lambda bond: float(distances[bond[1], bond[2]]))


def pulled(teacher: Teacher, bonds: list[Bond], difference: float) -> TeacherCalculator:
    """The teacher with springs that hold X-H less H...Y at a difference."""

    def compute(numbers: np.ndarray, positions: np.ndarray) -> tuple[float, np.ndarray]:
        energy, forces = teacher.by_one(numbers, positions)
        for x, h, y in bonds:
            first, second = positions[h] - positions[x], positions[h] - positions[y]
            first_length, second_length = np.linalg.norm(first), np.linalg.norm(second)
            off = float(first_length - second_length) - difference
            along, across = first / first_length, second / second_length
            energy += SPRING / 2 * off**2
            forces[h] -= SPRING * off * (along - across)
            forces[x] += SPRING * off * along
            forces[y] -= SPRING * off * across
        return energy, forces

    return TeacherCalculator(compute)


def transferred(
    teacher: Teacher,
    name: str,
    numbers: np.ndarray,
    positions: np.ndarray,
    rng: np.random.Generator,
) -> Iterator[Row]:
    """Frames along the transfer of a frame's shortest hydrogen bonds, as they are and shaken."""
    bonds = hydrogen_bonds(numbers, positions)[: 1 + int(rng.integers(2))]
    if not bonds:
        return
    limits = [int(limit) for limit in rng.integers(8, 25, len(STEPS))]
    for on_its_way in along(teacher, numbers, positions, bonds, limits):
        yield Row("transfer", name, numbers, on_its_way)
        shaken = on_its_way + rng.normal(0, rng.choice([0.015, 0.04]), on_its_way.shape)
        yield Row("transfer", name, numbers, shaken)


def along(
    teacher: Teacher,
    numbers: np.ndarray,
    positions: np.ndarray,
    bonds: list[Bond],
    limits: Sequence[int],
) -> Iterator[np.ndarray]:
    """Positions at each of STEPS, relaxed in at most so many steps of BFGS."""
    atoms = Atoms(numbers=numbers, positions=positions)
    for difference, limit in zip(STEPS, limits, strict=True):
        atoms.calc = pulled(teacher, bonds, float(difference))
        BFGS(atoms, logfile=None, maxstep=0.1).run(fmax=0.05, steps=limit)
        yield np.array(atoms.positions)


def compare(teacher: Teacher, models: Sequence[str]) -> None:
    """Print energies of models along the first transfer of UNSEEN, and how far off they are."""
    calculators = {model: JMPCalculator(model, dtype="float64") for model in models}
    for name, numbers, positions in with_bonds(teacher, UNSEEN):
        bonds = hydrogen_bonds(numbers, positions)[:1]
        path = list(along(teacher, numbers, positions, bonds, [30] * len(STEPS)))
        labels = np.array([teacher.by_four(numbers, where)[0] for where in path])
        labels -= labels[0]
        print(f"{name}: highest {labels.max():.2f} eV", end="")
        for model, calculator in calculators.items():
            frames = [Atoms(numbers, where, calculator=calculator) for where in path]
            energies = np.array([frame.get_potential_energy() for frame in frames])
            off = energies - energies[0] - labels
            highest = (energies - energies[0]).max()
            print(f"; {model}: {highest:.2f} eV, off by {1e3 * abs(off).mean():.0f} meV", end="")
        print(flush=True)


def with_bonds(teacher: Teacher, molecules: Sequence[str]) -> Iterator[Start]:
    """The conformer with the shortest hydrogen bond, of ten, of each that has one."""
    from rdkit import Chem, RDLogger
    from rdkit.Chem import AllChem

    RDLogger.DisableLog("rdApp.*")
    for smiles in molecules:
        molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
        numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
        found = []
        for k in AllChem.EmbedMultipleConfs(molecule, 10, randomSeed=1):
            positions = relaxed(teacher, numbers, molecule.GetConformer(k).GetPositions(), 60)
            if bonds := hydrogen_bonds(numbers, positions):
                _, h, y = bonds[0]
                found.append((float(np.linalg.norm(positions[h] - positions[y])), k, positions))
        if found:
            yield smiles, numbers, min(found)[2]


def frames(path: Path, count: int, rng: np.random.Generator) -> Iterator[Start]:
    """Frames of a file with hydrogen bonds, each name once, in random order."""
    data = read(path)
    ends, names = np.cumsum(data["n_atoms"]), set()
    for k in rng.permutation(len(ends)):
        name, atoms = str(data["system_id"][k]), slice(ends[k] - data["n_atoms"][k], ends[k])
        numbers, positions = data["numbers"][atoms], data["positions"][atoms].astype(float)
        if len(names) == count:
            return
        if name not in names and hydrogen_bonds(numbers, positions):
            names.add(name)
            yield name, numbers, positions


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("frames", type=Path, nargs="*", help="files with hydrogen bonds")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("transfers.npz"))
    parser.add_argument("--count", type=int, default=80, help="transfers of each file")
    parser.add_argument("--repeat", type=int, default=2, help="transfers of each of the enols")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compare", nargs="+", metavar="MODEL", help="compare, and stop")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    teacher = Teacher(args.teacher)
    if args.compare:
        compare(teacher, args.compare)
        return
    starts = [start for start in with_bonds(teacher, ENOLS) for _ in range(args.repeat)]
    print(f"{len(starts) // args.repeat} enols and acids with a hydrogen bond", flush=True)
    for path in args.frames:
        starts += frames(path, args.count, rng)
    rows = []
    for k, start in enumerate(starts):
        rows += transferred(teacher, *start, rng)
        print(f"{k + 1} of {len(starts)}: {start[0]}, {len(rows)} frames", flush=True)
    teacher.write(args.output, rows)


if __name__ == "__main__":
    main()
