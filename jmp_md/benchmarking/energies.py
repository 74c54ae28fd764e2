"""Reaction energies, torsions, interactions of molecules, and additivity."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import numpy as np
from ase import Atoms
from ase.data.s22 import (
    create_s22_system,
    get_interaction_energy_cc,
    get_number_of_dimer_atoms,
    s22,
)

from jmp_md.benchmarking.results import Case
from jmp_md.benchmarking.subject import Subject, molecules
from jmp_md.benchmarking.torsions import ANGLES, AXES, turned

FAR = 50.0  # Å
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
PAIRS = (("H2O", "H2O"), ("CH4", "NH3"), ("C2H6", "CH3OH"), ("C6H6", "C6H6"))


def reactions(subject: Subject) -> list[Case]:
    """Energies of reactions between molecules at their G2 geometries, against DFT."""
    names = sorted({name for parts in REACTIONS.values() for name in parts})
    energies = dict(subject.attempt(molecules(names), _energy))
    reference = reference_energies()[reference_level(subject)]
    cases = []
    for name, parts in REACTIONS.items():
        if parts.keys() <= energies.keys():
            value, expected = (
                1000 * sum(count * table[part] for part, count in parts.items())
                for table in (energies, reference)
            )
            cases.append(Case(name, value, expected))
    return cases


def torsions(subject: Subject) -> list[Case]:
    """Energies of turned molecules above their G2 geometries, against DFT at the same places."""
    reference = reference_energies()[reference_level(subject)]

    def measure(name: str, atoms: Atoms) -> list[Case]:
        energies = [
            _energy(name, _with(subject, turned(atoms, *AXES[name], angle)))[1] for angle in ANGLES
        ]
        expected = [reference[turned_name(name, angle)] for angle in ANGLES]
        return [
            Case(turned_name(name, angle), 1000 * (e - energies[0]), 1000 * (r - expected[0]))
            for angle, e, r in list(zip(ANGLES, energies, expected, strict=True))[1:]
        ]

    return [case for cases in subject.attempt(molecules(AXES), measure) for case in cases]


def turned_name(name: str, angle: int) -> str:
    """Of a turned molecule in the table of DFT energies."""
    return f"{name} {angle}°" if angle else name


def dimers(subject: Subject) -> list[Case]:
    """Interaction energies of S22 at its geometries."""

    def measure(name: str, dimer: Atoms) -> Case:
        first, _ = get_number_of_dimer_atoms(name)
        whole, left, right = (
            _energy(name, _with(subject, part))[1] for part in (dimer, dimer[:first], dimer[first:])
        )
        return Case(name, 1000 * (whole - left - right), 1000 * get_interaction_energy_cc(name))

    return subject.attempt(((name, create_s22_system(name)) for name in s22), measure)


def separation(subject: Subject) -> list[Case]:
    """Energies of two molecules far apart, less those of each alone: zero."""

    def measure(name: str, both: Atoms) -> Case:
        first = both.info["first"]
        alone = [_with(subject, part) for part in (both[:first], both[first:])]
        together = both.get_potential_energy()
        return Case(
            name, 1000 * (together - sum(part.get_potential_energy() for part in alone)), 0.0
        )

    return subject.attempt(_far_pairs(), measure)


@cache
def reference_energies() -> dict[str, dict[str, float]]:
    """DFT energies in eV, by level and molecule."""
    text = (files("jmp_md.benchmarking") / "energies.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, float]] = json.loads(text)
    return found


def reference_level(subject: Subject) -> str:
    """The level to compare with: wB97X/6-31G(d) for models of it, else the better one."""
    level = subject.level_of_theory.casefold().replace("*", "(d)")
    return "wb97x" if level.startswith("wb97x/6-31g(d)") else "wb97m"


def _energy(name: str, atoms: Atoms) -> tuple[str, float]:
    return name, float(atoms.get_potential_energy())


def _with(subject: Subject, atoms: Atoms) -> Atoms:
    atoms.calc = subject.calculator
    return atoms


def _far_pairs() -> Iterator[tuple[str, Atoms]]:
    for first, second in PAIRS:
        (_, left), (_, right) = molecules([first, second])
        right.positions += np.array([FAR, 0, 0])
        both = left + right
        both.info["first"] = len(left)
        yield f"{first}, {second}", both
