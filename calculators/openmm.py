"""Forces for OpenMM: whole systems, or a subset beside a conventional force field."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch  # before openmm, or the TorchForce plugin does not load

from jmp_md.calculators.openmm_box import turned_for_openmm
from jmp_md.calculators.openmm_interaction import Interaction
from jmp_md.calculators.openmm_mixed import (
    FORCE,
    INTERPOLATE,
    bonds_within,
    check_subset,
    keep_molecules,
    remove_internal_terms,
)
from jmp_md.calculators.openmm_python import has_python_force, python_force
from jmp_md.calculators.openmm_topology import Particles, topology_from_ase
from jmp_md.calculators.openmm_torch import torch_force
from jmp_md.checkpoints.exported import DTYPES
from jmp_md.errors import InputError
from jmp_md.export.write import choose_forces
from jmp_md.load import load_model
from jmp_md.potential import Potential
from jmp_md.validate import check_numbers

try:
    import openmm
    from openmm import app
except ImportError as error:
    raise ImportError(
        "OpenMM is not installed: 'pip install openmm openmmml'; 'jmp-md doctor' checks it"
    ) from error

__all__ = [
    "add_jmp_force",
    "create_mixed_system",
    "create_system",
    "jmp_force",
    "topology_from_ase",
    "turned_for_openmm",
]
_BACKENDS = ("auto", "python", "torch")


def jmp_force(
    model: str | Path | Potential,
    topology_or_numbers: app.Topology | Sequence[int],
    *,
    atoms: Sequence[int] | None = None,
    periodic: bool | None = None,
    backend: str = "auto",
    head: str | None = None,
    forces: str = "conservative",
    dtype: str = "float32",
    device: str | torch.device | None = None,
    weights: str = "ema",
    skin: float | None = None,
    parameter: str | None = None,
    force_group: int = 0,
    trust: bool = False,
) -> openmm.Force:
    """A JMP potential as an OpenMM force.

    Args:
        model: Name that ``jmp-md models`` lists, file of a model (an exported one too), or a
            potential.
        topology_or_numbers: Topology of the system, or the atomic number of each particle (0 for
            particles that are no atoms).
        atoms: Indices of the particles the potential acts among; None for all that are atoms.
        periodic: Whether there is a box; None takes it from the topology. Numbers cannot tell.
        backend: ``"python"`` (PythonForce; any torch), ``"torch"`` (TorchForce; the package
            openmmtorch) or ``"auto"``, the first where this OpenMM has it.
        head: Task of a model with several.
        forces: ``"conservative"``, the gradient of the energy, or ``"direct"``.
        dtype: ``"float32"`` or ``"float64"``.
        device: Where PythonForce computes, e.g. ``"cuda:1"``; None takes CUDA where there is one.
            TorchForce computes where the platform does.
        weights: ``"ema"`` or ``"raw"``.
        skin: Å by which PythonForce searches neighbours beyond the cutoff, None takes
            what is fast on the device; TorchForce searches in each step.
        parameter: Global parameter, 1 by default, that scales energy and forces.
        force_group: Group of the force.
        trust: Whether ``model`` may be an exported file, which runs code that it holds.

    Raises:
        InputError: An option that does not exist or does not fit the model, particles or elements
            the model cannot be used for, numbers without ``periodic``, particles of a topology
            without element where ``atoms`` does not choose, or a backend that is not at hand.
        ModelNotFoundError: The model is not at hand.
        CheckpointError: The file is damaged, or has no such head.
    """
    for name, value, choices in (("backend", backend, _BACKENDS), ("dtype", dtype, tuple(DTYPES))):
        if value not in choices:
            raise InputError(f"{name} = {value!r}: choose {' or '.join(map(repr, choices))}")
    particles = Particles.of(topology_or_numbers)
    chosen = particles.choose(atoms)
    periodic = particles.periodic if periodic is None else periodic
    if periodic is None:
        raise InputError(
            "atomic numbers do not tell whether there is a box: give periodic=True or "
            "periodic=False, or a topology"
        )
    subset = len(chosen) < len(particles.numbers) or bool((np.diff(chosen) < 0).any())
    if backend == "auto":
        backend = "python" if has_python_force(subset=subset) else "torch"
    numbers = particles.numbers[chosen]
    potential = load_model(
        model,
        head=head,
        weights=weights,
        dtype=DTYPES[dtype],
        device="cpu" if backend == "torch" else device,
        trust=trust,
    )
    check_numbers(numbers, potential.header, potential.head)
    interaction = Interaction(
        potential,
        numbers,
        atoms=chosen.tolist() if subset else None,
        periodic=periodic,
        direct=choose_forces(potential, forces) == "direct",
        skin=skin,
        parameter=parameter,
    )
    force = python_force(interaction) if backend == "python" else torch_force(interaction)
    force.setUsesPeriodicBoundaryConditions(interaction.periodic)
    force.setName(FORCE)
    force.setForceGroup(force_group)
    return force


def create_system(
    topology: app.Topology, model: str | Path | Potential, **options: object
) -> openmm.System:
    """A system with the atoms and the box of a topology, and a JMP potential for all atoms.

    Args:
        topology: What elements there are, with their masses.
        model: As for :func:`jmp_force`.
        options: Others of :func:`jmp_force`.

    Raises:
        InputError: As for :func:`add_jmp_force`; the element of an atom that is not known, too.
    """
    system = openmm.System()
    for atom in topology.atoms():
        system.addParticle(atom.element.mass if atom.element is not None else 0.0)
    if topology.getPeriodicBoxVectors() is not None:
        system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())
    add_jmp_force(system, topology, model, **options)  # type: ignore[arg-type]
    return system


def add_jmp_force(
    system: openmm.System,
    topology: app.Topology,
    model: str | Path | Potential,
    *,
    atoms: Sequence[int] | None = None,
    **options: object,
) -> openmm.Force:
    """Add a JMP potential to a system, beside whatever forces it has.

    Args:
        system: Changed in place. Particles without mass stay where they are, but act on others.
        topology: Its topology.
        model: As for :func:`jmp_force`.
        atoms: Indices of the particles the potential acts among; None for all but virtual sites
            and Drude particles.
        options: Others of :func:`jmp_force`; without ``periodic``, there is a box where topology or
            system have one.

    Returns:
        The force in the system.

    Raises:
        InputError: As for :func:`jmp_force`, or a topology of another system, or a chosen particle
            that is a virtual site.
    """
    chosen = Particles.of(topology, system).choose(atoms).tolist()
    check_subset(system, topology, chosen)
    boxed = topology.getPeriodicBoxVectors() is not None or system.usesPeriodicBoundaryConditions()
    options = {"periodic": boxed, **options}
    force = jmp_force(model, topology, atoms=chosen, **options)  # type: ignore[arg-type]
    keep_molecules(system, bonds_within(system, topology, chosen))
    return system.getForce(system.addForce(force))


def create_mixed_system(
    topology: app.Topology,
    system: openmm.System,
    model: str | Path | Potential,
    atoms: Sequence[int],
    *,
    interpolate: bool = False,
    remove_constraints: bool = True,
    **options: object,
) -> openmm.System:
    """A system with a JMP potential within a subset and its force field everywhere else.

    Mechanical embedding: the subset and its surroundings interact as in the force field, with its
    charges. Within the subset, bonded and non-bonded terms and constraints are removed. Call it
    again with the mixed system for another subset.

    Args:
        topology: Topology of the system.
        system: The whole in a conventional force field; it is not changed.
        model: As for :func:`jmp_force`.
        atoms: Indices of the subset: whole molecules.
        interpolate: Keep the removed terms, scaled by one minus the global parameter
            ``lambda_interpolate``, and scale the potential by it: 0 is the force field, 1 the mixed
            system. All subsets share the parameter. Constraints need a bond term beside them.
        remove_constraints: Whether constraints within the subset go.
        options: Others of :func:`jmp_force`; ``periodic`` is that of the system.

    Raises:
        InputError: As for :func:`jmp_force`, or a bond or constraint that leaves the subset, a
            force that cannot be split, or particles of another subset.
    """
    chosen = Particles.of(topology, system).choose(atoms).tolist()
    check_subset(system, topology, chosen, molecules=True)
    mixed = remove_internal_terms(
        system,
        topology,
        chosen,
        interpolate=interpolate,
        remove_constraints=remove_constraints,
    )
    options = {"periodic": system.usesPeriodicBoundaryConditions(), **options}
    if interpolate:
        options["parameter"] = INTERPOLATE
    mixed.addForce(jmp_force(model, topology, atoms=chosen, **options))  # type: ignore[arg-type]
    return mixed
