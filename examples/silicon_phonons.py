"""Silicon with a pre-trained model: equation of state, elastic constants, phonons.

The model saw relaxations of crystals (head mptrj), and its graphs are smooth: official graphs
keep the nearest neighbours, and in a perfect crystal whole shells tie. Measured values stand
beside the computed ones: 5.431 Å, 98 GPa, C11, C12 and C44 of 166, 64 and 80 GPa, 15.5 THz for
the optical mode at Γ.

Run: python examples/silicon_phonons.py [model [head]]   (minutes on one core)
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ase.build import bulk
from ase.units import GPa

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.report.crystals import write_phonon_report
from jmp_md.report.phonon_files import write_phonons
from jmp_md.simulate.elastic import elastic
from jmp_md.simulate.eos import eos
from jmp_md.simulate.phonons import phonons
from jmp_md.simulate.relax import relax
from jmp_md.simulate.summary import describe, write_summary

SUPERCELL = [-2, 2, 2, 2, -2, 2, 2, 2, -2]  # 2 x 2 x 2 cubic cells, 64 atoms


def main() -> None:
    started = time.monotonic()
    model = sys.argv[1] if len(sys.argv) > 1 else "jmp-xs"
    head = sys.argv[2] if len(sys.argv) > 2 else None if len(sys.argv) > 1 else "mptrj"
    # Double precision: force constants are differences of forces.
    calculator = JMPCalculator(model, head=head, dtype="float64")
    atoms = bulk("Si")
    atoms.calc = calculator
    relaxed = relax(atoms, relax_cell=True, keep_symmetry=True, fmax=1e-4).atoms
    side = (4 * relaxed.cell.volume) ** (1 / 3)  # of the cubic cell, four primitive ones
    print(f"lattice constant {side:.4f} Å (measured 5.431)")

    fit = eos(relaxed, calculator)
    print(f"bulk modulus {fit.bulk_modulus / GPa:.1f} GPa (measured 98)")
    constants = elastic(relaxed, calculator).stiffness / GPa
    print(f"C11 {constants[0, 0]:.1f}, C12 {constants[0, 1]:.1f}, C44 {constants[3, 3]:.1f} GPa")
    print("(measured 166, 64, 80)")

    result = phonons(
        relaxed,
        calculator,
        supercell=SUPERCELL,
        progress=lambda done, count: print(f"{done} of {count} supercells"),
    )
    print(f"highest frequency {result.highest:.2f} THz (measured 15.5), lowest {result.lowest:.3f}")
    folder = Path("silicon-phonons")
    folder.mkdir(exist_ok=True)
    write_phonons(result, folder)
    summary = write_summary(
        folder,
        "phonons",
        model=describe(calculator),
        settings={"supercell": SUPERCELL},
        results={"lattice_constant_A": side, "highest_THz": result.highest},
        seconds=time.monotonic() - started,
    )
    print(f"look at {write_phonon_report(folder, relaxed, result, summary)}")


if __name__ == "__main__":
    main()
