"""Frames that the pool of the recipe `organic` lacks, labelled by the networks that labelled it.

    python benchmarks/organic_labels.py PRETRAIN/aimnet2.npz --teacher MODELS --output extra.npz

MODELS holds aimnet2_wb97m-d3_0.jpt and aimnet2_wb97m_ens_f.jpt, TorchScript files of the PyPI wheel
auto3d 2.3.1 (MIT); RDKit makes the first geometries. Five kinds of frames:

- small: molecules of few atoms, where the energies of bonds are learned: normal modes at 100 to
  2,000 K, and diatomics from 0.6 to 2 bond lengths;
- torsion: parts of a molecule turned about a single bond, methyl groups too;
- pair: two or three molecules on their way to a minimum they share, shaken, pressed together and
  pulled apart;
- hydrogen-bond: two molecules that start with one, relaxed further, as many acids and amides then
  have a second one; likewise shaken, pressed together and pulled apart;
- apart: the molecules of a pair alone, in the same geometry, so that interactions are learned.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.optimize import BFGS
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem

SMALL = """
[H][H] N#N [C-]#[O+] FF ClCl BrBr F Cl Br FCl BrCl O N P S C O=C=O C#C C=C CC C#N O=S=O
O=S(=O)=O OO NN N=N S=C=S O=C=S CF CCl CBr CO CN CS CP C=O OC=O NC=O CC=O CC#N C=C=O C=C=C
FC(F)F ClC(Cl)Cl FC(F)(F)F ClC(Cl)(Cl)Cl CC(=O)O CC(N)=O COC CNC CSC CPC CS(C)=O CS(C)(=O)=O
CP(C)C CP(C)(C)=O OP(=O)(O)O COP(=O)(O)O OS(=O)(=O)O CSSC SS NO NCl OCl OF FOF NF FN(F)F C1CC1
C1CO1 C1CN1 C1CS1 C1CP1 C1=CC1 C1CCC1 c1ccccc1 c1ccncc1 c1ccoc1 c1ccsc1 c1cc[nH]c1 c1cnc[nH]1
c1ccccc1F c1ccccc1Cl c1ccccc1Br Cc1ccccc1 Oc1ccccc1 Nc1ccccc1 C=CC=C C=CC#N C#CC#C CCO CCN CCC
CCCC CC(C)C CC(C)=O CC=C CC#C CCS CCP CCF CCCl CCBr FC=C ClC=C BrC=C NC(N)=O NC(=S)N CC(=S)N C=S
CN=C=O CN=C=S CN=[N+]=[N-] C=[N+]=[N-] NCC(=O)O CNC=O CC(=O)NC CSC=O CC(=O)Cl CC(=O)F
FC(F)(F)C(=O)O CS(N)(=O)=O CP(=O)(O)OC P#C CC#P C=P PP NP OP SP FP ClP ClP(Cl)Cl FP(F)F
O=P(Cl)(Cl)Cl N=O C=NO C=NC CON COO OCO FCF ClCCl BrCBr FCCl SCS PCP NCN O=CC=O N#CC#N N=C=O
ON=O CC(C)(C)C C1CCCC1 C1CCCCC1 C1=CCCC1 c1cnccn1 c1ccnnc1 C=COC CON=O C[N+](=O)[O-] OC(=O)C=C
O=CC=C CC=CC NC=N CNN COF CSF
""".split()  # noqa: SIM905
PARTNERS = """
O N CO CN C#N c1ccccc1 NC=O OC=O CC(=O)O CC(N)=O C C=C C#C CC F Cl S O=C=O CF CCl CBr CS C=O
CC(C)=O COC CNC CSC c1ccncc1 c1cnccn1 c1cc[nH]c1 c1ccoc1 c1ccsc1 Oc1ccccc1 Nc1ccccc1 CNC=O CCC
C1CCCC1 NC(N)=O O=c1cc[nH]c(=O)[nH]1 CS(C)=O CC#N COP(=O)(O)O c1ccccc1F c1ccccc1Cl N#N [H][H]
ClCl FF P CP c1ccc2[nH]ccc2c1 Oc1ccccn1 Nc1ccccn1 Cc1c[nH]c(=O)[nH]c1=O Nc1ncnc2[nH]cnc12
""".split()  # noqa: SIM905
POLAR = (7, 8, 9)  # elements of hydrogen bonds
MAX_FORCE = 30.0  # eV/Å
BATCH = 32


@dataclass
class Molecule:
    """A molecule at a minimum of the teacher, with the bonds about which parts turn.

    Attributes:
        name: SMILES.
        rotors: First atom, second atom, and the atoms that turn with the second.
    """

    name: str
    numbers: np.ndarray
    positions: np.ndarray
    rotors: list[tuple[int, int, list[int]]]


@dataclass
class Row:
    """A frame to label."""

    source: str
    name: str
    numbers: np.ndarray
    positions: np.ndarray
    temperature: int = 0


class Teacher:
    """AIMNet2: one network to make geometries with, four to label them."""

    def __init__(self, folder: Path) -> None:
        self.one = torch.jit.load(str(folder / "aimnet2_wb97m-d3_0.jpt"), map_location="cpu")
        self.four = torch.jit.load(str(folder / "aimnet2_wb97m_ens_f.jpt"), map_location="cpu")

    def forces(self, numbers: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies (n,) and forces (n, n_atoms, 3) of geometries of one molecule, by one."""
        inputs = padded([numbers] * len(positions), list(positions))
        coordinates = inputs["coord"].requires_grad_(True)
        energy = self.one(inputs)["energy"]
        (gradient,) = torch.autograd.grad(energy.sum(), coordinates)
        return energy.detach().double().numpy(), -gradient.double().numpy()

    def labels(self, rows: list[Row]) -> Iterator[tuple[Row, float, np.ndarray, float, float]]:
        """Each frame with energy, forces and the spreads of both (largest of the forces)."""
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            found = self.four(padded([r.numbers for r in some], [r.positions for r in some]))
            for k, row in enumerate(some):
                n = len(row.numbers)
                yield (
                    row,
                    float(found["energy"][k].double()),
                    found["forces"][k, :n].detach().numpy(),
                    float(found["energy_std"][k].detach()),
                    float(found["forces_std"][k, :n].detach().abs().max()),
                )


def padded(numbers: list[np.ndarray], positions: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """Inputs of the networks: shorter molecules are filled up with atoms of number 0."""
    longest = max(map(len, numbers))
    z = torch.zeros(len(numbers), longest, dtype=torch.long)
    x = torch.zeros(len(numbers), longest, 3)
    for k, (a, b) in enumerate(zip(numbers, positions, strict=True)):
        z[k, : len(a)] = torch.as_tensor(a)
        x[k, : len(a)] = torch.as_tensor(b, dtype=torch.float32)
    return {"coord": x, "numbers": z, "charge": torch.zeros(len(numbers))}


class OneNetwork(Calculator):
    """The first network for ASE's optimisers."""

    implemented_properties = ("energy", "forces")

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        energy, forces = self.teacher.forces(atoms.numbers, atoms.positions[None])
        self.results = {"energy": energy[0], "forces": forces[0]}


def relaxed(teacher: Teacher, numbers: np.ndarray, positions: np.ndarray, steps: int) -> np.ndarray:
    """Positions after some steps of BFGS."""
    atoms = Atoms(numbers=numbers, positions=positions, calculator=OneNetwork(teacher))
    BFGS(atoms, logfile=None, maxstep=0.1).run(fmax=0.01, steps=steps)
    return np.array(atoms.positions)


def build(teacher: Teacher, smiles: str, steps: int) -> Molecule | None:
    """A molecule from its SMILES; None where RDKit finds no geometry."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if AllChem.EmbedMolecule(molecule, randomSeed=1) != 0:
        return None
    if AllChem.MMFFHasAllMoleculeParams(molecule):
        AllChem.MMFFOptimizeMolecule(molecule)
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    positions = relaxed(teacher, numbers, molecule.GetConformer().GetPositions(), steps)
    return Molecule(smiles, numbers, positions, rotors(molecule))


def rotors(molecule: Chem.Mol) -> list[tuple[int, int, list[int]]]:
    """Single bonds outside rings between atoms that both have other neighbours."""
    found = []
    for bond in molecule.GetBonds():
        a, b = bond.GetBeginAtom(), bond.GetEndAtom()
        if (
            bond.IsInRing()
            or bond.GetBondTypeAsDouble() != 1.0
            or 1 in (a.GetDegree(), b.GetDegree())
        ):
            continue
        turned, todo = {b.GetIdx()}, [b]
        while todo:
            for neighbour in todo.pop().GetNeighbors():
                if neighbour.GetIdx() not in turned | {a.GetIdx()}:
                    turned.add(neighbour.GetIdx())
                    todo.append(neighbour)
        found.append((a.GetIdx(), b.GetIdx(), sorted(turned)))
    return found


def thermal(
    teacher: Teacher, molecule: Molecule, count: int, rng: np.random.Generator
) -> Iterator[Row]:
    """Frames drawn from the normal modes (classical, harmonic)."""
    z, x, h = molecule.numbers, molecule.positions, 0.005
    steps = np.concatenate([h * np.eye(3 * len(z)), -h * np.eye(3 * len(z))])
    forces = teacher.forces(z, x + steps.reshape(-1, len(z), 3))[1].reshape(2, 3 * len(z), -1)
    hessian = (forces[1] - forces[0]) / (2 * h)
    root = np.sqrt(np.repeat(Atoms(numbers=z).get_masses(), 3))
    values, modes = np.linalg.eigh((hessian + hessian.T) / 2 / np.outer(root, root))
    internal = np.abs(values) > 0.02 * values.max() / len(z)  # drops motion of the whole
    for temperature in rng.choice([100, 300, 600, 1000, 2000], count):
        width = np.sqrt(temperature * units.kB / np.maximum(np.abs(values), 1.0)) * internal
        moved = x + (modes @ (width * rng.normal(size=len(values))) / root).reshape(-1, 3)
        yield Row("small", molecule.name, z, moved, int(temperature))


def stretched(molecule: Molecule, count: int) -> Iterator[Row]:
    """A diatomic from 0.6 to 2 bond lengths."""
    for factor in np.linspace(0.6, 2.0, count):
        yield Row("small", molecule.name, molecule.numbers, molecule.positions * factor)


def turned(teacher: Teacher, molecule: Molecule, rng: np.random.Generator) -> Row:
    """A part turned by any angle, clashes relaxed, then shaken a little."""
    atoms = Atoms(numbers=molecule.numbers, positions=molecule.positions)
    for _ in range(1 + (rng.random() < 0.3)):
        a, b, part = molecule.rotors[rng.integers(len(molecule.rotors))]
        rest = atoms[part]
        rest.rotate(
            rng.uniform(0, 360), atoms.positions[b] - atoms.positions[a], atoms.positions[b]
        )
        atoms.positions[part] = rest.positions
    x = relaxed(teacher, molecule.numbers, atoms.positions, int(rng.integers(0, 7)))
    return Row("torsion", molecule.name, molecule.numbers, x + rng.normal(0, 0.02, x.shape))


def complexes(
    teacher: Teacher, partners: list[Molecule], rng: np.random.Generator
) -> Iterator[Row]:
    """Two or three molecules that touch, from any side."""
    count = 3 if rng.random() < 0.15 else 2
    chosen = [partners[k] for k in rng.integers(len(partners), size=count)]
    chosen = [m for m in chosen if len(m.numbers) <= 16] if count == 3 else chosen
    placed: list[np.ndarray] = []
    for molecule in chosen:
        atoms = Atoms(numbers=molecule.numbers, positions=molecule.positions)
        atoms.positions -= atoms.positions.mean(axis=0)
        atoms.euler_rotate(*rng.uniform(0, 360, 3))
        way = rng.normal(size=3)
        way /= np.linalg.norm(way)
        distance = 0.0
        while placed and closest(np.concatenate(placed), atoms.positions + distance * way) < 2.6:
            distance += 0.2
        placed.append(atoms.positions + distance * way)
    if len(placed) > 1:
        yield from around_minimum(teacher, "pair", chosen, placed, int(rng.integers(10, 35)), rng)


def hydrogen_bonded(
    teacher: Teacher, partners: list[Molecule], rng: np.random.Generator
) -> Iterator[Row]:
    """Two molecules from a straight hydrogen bond of 1.9 Å, turned about it by any angle."""
    donor, acceptor = (partners[k] for k in rng.integers(len(partners), size=2))
    polar = [
        (int(h), int(x))
        for h in np.flatnonzero(donor.numbers == 1)
        for x in np.flatnonzero(np.isin(donor.numbers, POLAR))
        if np.linalg.norm(donor.positions[h] - donor.positions[x]) < 1.2
    ]
    sites = np.flatnonzero(np.isin(acceptor.numbers, POLAR))
    if not polar or not len(sites):
        return
    hydrogen, heavy = polar[rng.integers(len(polar))]
    site = rng.choice(sites)
    first, second = (Atoms(numbers=m.numbers, positions=m.positions) for m in (donor, acceptor))
    first.positions -= donor.positions[hydrogen]
    first.rotate(first.positions[hydrogen] - first.positions[heavy], (0, 0, 1))
    second.positions -= acceptor.positions[site]
    rest = second.positions.mean(axis=0)  # away from the hydrogen, a little to one side
    second.rotate(rest + 1e-3, (0, 0, 1))
    second.rotate(rng.uniform(0, 60), (1, 0, 0))
    second.rotate(rng.uniform(0, 360), (0, 0, 1))
    second.positions += (0, 0, 1.9)
    placed = [first.positions, second.positions]
    if closest(*placed) > 1.4:
        steps = int(rng.integers(20, 80))
        yield from around_minimum(teacher, "hydrogen-bond", [donor, acceptor], placed, steps, rng)


def around_minimum(
    teacher: Teacher,
    source: str,
    chosen: list[Molecule],
    placed: list[np.ndarray],
    steps: int,
    rng: np.random.Generator,
) -> Iterator[Row]:
    """Molecules relaxed together, closer and farther, and the first of them alone."""
    numbers = np.concatenate([m.numbers for m in chosen])
    name = "|".join(sorted(m.name for m in chosen))
    x = relaxed(teacher, numbers, np.concatenate(placed), steps)
    first = len(chosen[0].numbers)
    way = x[:first].mean(axis=0) - x[first:].mean(axis=0)
    way /= np.linalg.norm(way)
    for shift in (0.0, rng.uniform(-0.4, 0.4), rng.uniform(0.2, 1.0), rng.uniform(0.8, 4.0)):
        y = x + rng.normal(0, rng.choice([0.0, 0.02, 0.05]), x.shape)
        y[:first] += shift * way
        if closest(y[:first], y[first:]) > 0.9:
            yield Row(source, name, numbers, y)
    yield Row("apart", chosen[0].name, chosen[0].numbers, y[:first])


def closest(a: np.ndarray, b: np.ndarray) -> float:
    """Å between the two nearest atoms of two molecules."""
    return float(np.linalg.norm(a[:, None] - b[None], axis=-1).min())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pool", type=Path, help="its molecules give torsions")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("extra.npz"))
    parser.add_argument("--thermal", type=int, default=50, help="frames of each small molecule")
    parser.add_argument("--torsions", type=int, default=9_000)
    parser.add_argument("--complexes", type=int, default=2_500)
    parser.add_argument("--hydrogen-bonds", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    rng = np.random.default_rng(args.seed)
    teacher = Teacher(args.teacher)

    small = [m for s in SMALL if (m := build(teacher, s, 60))]
    rows = [row for m in small for row in thermal(teacher, m, args.thermal, rng)]
    rows += [row for m in small if len(m.numbers) == 2 for row in stretched(m, args.thermal)]
    print(f"{len(small)} small molecules, {len(rows)} frames", flush=True)

    with np.load(args.pool, allow_pickle=False) as pool:
        light = (pool["n_atoms"] <= 20) & np.isin(pool["source"], ("moses", "qm9", "templ"))
        names = np.unique(pool["system_id"][light])
    turning = [m for m in small if m.rotors]
    for name in rng.permutation(names)[: args.torsions // 10]:
        molecule = build(teacher, str(name), 10)
        turning += [molecule] if molecule and molecule.rotors else []
    for k in range(args.torsions):
        rows.append(turned(teacher, turning[k % len(turning)], rng))
    print(f"{len(turning)} molecules turned", flush=True)

    partners = [m for s in PARTNERS if (m := build(teacher, s, 60))]
    for _ in range(args.complexes):
        rows += complexes(teacher, partners, rng)
    for _ in range(args.hydrogen_bonds):
        rows += hydrogen_bonded(teacher, partners, rng)
    rows.sort(key=lambda row: len(row.numbers))
    kept = [r for r in teacher.labels(rows) if np.abs(r[2]).max() < MAX_FORCE]
    print(f"{len(kept)} of {len(rows)} frames kept", flush=True)
    np.savez_compressed(
        args.output,
        n_atoms=np.array([len(row.numbers) for row, *_ in kept]),
        numbers=np.concatenate([row.numbers for row, *_ in kept]).astype(np.int16),
        positions=np.concatenate([row.positions for row, *_ in kept]).astype(np.float32),
        forces=np.concatenate([forces for _, _, forces, _, _ in kept]).astype(np.float32),
        energy=np.array([energy for _, energy, *_ in kept]),
        system_id=np.array([row.name for row, *_ in kept]),
        source=np.array([row.source for row, *_ in kept]),
        temperature=np.array([row.temperature for row, *_ in kept]),
        energy_std=np.array([spread for *_, spread, _ in kept]),
        force_std_max=np.array([spread for *_, spread in kept]),
    )


if __name__ == "__main__":
    main()
