"""What files call their labels, and stress in each of the forms in which it is written.

Stress is positive under tension, as in ASE. A virial is minus the stress times the volume (so in
QUIP, GAP and MACE data sets), in the unit of energies. Both come as (3, 3), as its 9 numbers, or as
6 in Voigt's order xx, yy, zz, yz, xz, xy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress

from jmp_md.errors import InputError

FAMILIES = ("", "ref_", "dft_")  # what names of labels begin with, in any case of letters
STRESS, VIRIALS = "stress", ("virial", "virials")
AGREEMENT = 1e-3  # of the largest component, within which stress and virial must agree


@dataclass(frozen=True)
class Keys:
    """What a file calls its labels, and its units.

    Attributes:
        energy, forces: Names of the results, of `atoms.info` or of `atoms.arrays`.
        stress: Likewise, of a stress, or of a virial where it holds that word; None looks for
            `stress`, `virial` and `virials`, with the prefix of `energy` first, then with none,
            `REF_` and `dft_` unless energies have that prefix, too.
        targets: Further numbers in `atoms.info` to keep as they are, as `Frame.targets`.
        energy_factor, force_factor, length_factor: From the file's units to eV, eV/Å and Å.
    """

    energy: str = "energy"
    forces: str = "forces"
    stress: str | None = None
    targets: tuple[str, ...] = ()
    energy_factor: float = 1.0
    force_factor: float = 1.0
    length_factor: float = 1.0


def find_stress(
    where: str, values: Mapping[str, Any], keys: Keys, volume: float
) -> tuple[str, np.ndarray] | None:
    """Name and value of the stress of a frame, (3, 3) in the unit of its energy per Å³.

    Args:
        where: File and record, for messages.
        values: What the frame has, by name.
        keys: What the file calls its labels.
        volume: Å³.

    Raises:
        InputError: A key that is not there, a value of another shape, or a stress and a virial
            that contradict each other.
    """
    if keys.stress is not None:
        if keys.stress not in values:
            raise InputError(
                f"{where}, field {keys.stress}: missing; it has {sorted(values) or 'nothing'}"
            )
        names = [keys.stress]
    else:
        names = _usual_names(values, keys.energy)
    found = {name: _tensor(f"{where}, field {name}", values[name]) for name in names}
    for name in names:
        if any(word in name.lower() for word in VIRIALS):
            found[name] = -found[name] / volume
    if not found:
        return None
    for name in names[1:]:
        limit = AGREEMENT * max(float(np.abs(found[names[0]]).max()), 1e-6)
        if not np.allclose(found[name], found[names[0]], rtol=0, atol=limit):
            raise InputError(
                f"{where}: {names[0]} and {name} contradict each other (a virial is minus stress "
                f"times volume): say which one holds with stress_key={names[0]}"
            )
    return names[0], found[names[0]]


def label_names(values: Iterable[str]) -> tuple[str, ...]:
    """Names that look like those of labels."""
    words = ("energy", "force", STRESS, VIRIALS[0])
    return tuple(sorted(name for name in values if any(word in name.lower() for word in words)))


def _usual_names(values: Mapping[str, Any], energy: str) -> list[str]:
    """Names of the stress, or of the same stress more than once."""
    by_lower = {name.lower(): name for name in values}
    own = energy.lower().removesuffix("energy") if energy.lower().endswith("energy") else ""
    for family in dict.fromkeys((own, *FAMILIES)):
        if family == own or f"{family}energy" not in by_lower:
            usual = (f"{family}{kind}" for kind in (STRESS, *VIRIALS))
            if names := [by_lower[name] for name in usual if name in by_lower]:
                return names
    return []


def _tensor(where: str, value: Any) -> np.ndarray:
    array: np.ndarray = np.asarray(value)
    if array.size == 6:
        return np.asarray(voigt_6_to_full_3x3_stress(array.reshape(6)))
    if array.size != 9:
        raise InputError(
            f"{where}: shape {array.shape}, not that of a stress: (3, 3), (9,) or (6,)"
        )
    return array.reshape(3, 3)
