"""A step of ASE's integrators in two halves, so that the forces of many come from one batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import NoseHooverChainNVT
from ase.md.verlet import VelocityVerlet

from jmp_md.errors import InputError

if TYPE_CHECKING:
    from ase.md.md import MolecularDynamics

SPLIT = ("nve", "nvt-langevin", "nvt-bussi", "nvt-nose-hoover")


def halves(integrator: MolecularDynamics) -> Iterator[None]:
    """Do a step: atoms have moved where this yields, and need the forces of where they are.

    The arithmetic is that of ``integrator.step``, to the last bit.

    Args:
        integrator: One of :func:`jmp_md.simulate.integrators.make_integrator`, whose atoms know
            the forces of where they are.

    Raises:
        InputError: An integrator that cannot be divided.
    """
    if isinstance(integrator, Bussi):
        integrator.scale_velocities()
    if isinstance(integrator, VelocityVerlet):
        return _verlet(integrator)
    if isinstance(integrator, Langevin):
        return _langevin(integrator)
    if isinstance(integrator, NoseHooverChainNVT):
        return _nose_hoover(integrator)
    raise InputError(f"replicas run in the ensembles {', '.join(SPLIT)}: choose one of them")


def _verlet(md: VelocityVerlet) -> Iterator[None]:
    atoms = md.atoms
    p = atoms.get_momenta() + 0.5 * md.dt * atoms.get_forces(md=True)
    masses = atoms.get_masses()[:, None]
    r = atoms.get_positions()
    atoms.set_positions(r + md.dt * p / masses)
    if atoms.constraints:  # as RATTLE has it
        p = (atoms.get_positions() - r) * masses / md.dt
    atoms.set_momenta(p, apply_constraint=False)
    yield
    atoms.set_momenta(atoms.get_momenta() + 0.5 * md.dt * atoms.get_forces(md=True))


def _langevin(md: Langevin) -> Iterator[None]:
    """Vanden-Eijnden and Ciccotti, Chem. Phys. Lett. 429, 310 (2006), eq. 23."""
    atoms, shape = md.atoms, (len(md.atoms), 3)
    xi, eta = md.rng.standard_normal(size=shape), md.rng.standard_normal(size=shape)
    moved, kicked = md.c5 * eta, md.c3 * xi - md.c4 * eta
    v = atoms.get_velocities()
    v += md.c1 * atoms.get_forces(md=True) / md.masses - md.c2 * v + kicked
    x = atoms.get_positions()
    atoms.set_positions(x + md.dt * v + moved)
    v = (atoms.get_positions() - x - moved) / md.dt  # after constraints
    yield
    v += md.c1 * atoms.get_forces(md=True) / md.masses - md.c2 * v + kicked
    atoms.set_momenta(v * md.masses)


def _nose_hoover(md: NoseHooverChainNVT) -> Iterator[None]:
    half = md.dt / 2
    md._p = md._thermostat.integrate_nhc(md._p, half)
    md._integrate_p(half)
    md._integrate_q(md.dt)
    md._update_atoms()
    yield
    md._integrate_p(half)
    md._p = md._thermostat.integrate_nhc(md._p, half)
    md._update_atoms()
