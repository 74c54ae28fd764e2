"""Cases with outputs of the official network, read from the folder of reference data."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jmp_md.nn.config import BackboneConfig

_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "reference"
_MODELS = ("tiny-pretrain", "tiny-rmd17")
# Not in the tuple of EMA weights (spec section 6).
_NO_EMA_END = ("rbf.offset", "rbf.temps", "scale_factor")


@dataclass(frozen=True)
class Case:
    """One structure through one set of weights.

    Attributes:
        name: ``"tiny-pretrain/ema/cu111_co/12A_30"`` or ``"tiny-rmd17/cluster44/7A_100"``.
        state: Official-named state dict as stored (float32).
        config: Sizes of the network.
        numbers: (N,) int64.
        positions: (N, 3) float64, Å.
        cell: (3, 3) float64, Å.
        pbc: Periodicity in three directions.
        tags: (N,) int64.
        cutoff: Å.
        base: Neighbours per atom in the main graph.
        heads: (energy prefix, direct force prefix or None) of every head, in order.
        expected: Network outputs, as in the JSON file.
    """

    name: str
    state: dict[str, Tensor]
    config: BackboneConfig
    numbers: Tensor
    positions: Tensor
    cell: Tensor
    pbc: tuple[bool, bool, bool]
    tags: Tensor
    cutoff: float
    base: int
    heads: tuple[tuple[str, str | None], ...]
    expected: dict[str, Any]


def names() -> list[str]:
    """Names of all cases; empty where the reference data is absent."""
    if not _FOLDER.is_dir():
        return []
    return [f"{model}/{case}" for model in _MODELS for case in _expected(model)]


def load(name: str) -> Case:
    """The case of that name."""
    model, rest = name.split("/", 1)
    *weights, structure, graph = rest.split("/")
    cutoff, base = graph.split("A_")
    raw = _structures()[structure]
    state, config, heads = _model(model, weights == ["ema"])
    return Case(
        name=name,
        state=state,
        config=config,
        numbers=torch.tensor(raw["numbers"]),
        positions=torch.tensor(raw["positions"], dtype=torch.float64),
        cell=torch.tensor(raw["cell"], dtype=torch.float64),
        pbc=tuple(raw["pbc"]),
        tags=torch.tensor(raw["tags"]),
        cutoff=float(cutoff),
        base=int(base),
        heads=heads,
        expected=_expected(model)[rest],
    )


def strong_quadruplets(case: Case, factor: float = 1000.0) -> Case:
    """The case with the quadruplet sums amplified; its expected outputs no longer apply.

    With these random weights quadruplets change energies by about 1e-6 and forces by 1e-4
    (relative), too little to test them in single precision or through small perturbations.
    """
    end = "quad_interaction.scale_sbf_sum.scale_factor"
    state = {k: v * factor if k.endswith(end) else v for k, v in case.state.items()}
    return dataclasses.replace(case, state=state, expected={})


@lru_cache
def _expected(model: str) -> dict[str, Any]:
    return json.loads((_FOLDER / f"{model}-expected.json").read_text())["cases"]


@lru_cache
def _structures() -> dict[str, Any]:
    return {s["name"]: s for s in json.loads((_FOLDER / "tiny-structures.json").read_text())}


@lru_cache
def _model(
    model: str, ema: bool
) -> tuple[dict[str, Tensor], BackboneConfig, tuple[tuple[str, str | None], ...]]:
    checkpoint = torch.load(_FOLDER / f"{model}.ckpt", weights_only=True)
    state = dict(checkpoint["state_dict"])
    if ema:
        state |= ema_weights(state, checkpoint["optimizer_states"][0]["ema"])
    raw = checkpoint["hyper_parameters"]["backbone"]
    fields = {f.name for f in dataclasses.fields(BackboneConfig)}
    config = BackboneConfig(
        **{k: v for k, v in raw.items() if k in fields}, basis_cutoff=raw["absolute_rbf_cutoff"]
    )
    tasks = checkpoint["hyper_parameters"].get("tasks")
    heads: tuple[tuple[str, str | None], ...] = (("out_energy", None),)
    if tasks is not None:
        heads = tuple(
            (f"output.out_energy.{t}", f"output.out_forces.{t}") for t in range(len(tasks))
        )
    return state, config, heads


def ema_weights(state: dict[str, Tensor], ema: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """EMA tensors under their names, the tensors stored twice included (spec section 6)."""
    keys = [
        key
        for key in state
        if not key.endswith(_NO_EMA_END)
        and ".seq_energy_pre." not in key
        and not key.startswith("task_steps")
    ]
    averaged = dict(zip(keys, ema, strict=True))
    twice = [key for key in state if ".seq_energy_pre." in key]
    return averaged | {k: averaged[k.replace(".seq_energy_pre.", ".layers.")] for k in twice}
