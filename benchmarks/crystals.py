"""Crystals: do phonons, equation of state and elastic constants agree with other ways to them?

Copper with EMT, by this package and by ASE's own phonons, by relaxation, by matscipy's own fit.
With a model, the forces of displaced supercells in batches and one after another: values, times.

Run: OMP_NUM_THREADS=1 python benchmarks/crystals.py [MODEL HEAD]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import warnings

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.phonons import Phonons as AsePhonons
from ase.spacegroup import crystal
from ase.units import GPa, _e, _hplanck
from matscipy.elasticity import fit_elastic_constants

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.simulate.elastic import elastic
from jmp_md.simulate.eos import eos
from jmp_md.simulate.phonons import phonons
from jmp_md.simulate.relax import relax
from jmp_md.simulate.singlepoint import singlepoint

EV_PER_THZ = _hplanck / _e * 1e12


def copper() -> None:
    atoms = bulk("Cu")
    atoms.calc = EMT()
    atoms = relax(atoms, relax_cell=True, fmax=1e-6).atoms
    fit = eos(atoms, EMT(), strain=0.03)
    own, theirs = fit.volume, atoms.cell.volume
    print(f"volume: equation of state {own:.4f} Å³, relaxation {theirs:.4f} Å³")
    constants = elastic(atoms, EMT())
    print(f"bulk modulus: equation of state {fit.bulk_modulus / GPa:.2f} GPa, ", end="")
    print(f"elastic constants {constants.voigt.bulk / GPa:.2f} GPa")
    expected, _ = fit_elastic_constants(atoms, symmetry="cubic", verbose=False, delta=1e-3)
    found = [constants.stiffness[i, j] / GPa for i, j in ((0, 0), (0, 1), (3, 3))]
    other = [expected[i, j] / GPa for i, j in ((0, 0), (0, 1), (3, 3))]
    print("C11, C12, C44:", " ".join(f"{c:.2f}" for c in found), end=" GPa, matscipy's own fit ")
    print(" ".join(f"{c:.2f}" for c in other), "GPa")

    ours = phonons(atoms, EMT(), supercell=[4], mesh=20)
    q = np.array([[1, 0, 0], [1, 1, 0], [2, 0, 0], [2, 1, 1], [1, 2, 3]]) / 4  # in the supercell
    ours.phonopy.run_qpoints(q @ atoms.cell.reciprocal() @ ours.phonopy.primitive.cell.T)
    with tempfile.TemporaryDirectory() as folder:
        ase = AsePhonons(atoms, EMT(), supercell=(4, 4, 4), delta=0.01, name=f"{folder}/ase")
        ase.run()
        ase.read(acoustic=True)
        reference = np.sort(ase.band_structure(q, verbose=False) / EV_PER_THZ)
    difference = np.abs(ours.phonopy.qpoints.frequencies - reference).max()
    print(
        f"phonons: {ours.n_displacements} displaced supercell (ASE 6); largest difference ", end=""
    )
    print(f"{difference:.5f} THz of {reference.max():.2f} THz at {len(q)} q-points")


def rutile() -> Atoms:
    positions = [(0, 0, 0), (0.305, 0.305, 0)]
    cell = [4.594, 4.594, 2.959, 90, 90, 90]
    return crystal(["Ti", "O"], positions, spacegroup=136, cellpar=cell)


def batches(model: str, head: str | None) -> None:
    calculator = JMPCalculator(model, head=head, dtype="float64")
    for atoms, repeat in ((bulk("NaCl", "rocksalt", a=5.64), 2), (rutile(), 1), (rutile(), 2)):
        cells = _displaced(atoms, repeat)
        times: dict[str, list[float]] = {"together": [], "one by one": []}
        forces: dict[str, np.ndarray] = {}
        for _ in range(3):
            for how in times:
                started = time.perf_counter()
                if how == "together":
                    results = singlepoint(cells, calculator)
                else:
                    results = [singlepoint([cell], calculator)[0] for cell in cells]
                times[how].append(time.perf_counter() - started)
                forces[how] = np.concatenate([result.forces for result in results])
        together, single = (statistics.median(values) for values in times.values())
        difference = np.abs(forces["together"] - forces["one by one"]).max()
        print(
            f"{atoms.get_chemical_formula()}: {len(cells)} supercells of {len(cells[0])} atoms, "
            f"one by one takes {single / together:.2f} times as long as together, forces differ "
            f"by {difference:.1e} eV/Å"
        )


def _displaced(atoms: Atoms, repeat: int) -> list[Atoms]:
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    unit = PhonopyAtoms(
        atoms.symbols, cell=atoms.cell, scaled_positions=atoms.get_scaled_positions()
    )
    phonon = Phonopy(unit, supercell_matrix=[repeat] * 3, primitive_matrix=np.eye(3))
    phonon.generate_displacements(distance=0.01)
    return [
        Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)
        for cell in phonon.supercells_with_displacements
    ]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    copper()
    batches(sys.argv[1] if len(sys.argv) > 1 else "jmp-xs", (sys.argv[2:] or ["mptrj"])[0])
