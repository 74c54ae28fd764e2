"""What a model was trained on, and where structures lie outside of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from jmp_md.connectivity import (
    NEAR,
    POSSIBLE,
    REACH,
    SURE,
    Contacts,
    count_bonds,
    graph_hash,
    pair_name,
    same_molecule,
)
from jmp_md.errors import InputError
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.validate import check_geometry

if TYPE_CHECKING:
    from ase import Atoms

CLOSER = 0.9  # times the least distance in training, below which atoms are too close
STRONGER = 1.2  # times the largest force in training, above which forces are too large
LEAST_SHARE = 0.01  # of training frames that a form of a molecule must have to count as one
# Kinds of findings that make a model the wrong one, whatever the geometry.
_FOREIGN = ("elements", "composition", "bonds")
UNSUITED = (*_FOREIGN, "crystal")


@dataclass(frozen=True)
class Finding:
    """One respect in which a structure lies outside of what a model was trained on.

    Attributes:
        kind: ``"elements"``, ``"composition"`` or ``"bonds"`` of a molecule, ``"crystal"``,
            ``"images"``, ``"periodicity"``, ``"molecules"``, ``"closest C-H"``, ``"contact N-F"``,
            ``"coordination C"``, ``"atom"``, ``"electrons"`` or ``"forces"``.
        text: What to say.
        measure: How far outside, among findings of one kind.
    """

    kind: str
    text: str
    measure: float = 1.0

    @property
    def foreign(self) -> bool:
        """Whether the structure is another molecule, or of other elements, than the model's."""
        return self.kind in _FOREIGN


def seen(
    structures: Iterable[Atoms], max_force: float | None, total: int | None = None
) -> dict[str, Any]:
    """What training structures held, for the header of a model.

    Args:
        structures: Some or all of them.
        max_force: eV/Å, the largest force on an atom in the training data.
        total: How many there were to choose ``structures`` from; None where these are all.

    Returns:
        ``max_force_eV_per_A``; by element, the least and the most bonded neighbours as
        ``coordination``; by pair of elements up to 3 Å apart, the least distance as
        ``closest_A``; ``periodic``, which is none, some or all; ``molecules``, the most separate
        ones in a structure; ``smallest``, the fewest atoms; ``odd_electrons``, whether one had an
        odd number of electrons; ``structures``, how many were looked at, and ``of`` how many.
    """
    coordination: dict[str, list[int]] = {}
    closest: dict[str, float] = {}
    periodic, molecules, count = set(), 0, 0
    smallest, odd = None, False
    for atoms in structures:
        contacts = Contacts(atoms)
        counts = contacts.coordination()
        for z in np.unique(atoms.numbers).tolist():
            mine = counts[atoms.numbers == z].tolist()
            low, high = coordination.get(chemical_symbols[z], [mine[0], mine[0]])
            coordination[chemical_symbols[z]] = [min(low, *mine), max(high, *mine)]
        for name, distance in _closest(contacts).items():
            closest[name] = min(distance, closest.get(name, np.inf))
        periodic.add(bool(atoms.pbc.any()))
        smallest = min(len(atoms), smallest or len(atoms))
        odd |= bool(atoms.numbers.sum() % 2)
        molecules = max(molecules, int(contacts.molecules(POSSIBLE).max()) + 1)
        count += 1
    return {
        "max_force_eV_per_A": max_force,
        "coordination": coordination,
        "closest_A": {name: round(closest[name], 4) for name in sorted(closest)},
        "periodic": "some" if len(periodic) > 1 else "all" if periodic == {True} else "none",
        "molecules": molecules,
        "smallest": smallest,
        "odd_electrons": odd,
        "structures": count,
        "of": count if total is None else total,
    }


def forms(structures: Iterable[Atoms]) -> dict[str, dict[str, int]]:
    """The forms in which frames of one composition occur, by the hash of their bonds.

    A form counts where 1 % of the frames or more have its bonds, and not only as those of another
    form stretched for a moment.

    Returns:
        The bonds of each, the most frequent first, for ``domain`` in the header of a model.
    """
    frames = [Contacts(atoms) for atoms in structures]
    least = LEAST_SHARE * len(frames)
    found: dict[str, dict[str, int]] = {}
    while frames:
        names = Counter(graph_hash(frame.numbers, frame.bonds()) for frame in frames)
        [(name, count)] = names.most_common(1)
        if count < least:
            break
        example = next(f for f in frames if graph_hash(f.numbers, f.bonds()) == name)
        found[name] = count_bonds(example.numbers, example.bonds())
        frames = [frame for frame in frames if not same_molecule(frame, found)]
    return found


def foreign(atoms: Atoms, header: ModelHeader) -> str:
    """What to say of a molecule that a model of a single one was not made for; else empty.

    Composition counts, and where the header knows them, the bonds.
    """
    found = _foreign(atoms, None, header) if _is_structure(atoms) else []
    if not found:
        return ""
    own = header.training["domain"]["formula"]
    return (
        f"model {header.name!r} was trained on one molecule only, {own}; this structure is "
        f"{found[0].text}: its energies and forces may be wrong, 'jmp-md models' lists others"
    )


def findings(atoms: Atoms, header: ModelHeader, head: HeadInfo) -> list[Finding]:
    """Where a structure lies outside of what a model was trained on; empty where it does not.

    Old headers know little of it, those of official checkpoints nothing: see :func:`knows`.

    Args:
        atoms: The structure, with forces where known.
        header: Header of the model.
        head: Its head in use.
    """
    found = []
    if head.elements and (strange := set(atoms.numbers.tolist()) - set(head.elements)):
        symbols = ", ".join(chemical_symbols[z] for z in sorted(strange))
        found.append(Finding("elements", f"elements the model never saw: {symbols}"))
    if not _is_structure(atoms):
        return found
    contacts = Contacts(atoms)
    found += _foreign(atoms, contacts, header)
    known = header.training_range(head)
    return [
        *found,
        *_periodicity(atoms, contacts, known, head),
        *_lone(atoms, known),
        *_too_close(contacts, known),
        *_coordination(contacts, known.get("coordination") or {}),
        *_forces(atoms, known.get("max_force_eV_per_A")),
    ]


def suits(atoms: Atoms, header: ModelHeader, head: HeadInfo) -> bool:
    """Whether a model is for structures of this kind: its elements, its molecule, no crystal of a
    model of molecules.
    """
    return not any(finding.kind in UNSUITED for finding in findings(atoms, header, head))


def knows(header: ModelHeader, head: HeadInfo) -> bool:
    """Whether a header says what training structures held, elements aside."""
    return bool(header.training_range(head))


def coordination(atoms: Atoms) -> np.ndarray:
    """Bonded neighbours of every atom: (n_atoms,)."""
    return Contacts(atoms).coordination()


def bonded_pairs(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Both atoms of each bond, in either order, images included."""
    contacts = Contacts(atoms)
    near = contacts.ratio <= REACH
    return contacts.first[near], contacts.second[near]


def _is_structure(atoms: Atoms) -> bool:
    """Whether there are distances to look at; whatever computes will refuse it otherwise."""
    try:
        check_geometry(atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc)
    except InputError:
        return False
    return True


def _foreign(atoms: Atoms, contacts: Contacts | None, header: ModelHeader) -> list[Finding]:
    domain = header.training.get("domain")
    own = domain.get("formula") if isinstance(domain, dict) else None
    if not isinstance(domain, dict) or own is None:
        return []
    formula = atoms.get_chemical_formula(mode="hill")
    if formula != own:
        return [Finding("composition", f"another molecule, {formula} and not {own}")]
    known = domain.get("molecules")
    if not isinstance(known, dict) or not known:
        return []
    contacts = contacts or Contacts(atoms)
    if same_molecule(contacts, known):
        return []
    change = _nearest(count_bonds(atoms.numbers, contacts.bonds()), list(known.values()))
    return [Finding("bonds", f"another molecule, with {change} than the {own} of training")]


def _nearest(mine: Mapping[str, int], known: Sequence[Mapping[str, int]]) -> str:
    """What tells a structure from the known form that is most like it."""

    def change(other: Mapping[str, int]) -> dict[str, int]:
        kinds = sorted(mine.keys() | other.keys())
        changes = {kind: mine.get(kind, 0) - other.get(kind, 0) for kind in kinds}
        return {kind: n for kind, n in changes.items() if n}

    least = min(map(change, known), key=lambda found: sum(map(abs, found.values())))
    words = [f"{abs(n)} {kind} bond{'s' * (abs(n) > 1)} {'more' if n > 0 else 'fewer'}"
             for kind, n in least.items()]  # fmt: skip
    return ", ".join(words) or "bonds between other atoms"


def _periodicity(
    atoms: Atoms, contacts: Contacts, known: Mapping[str, Any], head: HeadInfo
) -> list[Finding]:
    periodic, most = known.get("periodic"), known.get("molecules")
    if periodic == "all" and not atoms.pbc.any():
        text = "no periodicity: the model was trained on crystals and surfaces, not on molecules"
        return [Finding("periodicity", text)]
    if periodic != "none":
        return []
    if contacts.is_network:
        text = "a crystal: the model was trained on molecules only, it is not for crystals"
        return [Finding("crystal", text)]
    found = []
    count = int(contacts.molecules(POSSIBLE).max()) + 1
    if isinstance(most, int) and count > most:
        text = f"{count} separate molecules or atoms, training structures had at most {most}"
        found.append(Finding("molecules", text, count))
    if atoms.pbc.any() and Contacts(atoms, head.graph.cutoff).to_own_images(np.inf).any():
        text = (
            f"molecules within {head.graph.cutoff:g} Å of their own images: the model was trained "
            "on isolated molecules, it is not for crystals of them"
        )
        found.append(Finding("images", text))
    return found


def _lone(atoms: Atoms, known: Mapping[str, Any]) -> list[Finding]:
    """Free atoms and radicals, whose electrons are not those of molecules."""
    if known.get("periodic") != "none":
        return []
    found = []
    if len(atoms) == 1 and (known.get("smallest") or 2) > 1:
        text = "a single atom: the model was trained on molecules, it knows no free atoms"
        found.append(Finding("atom", text))
    elif atoms.numbers.sum() % 2 and known.get("odd_electrons") is False:
        text = "an odd number of electrons: the model was trained on closed shells, not on radicals"
        found.append(Finding("electrons", text))
    return found


def _too_close(contacts: Contacts, known: Mapping[str, Any]) -> list[Finding]:
    limits = known.get("closest_A")
    if not isinstance(limits, dict):
        return []
    found = []
    complete = known.get("structures") == known.get("of")
    elements = known.get("coordination") or {}
    for name, distance in _closest(contacts).items():
        limit = limits.get(name)
        if limit is not None and distance < CLOSER * limit:
            text = f"{name} at {distance:.3f} Å, training had no such pair below {limit:.3f} Å"
            found.append(Finding(f"closest {name}", text, -distance))
        strange = limit is None and complete and elements.keys() >= set(name.split("-"))
        if strange and name in count_bonds(contacts.numbers, contacts.bonds()):
            text = f"{name} at {distance:.3f} Å, training had no such pair within {NEAR:g} Å"
            found.append(Finding(f"contact {name}", text, -distance))
    return found


def _closest(contacts: Contacts) -> dict[str, float]:
    """The least distance of each pair of elements, up to 3 Å."""
    near = contacts.distance <= NEAR
    numbers = np.sort(
        contacts.numbers[np.stack([contacts.first, contacts.second])][:, near], axis=0
    )
    code, distance = 1000 * numbers[0] + numbers[1], contacts.distance[near]
    order = np.lexsort((distance, code))
    kinds, at = np.unique(code[order], return_index=True)
    least = distance[order][at].tolist()
    return {pair_name(*divmod(k, 1000)): d for k, d in zip(kinds.tolist(), least, strict=True)}


def _coordination(contacts: Contacts, ranges: Mapping[str, Any]) -> list[Finding]:
    """Atoms with too few neighbours however far bonds reach, or too many even of short ones."""
    symbols = np.array([chemical_symbols[z] for z in contacts.numbers.tolist()])
    counts = contacts.coordination()
    most, least = contacts.coordination(POSSIBLE), contacts.coordination(SURE)
    found = []
    for symbol, (low, high) in ranges.items():
        own = symbols == symbol
        strange = own & ((most < low) | (least > high))
        if strange.any():
            mine = counts[strange]
            text = (
                f"{symbol} with {_span(mine.min(), mine.max())} bonded neighbours, training had "
                f"{_span(low, high)}"
            )
            found.append(Finding(f"coordination {symbol}", text, float(strange.sum())))
    return found


def _span(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def _forces(atoms: Atoms, largest: float | None) -> list[Finding]:
    if not largest or atoms.calc is None or "forces" not in atoms.calc.results:
        return []
    mine = float(np.linalg.norm(atoms.calc.results["forces"], axis=1).max())
    if mine <= STRONGER * largest:
        return []
    text = f"forces up to {mine:.2f} eV/Å, training had at most {largest:.2f}"
    return [Finding("forces", text, mine)]
