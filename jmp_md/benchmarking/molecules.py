"""Bond lengths, frequencies and barriers of small molecules, against experiment."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list

from jmp_md.benchmarking.results import Case
from jmp_md.benchmarking.subject import Subject, minimum, molecules
from jmp_md.benchmarking.torsions import turned
from jmp_md.simulate.vibrations import vibrations

FMAX = 0.005  # eV/Å
PER_CM = 0.1239841984  # meV
# Huber and Herzberg, Constants of Diatomic Molecules (1979): r_e in Å, omega_e in cm-1.
DIATOMICS = {
    "H2": (0.7414, 4401.2), "N2": (1.0977, 2358.6), "CO": (1.1283, 2169.8), "F2": (1.4119, 916.6),
    "HF": (0.9168, 4138.3), "HCl": (1.2746, 2990.9), "Cl2": (1.9879, 559.7),
}  # fmt: skip
# Harmonic frequencies in cm-1 from the lowest, degenerate ones as often as they come: H2O by
# Benedict, Gailar and Plyler (1956), CH4 by Gray and Robiette (1979), NH3 by Duncan and Mills
# (1964), CO2 and HCN as NIST's CCCBDB has them.
HARMONIC = {
    "H2O": (1648.5, 3832.2, 3942.5),
    "CO2": (672.9, 672.9, 1354.3, 2396.5),
    "HCN": (727.0, 727.0, 2129.1, 3443.1),
    "NH3": (1022.0, 1691.0, 1691.0, 3506.0, 3577.0, 3577.0),
    "CH4": (1367.4, 1367.4, 1367.4, 1582.7, 1582.7, 3025.5, 3156.8, 3156.8, 3156.8),
}
GEOMETRIES = (
    "H2O", "NH3", "CH4", "C2H2", "C2H4", "C2H6", "HCN", "H2CO", "CH3OH", "CO2", "N2H4", "H2O2",
    "H3CNH2", "CH3CN", "CH3CHO", "HCOOH", "CH3CONH2", "CH3CH2OH", "CH3OCH3", "C3H6_D3h", "C6H6",
    "C4H4O", "C4H4NH", "C5H5N", "SH2", "CH3SH", "C4H4S", "CH3Cl", "CF4", "H2CF2", "CCl4", "PH3",
    "CS2", "SO2", "trans-butane",
)  # fmt: skip
# Effective barriers V3 to the rotation of a methyl group, cm-1, from spectra: ethane,
# Moazzen-Ahmadi et al.; methanol, Lees and Baker (1968); methylamine, Takagi and Kojima (1971);
# acetaldehyde, Kleiner et al. (1996); propene, Hirota (1966); methanethiol, Kojima (1960).
# The atoms of the axis: the methyl's carbon, and what it is bonded to.
BARRIERS = {
    "C2H6": (1013.0, 0, 1),
    "CH3OH": (373.6, 0, 1),
    "H3CNH2": (691.1, 0, 1),
    "CH3CHO": (407.7, 3, 1),
    "CH3SH": (443.0, 0, 1),
}


def diatomic_lengths(subject: Subject) -> list[Case]:
    """Bond lengths, from 8 % above the published ones."""

    def measure(name: str, atoms: Atoms) -> Case:
        atoms.set_distance(0, 1, 1.08 * DIATOMICS[name][0])
        found = minimum(atoms, fmax=FMAX)
        return Case(name, found.atoms.get_distance(0, 1), DIATOMICS[name][0])

    return subject.attempt(molecules(DIATOMICS), measure)


def diatomic_curves(subject: Subject) -> list[Case]:
    """Faults of the curve of each diatomic from half to three times its length.

    Counted are minima beyond the one that there should be, and points below half of
    the length where the energy does not rise as the atoms approach.
    """

    def measure(name: str, atoms: Atoms) -> Case:
        lengths = DIATOMICS[name][0] * np.geomspace(0.4, 3.0, 80)
        energies = np.array([_stretched(atoms, length) for length in lengths])
        inner = lengths < 0.7 * DIATOMICS[name][0]
        slopes = np.diff(energies)
        minima = int(((slopes[:-1] < 0) & (slopes[1:] > 0)).sum())
        return Case(name, abs(minima - 1) + int((slopes[inner[1:]] > 0).sum()), 0.0)

    return subject.attempt(molecules(DIATOMICS), measure)


def bond_lengths(subject: Subject) -> list[Case]:
    """The bond of each molecule that is farthest off after relaxation."""

    def measure(name: str, atoms: Atoms) -> Case:
        pairs = np.array(neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.2)))
        before = atoms.get_all_distances()[tuple(pairs)]
        after = minimum(atoms, fmax=FMAX).atoms.get_all_distances()[tuple(pairs)]
        k = int(np.abs(after - before).argmax())
        bond = "-".join(sorted(atoms.symbols[pairs[:, k]]))
        return Case(f"{name} {bond}", float(after[k]), float(before[k]))

    return subject.attempt(molecules(GEOMETRIES), measure)


def frequencies(subject: Subject) -> list[Case]:
    """Harmonic frequencies at the model's own minima."""
    expected: dict[str, tuple[float, ...]] = {n: (omega,) for n, (_, omega) in DIATOMICS.items()}
    expected |= HARMONIC

    def measure(name: str, atoms: Atoms) -> list[Case]:
        relaxed = minimum(atoms, fmax=0.001).atoms
        found = np.sort(vibrations(relaxed, subject.calculator).frequencies)
        return [
            Case(f"{name} {k}", float(value), reference)
            for k, (value, reference) in enumerate(zip(found, expected[name], strict=True), 1)
        ]

    return [case for cases in subject.attempt(molecules(expected), measure) for case in cases]


def rotation_barriers(subject: Subject) -> list[Case]:
    """Energies of relaxed eclipsed structures above the minimum; symmetry keeps them eclipsed."""

    def measure(name: str, atoms: Atoms) -> Case:
        reference, carbon, other = BARRIERS[name]
        low = minimum(atoms, fmax=FMAX)
        top = turned(low.atoms, other, carbon, 60)
        top.calc = subject.calculator
        high = minimum(top, fmax=FMAX)
        return Case(name, 1000 * (high.energy - low.energy), reference * PER_CM)

    return subject.attempt(molecules(BARRIERS), measure)


def _stretched(atoms: Atoms, length: float) -> float:
    atoms.set_distance(0, 1, length)
    return float(atoms.get_potential_energy())
