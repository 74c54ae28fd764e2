"""Which model a structure gets where none was named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jmp_md.domain import findings, suits
from jmp_md.errors import ModelNotFoundError
from jmp_md.models.registry import ModelEntry, list_models, shipped_models

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.header import HeadInfo


def shipped_for(*structures: Atoms) -> list[ModelEntry]:
    """Shipped models that were made for all of some structures, the best choice first.

    A model covers a structure when its head saw all of its elements and structures of its kind:
    one of molecules is for no crystal. One made for a single molecule (its header names a domain)
    covers only structures of that formula and those bonds, and those it covers better than a
    general model does. A model with several heads is for no structure before one is chosen, as
    their levels of theory differ, unless its header names the one to take.

    Args:
        *structures: One or more.
    """
    covering = [
        entry
        for entry in shipped_models()
        if (head := _unnamed_head(entry))
        and all(head in _suitable(atoms, entry) for atoms in structures)
    ]
    return sorted(covering, key=lambda e: (not e.domain, len(e.elements), e.name))


def choose(*structures: Atoms) -> str:
    """The name of the shipped model for one structure, or for all of several.

    Raises:
        ModelNotFoundError: There is none; the message names the models at hand that could do.
    """
    if entries := shipped_for(*structures):
        return entries[0].name
    entries = list_models()
    advice = [words for entry in entries if (words := _option(structures, entry))]
    formulas = dict.fromkeys(atoms.get_chemical_formula(mode="hill") for atoms in structures)
    formula = " and ".join(formulas)
    why = f"no shipped model is taken for {formula} by itself"
    if any(_is_crystal_for(atoms, entry) for atoms in structures for entry in entries):
        why += ", a crystal: those that are taken by themselves are for molecules, not for crystals"
    how = ", ".join([*advice, "--model FILE for one of your own"])
    raise ModelNotFoundError(f"{why}; pass {how}; 'jmp-md models' lists all")


def _unnamed_head(entry: ModelEntry) -> HeadInfo | None:
    """The head that a model computes with where none is named; None where one has to be."""
    if entry.header is None or (len(entry.header.heads) > 1 and not entry.header.default_head):
        return None
    return entry.header.head()


def _suitable(atoms: Atoms, entry: ModelEntry) -> list[HeadInfo]:
    """The heads of a model that are for structures of this kind."""
    if entry.header is None:
        return []
    heads = [head for head in entry.header.heads if head.elements]  # others say nothing
    return [head for head in heads if suits(atoms, entry.header, head)]


def _option(structures: Sequence[Atoms], entry: ModelEntry) -> str:
    """What to pass to have a model; empty where it is not for the structures."""
    suitable = [_suitable(atoms, entry) for atoms in structures]
    heads = [head for head in suitable[0] if all(head in others for others in suitable)]
    if not heads or entry.header is None:
        return ""
    if len(entry.header.heads) == 1:
        return f"--model {entry.name}"
    names = " or ".join(f"{head.name} ({head.level_of_theory})" for head in heads)
    return f"--model {entry.name} --head {names}"


def _is_crystal_for(atoms: Atoms, entry: ModelEntry) -> bool:
    """Whether a structure is a crystal, and the model of molecules."""
    header = entry.header
    found = (f for head in header.heads for f in findings(atoms, header, head)) if header else ()
    return any(finding.kind == "crystal" for finding in found)
