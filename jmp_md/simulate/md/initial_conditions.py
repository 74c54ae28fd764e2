"""How runs start: what structures bring along, and momenta where they have none."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from ase import Atoms, units

from jmp_md.errors import InputError
from jmp_md.simulate.md.constraints import Constraints
from jmp_md.simulate.md.options import MDOptions
from jmp_md.simulate.md.state import State

# Columns of files that hold velocities for other programs, in units that differ between them.
VELOCITIES = ("velocities", "velocity", "vel", "velo")
_AT_REST = 1e-6  # K; what rounding leaves of a drift that was taken out
# What frames get from the run; entries of a file's comment with these names would contradict it.
_RESULTS = (
    *("energy", "free_energy", "forces", "stress", "virial", "energies", "stresses"),
    *("step", "time_fs"),
)


def templates(structures: Sequence[Atoms]) -> list[Atoms]:
    """Copies for frames: without results of earlier computations and columns of velocities."""
    found = []
    for atoms in structures:
        copy = atoms.copy()
        for name in _RESULTS:
            copy.info.pop(name, None)
        for name in (*_RESULTS, *VELOCITIES):
            copy.arrays.pop(name, None)
        found.append(copy)
    return found


def say_what_is_kept(structures: Sequence[Atoms], options: MDOptions) -> None:
    """Warn of momenta that win over the temperature, and of velocities that are not read."""
    for atoms in structures:
        if atoms.get_momenta().any():
            if not options.redraw_velocities:
                warnings.warn(_kept(atoms, options), stacklevel=4)
                return
        elif names := [name for name in VELOCITIES if name in atoms.arrays]:
            warnings.warn(
                f"the column {', '.join(names)} of the structure is not read, because its unit is "
                f"not known; velocities are drawn at {options.temperature:g} K. To start from "
                "those, use atoms.set_velocities(v * ase.units.fs**-1) for v in Å/fs and write the "
                "structure again (ASE's column is momenta)",
                stacklevel=4,
            )
            return


def begin(state: State, options: MDOptions) -> None:
    """Draw momenta where structures have none, or where that is asked for."""
    given = state.kinetic() > _AT_REST * state.segments.counts * units.kB
    state.draw_momenta(options.temperature, ~given | options.redraw_velocities)


def generators(seed: int, count: int) -> list[np.random.Generator]:
    """Independent sources of random numbers, whatever the seeds of other runs are."""
    return [np.random.default_rng(each) for each in np.random.SeedSequence(seed).spawn(count)]


def refuse_same_runs(structures: Sequence[Atoms], replicas: int, options: MDOptions) -> None:
    """Refuse replicas that nothing tells apart.

    Raises:
        InputError: They start with the same momenta and feel no random force.
    """
    random = options.ensemble in ("nvt-langevin", "nvt-bussi") or options.redraw_velocities
    if replicas > 1 and not random and any(atoms.get_momenta().any() for atoms in structures):
        raise InputError(
            f"{replicas} replicas that start with the momenta of the structure are one and the "
            f"same run in {options.ensemble}: draw new ones with redraw_velocities "
            "(--redraw-velocities), or choose nvt-langevin or nvt-bussi"
        )


def _kept(atoms: Atoms, options: MDOptions) -> str:
    constraints = Constraints([atoms], options.remove_drift)
    momenta = constraints.project(atoms.get_momenta(), atoms.positions)
    masses = atoms.get_masses()[:, None]
    left, given = ((p**2 / masses).sum() / 2 for p in (momenta, atoms.get_momenta()))
    if left <= _AT_REST * len(atoms) * units.kB:
        return (
            "the momenta of the structure are only its drift, or of atoms that are fixed: they are "
            f"taken out, and others are drawn at {options.temperature:g} K; to keep a drift, use "
            "remove_drift=False (--no-remove-drift)"
        )
    own = 2 * left / (int(constraints.freedom[0]) * units.kB)
    lost = ""
    if left < (1 - 1e-6) * given:
        share = 1 - left / given
        lost = f", after {share:.2g} of their kinetic energy, drift or of fixed atoms, is taken out"
    return (
        f"the structure has momenta, of {own:.4g} K, and the run starts with them{lost}; the "
        f"temperature of {options.temperature:g} K is the thermostat's only: to draw new ones, use "
        "redraw_velocities (--redraw-velocities)"
    )
