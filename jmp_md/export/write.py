"""Export a model to one file that needs none of our Python: TorchScript or AOTInductor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from jmp_md.aoti import compile_step, package_file
from jmp_md.checkpoints.exported import (
    DTYPES,
    EXTRA_FILE,
    ExportInfo,
    FixedPotential,
    ScriptedPotential,
    exported_header,
)
from jmp_md.errors import InputError
from jmp_md.export.module import ExportedPotential, OpenMMEnergy, OpenMMForces
from jmp_md.export.verify import verify
from jmp_md.files import atomic_write
from jmp_md.graph.policy import GraphPolicy
from jmp_md.load import load_model
from jmp_md.models.registry import PACKAGE_SUFFIX
from jmp_md.potential import Potential
from jmp_md.validate import check_numbers

_SUFFIXES = {"torchscript": ".pt", "aoti": PACKAGE_SUFFIX}


def export(
    model: str | Path | Potential,
    path: str | Path,
    *,
    format: str = "torchscript",
    numbers: Sequence[int] | None = None,
    periodic: bool = False,
    forces: str | None = None,
    dtype: str = "float32",
    head: str | None = None,
    weights: str = "ema",
    graph: GraphPolicy | None = None,
    trust: bool = False,
) -> ExportInfo:
    """Write a model as one self-contained file; nothing is written unless it computes right.

    Args:
        model: Name, file or potential, as for :func:`jmp_md.load.load_model`.
        path: File to create or replace, ``*.pt``, or ``*.pt2`` for a package.
        format: ``"torchscript"``, or ``"aoti"`` for a package of machine code for processors of
            the kind this one is: the network from the edges of a graph to energies and gradients,
            see :func:`jmp_md.aoti.graph_inputs`. ``JMPCalculator`` finds the edges for it.
        numbers: Atomic numbers of the atoms the file is for, in order: the OpenMM form, positions
            in nm (n_atoms, 3) to kJ/mol. None for the general form, positions in Å, numbers, cell,
            pbc and structure to eV.
        periodic: Whether the OpenMM form takes box vectors (3, 3) in nm as its second argument.
        forces: ``"conservative"`` or ``"direct"``; None takes direct ones from models that have
            them. The OpenMM form returns the energy alone in the first case, from which OpenMM
            takes the gradient, and energy and forces in the second.
        dtype: ``"float32"`` or ``"float64"``, type of weights and arithmetic.
        head: Task of a model with several.
        weights: ``"ema"`` or ``"raw"``.
        graph: Graph rules in place of those the head was trained with.
        trust: Whether ``model`` may be an exported file, whose code then runs.

    Returns:
        What the file says of itself, also in its extra file ``jmp_md.json``.

    Raises:
        InputError: An option that does not exist or does not fit the model, an element that the
            model cannot know, or a file that does not compute what the model does.
        ModelNotFoundError: The model is not at hand.
        CheckpointError: The model's file is damaged, or has no such head.
    """
    path = Path(path)
    if format not in _SUFFIXES:
        raise InputError(f"format = {format!r}: choose {' or '.join(map(repr, _SUFFIXES))}")
    if dtype not in DTYPES:
        raise InputError(f"dtype = {dtype!r}: choose 'float32' or 'float64'")
    if path.suffix != _SUFFIXES[format]:
        raise InputError(
            f"cannot write {path}: the name of a file in format {format!r} ends in "
            f"{_SUFFIXES[format]}"
        )
    if format == "aoti" and (numbers is not None or periodic):
        raise InputError("packages are not for OpenMM: leave out numbers and periodic")
    potential = load_model(
        model,
        head=head,
        weights=weights,
        graph=graph,
        dtype=DTYPES[dtype],
        device="cpu",
        trust=trust,
    )
    if numbers is not None:
        given = np.array(list(numbers), dtype=np.int64)
        check_numbers(given, potential.header, potential.head)
    info = ExportInfo(
        header=exported_header(potential),
        form="graph" if format == "aoti" else "general" if numbers is None else "openmm",
        forces=choose_forces(potential, forces),
        dtype=dtype,
        numbers=tuple(int(z) for z in numbers or ()),
        periodic=periodic,
    )
    if format == "aoti":
        _write_package(potential, path, info)
        return info
    module = general_module(potential, info.forces)
    if numbers is not None:
        module = openmm_module(potential, info.numbers, info.forces, periodic=periodic)
    with atomic_write(path) as temporary:
        torch.jit.save(module, str(temporary), _extra_files={EXTRA_FILE: info.to_json()})
        verify(temporary, potential, info)
    return info


def _write_package(potential: Potential, path: Path, info: ExportInfo) -> None:
    if isinstance(potential, FixedPotential):
        raise InputError(f"model {potential.header.name!r} is an exported file: use the model")
    gradient, metadata = info.forces == "conservative", {EXTRA_FILE: info.to_json()}
    with package_file(path) as package:
        try:
            compile_step(
                potential.fold(),
                potential.policy,
                gradient,
                package,
                with_weights=True,
                metadata=metadata,
            )
        except InputError:
            raise
        except Exception as error:  # whatever a compiler may raise
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"PyTorch {torch.__version__} cannot compile model {info.header.name!r}: {first}"
            ) from error
        verify(package, potential, info)


def choose_forces(potential: Potential, forces: str | None) -> str:
    """``"direct"`` or ``"conservative"``; without a wish, direct where the model has them.

    Raises:
        InputError: Another wish, or direct forces from a model without them.
    """
    if forces not in (None, "conservative", "direct"):
        raise InputError(f"forces = {forces!r}: choose 'conservative' or 'direct'")
    if forces == "direct" and potential.force_head is None:
        raise InputError(
            f"head {potential.head.name!r} of model {potential.header.name!r} has no direct "
            "forces: use forces='conservative'"
        )
    return forces or ("conservative" if potential.force_head is None else "direct")


def general_module(potential: Potential, forces: str) -> torch.jit.ScriptModule:
    """The scripted module in Å and eV; that of the file, for a potential from an exported one."""
    if isinstance(potential, ScriptedPotential):
        return potential.module
    if isinstance(potential, FixedPotential):
        raise InputError(f"the package of model {potential.header.name!r} is no TorchScript")
    return torch.jit.script(ExportedPotential(potential, forces == "direct").eval())


def openmm_module(
    potential: Potential,
    numbers: Sequence[int],
    forces: str,
    *,
    atoms: Sequence[int] | None = None,
    periodic: bool = False,
    scaled: bool = False,
) -> torch.jit.ScriptModule:
    """The scripted module in nm and kJ/mol.

    Args:
        potential: What to script, on the CPU.
        numbers: Atomic numbers of the atoms.
        forces: ``"conservative"`` or ``"direct"``.
        atoms: Indices of the particles they are; None for all particles.
        periodic: Whether the module takes box vectors.
        scaled: Whether its last argument scales energy and forces.
    """
    form = OpenMMForces if forces == "direct" else OpenMMEnergy
    module = form(
        general_module(potential, forces),
        torch.tensor(list(numbers), dtype=torch.long),
        torch.tensor(list(range(len(numbers)) if atoms is None else atoms), dtype=torch.long),
        periodic=periodic,
        scaled=scaled,
    )
    return torch.jit.script(module.eval())
