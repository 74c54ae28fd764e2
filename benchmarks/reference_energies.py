"""DFT energies that `jmp-md benchmark` compares reactions and torsions with, anew by PySCF.

    pip install pyscf pyscf-dispersion
    python benchmarks/reference_energies.py wb97x
    python benchmarks/reference_energies.py wb97m --lengths

Molecules are those of the G2 set at its MP2 geometries (`ase.build.molecule`). Levels: wb97x,
wB97X/6-31G(d); wb97m, wB97M-D3(BJ)/def2-TZVPP, that of AIMNet2. What is in the file already is
kept. `--lengths` prints the bond lengths of diatomics at the level instead, beside the published
ones that `jmp-md benchmark` compares with: what a model of that level cannot do better.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.units import Hartree

from jmp_md.benchmarking.energies import REACTIONS, turned_name
from jmp_md.benchmarking.molecules import DIATOMICS
from jmp_md.benchmarking.torsions import ANGLES, AXES, turned
from jmp_md.errors import InputError

REFERENCE = Path(__file__).parents[1] / "jmp_md" / "benchmarking" / "energies.json"


def dft(atoms: Atoms, level: str) -> float:
    """eV by PySCF, with density fitting."""
    from pyscf import dft as pyscf_dft
    from pyscf import gto

    functional, basis = {"wb97x": ("wb97x", "6-31g*"), "wb97m": ("wb97m_v", "def2-tzvpp")}[level]
    places = zip(atoms.numbers.tolist(), atoms.positions, strict=True)
    mol = gto.M(atom=list(places), basis=basis, verbose=0)
    calculation = pyscf_dft.RKS(mol, xc=functional).density_fit()
    calculation.grids.level, calculation.conv_tol = 3, 1e-8
    if level == "wb97m":  # D3 in place of VV10
        from pyscf.dispersion import dftd3

        calculation.nlc, calculation.disp = 0, None
        dispersion = dftd3.DFTD3Dispersion(mol, xc="wb97m", version="d3bj").get_dispersion()
        return float((calculation.kernel() + dispersion["energy"]) * Hartree)
    return float(calculation.kernel() * Hartree)


def bond_length(name: str, level: str) -> float:
    """Å of a diatomic: the minimum of a polynomial through five energies about the published one.

    Raises:
        InputError: It is not between them.
    """
    about, offsets = DIATOMICS[name][0], np.linspace(-0.04, 0.04, 5)
    energies = []
    for offset in offsets:
        atoms = molecule(name)
        atoms.set_distance(0, 1, about + offset)
        energies.append(dft(atoms, level))
    slope = np.polynomial.Polynomial.fit(offsets, energies, 4).deriv()
    found = [x.real for x in slope.roots() if abs(x.imag) < 1e-9 and abs(x.real) < 0.04]
    if len(found) != 1:
        raise InputError(f"{name}: no minimum within 0.04 Å of {about} Å")
    return float(about + found[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("level", choices=("wb97x", "wb97m"))
    parser.add_argument("--lengths", action="store_true", help="print bond lengths, and stop")
    args = parser.parse_args()
    level = args.level
    if args.lengths:
        for name, (published, _) in DIATOMICS.items():
            print(
                f"{name}: {bond_length(name, level):.4f} Å, published {published:.4f}", flush=True
            )
        return
    stored = json.loads(REFERENCE.read_text(encoding="utf-8"))
    structures = {n: molecule(n) for parts in REACTIONS.values() for n in parts}
    structures |= {
        turned_name(name, angle): turned(molecule(name), *axis, angle)
        for name, axis in AXES.items()
        for angle in ANGLES
    }
    for name, atoms in sorted(structures.items()):
        if name not in stored[level]:
            stored[level][name] = dft(atoms, level)
            text = json.dumps(stored, indent=1, ensure_ascii=False) + "\n"
            REFERENCE.write_text(text, encoding="utf-8")
            print(level, name, stored[level][name], flush=True)


if __name__ == "__main__":
    main()
