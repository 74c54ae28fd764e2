"""Frames that the pool of the recipe `organic` lacks, labelled by the networks that labelled it.

    python benchmarks/organic_labels.py PRETRAIN/aimnet2.npz --teacher MODELS --output extra.npz

MODELS holds aimnet2_wb97m-d3_0.jpt and aimnet2_wb97m_ens_f.jpt, TorchScript files of the PyPI wheel
auto3d 2.3.1 (MIT); RDKit makes the first geometries. Five kinds of frames:

- small: molecules of few atoms, where the energies of bonds are learned: normal modes at 100 to
  2,000 K, and diatomics from 0.6 to 2 bond lengths;
- torsion: parts of a molecule turned about a single bond, methyl groups too, with clashes relaxed
  and all atoms shaken, or rigidly and in even steps, where small energies are learned;
- pair: two or three molecules on their way to a minimum they share, shaken, pressed together and
  pulled apart;
- hydrogen-bond: two molecules that start with one hydrogen bond, or with two in a ring, likewise;
- apart: the molecules of a pair alone, in the same geometry, so that interactions are learned.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units
from organic_pairs import PARTNERS, complexes, doubly_bonded, hydrogen_bonded
from organic_teacher import Molecule, Row, Teacher, relaxed
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
    """Frames at several temperatures."""
    temperatures = [int(t) for t in rng.choice([100, 300, 600, 1000, 2000], count)]
    frames = drawn(teacher, molecule, temperatures, rng)
    for temperature, moved in zip(temperatures, frames, strict=True):
        yield Row("small", molecule.name, molecule.numbers, moved, temperature)


def drawn(
    teacher: Teacher, molecule: Molecule, temperatures: list[int], rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Positions drawn from the normal modes (classical, harmonic), for each temperature in K."""
    z, x, h = molecule.numbers, molecule.positions, 0.005
    steps = np.concatenate([h * np.eye(3 * len(z)), -h * np.eye(3 * len(z))])
    forces = teacher.forces(z, x + steps.reshape(-1, len(z), 3))[1].reshape(2, 3 * len(z), -1)
    hessian = (forces[1] - forces[0]) / (2 * h)
    root = np.sqrt(np.repeat(Atoms(numbers=z).get_masses(), 3))
    values, modes = np.linalg.eigh((hessian + hessian.T) / 2 / np.outer(root, root))
    internal = np.abs(values) > 0.02 * values.max() / len(z)  # drops motion of the whole
    for temperature in temperatures:
        width = np.sqrt(temperature * units.kB / np.maximum(np.abs(values), 1.0)) * internal
        yield x + (modes @ (width * rng.normal(size=len(values))) / root).reshape(-1, 3)


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


def rotated(molecule: Molecule, count: int) -> Iterator[Row]:
    """The minimum with each rotor turned in even steps, nothing else moved."""
    for a, b, part in molecule.rotors:
        for angle in np.arange(count) * 360.0 / count:
            atoms = Atoms(numbers=molecule.numbers, positions=molecule.positions)
            rest = atoms[part]
            rest.rotate(angle, atoms.positions[b] - atoms.positions[a], atoms.positions[b])
            atoms.positions[part] = rest.positions
            yield Row("torsion", molecule.name, molecule.numbers, atoms.positions)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pool", type=Path, help="its molecules give torsions")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("extra.npz"))
    parser.add_argument("--thermal", type=int, default=50, help="frames of each small molecule")
    parser.add_argument("--torsions", type=int, default=9_000)
    parser.add_argument("--rotations", type=int, default=0, help="even steps of each rotor")
    parser.add_argument("--complexes", type=int, default=2_500)
    parser.add_argument("--hydrogen-bonds", type=int, default=1_000)
    parser.add_argument("--doubly-bonded", type=int, default=0, help="pairs with two of them")
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
    rows += [row for m in turning for row in rotated(m, args.rotations)]
    print(f"{len(turning)} molecules turned", flush=True)

    partners = [m for s in PARTNERS if (m := build(teacher, s, 60))]
    for _ in range(args.complexes):
        rows += complexes(teacher, partners, rng)
    for _ in range(args.hydrogen_bonds):
        rows += hydrogen_bonded(teacher, partners, rng)
    for _ in range(args.doubly_bonded):
        rows += doubly_bonded(teacher, partners, rng)
    teacher.write(args.output, rows)


if __name__ == "__main__":
    main()
