"""What the hyper-parameters of an official checkpoint say: sizes, tasks, normalisation, graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from jmp_md.errors import CheckpointError, InputError, shown
from jmp_md.graph.policy import GraphPolicy
from jmp_md.header import HeadInfo
from jmp_md.nn.config import BackboneConfig

# Each changes the arithmetic; the network computes only this value. Absent means this value.
_FIXED: dict[str, Any] = {
    "absolute_rbf_cutoff": 12.0,
    "activation": "scaled_silu",
    "atom_edge_interaction": True,
    "atom_interaction": True,
    "cbf": {"name": "spherical_harmonics"},
    "edge_atom_interaction": True,
    "envelope": {"name": "polynomial", "exponent": 5},
    "extensive": True,
    "forces_coupled": False,
    "learnable_rbf": False,
    "learnable_rbf_stds": False,
    "ln": False,
    "num_targets": 1,
    "old_gaussian_implementation": False,
    "qint_tags": [1, 2],
    "quad_interaction": True,
    "rbf": {"name": "gaussian"},
    "rbf_spherical": None,
    "regress_energy": True,
    "replace_scale_factors_with_ln": False,
    "sbf": {"name": "legendre_outer"},
    "scale_basis": False,
    "unique_basis_per_layer": False,
}
# Of training or of data loading only.
_HARMLESS = frozenset(
    {
        *("dropout", "edge_dropout", "otf_graph", "regress_forces"),
        *("scale_backprop_forces", "scale_file", "use_pbc"),
    }
)
_SIZES = tuple(f.name for f in fields(BackboneConfig) if f.type == "int")
_MAX_LAYERS = 16  # bounds the work a hostile file can ask for; JMP-L has 6 blocks
_MAX_WIDTH = 4096
_MAX_NUMBER = 1e30

_ORGANIC = (1, 6, 7, 8)


class _Task(NamedTuple):
    """A pre-training task: graphs and normalisation as published (spec sections 1 and 6)."""

    cutoff: float
    max_neighbors: int
    level_of_theory: str
    elements: tuple[int, ...]
    energy_std: float
    force_std: float


PRETRAINING = {
    "oc20": _Task(12.0, 30, "RPBE", (), 24.901469505465872, 0.5111534595489502),
    "oc22": _Task(12.0, 30, "PBE+U", (), 25.229595396538468, 0.25678861141204834),
    "ani1x": _Task(8.0, 30, "wB97X/6-31G(d)", _ORGANIC, 2.8700712783472118, 2.131422996520996),
    "transition1x": _Task(
        8.0, 30, "wB97X/6-31G(d)", _ORGANIC, 1.787466168382901, 0.3591422140598297
    ),
}
_RMD17 = frozenset(
    (
        *("aspirin", "azobenzene", "benzene", "ethanol", "malonaldehyde", "naphthalene"),
        *("paracetamol", "salicylic", "salicylic_acid", "toluene", "uracil"),
    )
)


def read_config(hyper: Mapping[str, Any]) -> BackboneConfig:
    """Sizes of the network from ``hyper_parameters["backbone"]``.

    Raises:
        CheckpointError: A size is missing or absurd, or a setting asks for arithmetic that
            jmp-md's network does not have.
    """
    backbone = _mapping(hyper, "backbone")
    for name, value in backbone.items():
        if name in _FIXED and not _equal(value, _FIXED[name]):
            raise CheckpointError(
                f"hyper-parameter backbone.{name} = {shown(value)} changes what the network "
                f"computes; jmp-md supports {_FIXED[name]!r} only"
            )
        known = name in _FIXED or name in _HARMLESS or name in (*_SIZES, "direct_forces")
        if not known and value is not None and value is not False:
            raise CheckpointError(
                f"hyper-parameter backbone.{name} = {shown(value)} is unknown and may change what "
                "the network computes: jmp-md reads the released JMP checkpoints and fine-tuned "
                "ones"
            )
    sizes = {name: _size(backbone, name) for name in _SIZES}
    direct = backbone.get("direct_forces")
    if type(direct) is not bool:
        raise CheckpointError(
            f"hyper-parameter backbone.direct_forces = {shown(direct)}: not a bool"
        )
    try:
        return BackboneConfig(**sizes, direct_forces=direct, basis_cutoff=12.0)
    except InputError as error:
        raise CheckpointError(f"hyper-parameter backbone.{error}") from error


def read_pretraining_heads(
    hyper: Mapping[str, Any], n_heads: int, direct: bool
) -> tuple[HeadInfo, ...]:
    """Heads of a pre-training checkpoint, in the order of the file.

    Where the file does not say, e.g. because the classes it used had to be ignored, the
    published tasks and normalisation hold.

    Raises:
        CheckpointError: Another number of tasks than of heads, an unknown task, or a
            normalisation that is not positive.
    """
    tasks = hyper.get("tasks")
    if not isinstance(tasks, list):
        tasks = [{"name": name} for name in PRETRAINING]
    if len(tasks) != n_heads:
        raise CheckpointError(f"{len(tasks)} tasks in hyper_parameters, but {n_heads} heads")
    return tuple(_pretraining_head(task, direct) for task in tasks)


def _pretraining_head(task: Any, direct: bool) -> HeadInfo:
    name = task.get("name") if isinstance(task, dict) else task
    if not isinstance(task, dict) or not isinstance(name, str) or name not in PRETRAINING:
        raise CheckpointError(f"unknown task {shown(name)}: known are {', '.join(PRETRAINING)}")
    if (reduction := task.get("node_energy_reduction", "sum")) != "sum":
        raise CheckpointError(
            f"task {name} has node_energy_reduction {shown(reduction)}, not 'sum'"
        )
    facts = PRETRAINING[name]
    normalization = task.get("normalization")
    if not isinstance(normalization, dict):
        normalization = {"y": {"std": facts.energy_std}, "force": {"std": facts.force_std}}
    return HeadInfo(
        name=name,
        graph=GraphPolicy.official(facts.cutoff, facts.max_neighbors),
        energy_scale=_std(normalization, "y"),
        energy_mean=_mean(normalization, "y"),
        force_scale=_force_std(normalization) if direct else None,
        has_references=False,
        elements=facts.elements,
        level_of_theory=facts.level_of_theory,
    )


def read_finetuned_head(hyper: Mapping[str, Any], direct: bool) -> HeadInfo:
    """The head of a fine-tuned checkpoint.

    A conservative model was trained on F / std_force, so energies take that scale too (spec
    section 6); one with direct forces has its energies in units of their own.

    Raises:
        CheckpointError: Normalisation or graph settings are missing or absurd.
    """
    normalization = _mapping(hyper, "normalization")
    rmd17 = any(_equal(hyper.get("molecule"), name) for name in _RMD17)
    cutoff = hyper.get("cutoff", 7.0 if rmd17 else None)
    max_neighbors = hyper.get("max_neighbors", 100 if rmd17 else None)
    if not _is_number(cutoff) or type(max_neighbors) is not int:
        raise CheckpointError(
            f"hyper_parameters hold cutoff {shown(cutoff)} and max_neighbors "
            f"{shown(max_neighbors)}: without both the graphs the model was trained with are not "
            "known"
        )
    try:
        graph = GraphPolicy.official(float(cutoff), max_neighbors)
    except InputError as error:
        raise CheckpointError(f"hyper_parameters: {error}") from error
    return HeadInfo(
        name="energy",
        graph=graph,
        energy_scale=_std(normalization, "y") if direct else _force_std(normalization),
        energy_mean=_mean(normalization, "y"),
        force_scale=_force_std(normalization) if direct else None,
        level_of_theory="PBE/def2-SVP" if rmd17 else "unknown",
    )


def most_of(name: str) -> int:
    """Largest size of the network that is read, by the name of a field of ``BackboneConfig``."""
    layers = name.startswith("num_") and name not in ("num_radial", "num_elements")
    return _MAX_LAYERS if layers else _MAX_WIDTH


def _mapping(parent: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    if not isinstance(value, dict):
        raise CheckpointError(f"hyper_parameters hold {name} = {shown(value)}, not a mapping")
    return value


def _size(backbone: Mapping[str, Any], name: str) -> int:
    value = backbone.get(name)
    most = most_of(name)
    if type(value) is not int or not 0 <= value <= most:
        raise CheckpointError(
            f"hyper-parameter backbone.{name} = {shown(value)}: expected an integer from 0 to "
            f"{most}"
        )
    return value


def _std(normalization: Mapping[str, Any], name: str) -> float:
    std = _mapping(normalization, name).get("std")
    if not _is_number(std) or not std > 0:
        raise CheckpointError(
            f"normalization.{name}.std = {shown(std)}: expected a positive number"
        )
    return float(std)


def _mean(normalization: Mapping[str, Any], name: str) -> float:
    mean = _mapping(normalization, name).get("mean", 0.0)
    if not _is_number(mean):
        raise CheckpointError(f"normalization.{name}.mean = {shown(mean)}: expected a number")
    return float(mean)


def _force_std(normalization: Mapping[str, Any]) -> float:
    if (mean := _mean(normalization, "force")) != 0:
        raise CheckpointError(
            f"normalization.force.mean = {shown(mean)}: forces have mean 0 in JMP"
        )
    return _std(normalization, "force")


def _is_number(value: Any) -> TypeGuard[float]:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return number and abs(value) < _MAX_NUMBER  # which NaN is not


def _equal(value: Any, expected: Any) -> bool:
    try:
        return bool(value == expected)
    except (RuntimeError, ValueError):  # a tensor or an array has no one truth value
        return False
