"""Sizes of the network, and the presets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from jmp_md.errors import InputError


@dataclass(frozen=True)
class BackboneConfig:
    """Sizes of a GemNet-OC; the names are those of the official checkpoints.

    Attributes:
        num_spherical: Angular functions per angle (l = 0 .. num_spherical - 1).
        num_radial: Gaussian radial functions on [0, basis_cutoff].
        num_blocks: Interaction blocks.
        direct_forces: Whether output blocks carry the branch for direct forces.
        basis_cutoff: Å, radius that scales distances in the bases, whatever the graph cutoff.
    """

    num_spherical: int = 7
    num_radial: int = 128
    num_blocks: int = 4
    emb_size_atom: int = 256
    emb_size_edge: int = 512
    emb_size_trip_in: int = 64
    emb_size_trip_out: int = 64
    emb_size_quad_in: int = 32
    emb_size_quad_out: int = 32
    emb_size_aint_in: int = 64
    emb_size_aint_out: int = 64
    emb_size_rbf: int = 16
    emb_size_cbf: int = 16
    emb_size_sbf: int = 32
    num_before_skip: int = 2
    num_after_skip: int = 2
    num_concat: int = 1
    num_atom: int = 3
    num_output_afteratom: int = 3
    num_atom_emb_layers: int = 2
    num_global_out_layers: int = 2
    num_elements: int = 120
    direct_forces: bool = False
    basis_cutoff: float = 12.0

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            least = (
                0
                if f.name.startswith("num_")
                and f.name.endswith(("skip", "concat", "layers", "atom", "afteratom"))
                else 1
            )
            if f.name != "direct_forces" and not value >= least:
                raise InputError(f"{f.name} = {value!r}: must be at least {least}")


_PRESETS: dict[str, dict[str, Any]] = {
    "jmp-s": {},
    "jmp-l": {
        "num_blocks": 6,
        "emb_size_edge": 1024,
        "emb_size_trip_out": 128,
        "emb_size_quad_in": 64,
        "emb_size_rbf": 32,
        "emb_size_sbf": 64,
        "num_concat": 4,
    },
    # A project size, not one of the paper: small enough for a CPU and for the package.
    "jmp-xs": {
        "num_spherical": 4,
        "num_radial": 64,
        "num_blocks": 2,
        "emb_size_atom": 64,
        "emb_size_edge": 64,
        "emb_size_trip_in": 32,
        "emb_size_trip_out": 32,
        "emb_size_quad_in": 16,
        "emb_size_quad_out": 16,
        "emb_size_aint_in": 32,
        "emb_size_aint_out": 32,
        "emb_size_rbf": 16,
        "emb_size_cbf": 8,
        "emb_size_sbf": 8,
        "num_before_skip": 1,
        "num_after_skip": 1,
        "num_concat": 1,
        "num_atom": 1,
        "num_output_afteratom": 1,
        "num_atom_emb_layers": 1,
        "num_global_out_layers": 1,
    },
}


def preset(name: str, *, direct_forces: bool = False) -> BackboneConfig:
    """Sizes of ``jmp-s`` and ``jmp-l`` (arXiv 2310.16802) or of this project's ``jmp-xs``."""
    if name not in _PRESETS:
        raise InputError(f"unknown preset {name!r}: choose one of {', '.join(_PRESETS)}")
    return BackboneConfig(**_PRESETS[name], direct_forces=direct_forces)
