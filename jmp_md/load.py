"""From the name or file of a model to a potential."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from ase.data import atomic_numbers
from torch import Tensor

from jmp_md.checkpoints.exported import DTYPES, FixedPotential, is_exported, read_exported
from jmp_md.checkpoints.native import SUFFIX, read_native
from jmp_md.checkpoints.official import read_official, to_native
from jmp_md.checkpoints.packaged import PackagedPotential
from jmp_md.compiled import CompiledStep
from jmp_md.errors import CheckpointError, InputError
from jmp_md.files import user_path
from jmp_md.forks import expect_threads_of, refuse_lost_threads
from jmp_md.graph.policy import GraphPolicy
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.models.catalogue import notify_licence
from jmp_md.models.registry import PACKAGE_SUFFIX, cache_dir, model_file, resolve
from jmp_md.potential import Potential
from jmp_md.step import FoldedStep


def load_model(
    model: str | Path | Potential,
    *,
    head: str | None = None,
    weights: str = "ema",
    graph: GraphPolicy | None = None,
    cutoff: float | None = None,
    max_neighbors: int | None = None,
    references: Mapping[str, float] | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    precision: str = "full",
    memory: str = "auto",
    compile: bool = False,
    kernels: bool = True,
    trust: bool = False,
) -> Potential:
    """Load a model for inference, with frozen weights.

    Args:
        model: Name that ``jmp-md models`` lists, native ``.safetensors`` file, official ``.pt``
            or ``.ckpt`` checkpoint, file that ``jmp-md export`` wrote, or a potential, which is
            copied.
        head: Task of a model with several.
        weights: ``"ema"``, or ``"raw"`` for those of an official checkpoint without averaging.
        graph: Graph rules in place of those the head was trained with.
        cutoff: Å, in place of the head's own; for models with official graphs.
        max_neighbors: Base count of neighbours (spec section 1), likewise.
        references: eV to add per atom of an element, in place of the head's own.
        dtype: Type of weights and arithmetic.
        device: E.g. ``"cuda:1"``; None takes CUDA where there is one.
        precision: ``"bf16"`` runs the dense layers of the blocks in bfloat16, for speed on
            processors with AMX or AVX512-BF16 and on GPUs; ``"full"`` is ``dtype`` throughout.
        memory: See :class:`~jmp_md.potential.Potential`.
        compile: Compile the network at its first use, for speed; see docs/performance.md. Where
            that fails, a warning says why and eager mode is used.
        kernels: Use kernels of this package on a processor where they are faster, compiled once
            per machine by its C++ compiler. Where there is none, and where the environment
            variable ``JMP_MD_KERNELS`` is ``off``, PyTorch's operations do the same.
        trust: Whether a file that ``jmp-md export`` wrote, or that looks like one, may be loaded:
            it is a program, which then runs with all rights of this process.

    Raises:
        InputError: An option that does not exist or does not fit the model.
        ModelNotFoundError: The model is not at hand.
        CheckpointError: The file is damaged, or has no such head.
    """
    for name, value, choices in (
        ("weights", weights, ("ema", "raw")),
        ("precision", precision, ("full", "bf16")),
        ("memory", memory, ("auto", "lean", "fast")),
    ):
        if value not in choices:
            raise InputError(f"{name} = {value!r}: choose {' or '.join(map(repr, choices))}")
    refuse_lost_threads()
    place = usable_device(device)
    if (exported := _exported(model, place, trust)) is not None:
        raw, bf16 = weights == "raw" or None, precision == "bf16" or None
        options = (graph, cutoff, max_neighbors, references, raw, bf16, compile or None)
        return _as_exported(exported, head, dtype, options).to(place)
    header, state = _state(model, weights)
    if "property" in header.training:
        raise CheckpointError(
            f"model {header.name!r} predicts the property {header.head().name!r}, no energies: use "
            "'jmp-md evaluate --output', or jmp_md.training.property.PropertyModel"
        )
    if weights == "raw" and header.weights == "ema":
        raise InputError(
            f"model {header.name!r} holds EMA weights only: convert the official checkpoint with "
            "--weights raw"
        )
    chosen = header.head(head)
    if cutoff is not None or max_neighbors is not None:
        if graph is not None:
            raise InputError("give either graph or cutoff and max_neighbors, not both")
        graph = _official_graph(header, chosen, cutoff, max_neighbors)
    if references is not None:
        chosen = replace(chosen, references=_by_number(references), has_references=True)
        header = replace(
            header, heads=tuple(chosen if h.name == chosen.name else h for h in header.heads)
        )
    potential = Potential.from_state(header, state, chosen.name, graph, dtype)
    potential.backbone.bf16 = precision == "bf16"
    potential.memory = memory
    potential = potential.to(place).eval()
    expect_threads_of(potential)
    folder = kernel_folder() if kernels else None
    potential.step = CompiledStep(potential) if compile else FoldedStep(potential, folder)
    return potential


def kernel_folder() -> Path | None:
    """Where compiled kernels are kept; None where ``JMP_MD_KERNELS`` is ``off``.

    The variable may name a folder, in place of one in the cache.
    """
    chosen = os.environ.get("JMP_MD_KERNELS", "")
    if chosen.lower() == "off":
        return None
    return user_path(chosen) if chosen else cache_dir() / "kernels"


def read_model(model: str | Path, weights: str = "ema") -> tuple[ModelHeader, dict[str, Tensor]]:
    """Header and tensors of a model, in the native format, official checkpoints converted.

    Args:
        model: Name that ``jmp-md models`` lists, native file or official checkpoint.
        weights: ``"ema"`` or ``"raw"``, of an official checkpoint.

    Raises:
        ModelNotFoundError: The model is not at hand.
        CheckpointError: The file is damaged.
    """
    path = resolve(model)
    if path.suffix == SUFFIX:
        return read_native(path)
    return to_native(read_official(path, weights), path.stem)


def _state(model: str | Path | Potential, weights: str) -> tuple[ModelHeader, dict[str, Tensor]]:
    if isinstance(model, Potential):
        notify_licence(model.header.licence)
        own = replace(model.head, graph=model.policy)
        return replace(model.header, heads=(own,)), model.native_state()
    return read_model(model, weights)


def _exported(
    model: str | Path | Potential, device: torch.device, trust: bool
) -> FixedPotential | None:
    """The potential of an exported file; None for any other model."""
    if isinstance(model, Potential):
        return model if isinstance(model, FixedPotential) else None
    path = model_file(model)
    if path is None or not (path.suffix == PACKAGE_SUFFIX or is_exported(path)):
        return None
    if not trust:
        raise InputError(
            f"{path} is a program, which runs as soon as it is loaded and may do anything: if you "
            "trust where it comes from, pass trust=True or --trust"
        )
    exported: FixedPotential
    if path.suffix == PACKAGE_SUFFIX:
        if device.type != "cpu":
            raise InputError(f"{path} is code for the CPU: use device='cpu', or the model itself")
        exported = PackagedPotential(path)
    else:
        exported = read_exported(path)
    notify_licence(exported.header.licence)
    return exported


def _as_exported(
    exported: FixedPotential, head: str | None, dtype: torch.dtype, options: tuple[object, ...]
) -> FixedPotential:
    """An exported potential, which is what it is: other wishes are refused."""
    info = exported.info
    exported.header.head(head)
    if any(option is not None for option in options):
        raise InputError(
            f"the exported file of model {info.header.name!r} has its graphs, references, weights "
            "and precision built in: leave out graph, cutoff, max_neighbors, references, "
            "weights='raw', precision='bf16' and compile, or use the model itself"
        )
    if DTYPES[info.dtype] != dtype:
        raise InputError(
            f"the exported file of model {info.header.name!r} computes in {info.dtype}, not "
            f"{str(dtype).removeprefix('torch.')}: use dtype={info.dtype!r} if that will do, or "
            "export the model again with the other"
        )
    return exported


def _official_graph(
    header: ModelHeader, head: HeadInfo, cutoff: float | None, max_neighbors: int | None
) -> GraphPolicy:
    own = head.graph
    if own.kind != "official":
        raise InputError(
            f"model {header.name!r} was trained with smooth graphs of {own.cutoffs} Å and is wrong "
            "with others: leave out cutoff and max_neighbors, which are for official models"
        )
    return GraphPolicy.official(
        own.cutoffs[0] if cutoff is None else cutoff,
        (own.counts[0] or 1) if max_neighbors is None else max_neighbors,
    )


def _by_number(references: Mapping[str, float]) -> dict[int, float]:
    for symbol, value in references.items():
        if atomic_numbers.get(symbol, 0) < 1:
            raise InputError(f"references: {symbol!r} is not the symbol of an element, e.g. 'H'")
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"references: {value!r} for {symbol} is not an energy in eV")
    return {atomic_numbers[symbol]: float(value) for symbol, value in references.items()}


def usable_device(device: str | torch.device | None) -> torch.device:
    """A device that is there; None is CUDA where there is one, else the CPU.

    Raises:
        InputError: It cannot be used.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {str(device)!r} cannot be used ({str(error).splitlines()[0]}): choose 'cpu', "
            "or 'cuda' on a machine with a GPU and a CUDA build of torch"
        ) from error
    return place
