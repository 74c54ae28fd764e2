"""Options of molecular dynamics, and which of them go together."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from jmp_md.errors import InputError
from jmp_md.options import Options, option

if TYPE_CHECKING:
    from ase import Atoms

_RAMPED = ("nvt-langevin", "nvt-bussi")
_LIGHT = 1.5  # amu: hydrogen, not deuterium
_OUTPUT = {"steps", "interval", "save_interval", "trajectory"}


class MDOptions(Options):
    """Options of molecular dynamics."""

    ensemble: Literal["nve", "nvt-langevin", "nvt-bussi", "nvt-nose-hoover", "npt", "npt-full"] = (
        option(
            "nvt-langevin",
            "nve is velocity Verlet, nvt-langevin BAOAB, nvt-bussi velocity rescaling, "
            "nvt-nose-hoover a chain, npt Martyna-Tuckerman-Tobias-Klein with a cell that keeps "
            "its shape, npt-full one that does not",
        )
    )
    steps: int = option(1000, "length of the run, counted from its start", ge=0)
    timestep: float = option(0.5, "time of a step", unit="fs", gt=0)
    temperature: float = option(300.0, "temperature of start and thermostat", unit="K", gt=0)
    temperature_end: float | None = option(
        None, "heat or cool to it, linearly over all steps; Langevin and Bussi", unit="K", gt=0
    )
    pressure: float = option(0.0, "pressure for npt; also as '1 bar' = 0.0001 GPa", unit="GPa")
    tdamp: float = option(
        100.0, "time constant of the thermostat; 1 / friction for Langevin", unit="fs", gt=0
    )
    pdamp: float = option(1000.0, "time constant of the barostat", unit="fs", gt=0)
    remove_drift: bool = option(
        True, "start, and stay, without total momentum; structures with constraints are left alone"
    )
    redraw_velocities: bool = option(
        False, "draw velocities at the temperature also where the structure has momenta"
    )
    interval: int = option(10, "steps between frames; the last structure is always written", gt=0)
    save_interval: int = option(100, "steps between states, the most that a kill costs", gt=0)
    trajectory: Literal["extxyz", "traj", "h5"] = option(
        "extxyz", "format of the trajectory: extended XYZ, ASE's, or compressed H5MD"
    )
    seed: int = option(0, "of velocities and noise", ge=0)

    @property
    def constant_pressure(self) -> bool:
        """Whether the cell moves."""
        return self.ensemble.startswith("npt")

    def physics(self) -> dict[str, Any]:
        """Those that change the motion, and not only how long it is or what is written of it."""
        found = self.model_dump(exclude=_OUTPUT)
        return found | ({} if self.temperature_end is None else {"steps": self.steps})  # the ramp

    @model_validator(mode="after")
    def _go_together(self) -> MDOptions:
        if self.temperature_end is not None and self.ensemble not in _RAMPED:
            raise ValueError(
                f"temperature_end goes with {' or '.join(_RAMPED)}, not with {self.ensemble}"
            )
        if self.constant_pressure and not self.remove_drift:
            raise ValueError(
                "constant pressure goes without total momentum only, which the cell would scale: "
                "leave remove_drift on"
            )
        return self


def check_structure(atoms: Atoms, options: MDOptions) -> None:
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
