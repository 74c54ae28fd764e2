"""Options of molecular dynamics, and which of them go together."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError
from jmp_md.simulate.frames import FORMATS

if TYPE_CHECKING:
    from ase import Atoms

ENSEMBLES = ("nve", "nvt-langevin", "nvt-bussi", "nvt-nose-hoover", "npt", "npt-full")
_RAMPED = ("nvt-langevin", "nvt-bussi")
_LIGHT = 1.5  # amu: hydrogen, not deuterium
_OUTPUT = ("interval", "save_interval", "trajectory")


@dataclass(frozen=True)
class Options:
    """Options of :func:`jmp_md.simulate.md.md`, which describes them."""

    ensemble: str = "nvt-langevin"
    timestep: float = 0.5
    temperature: float = 300.0
    temperature_end: float | None = None
    pressure: float = 0.0
    tdamp: float = 100.0
    pdamp: float = 1000.0
    remove_drift: bool = True
    redraw_velocities: bool = False
    interval: int = 10
    save_interval: int = 100
    trajectory: str = "extxyz"
    seed: int = 0

    @property
    def constant_pressure(self) -> bool:
        """Whether the cell moves."""
        return self.ensemble.startswith("npt")

    def physics(self) -> dict[str, Any]:
        """Those that change the motion, and not only what is written of it."""
        return {name: value for name, value in asdict(self).items() if name not in _OUTPUT}

    def check(self, steps: int) -> None:
        """Refuse values that cannot be meant.

        Args:
            steps: Length of the run.

        Raises:
            InputError: An option that does not exist, or does not fit the others.
        """
        for name, value, choices in (
            ("ensemble", self.ensemble, ENSEMBLES),
            ("trajectory", self.trajectory, FORMATS),
        ):
            if value not in choices:
                raise InputError(f"{name} {value!r}: choose one of {', '.join(choices)}")
        end = 1.0 if self.temperature_end is None else self.temperature_end
        for name, number, unit in (
            ("timestep", self.timestep, "fs"),
            ("temperature", self.temperature, "K"),
            ("temperature_end", end, "K"),
            ("tdamp", self.tdamp, "fs"),
            ("pdamp", self.pdamp, "fs"),
            ("interval", self.interval, "steps"),
            ("save_interval", self.save_interval, "steps"),
        ):
            if not 0 < number < float("inf"):
                raise InputError(f"{name} {number!r} {unit}: must be positive")
        if steps < 0 or self.seed < 0:
            raise InputError(f"steps {steps!r} and seed {self.seed!r}: must be 0 or more")
        if not abs(self.pressure) < float("inf"):
            raise InputError(f"pressure {self.pressure!r} GPa: must be a number")
        if self.temperature_end is not None and self.ensemble not in _RAMPED:
            raise InputError(
                f"temperature_end goes with {' or '.join(_RAMPED)}, not with {self.ensemble}"
            )
        if self.constant_pressure and not self.remove_drift:
            raise InputError(
                "constant pressure goes without total momentum only, which the cell would scale: "
                "leave remove_drift on"
            )


def check_structure(atoms: Atoms, options: Options) -> None:
    """Refuse structures that the options do not fit; warn of long steps.

    Raises:
        InputError: A structure without atoms, with positions that are not finite, a cell without
            volume, constraints that dynamics does not know or that hold everything, or one that
            constant pressure does not go with.
    """
    import numpy as np

    from jmp_md.simulate.md.constraints import check_constraints

    if len(atoms) == 0:
        raise InputError("the structure has no atoms: check how it was read or built")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.get_momenta()).all()):
        raise InputError("positions or momenta of the structure are not finite: check the file")
    if not (atoms.get_masses() > 0).all():
        raise InputError(
            f"masses of {atoms.get_masses().min()} amu: dynamics needs positive ones; set them "
            "with atoms.set_masses"
        )
    check_cell(atoms)
    check_constraints(atoms)
    if options.constant_pressure:
        _check_constant_pressure(atoms)
    if options.timestep > 1.0 and (atoms.get_masses() < _LIGHT).any():
        warnings.warn(
            f"a timestep of {options.timestep} fs is too long for the vibrations of hydrogen: use "
            "0.5 fs, or heavier masses",
            stacklevel=4,
        )


def check_cell(atoms: Atoms) -> None:
    """Refuse a cell without volume in its periodic directions.

    Raises:
        InputError: Such a cell.
    """
    import numpy as np

    periodic = atoms.cell.array[atoms.pbc]
    volume = np.sqrt(max(np.linalg.det(periodic @ periodic.T), 0.0))
    if not np.isfinite(atoms.cell.array).all() or not volume > 1e-6:
        raise InputError(
            f"the cell {atoms.cell.array.tolist()} has no volume in its periodic directions (pbc "
            f"{atoms.pbc.tolist()}): set a cell with atoms.cell, or atoms.pbc = False"
        )


def _check_constant_pressure(atoms: Atoms) -> None:
    if not atoms.pbc.all():
        raise InputError(
            "constant pressure needs a structure that is periodic in three directions, this one "
            f"has pbc {atoms.pbc.tolist()}: choose an nvt ensemble"
        )
    if atoms.constraints:
        names = ", ".join(type(constraint).__name__ for constraint in atoms.constraints)
        raise InputError(
            f"constant pressure does not go with constraints ({names}): remove one of the two"
        )
    if len(atoms) < 2:
        raise InputError(
            "constant pressure needs two atoms or more, whose motion is relative to each other: "
            "repeat the cell"
        )
