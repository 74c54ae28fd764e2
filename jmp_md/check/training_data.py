"""Check that a structure is one that the model can know of."""

from __future__ import annotations

from ase.calculators.singlepoint import SinglePointCalculator

from jmp_md.check.subject import Outcome, Subject, forces_of
from jmp_md.domain import findings, knows


def training_data(s: Subject) -> Outcome:
    """In how many respects the structure lies outside of what the model was trained on."""
    name, unit = "like the training data", "findings"
    header, head = s.potential.header, s.potential.head
    atoms = s.atoms.copy()
    atoms.calc = SinglePointCalculator(atoms, forces=forces_of(s.own))
    found = findings(atoms, header, head)
    if not found and not knows(header, head):
        return Outcome(name, None, None, unit, "the model's file does not say what they were")
    return Outcome(name, float(len(found)), 0.0, unit, "; ".join(f.text for f in found))
