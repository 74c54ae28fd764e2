"""Non-bonded forces of OpenMM within a subset of particles: switched off, or alone."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import openmm


def exclude(force: openmm.Force, atoms: Sequence[int]) -> None:
    """Switch off the interactions within a subset.

    Args:
        force: NonbondedForce or CustomNonbondedForce, changed in place.
        atoms: Indices of the subset.
    """
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


def nonbonded_within(force: openmm.Force, atoms: Sequence[int]) -> list[openmm.Force]:
    """Forces whose sum is what :func:`exclude` takes away.

    Args:
        force: NonbondedForce or CustomNonbondedForce, left as it is.
        atoms: Indices of the subset.
    """
    if isinstance(force, openmm.CustomNonbondedForce):
        return _custom_within(force, set(atoms))
    # With Ewald sums and cutoffs, no simple formula says what a pair contributes: the difference
    # of two forces does. Without the charges of the surroundings, little is lost to rounding.
    every, excluded = _only(force, set(atoms)), _only(force, set(atoms))
    exclude(excluded, atoms)
    # Inside a force of its own: forces side by side must have the same exclusions.
    minus = openmm.CustomCVForce("-excluded")
    minus.addCollectiveVariable("excluded", excluded)
    return [every, minus]


def _only(force: openmm.NonbondedForce, inside: set[int]) -> openmm.NonbondedForce:
    """A copy in which particles outside a subset have neither charge nor size."""
    only = copy.deepcopy(force)
    only.setUseDispersionCorrection(False)  # an average over all pairs, excluded or not
    for i in set(range(only.getNumParticles())) - inside:
        only.setParticleParameters(i, 0.0, 1.0, 0.0)
    for k in range(only.getNumParticleParameterOffsets()):
        name, i, *_ = only.getParticleParameterOffset(k)
        if i not in inside:
            only.setParticleParameterOffset(k, name, i, 0.0, 0.0, 0.0)
    outside = set()
    for k in range(only.getNumExceptions()):
        i, j, *_ = only.getExceptionParameters(k)
        if not inside.issuperset((i, j)):
            outside.add(k)
            only.setExceptionParameters(k, i, j, 0.0, 1.0, 0.0)
    for k in range(only.getNumExceptionParameterOffsets()):
        name, exception, *_ = only.getExceptionParameterOffset(k)
        if exception in outside:
            only.setExceptionParameterOffset(k, name, exception, 0.0, 0.0, 0.0)
    return only


def _custom_within(force: openmm.CustomNonbondedForce, inside: set[int]) -> list[openmm.Force]:
    """The force between groups of particles, those of a subset."""
    only = copy.deepcopy(force)
    only.setUseLongRangeCorrection(False)
    if only.getNumInteractionGroups() == 0:
        only.addInteractionGroup(inside, inside)
        return [only]
    for k in range(only.getNumInteractionGroups()):
        first, second = only.getInteractionGroupParameters(k)
        only.setInteractionGroupParameters(
            k, inside.intersection(first), inside.intersection(second)
        )
    return [only]
