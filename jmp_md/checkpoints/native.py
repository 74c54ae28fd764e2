"""Model files of this project: safetensors, with the header as JSON in the metadata.

Such a file holds tensors and text, nothing that could be executed when it is loaded.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from jmp_md.errors import CheckpointError
from jmp_md.files import atomic_write
from jmp_md.header import ModelHeader

if TYPE_CHECKING:  # torch takes seconds to import and a header needs none of it
    from torch import Tensor

SUFFIX = ".safetensors"
METADATA_KEY = "jmp_md"

_GET_AGAIN = "copy, download or convert the file again"


def write_native(path: str | Path, header: ModelHeader, state: dict[str, Tensor]) -> None:
    """Write a model file atomically.

    Args:
        path: File to create or replace, usually ``*.safetensors``.
        header: Everything about the model but its tensors.
        state: State dict. Entries that share memory are written out separately.

    Raises:
        CheckpointError: The weights are not finite, or the file cannot be written.
    """
    from safetensors.torch import save_file

    path = Path(path)
    _require_finite(state, f"cannot write {path}", "the training that made them diverged")
    # clone: safetensors refuses views of shared memory.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    try:
        with atomic_write(path) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(tensors, temporary, metadata={METADATA_KEY: header.to_json()})
            temporary.chmod(mode)  # safetensors lets only the owner read, whatever the umask
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write {path}: {error}; check the folder, its permissions and the free space"
        ) from error


def read_native(path: str | Path) -> tuple[ModelHeader, dict[str, Tensor]]:
    """Read a model file: its header and its state dict, on the CPU.

    Raises:
        CheckpointError: Missing, truncated or not a model file, or weights that are not finite.
    """
    from safetensors.torch import load_file

    header = read_header(path)
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; {_GET_AGAIN}") from error
    _require_finite(state, f"cannot use {path}", _GET_AGAIN)
    return header, state


def read_header(path: str | Path) -> ModelHeader:
    """Read the header of a model file, without its tensors and without importing torch.

    Raises:
        CheckpointError: Missing, truncated or not a model file, or a damaged header.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"cannot read {path}: there is no such file; check the path")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file ({error}); {_GET_AGAIN}, "
            "official checkpoints with 'jmp-md convert'"
        ) from error
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"{path} is a safetensors file without a jmp-md header: make one with "
            "'jmp-md convert' from the official checkpoint, or train it with jmp-md"
        )
    try:
        header = ModelHeader.from_json(metadata[METADATA_KEY])
        _require_sound(header)
    except (CheckpointError, AttributeError) as error:
        raise CheckpointError(f"cannot use {path}: {error}; {_GET_AGAIN}") from error
    return header


def _require_sound(header: ModelHeader) -> None:
    """Refuse values that fit their fields as JSON but cannot be meant."""
    sizes = dataclasses.asdict(header.architecture)
    checks = {
        "architecture": all(
            isinstance(value, int) or name == "basis_cutoff" for name, value in sizes.items()
        ),
        "heads": bool(header.heads),
        "metrics": isinstance(header.metrics, dict),
        "training": isinstance(header.training, dict),
    }
    for name in ("name", "licence", "data", "weights", "written_by"):
        checks[name] = isinstance(getattr(header, name), str)
    for head in header.heads:
        scales = (
            head.energy_scale,
            head.energy_mean,
            head.force_scale or 0.0,
            head.repulsion or 0.0,
        )
        checks[f"scales of head {head.name}"] = all(map(_is_finite, scales))
        checks[f"references of head {head.name}"] = all(map(_is_finite, head.references.values()))
        checks[f"graph of head {head.name}"] = all(map(_is_finite, head.graph.cutoffs))
        checks[f"elements of head {head.name}"] = all(
            isinstance(z, int) and 1 <= z <= 118 for z in (*head.elements, *head.references)
        )
    wrong = [name for name, sound in checks.items() if not sound]
    if wrong:
        raise CheckpointError(f"the model header is damaged: wrong values in {', '.join(wrong)}")


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _require_finite(state: dict[str, Tensor], problem: str, remedy: str) -> None:
    broken = [name for name, value in state.items() if not bool(value.isfinite().all())]
    if broken:
        raise CheckpointError(
            f"{problem}: {len(broken)} tensors hold NaN or infinity, first {broken[0]!r}; {remedy}"
        )
