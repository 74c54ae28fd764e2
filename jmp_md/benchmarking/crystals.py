"""Lattice constants, bulk moduli and a phonon of crystals."""

from __future__ import annotations

from collections.abc import Iterator

from ase import Atoms, units
from ase.build import bulk

from jmp_md.benchmarking.results import Case
from jmp_md.benchmarking.subject import Subject
from jmp_md.simulate.eos import EquationOfState, eos
from jmp_md.simulate.phonons import phonons
from jmp_md.simulate.relax import relax

# Haas, Tran and Blaha, Phys. Rev. B 79, 085104 (2009), table I: PBE, Å.
LATTICES = {
    "Li": ("bcc", 3.435), "Na": ("bcc", 4.197), "Mo": ("bcc", 3.164), "W": ("bcc", 3.191),
    "Al": ("fcc", 4.040), "Cu": ("fcc", 3.632), "Ag": ("fcc", 4.150), "Pt": ("fcc", 3.985),
    "C": ("diamond", 3.575), "Si": ("diamond", 5.475), "Ge": ("diamond", 5.769),
    "SiC": ("zincblende", 4.384), "GaAs": ("zincblende", 5.757), "LiF": ("rocksalt", 4.071),
    "NaCl": ("rocksalt", 5.714), "MgO": ("rocksalt", 4.261), "TiN": ("rocksalt", 4.254),
}  # fmt: skip
# Experiments, GPa, as listed by Haas, Tran and Blaha or by Kittel, Introduction to Solid State
# Physics.
MODULI = {"Al": 76.0, "Cu": 137.0, "C": 442.0, "Si": 99.2, "NaCl": 24.0, "MgO": 160.0}
SILICON_TOP = 15.5  # THz, at Γ; neutron scattering, Dolling (1963)


def lattice_constants(subject: Subject) -> list[Case]:
    """Of the cubic cell, by an equation of state."""

    def measure(name: str, atoms: Atoms) -> Case:
        found = _eos(subject, atoms)
        scale = (found.volume / atoms.cell.volume) ** (1 / 3)
        return Case(name, LATTICES[name][1] * scale, LATTICES[name][1])

    return subject.attempt(_crystals(tuple(LATTICES)), measure)


def bulk_moduli(subject: Subject) -> list[Case]:
    """At zero temperature."""

    def measure(name: str, atoms: Atoms) -> Case:
        return Case(name, _eos(subject, atoms).bulk_modulus / units.GPa, MODULI[name])

    return subject.attempt(_crystals(tuple(MODULI)), measure)


def silicon_phonon(subject: Subject) -> list[Case]:
    """The highest frequency of silicon."""

    def measure(name: str, atoms: Atoms) -> Case:
        relaxed = relax(atoms, fmax=1e-3, relax_cell=True).atoms
        found = phonons(relaxed, subject.calculator)
        return Case(name, float(max(found.bands.frequencies[0].max(), 0.0)), SILICON_TOP)

    return subject.attempt(_crystals(("Si",)), measure)


def _eos(subject: Subject, atoms: Atoms) -> EquationOfState:
    """Around the model's own minimum, where there is one within some per cent."""
    start = relax(atoms, fmax=0.01, relax_cell=True, keep_symmetry=True).atoms
    start.calc = None
    return eos(start, subject.calculator, clamped=True)


def _crystals(names: tuple[str, ...]) -> Iterator[tuple[str, Atoms]]:
    for name in names:
        structure, constant = LATTICES[name]
        yield name, bulk(name, structure, a=constant)
