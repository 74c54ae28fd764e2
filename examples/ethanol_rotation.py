"""The barrier between the trans and a gauche conformer of ethanol: a band of nine images.

Run: python examples/ethanol_rotation.py   (minutes on one core)
"""

from __future__ import annotations

from pathlib import Path

from ase import Atoms
from ase.io import read
from ase.neighborlist import build_neighbor_list

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.runs.neb import run_neb


def hydroxyl_torsion(atoms: Atoms) -> tuple[int, int, int, int]:
    """Atoms C, C, O, H of the torsion about the C-O bond."""
    bonds = build_neighbor_list(atoms, self_interaction=False, bothways=True)
    oxygen = atoms.symbols.indices()["O"][0]
    around = [int(i) for i in bonds.get_neighbors(oxygen)[0]]
    carbon, hydrogen = sorted(around, key=lambda i: -int(atoms.numbers[i]))
    [other] = [int(i) for i in bonds.get_neighbors(carbon)[0] if atoms.numbers[i] == 6]
    return other, carbon, int(oxygen), hydrogen


def main() -> None:
    trans = read(Path(__file__).with_name("ethanol.xyz"))
    torsion = hydroxyl_torsion(trans)
    gauche = trans.copy()
    for atoms, angle in ((trans, 180), (gauche, 60)):
        atoms.set_dihedral(*torsion, angle, indices=[torsion[-1]])
    result = run_neb(
        [trans, gauche],
        JMPCalculator("jmp-xs-rmd17-ethanol", dtype="float64"),
        "ethanol-rotation",
        fmax=0.02,
        verify=True,
        restart=True,
        progress=lambda step, barrier, fmax: print(f"{step:4d} {barrier:9.4f} eV {fmax:9.4f} eV/Å"),
    )
    angles = [image.get_dihedral(*torsion) for image in result.images]
    for angle, energy in zip(angles, result.energies - result.energies[0], strict=True):
        print(f"torsion {angle:6.1f}°  {1000 * energy:8.2f} meV")
    print(f"barrier {1000 * result.barrier:.1f} meV, back {1000 * result.reverse_barrier:.1f} meV")
    if result.frequencies is not None:
        print("lowest frequencies:", result.frequencies[:3].round(0).tolist(), "cm⁻¹")


if __name__ == "__main__":
    main()
