"""Checkpoints of the official JMP code (spec section 6), and their native form."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jmp_md.checkpoints.hyperparameters import (
    read_config,
    read_finetuned_head,
    read_pretraining_heads,
)
from jmp_md.checkpoints.restricted import load_torch_file
from jmp_md.errors import CheckpointError, InputError, shown
from jmp_md.header import OFFICIAL_LICENCE, HeadInfo, ModelHeader
from jmp_md.nn.backbone import GemNetOC
from jmp_md.nn.config import BackboneConfig
from jmp_md.nn.shapes import shapes_only

_RADIAL_COPY = re.compile(r"backbone\.bases\.(?:\w+\.)?radial_basis\w*\.rbf\.(offset|temps)")
_OUTPUT_LAYER = re.compile(r"(backbone\.out_blocks\.\d+)\.(?:layers|seq_energy_pre)\.(.+)")
_PRETRAINING_HEAD = re.compile(r"output\.out_(energy|forces)\.(\d{1,3})\.(.+)")
_FINETUNED_HEAD = re.compile(r"out_(energy|forces)\.(.+)")
_PROPERTY_HEAD = re.compile(r"graph_outputs|.*\bft_mlp_")


@dataclass(frozen=True)
class OfficialCheckpoint:
    """An official checkpoint, checked to be complete and consistent.

    Attributes:
        config: Sizes of the backbone.
        state: The chosen weights under their official names.
        kind: ``"pretrain"`` (several heads) or ``"finetune"`` (one head).
        weights: ``"ema"`` or ``"raw"``: which of the two ``state`` holds.
        heads: Normalisation and graphs of each head, in the order of the file.
    """

    config: BackboneConfig
    state: dict[str, Tensor]
    kind: str
    weights: str
    heads: tuple[HeadInfo, ...]


def read_official(
    path: str | Path, weights: str = "ema", ignore: Collection[str] = ()
) -> OfficialCheckpoint:
    """Read a checkpoint of the official code without executing anything in it.

    Args:
        path: Lightning checkpoint, e.g. ``jmp-s.pt``.
        weights: ``"ema"``, the averaged weights the authors evaluate and fine-tune from, or
            ``"raw"``. A file without averaged weights gives the raw ones, with a warning.
        ignore: See :func:`~jmp_md.checkpoints.restricted.load_torch_file`.

    Raises:
        CheckpointError: Unreadable, unsafe, incomplete or inconsistent, weights that are not
            finite, or settings the network here does not support.
    """
    if weights not in ("ema", "raw"):
        raise InputError(f"weights = {weights!r}: choose 'ema' or 'raw'")
    content = load_torch_file(path, ignore)
    try:
        checkpoint = _checked(content, weights)
    except CheckpointError as error:
        raise CheckpointError(f"cannot use {path}: {error}") from error
    if checkpoint.weights != weights:
        warnings.warn(f"{path} has no EMA weights: using the raw ones", stacklevel=2)
    return checkpoint


def to_native(checkpoint: OfficialCheckpoint, name: str) -> tuple[ModelHeader, dict[str, Tensor]]:
    """The checkpoint as a model of this project, under native names.

    Raises:
        CheckpointError: The radial bases, stored once per graph, are not all the same.
    """
    tensors: dict[str, Tensor] = {}
    for official, value in checkpoint.state.items():
        native = _native_name(official, checkpoint.heads)
        if native is None:
            continue
        if _RADIAL_COPY.fullmatch(official) and not torch.equal(
            value, tensors.setdefault(native, value)
        ):
            raise CheckpointError(f"{official} differs from the other copies of the radial basis")
        # Both names are the same tensors in the official network, where this one is loaded last.
        if native not in tensors or ".seq_energy_pre." in official:
            tensors[native] = value
    for key, value in tensors.items():
        if key.endswith("scale_factor") and value == 0:  # not fitted: nothing is scaled
            tensors[key] = torch.ones_like(value)
    heads = tuple(_complete_biases(head, tensors) for head in checkpoint.heads)
    pretrained = checkpoint.kind == "pretrain"
    header = ModelHeader(
        name=name,
        architecture=checkpoint.config,
        heads=heads,
        licence=f"{OFFICIAL_LICENCE} (non-commercial)",
        data="OC20, OC22, ANI-1x, Transition-1x" + ("" if pretrained else ", then fine-tuned"),
        training={"source": "checkpoint of the official JMP code (arXiv 2310.16802)"},
        weights=checkpoint.weights,
    )
    return header, tensors


def _checked(content: Any, weights: str) -> OfficialCheckpoint:
    if not isinstance(content, dict):
        raise CheckpointError(f"it holds a {type(content).__name__}, not a Lightning checkpoint")
    state, hyper = content.get("state_dict"), content.get("hyper_parameters")
    if not isinstance(state, dict) or not isinstance(hyper, dict):
        raise CheckpointError(
            f"it has state_dict = {type(state).__name__} and hyper_parameters = {shown(hyper)}: "
            "expected a Lightning checkpoint of the official JMP code"
        )
    _require_floats(state)
    config = read_config(hyper)
    kind, heads = _heads(state, hyper)
    _require_layout(state, config, heads)
    if weights == "ema":
        ema = _ema_tensors(content.get("optimizer_states"))
        if ema is None:
            weights = "raw"
        else:
            state = _with_ema(state, ema)
    broken = [name for name, value in state.items() if not bool(value.isfinite().all())]
    if broken:
        raise CheckpointError(
            f"{len(broken)} tensors of its {weights} weights hold NaN or infinity, first "
            f"{broken[0]!r}: use a checkpoint of before the training diverged"
        )
    return OfficialCheckpoint(config, dict(state), kind, weights, heads)


def _heads(state: dict[str, Tensor], hyper: dict[str, Any]) -> tuple[str, tuple[HeadInfo, ...]]:
    if properties := [name for name in state if _PROPERTY_HEAD.match(name)]:
        raise CheckpointError(
            f"it has a property head ({properties[0]}): only energy and force heads are read"
        )
    pretraining = [m for name in state if (m := _PRETRAINING_HEAD.fullmatch(name))]
    finetuned = [m for name in state if (m := _FINETUNED_HEAD.fullmatch(name))]
    direct = any(m[1] == "forces" for m in pretraining + finetuned)
    if pretraining:
        n_heads = len({m[2] for m in pretraining})
        return "pretrain", read_pretraining_heads(hyper, n_heads, direct)
    if finetuned:
        return "finetune", (read_finetuned_head(hyper, direct),)
    raise CheckpointError("state_dict has no energy head (output.out_energy.* or out_energy.*)")


def _native_name(official: str, heads: tuple[HeadInfo, ...]) -> str | None:
    """Where a tensor goes; None for training state. Unknown names stay as they are."""
    if official.startswith("task_steps"):
        return None
    if match := _RADIAL_COPY.fullmatch(official):
        return f"backbone.radial.{match[1]}"
    if match := _OUTPUT_LAYER.fullmatch(official):
        return f"{match[1]}.layers.{match[2]}"
    if official == "embedding.atom_embedding.weight":
        return "embedding.weight"
    if match := _FINETUNED_HEAD.fullmatch(official):
        return f"heads.{heads[0].name}.{match[1]}.layers.{match[2]}"
    match = _PRETRAINING_HEAD.fullmatch(official)
    if match and int(match[2]) < len(heads):
        return f"heads.{heads[int(match[2])].name}.{match[1]}.layers.{match[3]}"
    return official


def _require_floats(state: dict[str, Any]) -> None:
    for name, value in state.items():
        floating = isinstance(value, Tensor) and value.is_floating_point()
        if not isinstance(name, str) or not (floating or name.startswith("task_steps")):
            raise CheckpointError(f"state_dict entry {shown(name)} is not a tensor of real numbers")


def _require_layout(
    state: dict[str, Tensor], config: BackboneConfig, heads: tuple[HeadInfo, ...]
) -> None:
    natives = {official: _native_name(official, heads) for official in state}
    expected = _native_shapes(config, heads, present=frozenset(filter(None, natives.values())))
    missing = expected.keys() - natives.values()
    missing |= {_stored_twice_as(name) for name in state} - state.keys()
    unexpected = [o for o, native in natives.items() if native not in expected and native]
    for what, names in (("missing", sorted(missing)), ("unexpected", unexpected)):
        if names:
            listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise CheckpointError(
                f"{len(names)} tensors are {what}: {listed}; the file is incomplete, or its "
                "network is not the one its hyper-parameters describe"
            )
    for official, native in natives.items():
        if native and tuple(state[official].shape) != expected[native]:
            raise CheckpointError(
                f"{official} has shape {tuple(state[official].shape)}, expected {expected[native]}"
            )


def _native_shapes(
    config: BackboneConfig, heads: tuple[HeadInfo, ...], present: frozenset[str]
) -> dict[str, tuple[int, ...]]:
    with shapes_only():
        backbone = GemNetOC(config).state_dict()
    shapes = {f"backbone.{name}": tuple(value.shape) for name, value in backbone.items()}
    shapes["embedding.weight"] = (config.num_elements, config.emb_size_atom)
    for head in heads:
        widths = {"energy": config.emb_size_atom}
        if head.force_scale is not None:
            widths["forces"] = config.emb_size_edge
        for branch, width in widths.items():
            prefix = f"heads.{head.name}.{branch}.layers"
            for layer in (0, 2, 4, 6):
                shapes[f"{prefix}.{layer}.weight"] = (width, width)
                if f"{prefix}.0.bias" in present:
                    shapes[f"{prefix}.{layer}.bias"] = (width,)
            shapes[f"{prefix}.8.weight"] = (1, width)
    return shapes


def _ema_tensors(optimizer_states: Any) -> tuple[Tensor, ...] | None:
    """The averaged weights; None where the file has none."""
    if optimizer_states is None or optimizer_states == []:
        return None
    first = optimizer_states[0] if isinstance(optimizer_states, list) else optimizer_states
    if not isinstance(first, dict):
        raise CheckpointError(f"optimizer_states hold {shown(first)}: use weights='raw'")
    if "ema" not in first:
        return None
    groups = inner.get("param_groups") if isinstance(inner := first.get("opt"), dict) else None
    if isinstance(groups, list) and len(groups) > 1:
        # Their tuple follows the groups, and nothing in the file says what is in which.
        raise CheckpointError("EMA weights of several optimiser groups: use weights='raw'")
    ema = first["ema"]
    if not isinstance(ema, tuple | list) or not all(isinstance(t, Tensor) for t in ema):
        raise CheckpointError("the EMA weights are not a sequence of tensors: use weights='raw'")
    return tuple(ema)


def _with_ema(state: dict[str, Tensor], ema: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The state dict with its trained tensors replaced, in order, by their averages."""
    names = [name for name in state if _is_averaged(name)]
    if len(names) != len(ema):
        raise CheckpointError(
            f"{len(ema)} EMA tensors for {len(names)} trained ones: use weights='raw'"
        )
    averaged = dict(state)
    for name, value in zip(names, ema, strict=True):
        if value.shape != state[name].shape or not value.is_floating_point():
            raise CheckpointError(
                f"the EMA tensor in the place of {name} has shape {tuple(value.shape)}, expected "
                f"{tuple(state[name].shape)}: use weights='raw'"
            )
        averaged[name] = value
    for name in state:
        averaged[name] = averaged[_stored_twice_as(name)]
    return averaged


def _stored_twice_as(name: str) -> str:
    return name.replace(".seq_energy_pre.", ".layers.")


def _is_averaged(name: str) -> bool:
    return not (
        name.endswith(("rbf.offset", "rbf.temps", "scale_factor"))
        or ".seq_energy_pre." in name
        or name.startswith("task_steps")
    )


def _complete_biases(head: HeadInfo, tensors: dict[str, Tensor]) -> HeadInfo:
    """Tell whether the head has biases; where only one branch has, give the other zeros."""
    prefix = f"heads.{head.name}."
    bias = any(name.startswith(prefix) and name.endswith(".bias") for name in tensors)
    if bias:
        for weight in [n for n in tensors if n.startswith(prefix) and n.endswith(".weight")]:
            if not weight.endswith(".8.weight"):
                name = weight.removesuffix("weight") + "bias"
                tensors.setdefault(name, tensors[weight].new_zeros(tensors[weight].shape[0]))
    return replace(head, bias=bias)
