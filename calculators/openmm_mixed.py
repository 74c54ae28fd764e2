"""Force fields with a hole: the terms within a subset of particles taken out, or scaled."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

import numpy as np
import openmm
from openmm import app, unit

from jmp_md.calculators.openmm_nonbonded import exclude, nonbonded_within
from jmp_md.calculators.openmm_python import python_particles
from jmp_md.calculators.openmm_torch import torch_particles
from jmp_md.errors import InputError

INTERPOLATE = "lambda_interpolate"  # as in openmm-ml
FORCE = "JMPForce"  # names by which a second subset knows the forces of the first
_INTERPOLATION = "MMInterpolation"

_BONDED = (
    "HarmonicBondForce",
    "HarmonicAngleForce",
    "PeriodicTorsionForce",
    "RBTorsionForce",
    "CMAPTorsionForce",
    "CustomBondForce",
    "CustomAngleForce",
    "CustomTorsionForce",
)
_NONBONDED = ("NonbondedForce", "CustomNonbondedForce")
_WITHOUT_ENERGY = (
    "AndersenThermostat",
    "CMMotionRemover",
    "MonteCarloAnisotropicBarostat",
    "MonteCarloBarostat",
    "MonteCarloFlexibleBarostat",
    "MonteCarloMembraneBarostat",
)
_PARTICLE = re.compile(r"[pab]\d")  # attributes that hold particles of a bonded term


def check_subset(
    system: openmm.System, topology: app.Topology, atoms: Sequence[int], *, molecules: bool = False
) -> None:
    """Refuse subsets that a potential cannot act among.

    Args:
        system: The system.
        topology: Its topology.
        atoms: Indices of the subset.
        molecules: Whether the subset must consist of whole molecules without virtual sites.

    Raises:
        InputError: The topology is another system's, its box never reached the system, a particle
            of the subset is a virtual site, or the subset is not whole molecules.
    """
    n = system.getNumParticles()
    if topology.getNumAtoms() != n:
        raise InputError(
            f"the topology has {topology.getNumAtoms()} atoms and the system {n} particles: give "
            "the topology the system was made from"
        )
    _check_box(system, topology)
    names = [f"{a.index} ({a.name} of {a.residue.name} {a.residue.id})" for a in topology.atoms()]
    inside = set(atoms)
    for i in range(n):
        if not system.isVirtualSite(i):
            continue
        if i in inside:
            raise InputError(f"particle {names[i]} is a virtual site: leave it out of atoms")
        site = system.getVirtualSite(i)
        parents = {site.getParticle(k) for k in range(site.getNumParticles())}
        if molecules and not inside.isdisjoint(parents):
            raise InputError(
                f"the virtual site {names[i]} belongs to atoms of the subset, where its charge "
                "would act beside the potential: take a force field without it for them"
            )
    if molecules:
        for i, j in _connections(system, topology):
            if (i in inside) != (j in inside):
                raise InputError(
                    f"the bond of particles {names[i]} and {names[j]} leaves the subset: link "
                    "atoms are not supported, choose whole molecules"
                )


def remove_internal_terms(
    system: openmm.System,
    topology: app.Topology,
    atoms: Sequence[int],
    *,
    interpolate: bool,
    remove_constraints: bool = True,
) -> openmm.System:
    """A copy of a system without energy terms and constraints among the atoms of a subset.

    Args:
        system: Left as it is.
        topology: Its topology.
        atoms: Indices of the subset: whole molecules.
        interpolate: Keep the removed terms, scaled by one minus :data:`INTERPOLATE`.
        remove_constraints: Whether constraints are removed.

    Raises:
        InputError: A force that cannot be split, or a constraint that stands for a bond to keep.
    """
    inside = set(atoms)
    _check_forces(system, inside)
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(system))
    constraints = _take_terms(root.find("Constraints"), inside)
    internal: list[openmm.Force] = []
    for element in root.find("Forces") or ():
        if element.get("type") in _BONDED:
            taken = _take_force(element, inside)
            if taken is not None:
                internal.append(taken)
    if interpolate and constraints:
        _require_bonds(constraints, internal)
    if constraints and not remove_constraints:
        root.find("Constraints").extend(constraints)  # type: ignore[union-attr]
    mixed = openmm.XmlSerializer.deserialize(ElementTree.tostring(root, encoding="unicode"))
    for original, force in zip(system.getForces(), mixed.getForces(), strict=True):
        force.setName(original.getName())  # XML forgets the name of a TorchForce,
        force.setForceGroup(original.getForceGroup())  # and the group of a PythonForce
        if type(force).__name__ in _NONBONDED:
            if interpolate:
                internal += nonbonded_within(force, atoms)
            exclude(force, atoms)
    if interpolate:
        mixed.addForce(_scaled(internal))
    keep_molecules(mixed, bonds_within(system, topology, atoms))
    return mixed


def bonds_within(
    system: openmm.System, topology: app.Topology, atoms: Sequence[int]
) -> list[tuple[int, int]]:
    """Pairs of particles of a subset that topology or force field know as bonded."""
    inside = set(atoms)
    return [(i, j) for i, j in _connections(system, topology) if i in inside and j in inside]


def keep_molecules(system: openmm.System, bonds: Sequence[tuple[int, int]]) -> None:
    """Let OpenMM know molecules by bonds without strength.

    Barostats scale and trajectories wrap molecules as a whole, and OpenMM finds them by bonds.
    """
    force = openmm.HarmonicBondForce()
    force.setName("JMPMolecules")
    for i, j in sorted({(min(pair), max(pair)) for pair in bonds}):
        force.addBond(i, j, 0.1, 0.0)
    if force.getNumBonds() > 0:
        force.setUsesPeriodicBoundaryConditions(system.usesPeriodicBoundaryConditions())
        system.addForce(force)


def _check_forces(system: openmm.System, inside: set[int]) -> None:
    """Refuse forces that cannot be split, and potentials that act within the subset already."""
    for force in system.getForces():
        kind, name = type(force).__name__, force.getName()
        if name == FORCE:
            other = python_particles(force)
            other = torch_particles(force) if other is None else other
            if other is None:
                raise InputError(
                    f"the particles of the {name} of the system cannot be told, as it was copied "
                    "or read from XML: choose atoms= once for all of the same model"
                )
            if shared := inside.intersection(other or range(system.getNumParticles())):
                raise InputError(
                    f"particle {min(shared)} has a JMP potential already: give each subset "
                    "particles of its own"
                )
        elif name != _INTERPOLATION and kind not in (*_BONDED, *_NONBONDED, *_WITHOUT_ENERGY):
            raise InputError(
                f"the {kind} of the system cannot be split between subset and surroundings: make "
                "the system without it, and add it to the mixed system if that makes sense"
            )


def _check_box(system: openmm.System, topology: app.Topology) -> None:
    """Refuse a system still in the box OpenMM starts from, where the topology has another."""
    if topology.getPeriodicBoxVectors() is None:
        return
    given = _nanometers(topology.getPeriodicBoxVectors())
    own = _nanometers(system.getDefaultPeriodicBoxVectors())
    untouched = _nanometers(openmm.System().getDefaultPeriodicBoxVectors())
    if np.array_equal(own, untouched) and not np.allclose(given, own):
        sides = ", ".join(f"{side:g}" for side in np.diag(given))
        raise InputError(
            f"the topology has a box of {sides} nm, and the system still the one OpenMM starts "
            "from: system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())"
        )


def _nanometers(box: Sequence[unit.Quantity] | unit.Quantity) -> np.ndarray:
    """Box vectors (3, 3) in nm, rows are vectors."""
    return np.array([list(row.value_in_unit(unit.nanometer)) for row in box])


def _connections(system: openmm.System, topology: app.Topology) -> Iterable[tuple[int, int]]:
    """Pairs of particles that are bonded, in the topology or in the force field."""
    for bond in topology.bonds():
        yield bond[0].index, bond[1].index
    for k in range(system.getNumConstraints()):
        yield tuple(system.getConstraintParameters(k)[:2])
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce | openmm.CustomBondForce):
            for k in range(force.getNumBonds()):
                yield tuple(force.getBondParameters(k)[:2])


def _take_terms(
    container: ElementTree.Element | None, inside: set[int]
) -> list[ElementTree.Element]:
    """Remove the terms whose particles are all inside, and return them."""
    taken = []
    for term in list(container) if container is not None else []:
        particles = [int(v) for key, v in term.attrib.items() if _PARTICLE.fullmatch(key)]
        if particles and inside.issuperset(particles):
            container.remove(term)  # type: ignore[union-attr]
            taken.append(term)
    return taken


def _take_force(element: ElementTree.Element, inside: set[int]) -> openmm.Force | None:
    """Remove the internal terms of a bonded force, and return a force of them, if there are any."""
    internal = copy.deepcopy(element)
    found = False
    for container, kept in zip(element, internal, strict=True):
        taken = _take_terms(container, inside)
        if taken:
            found = True
            kept[:] = taken
        elif container.tag in ("Bonds", "Angles", "Torsions"):
            kept[:] = []
    text = ElementTree.tostring(internal, encoding="unicode")
    return openmm.XmlSerializer.deserialize(text) if found else None


def _require_bonds(constraints: list[ElementTree.Element], forces: list[openmm.Force]) -> None:
    """Refuse constraints in place of bonds: without both, the force field is not what it was."""
    bonded = set()
    for force in forces:
        if isinstance(force, openmm.HarmonicBondForce | openmm.CustomBondForce):
            terms = (force.getBondParameters(k) for k in range(force.getNumBonds()))
            bonded |= {frozenset(term[:2]) for term in terms}
    for constraint in constraints:
        i, j = int(constraint.get("p1", 0)), int(constraint.get("p2", 0))
        if frozenset((i, j)) not in bonded:
            raise InputError(
                f"interpolate=True: the distance of particles {i} and {j} is constrained, with no "
                "bond term to take over: make the system with constraints=None and "
                "rigidWater=False, or flexibleConstraints=True"
            )


def _scaled(forces: list[openmm.Force]) -> openmm.CustomCVForce:
    """Forces times one minus :data:`INTERPOLATE`."""
    names = [f"term{k}" for k in range(len(forces))]
    scaled = openmm.CustomCVForce(f"(1 - {INTERPOLATE}) * ({' + '.join(names) or '0'})")
    scaled.setName(_INTERPOLATION)
    scaled.addGlobalParameter(INTERPOLATE, 1.0)
    for name, force in zip(names, forces, strict=True):
        scaled.addCollectiveVariable(name, force)
    return scaled
