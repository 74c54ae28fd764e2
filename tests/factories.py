"""Small random models for tests: the arithmetic is that of real ones, the numbers mean nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from jmp_md.checkpoints.native import write_native
from jmp_md.graph.policy import GraphPolicy
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.nn.config import BackboneConfig
from jmp_md.potential import Potential

SIZES: dict[str, Any] = {
    "num_spherical": 4,
    "num_radial": 24,
    "num_blocks": 2,
    "emb_size_atom": 16,
    "emb_size_edge": 20,
    "emb_size_trip_in": 8,
    "emb_size_trip_out": 8,
    "emb_size_quad_in": 6,
    "emb_size_quad_out": 6,
    "emb_size_aint_in": 8,
    "emb_size_aint_out": 8,
    "emb_size_rbf": 6,
    "emb_size_cbf": 5,
    "emb_size_sbf": 7,
    "num_before_skip": 1,
    "num_after_skip": 1,
    "num_concat": 1,
    "num_atom": 1,
    "num_output_afteratom": 1,
    "num_atom_emb_layers": 1,
    "num_global_out_layers": 1,
}


def random_potential(
    *,
    smooth: bool = True,
    direct: bool = False,
    graph: GraphPolicy | None = None,
    head: dict[str, Any] | None = None,
    header: dict[str, Any] | None = None,
    **sizes: int,
) -> Potential:
    """A potential in float64 with reproducible random weights and scale factors of 1.

    Args:
        smooth: Smooth graphs; else official ones of 6 Å and base 30, which truncate nothing in
            small molecules.
        direct: With a direct force head.
        graph: Graphs in place of those.
        head: Fields of :class:`HeadInfo` in place of the defaults.
        header: Fields of :class:`ModelHeader` in place of the defaults.
        sizes: Fields of :class:`BackboneConfig` in place of :data:`SIZES`.
    """
    config = BackboneConfig(**(SIZES | sizes), direct_forces=direct)
    policy = graph or (GraphPolicy.smooth() if smooth else GraphPolicy.official(6.0, 30))
    info: dict[str, Any] = {"name": "test", "graph": policy, "energy_scale": 1.5}
    if direct:
        info["force_scale"] = 0.5
    about: dict[str, Any] = {"name": "random", "licence": "MIT"} | (header or {})
    about["heads"] = (HeadInfo(**(info | (head or {}))),)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        potential = Potential(ModelHeader(architecture=config, **about))
    return potential.double().requires_grad_(False)


def write_model(folder: Path, name: str = "random", **options: Any) -> Path:
    """A model file with the weights of :func:`random_potential`."""
    options["header"] = {"name": name} | options.get("header", {})
    potential = random_potential(**options)
    path = folder / f"{name}.safetensors"
    write_native(path, potential.header, potential.native_state())
    return path
