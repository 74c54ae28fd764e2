"""Energies, forces and stress of a list of structures in one call."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from ase import Atoms

from jmp_md.batch import BatchPredictor, Item, Result, in_parts
from jmp_md.checkpoints.exported import DTYPES, FixedPotential
from jmp_md.compiled import CompiledStep
from jmp_md.domain import foreign
from jmp_md.errors import DomainWarning, InputError
from jmp_md.load import load_model
from jmp_md.potential import Potential
from jmp_md.system import System, in_groups, search_systems
from jmp_md.validate import ignored_electrons

PROPERTIES = ("energy", "energies", "forces", "stress")


def evaluate(
    structures: Sequence[Atoms],
    model: str | Path | Potential,
    *,
    properties: Collection[str] = ("energy", "forces"),
    head: str | None = None,
    forces: str = "conservative",
    dtype: str | None = None,
    device: str | torch.device | None = None,
    tags: str | None = None,
    max_edges: int | None = None,
    on_error: str = "raise",
    compile: bool | None = None,
    trust: bool = False,
) -> list[Result]:
    """Evaluate structures of any sizes and periodicity, packed into batches.

    The results are those of one structure at a time, to rounding, and in the order given.

    Args:
        structures: What to evaluate.
        model: Name that ``jmp-md models`` lists, file of a model, or a loaded potential.
        properties: Of ``"energy"``, ``"energies"``, ``"forces"`` and ``"stress"``. Energies
            always come; stress for structures that are periodic in a cell with a volume.
        head: Task of a model with several.
        forces: ``"conservative"``, the gradient of the energy, or ``"direct"``, from the force
            head of a pre-trained model.
        dtype: ``"float32"`` or ``"float64"``; None takes that of a loaded potential, else
            float32.
        device: E.g. ``"cuda:1"``; None takes that of a loaded potential, else CUDA where there
            is one.
        tags: None gives every atom OC20's tag 2; ``"oc"`` reads tags from the structures.
        max_edges: Largest number of main-graph edge slots in a batch (atoms times the largest
            number of neighbours); None finds it from the free memory.
        on_error: What becomes of a structure that cannot be evaluated: ``"raise"``, or
            ``"keep"`` to get a result of NaN with the error as its attribute ``error``.
        compile: Compile the network at its first use, as for :func:`jmp_md.load_model`; None
            takes a loaded potential as it is.
        trust: Whether ``model`` may be an exported file, whose code then runs.

    Raises:
        InputError: An option that does not exist or does not fit the model, or a structure that
            cannot be evaluated; its index is named.
        ModelNotFoundError: The model is not at hand.
        CheckpointError: The file is damaged, or has no such head.
    """
    for name, values, choices in (
        ("properties", properties, PROPERTIES),
        ("forces", [forces], ("conservative", "direct")),
        ("dtype", [dtype], (None, *DTYPES)),
        ("tags", [tags], (None, "oc")),
        ("on_error", [on_error], ("raise", "keep")),
    ):
        for value in values:
            if value not in choices:
                raise InputError(f"{name}: {value!r}; choose {' or '.join(map(repr, choices))}")
    potential = _potential(model, head, dtype, device, compile, trust)
    predictor = BatchPredictor(
        potential,
        forces="forces" in properties,
        stress="stress" in properties,
        direct=forces == "direct",
        max_edges=max_edges,
    )
    results: dict[int, Result] = {}
    systems: dict[int, System] = {}
    for i, atoms in enumerate(structures):  # all of them before anything is computed
        try:
            systems[i] = System(atoms, potential, skin=0.0, oc_tags=tags == "oc")
        except InputError as error:
            results[i] = Result.failed(len(atoms), error)
    _warn_foreign([structures[i] for i in systems], potential)
    _warn_ignored(structures)
    for part in in_parts(_items(systems, results), lambda numbered: numbered[1]):
        if on_error == "raise":
            _raise_first(results)
        numbers, items = zip(*part, strict=True)
        results.update(zip(numbers, predictor.predict(items), strict=True))
    if on_error == "raise":
        _raise_first(results)
    return [results[i] for i in range(len(structures))]


def _potential(
    model: str | Path | Potential,
    head: str | None,
    dtype: str | None,
    device: str | torch.device | None,
    compile: bool | None,
    trust: bool,
) -> Potential:
    """The model as asked for; a loaded one is used as it is where nothing else is asked for."""
    if not isinstance(model, Potential):
        return load_model(
            model,
            head=head,
            dtype=DTYPES[dtype or "float32"],
            device=device,
            compile=bool(compile),
            trust=trust,
        )
    if head is dtype is device is compile is None:
        return model
    own, fixed = model.embedding.weight, isinstance(model, FixedPotential)
    return load_model(
        model,
        head=head,
        dtype=DTYPES[dtype] if dtype else own.dtype,
        device=device or own.device,
        compile=isinstance(model.step, CompiledStep) if compile is None else compile,
        precision="bf16" if not fixed and model.backbone.bf16 else "full",
        memory="auto" if fixed else model.memory,
    )


def _items(systems: dict[int, System], results: dict[int, Result]) -> Iterator[tuple[int, Item]]:
    """Structures with their pairs, numbered; failures go to ``results``."""
    for group in in_groups(systems):
        search_systems(systems[i] for i in group)
        for i in group:
            system = systems.pop(i)  # with it go its pairs, once they are computed
            try:
                yield i, system.item()
            except InputError as error:
                results[i] = Result.failed(len(system.numbers), error)


def _raise_first(results: Mapping[int, Result]) -> None:
    for i in sorted(results):
        error = results[i].error
        if error is not None:
            raise InputError(f"structure {i}: {error}") from error


def _warn_foreign(structures: Sequence[Atoms], potential: Potential) -> None:
    """Once per call, for the first structure that the model was not made for."""
    for atoms in structures:
        if message := foreign(atoms, potential.header):
            warnings.warn(message, DomainWarning, stacklevel=3)
            return


def _warn_ignored(structures: Sequence[Atoms]) -> None:
    """Once per call, for the first structure with charges or spins."""
    for i, atoms in enumerate(structures):
        message = ignored_electrons(atoms)
        if message:
            warnings.warn(f"structure {i}: {message}", stacklevel=3)
            return
