"""Protons on their way along hydrogen bonds, for the recipe `organic`.

    python benchmarks/organic_transfers.py PRETRAIN/aimnet2.npz bonds1.npz rings.npz \\
        --teacher MODELS --output transfers.npz

takes frames with short hydrogen bonds X-H...Y (of the pool, of organic_labels.py, and of enols and
acids built by RDKit), and pulls the proton from X to Y in even steps of the difference of its two
distances, everything else relaxed, by the networks that label the pool (see organic_labels.py). Two
hydrogen bonds in a ring, as acids have, are pulled one by one or both together.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.optimize import BFGS
from organic_data import read
from organic_pairs import POLAR
from organic_teacher import Row, Teacher, TeacherCalculator, relaxed

ENOLS = r"""
O=C/C=C\O CC(=O)/C=C(/C)O O=C/C(C)=C\O O=C/C(F)=C\O O=C/C(Cl)=C\O O=C/C=C(/C)O N=C/C=C\O
O=C/C=C\N O=C/C=C\S NC(=O)/C=C\O O=Cc1ccccc1O CC(=O)c1ccccc1O OC(=O)c1ccccc1O NC(=O)c1ccccc1O
N=Cc1ccccc1O O=C1C=CC=CC=C1O NC1=CC=CC=CC1=O OC(=O)/C=C\C(=O)O OC(=O)CO OCC=O
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
    atoms = Atoms(numbers=numbers, positions=positions)
    for difference in STEPS:
        atoms.calc = pulled(teacher, bonds, float(difference))
        BFGS(atoms, logfile=None, maxstep=0.1).run(fmax=0.05, steps=int(rng.integers(8, 25)))
        yield Row("transfer", name, numbers, np.array(atoms.positions))
        shaken = atoms.positions + rng.normal(0, rng.choice([0.015, 0.04]), atoms.positions.shape)
        yield Row("transfer", name, numbers, shaken)


def enols(teacher: Teacher) -> Iterator[Start]:
    """The conformer of each of ENOLS with the shortest hydrogen bond, of ten, where it has one."""
    from rdkit import Chem, RDLogger
    from rdkit.Chem import AllChem

    RDLogger.DisableLog("rdApp.*")
    for smiles in ENOLS:
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
        if len(names) < count and name not in names and hydrogen_bonds(numbers, positions):
            names.add(name)
            yield name, numbers, positions


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("frames", type=Path, nargs="+", help="files with hydrogen bonds")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("transfers.npz"))
    parser.add_argument("--count", type=int, default=80, help="transfers of each file")
    parser.add_argument("--repeat", type=int, default=2, help="transfers of each of the enols")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    teacher = Teacher(args.teacher)
    starts = [start for start in enols(teacher) for _ in range(args.repeat)]
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
