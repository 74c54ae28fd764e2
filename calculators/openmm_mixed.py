"""Force fields with a hole: the terms within a subset of particles taken out, or scaled."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

import numpy as np
import openmm
from openmm import app, unit

from jmp_md.errors import InputError

INTERPOLATE = "lambda_interpolate"  # as in openmm-ml

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
    system: openmm.System, topology: app.Topology, atoms: Sequence[int], *, interpolate: bool
) -> openmm.System:
    """A copy of a system without energy terms and constraints among the atoms of a subset.

    Args:
        system: Left as it is.
        topology: Its topology.
        atoms: Indices of the subset: whole molecules.
        interpolate: Keep the removed terms, scaled by one minus :data:`INTERPOLATE`.

    Raises:
        InputError: A force that cannot be split, or a constraint that stands for a bond to keep.
    """
    for force in system.getForces():
        kind = type(force).__name__
        if kind not in (*_BONDED, *_NONBONDED, *_WITHOUT_ENERGY):
            raise InputError(
                f"the {kind} of the system cannot be split between subset and surroundings: make "
                "the system without it, and add it to the mixed system if that makes sense"
            )
    inside = set(atoms)
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(system))
    constraints = _take_terms(root.find("Constraints"), inside)
    before: list[openmm.Force] = []  # MM energy, and what is left of it, where they differ
    after: list[openmm.Force] = []
    for element in root.find("Forces") or ():
        if element.get("type") in _BONDED:
            internal = _take_force(element, inside)
            if internal is not None:
                before.append(internal)
    if interpolate and constraints:
        _require_bonds(constraints, before)
    mixed = openmm.XmlSerializer.deserialize(ElementTree.tostring(root, encoding="unicode"))
    for index in reversed(range(mixed.getNumForces())):
        force = mixed.getForce(index)
        if type(force).__name__ in _NONBONDED:
            if interpolate:
                before.append(copy.deepcopy(force))
            _exclude(force, atoms)
            if interpolate:
                after.append(copy.deepcopy(force))
                mixed.removeForce(index)
    if interpolate:
        mixed.addForce(_interpolation(before, after))
    keep_molecules(mixed, topology, atoms)
    return mixed


def keep_molecules(system: openmm.System, topology: app.Topology, atoms: Sequence[int]) -> None:
    """Let OpenMM know the molecules of a subset, by bonds without strength.

    Barostats scale and trajectories wrap molecules as a whole, and OpenMM finds them by bonds.
    """
    inside = set(atoms)
    bonds = openmm.HarmonicBondForce()
    bonds.setName("JMPMolecules")
    for bond in topology.bonds():
        if bond[0].index in inside and bond[1].index in inside:
            bonds.addBond(bond[0].index, bond[1].index, 0.1, 0.0)
    if bonds.getNumBonds() > 0:
        bonds.setUsesPeriodicBoundaryConditions(system.usesPeriodicBoundaryConditions())
        system.addForce(bonds)


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


def _exclude(force: openmm.Force, atoms: Sequence[int]) -> None:
    """Switch off the non-bonded interactions within a subset."""
    pairs = itertools.combinations(sorted(atoms), 2)
    if isinstance(force, openmm.NonbondedForce):
        excluded = {force.addException(i, j, 0.0, 1.0, 0.0, True) for i, j in pairs}
        for k in range(force.getNumExceptionParameterOffsets()):
            name, exception, *_ = force.getExceptionParameterOffset(k)
            if exception in excluded:  # else the parameter would bring it back
                force.setExceptionParameterOffset(k, name, exception, 0.0, 0.0, 0.0)
        # Molecules of the subset may be in different images of the box.
        force.setExceptionsUsePeriodicBoundaryConditions(force.usesPeriodicBoundaryConditions())
        return
    known = {frozenset(force.getExclusionParticles(k)) for k in range(force.getNumExclusions())}
    for i, j in pairs:
        if frozenset((i, j)) not in known:
            force.addExclusion(i, j)


def _interpolation(before: list[openmm.Force], after: list[openmm.Force]) -> openmm.CustomCVForce:
    """Energy (1 - lambda) * before + lambda * after."""
    names = [f"mm{k}" for k in range(len(before))], [f"mixed{k}" for k in range(len(after))]
    first, second = (" + ".join(group) or "0" for group in names)
    force = openmm.CustomCVForce(f"(1 - {INTERPOLATE}) * ({first}) + {INTERPOLATE} * ({second})")
    force.setName("MMInterpolation")
    force.addGlobalParameter(INTERPOLATE, 1.0)
    for name, variable in zip((*names[0], *names[1]), (*before, *after), strict=True):
        force.addCollectiveVariable(name, variable)
    return force
