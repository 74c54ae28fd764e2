"""The proton of malonaldehyde's enol jumps from one oxygen to the other: path and barrier.

The two ends are mirror images, so that barriers there and back must agree. The model is trained on
small organic molecules near equilibrium and on reactions; the frames of revised MD17's
"malonaldehyde" are all of its diketone, whose model cannot tell of this reaction.

Run: python examples/malonaldehyde_proton_transfer.py [MODEL]   (a minute on one core)
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.runs.neb import run_neb
from jmp_md.simulate.relax import relax

MIRROR = [2, 1, 0, 4, 3, 7, 6, 5, 8]  # the atom that takes the place of each in the mirror image
DONOR, ACCEPTOR, PROTON = 4, 3, 8


def mirror_image(atoms: Atoms) -> Atoms:
    """The molecule after the transfer, its atoms in the same order."""
    other = atoms.copy()
    other.positions = atoms.positions[MIRROR] * [-1, 1, 1]
    return other


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else "jmp-xs-organic"
    calculator = JMPCalculator(model, dtype="float64")
    start = read(Path(__file__).with_name("malonaldehyde.xyz"))
    start.calc = calculator
    start = relax(start, fmax=0.005).atoms
    start.calc = None
    result = run_neb(
        [start, mirror_image(start)],
        calculator,
        "malonaldehyde-transfer",
        fmax=0.02,
        verify=True,
        restart=True,
        progress=lambda step, barrier, fmax: print(f"{step:4d} {barrier:9.4f} eV {fmax:9.4f} eV/Å"),
    )
    for image, energy in zip(result.images, result.energies - result.energies[0], strict=True):
        near, far = image.get_distance(DONOR, PROTON), image.get_distance(ACCEPTOR, PROTON)
        print(f"O-H {near:.3f} and {far:.3f} Å  {1000 * energy:8.2f} meV")
    print(f"barrier {1000 * result.barrier:.1f} meV, back {1000 * result.reverse_barrier:.1f} meV")
    if result.frequencies is not None:
        print("lowest frequencies:", np.round(result.frequencies[:3]).tolist(), "cm⁻¹")


if __name__ == "__main__":
    main()
