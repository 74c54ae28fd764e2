"""The PythonForce of a potential: any torch, no compiled plugin."""

from __future__ import annotations

import threading

import numpy as np
import openmm

from jmp_md.calculators.openmm_interaction import Interaction
from jmp_md.errors import InputError
from jmp_md.moving import MovingStructure
from jmp_md.units import EV_IN_KJ_PER_MOL, EV_PER_ANGSTROM_IN_KJ_PER_MOL_PER_NM, NM_IN_ANGSTROM


class _Structure(threading.local):
    """One of each thread's own: contexts of one system may run in several threads."""

    def __init__(self, interaction: Interaction) -> None:
        self.moving = MovingStructure(interaction.potential, interaction.skin)


class Computation:
    """What OpenMM calls for energy and forces; a class, so that OpenMM can pickle it into XML.

    OpenMM hands over the particles of the interaction and no others.
    """

    def __init__(self, interaction: Interaction) -> None:
        self.interaction = interaction
        self.pbc = np.full(3, interaction.periodic)
        self._structure = _Structure(interaction)

    def __reduce__(self) -> tuple[type, tuple[Interaction]]:
        return Computation, (self.interaction,)

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        """Energy in kJ/mol and forces (n_atoms, 3) in kJ/mol/nm.

        Raises:
            InputError: Positions, energy or forces are not finite, or atoms on top of each other.
        """
        potential, numbers = self.interaction.potential, self.interaction.numbers
        # Plain numbers in OpenMM's own units; objects with units take longer than the search.
        positions = state.getPositions(asNumpy=True)._value * NM_IN_ANGSTROM
        cell = np.zeros((3, 3))
        if self.interaction.periodic:
            cell = state.getPeriodicBoxVectors(asNumpy=True)._value * NM_IN_ANGSTROM
        if not np.isfinite(positions).all():
            raise InputError(
                "positions are not finite: minimise first, or take a shorter time step"
            )
        structure = self._structure.moving.at(positions, numbers, cell, self.pbc)
        prediction = potential.predict(structure, direct=self.interaction.direct).on_host()
        assert prediction.forces is not None
        energy = float(prediction.energy[0]) * EV_IN_KJ_PER_MOL
        forces = prediction.forces.numpy() * EV_PER_ANGSTROM_IN_KJ_PER_MOL_PER_NM
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise InputError(
                f"model {potential.header.name!r} gives energies or forces that are not "
                "finite: the structure is too far from its training data; minimise first, or take "
                "a shorter time step"
            )
        if self.interaction.parameter is not None:
            scale = state.getParameters()[self.interaction.parameter]
            energy, forces = energy * scale, forces * scale
        return energy, forces


def has_python_force(*, subset: bool) -> bool:
    """Whether this OpenMM has PythonForce, also for a subset of particles if asked."""
    force_class = getattr(openmm, "PythonForce", None)
    return force_class is not None and (not subset or hasattr(force_class, "setParticles"))


def python_force(interaction: Interaction) -> openmm.Force:
    """A PythonForce.

    Raises:
        InputError: This OpenMM has no PythonForce, or none for a subset of particles.
    """
    atoms, parameter = interaction.atoms, interaction.parameter
    if not has_python_force(subset=atoms is not None):
        needed = (
            "a subset of particles needs OpenMM 8.6" if atoms else "PythonForce needs OpenMM 8.5"
        )
        raise InputError(
            f"{needed} or later, this is {openmm.__version__}: 'pip install -U openmm', or use "
            "backend='torch'"
        )
    force = openmm.PythonForce(
        Computation(interaction), {} if parameter is None else {parameter: 1.0}
    )
    if atoms is not None:
        force.setParticles(atoms)
    return force


def python_particles(force: openmm.Force) -> list[int] | None:
    """Indices of the particles of a PythonForce, empty for all; None for any other force."""
    if type(force).__name__ != "PythonForce":  # a class that older versions lack
        return None
    return list(force.getParticles()) if has_python_force(subset=True) else []
