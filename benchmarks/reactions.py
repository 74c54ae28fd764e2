"""Energies of reactions, bonds and a water dimer by a model, against DFT and published values.

    python benchmarks/reactions.py MODEL --head HEAD --level wb97x
    python benchmarks/reactions.py --reference wb97x # DFT anew, with PySCF

Reactions are between molecules of the G2 set at its MP2 geometries (`ase.build.molecule`);
DFT energies at the same geometries are in benchmarks/reference/reactions.json. The water dimer is
that of S22, whose interaction energy by CCSD(T) at the basis set limit is -217.7 meV (Jurecka et
al., Phys. Chem. Chem. Phys. 8, 1985, 2006). Bonds are those of the molecules relaxed by the model,
against the G2 geometries.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.data.s22 import create_s22_system
from ase.neighborlist import natural_cutoffs, neighbor_list
from ase.optimize import BFGS

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.errors import InputError

REFERENCE = Path(__file__).parent / "reference" / "reactions.json"
HARTREE = 27.211386245988  # eV
DIMER = "Water_dimer"
# Coefficients of products are positive, those of educts negative.
REACTIONS: dict[str, dict[str, int]] = {
    "C2H4 + H2 -> C2H6": {"C2H4": -1, "H2": -1, "C2H6": 1},
    "C2H2 + H2 -> C2H4": {"C2H2": -1, "H2": -1, "C2H4": 1},
    "CO + 3 H2 -> CH4 + H2O": {"CO": -1, "H2": -3, "CH4": 1, "H2O": 1},
    "N2 + 3 H2 -> 2 NH3": {"N2": -1, "H2": -3, "NH3": 2},
    "CO + H2O -> CO2 + H2": {"CO": -1, "H2O": -1, "CO2": 1, "H2": 1},
    "2 CH3OH -> CH3OCH3 + H2O": {"CH3OH": -2, "CH3OCH3": 1, "H2O": 1},
    "C2H4 + H2O -> C2H5OH": {"C2H4": -1, "H2O": -1, "CH3CH2OH": 1},
    "H2CO + H2 -> CH3OH": {"H2CO": -1, "H2": -1, "CH3OH": 1},
    "HCOOH -> CO + H2O": {"HCOOH": -1, "CO": 1, "H2O": 1},
    "HCN + 3 H2 -> CH4 + NH3": {"HCN": -1, "H2": -3, "CH4": 1, "NH3": 1},
    "CH4 + Cl2 -> CH3Cl + HCl": {"CH4": -1, "Cl2": -1, "CH3Cl": 1, "HCl": 1},
    "CH3SH + H2 -> CH4 + H2S": {"CH3SH": -1, "H2": -1, "CH4": 1, "SH2": 1},
    "CF4 + CH4 -> 2 CH2F2": {"CF4": -1, "CH4": -1, "H2CF2": 2},
}


def structures() -> Iterator[tuple[str, Atoms]]:
    """Every molecule of the reactions, the water dimer and its halves."""
    for name in sorted({name for parts in REACTIONS.values() for name in parts}):
        yield name, molecule(name)
    dimer = create_s22_system(DIMER)
    yield DIMER, dimer
    yield f"{DIMER} 1", dimer[:3]
    yield f"{DIMER} 2", dimer[3:]


def differences(energies: dict[str, float]) -> dict[str, float]:
    """Energies of all reactions whose molecules are known and of the dimer, meV."""
    found = {}
    for name, parts in REACTIONS.items():
        if all(part in energies for part in parts):
            found[name] = 1000 * sum(n * energies[part] for part, n in parts.items())
    halves = (f"{DIMER} 1", f"{DIMER} 2")
    if DIMER in energies:
        found[DIMER] = 1000 * (energies[DIMER] - sum(energies[half] for half in halves))
    return found


def dft(atoms: Atoms, level: str) -> float:
    """eV by PySCF, with density fitting."""
    from pyscf import dft as pyscf_dft
    from pyscf import gto

    functional, basis = {"wb97x": ("wb97x", "6-31g*"), "wb97m": ("wb97m_v", "def2-tzvpp")}[level]
    places = zip(atoms.numbers.tolist(), atoms.positions, strict=True)
    mol = gto.M(atom=list(places), basis=basis, verbose=0)
    calculation = pyscf_dft.RKS(mol, xc=functional).density_fit()
    calculation.grids.level, calculation.conv_tol = 3, 1e-8
    if level == "wb97m":  # D3 in place of VV10: wB97M-D3(BJ), the level of AIMNet2
        from pyscf.dispersion import dftd3

        calculation.nlc, calculation.disp = 0, None
        dispersion = dftd3.DFTD3Dispersion(mol, xc="wb97m", version="d3bj").get_dispersion()
        return float((calculation.kernel() + dispersion["energy"]) * HARTREE)
    return float(calculation.kernel() * HARTREE)


def compute_reference(level: str) -> None:
    """Compute the DFT energies of all molecules and keep them."""
    stored = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {}
    for name, atoms in structures():
        if name not in stored.get(level, {}):
            stored.setdefault(level, {})[name] = dft(atoms, level)
            REFERENCE.parent.mkdir(exist_ok=True)
            REFERENCE.write_text(json.dumps(stored, indent=1) + "\n")
            print(level, name, stored[level][name], flush=True)


def by_model(model: str, head: str | None) -> tuple[dict[str, float], dict[str, float]]:
    """Energies (eV) and largest error of a bond after relaxation (Å) of what the model covers."""
    energies, errors = {}, {}
    for name, atoms in structures():
        reference = atoms.copy()
        atoms.calc = JMPCalculator(model, head=head, dtype="float64")
        try:
            energies[name] = float(atoms.get_potential_energy())
        except InputError:
            continue
        if not name.startswith(DIMER) and len(atoms) > 1:
            BFGS(atoms, logfile=None).run(fmax=0.01, steps=200)
            pairs = neighbor_list("ij", reference, natural_cutoffs(reference, mult=1.2))
            now, then = (a.get_all_distances()[pairs] for a in (atoms, reference))
            errors[name] = float(np.abs(now - then).max())
    return energies, errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", nargs="?")
    parser.add_argument("--head")
    parser.add_argument("--level", choices=("wb97x", "wb97m"), default="wb97x")
    parser.add_argument("--reference", choices=("wb97x", "wb97m"))
    args = parser.parse_args()
    if args.reference:
        compute_reference(args.reference)
        return
    reference = differences(json.loads(REFERENCE.read_text())[args.level])
    energies, errors = by_model(args.model, args.head)
    found = differences(energies)
    print(f"| meV | {args.model} | {args.level} | error |\n|---|---|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value:.0f} | {reference[name]:.0f} | {value - reference[name]:+.0f} |")
    reactions = [abs(found[name] - reference[name]) for name in found if name != DIMER]
    print(f"\n{len(reactions)} reactions, mean absolute error {np.mean(reactions):.0f} meV")
    worst = sorted(errors.items(), key=lambda item: -item[1])[:4]
    print(f"bonds against G2: mean of the largest error {np.mean(list(errors.values())):.3f} Å, "
          f"worst {', '.join(f'{name} {error:.3f}' for name, error in worst)}")  # fmt: skip


if __name__ == "__main__":
    main()
