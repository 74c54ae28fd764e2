"""Options of molecular dynamics, and which of them go together."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from jmp_md.errors import InputError
from jmp_md.simulate.frames import FORMATS

if TYPE_CHECKING:
    from ase import Atoms

ENSEMBLES = ("nve", "nvt-langevin", "nvt-bussi", "nvt-nose-hoover", "npt", "npt-full")
_RAMPED = ("nvt-langevin", "nvt-bussi")
_LIGHT = 1.5  # amu: hydrogen, not deuterium


def check_options(
    atoms: Atoms,
    *,
    ensemble: str,
    steps: int,
    timestep: float,
    temperature: float,
    temperature_end: float | None,
    pressure: float,
    tdamp: float,
    pdamp: float,
    remove_drift: bool,
    interval: int,
    save_interval: int,
    trajectory: str,
    seed: int,
) -> None:
    """Refuse options of :func:`jmp_md.simulate.md.md` that cannot be meant; warn of long steps.

    Raises:
        InputError: An option that does not exist, or does not fit the others or the structure.
    """
    for name, value, choices in (
        ("ensemble", ensemble, ENSEMBLES),
        ("trajectory", trajectory, FORMATS),
    ):
        if value not in choices:
            raise InputError(f"{name} {value!r}: choose one of {', '.join(choices)}")
    for name, number, unit in (
        ("timestep", timestep, "fs"),
        ("temperature", temperature, "K"),
        ("temperature_end", 1.0 if temperature_end is None else temperature_end, "K"),
        ("tdamp", tdamp, "fs"),
        ("pdamp", pdamp, "fs"),
        ("interval", interval, "steps"),
        ("save_interval", save_interval, "steps"),
    ):
        if not 0 < number < float("inf"):
            raise InputError(f"{name} {number!r} {unit}: must be positive")
    if steps < 0 or seed < 0:
        raise InputError(f"steps {steps!r} and seed {seed!r}: must be 0 or more")
    if not abs(pressure) < float("inf"):
        raise InputError(f"pressure {pressure!r} GPa: must be a number")
    if temperature_end is not None and ensemble not in _RAMPED:
        raise InputError(f"temperature_end goes with {' or '.join(_RAMPED)}, not with {ensemble}")
    if ensemble.startswith("npt"):
        _check_npt(atoms)
    kinds = {type(constraint).__name__ for constraint in atoms.constraints}
    if ensemble == "nvt-nose-hoover" and kinds - {"FixAtoms", "FixCartesian"}:
        raise InputError(
            f"nvt-nose-hoover does not go with {', '.join(sorted(kinds))}, only with FixAtoms and "
            "FixCartesian: choose nvt-langevin or nvt-bussi"
        )
    if timestep > 1.0 and (atoms.get_masses() < _LIGHT).any():
        warnings.warn(
            f"a timestep of {timestep} fs is too long for the vibrations of hydrogen: use 0.5 fs, "
            "or heavier masses",
            stacklevel=4,
        )


def _check_npt(atoms: Atoms) -> None:
    if not atoms.pbc.all():
        raise InputError(
            "constant pressure needs a structure that is periodic in three directions, this one "
            f"has pbc {atoms.pbc.tolist()}: choose an nvt ensemble"
        )
    if atoms.constraints:
        raise InputError("constant pressure does not go with constraints: remove one of the two")
