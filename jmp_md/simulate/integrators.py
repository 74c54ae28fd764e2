"""ASE's integrators by ensemble, and the part of their state that is not in the atoms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import units
from ase.constraints import FixCom
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import (
    MTKNPT,
    IsotropicMTKNPT,
    NoseHooverChainNVT,
    NoseHooverChainThermostat,
)
from ase.md.verlet import VelocityVerlet

if TYPE_CHECKING:
    from ase import Atoms
    from ase.md.md import MolecularDynamics

# Attributes of ASE's integrators that change from step to step (or, for the cell at the start,
# that a new object would take from the present atoms). The rest follows from atoms and options.
_OWN = ("transferred_energy", "_q", "_p", "_eps", "_p_eps", "_h", "_p_g", "_cell0", "_volume0")
_CHAINS = {"_thermostat": ("_eta", "_p_eta"), "_barostat": ("_xi", "_p_xi")}


def make_integrator(
    atoms: Atoms,
    ensemble: str,
    *,
    timestep: float,
    temperature: float,
    pressure: float,
    tdamp: float,
    pdamp: float,
    rng: np.random.Generator,
    centred: bool,
) -> MolecularDynamics:
    """ASE's integrator for an ensemble.

    Args:
        atoms: Structure with momenta and calculator; may get a constraint.
        ensemble: One of :data:`jmp_md.simulate.options.ENSEMBLES`.
        timestep: fs.
        temperature: K.
        pressure: GPa.
        tdamp: fs, time constant of the thermostat; 1 / friction for Langevin.
        pdamp: fs, time constant of the barostat.
        rng: Source of the random forces.
        centred: Whether the total momentum is, and shall stay, zero.
    """
    time = timestep * units.fs
    damping = tdamp * units.fs
    if centred and ensemble in ("nvt-langevin", "nvt-bussi"):
        atoms.set_constraint([*atoms.constraints, FixCom()])
    if ensemble == "nve":
        return VelocityVerlet(atoms, time)
    if ensemble == "nvt-langevin":
        return Langevin(
            atoms, time, temperature_K=temperature, friction=1 / damping, fixcm=False, rng=rng
        )
    if ensemble == "nvt-bussi":
        return Bussi(atoms, time, temperature_K=temperature, taut=damping, rng=rng)
    if ensemble == "nvt-nose-hoover":
        integrator = NoseHooverChainNVT(atoms, time, temperature_K=temperature, tdamp=damping)
    else:
        integrator = (IsotropicMTKNPT if ensemble == "npt" else MTKNPT)(
            atoms,
            time,
            temperature_K=temperature,
            pressure_au=pressure * units.GPa,
            tdamp=damping,
            pdamp=pdamp * units.fs,
        )
    # ASE gives thermostat and barostat 3 degrees of freedom per atom; with some of them frozen that
    # would make the rest too hot, by 1/8 for ethanol.
    integrator._num_atoms_global = degrees_of_freedom(atoms, centred) / 3
    integrator._thermostat = NoseHooverChainThermostat(
        num_atoms_global=integrator._num_atoms_global,
        masses=integrator.masses,
        temperature_K=temperature,
        tdamp=damping,
    )
    return integrator


def degrees_of_freedom(atoms: Atoms, centred: bool) -> int:
    """Those that share the kinetic energy."""
    known = int(atoms.get_number_of_degrees_of_freedom())
    counted = any(isinstance(constraint, FixCom) for constraint in atoms.constraints)
    return known - 3 if centred and not counted else known


def set_temperature(integrator: MolecularDynamics, temperature: float) -> None:
    """Change the temperature, in K, of Langevin or Bussi dynamics."""
    if isinstance(integrator, Bussi):
        integrator.temp = units.kB * temperature
        integrator.target_kinetic_energy = 0.5 * integrator.temp * integrator.ndof
    else:
        integrator.set_temperature(temperature_K=temperature)


def conserved_energy(integrator: MolecularDynamics) -> float:
    """eV, what exact integration would keep constant; NaN for Langevin, which has no such thing."""
    if isinstance(integrator, Langevin):
        return float("nan")
    if isinstance(integrator, Bussi):
        return float(integrator.atoms.get_total_energy() - integrator.transferred_energy)
    if isinstance(integrator, VelocityVerlet):
        return float(integrator.atoms.get_total_energy())
    return float(integrator.get_conserved_energy())


def extended_state(integrator: MolecularDynamics) -> dict[str, np.ndarray]:
    """State of thermostat and barostat, to be given to :func:`restore_state`."""
    return {
        name: np.array(getattr(owner, attribute))
        for name, owner, attribute in _places(integrator)
        if hasattr(owner, attribute)
    }


def restore_state(integrator: MolecularDynamics, arrays: dict[str, np.ndarray]) -> None:
    """Give an integrator the state that another one of its kind had."""
    for name, owner, attribute in _places(integrator):
        if name in arrays:
            value = arrays[name]
            setattr(owner, attribute, value.copy() if value.ndim else value.item())


def _places(integrator: MolecularDynamics) -> list[tuple[str, Any, str]]:
    places = [(attribute, integrator, attribute) for attribute in _OWN]
    for part, attributes in _CHAINS.items():
        if hasattr(integrator, part):
            owner = getattr(integrator, part)
            places += [(f"{part}.{attribute}", owner, attribute) for attribute in attributes]
    return places
