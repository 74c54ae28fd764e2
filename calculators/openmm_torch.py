"""The TorchForce of a potential: compiled code of the package openmmtorch, no Python in a step."""

from __future__ import annotations

import functools
import re

import torch  # before openmm, or the plugin does not find torch's libraries

from jmp_md.calculators.openmm_interaction import Interaction
from jmp_md.errors import InputError
from jmp_md.export.write import openmm_module

# isort: split
import openmm

# What openmmtorch 1.5 on the package index is compiled against.
INSTALL = "pip install '.[torchforce]' in a checkout, in an environment of its own (torch 2.9)"
_FAILURE = re.compile(r"Error loading library (\S*OpenMMTorch(\w+?)\.\S+?): (.*)")


@functools.cache
def plugin_problem() -> str:
    """Why TorchForce cannot be used; empty where it can.

    A plugin that did not load because OpenMM was imported before torch is loaded now.
    """
    versions = f"with torch {torch.__version__} and OpenMM {openmm.__version__}"
    try:
        import openmmtorch  # noqa: F401
    except ImportError as error:
        if getattr(error, "name", "") == "openmmtorch":
            return "the package openmmtorch is not installed"
        return f"openmmtorch cannot be imported {versions}: {error}"
    for failure in openmm.Platform.getPluginLoadFailures():
        found = _FAILURE.match(failure)
        if found is None or found[2] != "Reference":  # others need a GPU, and its libraries
            continue
        try:
            openmm.Platform.loadPluginLibrary(found[1])
        except openmm.OpenMMException as error:
            reason = str(error).rpartition(": ")[2]
            return f"the plugin of openmmtorch does not load {versions}: {reason}"
    return ""


def torch_force(interaction: Interaction) -> openmm.Force:
    """A TorchForce; the potential must be on the CPU, OpenMM moves it where its platform computes.

    TorchScript optimises a module during its first three calls, which takes seconds and gains
    nothing here: take steps ``with torch.jit.optimized_execution(False)`` to go without. Make the
    context before: what OpenMM does with the module then needs the optimiser.

    Raises:
        InputError: TorchForce cannot be used here; the message says why.
    """
    if problem := plugin_problem():
        raise InputError(f"backend='torch': {problem}; {INSTALL}, or use backend='python'")
    import openmmtorch

    module = openmm_module(
        interaction.potential,
        interaction.numbers.tolist(),
        "direct" if interaction.direct else "conservative",
        atoms=interaction.atoms,
        periodic=interaction.periodic,
        scaled=interaction.parameter is not None,
    )
    force = openmmtorch.TorchForce(module)
    force.setOutputsForces(interaction.direct)
    if interaction.parameter is not None:
        force.addGlobalParameter(interaction.parameter, 1.0)
    return force


def torch_particles(force: openmm.Force) -> list[int] | None:
    """Indices of the particles of a TorchForce; None for other forces, and those read from XML."""
    if plugin_problem():
        return None
    import openmmtorch

    if not openmmtorch.TorchForce.isinstance(force):
        return None
    return openmmtorch.TorchForce.cast(force).getModule().atoms.tolist()
