"""Thermal frames of molecules that no pool has, labelled by DFT: an honest test of `organic`.

    pip install pyscf rdkit
    python benchmarks/organic_test.py PRETRAIN/aimnet2.npz --teacher MODELS --output thermal.xyz
    jmp-md evaluate --model jmp-xs-organic --head wb97m --data thermal.xyz

Geometries are drawn from the normal modes of the teacher (see organic_labels.py) at 300 K. Labels
are the functional of wB97M-V with D3(BJ) in place of VV10 and def2-TZVPP, the level of the
default head, or wB97X/6-31G(d), that of the second; both with density fitting. A run that was
killed goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread, write
from ase.units import Bohr, Hartree
from organic_labels import build, drawn
from organic_teacher import Teacher
from rdkit import Chem, RDLogger

from jmp_md.errors import InputError

MOLECULES = """
CC(C)CN CC(O)CF COCC#N CC(=O)CCl CSCC#N CC(C)(O)C#N C1CC1C=O O=C1CCO1 CC1CO1 OCc1ccco1 NC(=O)CCl
CS(=O)C=C CC(=S)NC CN(C)C=O C1CSCN1 CP(C)(=O)C=C COP(C)(C)=O OP(O)C CPCC=O BrCC#N BrC=CF Brc1ccco1
ClC=CC=O CC(=O)C#C N#CC=CN NC=CC=O OC=CC=O CN=CC=C CC=NO CON=C CC(=O)NN SCC=O OCCS FCCCl ClCC(=O)O
OC(=O)CF CC1=CCO1 C1=CCOC1 O=c1cco[nH]1 CC(C)=NO FS(=O)(=O)C
""".split()  # noqa: SIM905
FRAMES, TEMPERATURE = 5, 300
LEVELS = {"wb97m": ("wb97m_v", "def2-tzvpp"), "wb97x": ("wb97x", "6-31g*")}


def dft(atoms: Atoms, level: str) -> tuple[float, np.ndarray]:
    """Energy in eV and forces in eV/Å."""
    from pyscf import dft as pyscf_dft
    from pyscf import gto

    functional, basis = LEVELS[level]
    places = zip(atoms.numbers.tolist(), atoms.positions, strict=True)
    mol = gto.M(atom=list(places), basis=basis, verbose=0)
    calculation = pyscf_dft.RKS(mol, xc=functional).density_fit()
    calculation.grids.level, calculation.conv_tol = 2, 1e-7
    if level == "wb97m":
        calculation.nlc, calculation.disp = 0, None
    energy = calculation.kernel()
    if not calculation.converged:
        raise RuntimeError(f"{atoms.info['name']}: the density does not converge")
    gradient = calculation.nuc_grad_method().kernel()
    if level == "wb97m":
        from pyscf.dispersion import dftd3

        found = dftd3.DFTD3Dispersion(mol, xc="wb97m", version="d3bj").get_dispersion(grad=True)
        energy, gradient = energy + found["energy"], gradient + found["gradient"]
    return energy * Hartree, -gradient * Hartree / Bohr


def frames(teacher: Teacher) -> Iterator[tuple[str, Atoms]]:
    """Names and geometries, the first of every molecule before the second of any."""
    rng = np.random.default_rng(0)
    drawn_of = {}
    for smiles in MOLECULES:
        molecule = build(teacher, smiles, 60)
        if molecule is None:
            raise InputError(f"{smiles}: no geometry")
        positions = drawn(teacher, molecule, [TEMPERATURE] * FRAMES, rng)
        drawn_of[smiles] = [Atoms(molecule.numbers, each) for each in positions]
    for k in range(FRAMES):
        for smiles, geometries in drawn_of.items():
            geometries[k].info["name"] = f"{smiles}#{k}"
            yield geometries[k].info["name"], geometries[k]


def canonical(smiles: str) -> str:
    """One text for a molecule."""
    return str(Chem.MolToSmiles(Chem.MolFromSmiles(smiles)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pool", type=Path, help="its molecules are left out")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--level", choices=LEVELS, default="wb97m")
    parser.add_argument("--output", type=Path, default=Path("thermal.xyz"))
    args = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    with np.load(args.pool, allow_pickle=False) as pool:
        seen = {part for name in np.unique(pool["system_id"]) for part in str(name).split("|")}
    if known := {canonical(m) for m in MOLECULES} & {canonical(name) for name in seen}:
        parser.error(f"in the pool: {', '.join(sorted(known))}")
    done = {atoms.info["name"] for atoms in iread(args.output)} if args.output.exists() else set()

    for name, atoms in frames(Teacher(args.teacher)):
        if name not in done:
            energy, forces = dft(atoms, args.level)
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
            write(args.output, atoms, format="extxyz", append=True)
            print(name, energy, flush=True)


if __name__ == "__main__":
    main()
