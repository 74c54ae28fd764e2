"""The PythonForce of a potential: any torch, no compiled plugin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openmm

from jmp_md.errors import InputError
from jmp_md.graph.neighbours import NeighbourCache
from jmp_md.potential import Potential
from jmp_md.structures import single_structure
from jmp_md.units import EV_IN_KJ_PER_MOL, EV_PER_ANGSTROM_IN_KJ_PER_MOL_PER_NM, NM_IN_ANGSTROM
from jmp_md.validate import check_distances


class Computation:
    """What OpenMM calls for energy and forces; a class, so that OpenMM can pickle it into XML.

    Args:
        potential: The model.
        numbers: (n_atoms,) atomic numbers of the particles OpenMM hands over.
        periodic: Whether there is a box.
        direct: Take forces from the direct force head.
        skin: Å by which neighbours are searched beyond the cutoff.
        parameter: Global parameter that scales energy and forces, if any.
    """

    def __init__(
        self,
        potential: Potential,
        numbers: np.ndarray,
        *,
        periodic: bool,
        direct: bool,
        skin: float,
        parameter: str | None,
    ) -> None:
        self.potential = potential
        self.numbers = numbers
        self.pbc = np.full(3, periodic)
        self.direct = direct
        self.parameter = parameter
        self.neighbours = NeighbourCache(potential.policy.cutoff, skin)

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        """Energy in kJ/mol and forces (n_atoms, 3) in kJ/mol/nm.

        Raises:
            InputError: Positions, energy or forces are not finite, or atoms on top of each other.
        """
        # Plain numbers in OpenMM's own units; objects with units take longer than the search.
        positions = state.getPositions(asNumpy=True)._value * NM_IN_ANGSTROM
        cell = np.zeros((3, 3))
        if self.pbc[0]:
            cell = state.getPeriodicBoxVectors(asNumpy=True)._value * NM_IN_ANGSTROM
        if not np.isfinite(positions).all():
            raise InputError(
                "positions are not finite: minimise first, or take a shorter time step"
            )
        searches = self.neighbours.rebuilds
        pairs, placed = self.neighbours.update(positions, self.numbers, cell, self.pbc)
        if self.neighbours.rebuilds > searches:
            check_distances(placed, self.numbers, cell, pairs)
        structure = single_structure(placed, self.numbers, cell, pairs)
        prediction = self.potential.predict(structure, direct=self.direct)
        assert prediction.forces is not None
        energy = float(prediction.energy[0]) * EV_IN_KJ_PER_MOL
        forces = prediction.forces.double().cpu().numpy() * EV_PER_ANGSTROM_IN_KJ_PER_MOL_PER_NM
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise InputError(
                f"model {self.potential.header.name!r} gives energies or forces that are not "
                "finite: the structure is too far from its training data; minimise first, or take "
                "a shorter time step"
            )
        if self.parameter is not None:
            scale = state.getParameters()[self.parameter]
            energy, forces = energy * scale, forces * scale
        return energy, forces


def has_python_force(*, subset: bool) -> bool:
    """Whether this OpenMM has PythonForce, also for a subset of particles if asked."""
    force_class = getattr(openmm, "PythonForce", None)
    return force_class is not None and (not subset or hasattr(force_class, "setParticles"))


def python_force(
    potential: Potential,
    numbers: np.ndarray,
    *,
    atoms: Sequence[int] | None,
    periodic: bool,
    direct: bool,
    skin: float,
    parameter: str | None,
) -> openmm.Force:
    """A PythonForce; the arguments are those of :class:`Computation`, and the particles' indices.

    Raises:
        InputError: This OpenMM has no PythonForce, or none for a subset of particles.
    """
    if not has_python_force(subset=atoms is not None):
        needed = (
            "a subset of particles needs OpenMM 8.6" if atoms else "PythonForce needs OpenMM 8.5"
        )
        raise InputError(
            f"{needed} or later, this is {openmm.__version__}: 'pip install -U openmm', or use "
            "backend='torch'"
        )
    computation = Computation(
        potential, numbers, periodic=periodic, direct=direct, skin=skin, parameter=parameter
    )
    force = openmm.PythonForce(computation, {} if parameter is None else {parameter: 1.0})
    force.setUsesPeriodicBoundaryConditions(periodic)
    if atoms is not None:
        force.setParticles(list(atoms))
    return force
