"""Model files of this project: safetensors, with the header as JSON in the metadata.

Such a file holds tensors and text, nothing that could be executed when it is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from jmp_md.checkpoints.sound import require_sound
from jmp_md.errors import CheckpointError, InputError
from jmp_md.files import atomic_write
from jmp_md.header import ModelHeader

if TYPE_CHECKING:  # torch takes seconds to import and a header needs none of it
    from torch import Tensor

SUFFIX = ".safetensors"
METADATA_KEY = "jmp_md"

_LARGEST_HEAD = 32 * 2**20  # bytes; that of JMP-L has half a million
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
        _require_small_head(path)
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
        require_sound(header)
    except (CheckpointError, InputError) as error:
        raise CheckpointError(f"cannot use {path}: {error}; {_GET_AGAIN}") from error
    return header


def _require_small_head(path: Path) -> None:
    """Refuse a list of tensors and metadata that is larger than any model's."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > min(_LARGEST_HEAD, path.stat().st_size):
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file (its header claims {size} bytes); "
            f"{_GET_AGAIN}"
        )


def _require_finite(state: dict[str, Tensor], problem: str, remedy: str) -> None:
    broken = [name for name, value in state.items() if not bool(value.isfinite().all())]
    if broken:
        raise CheckpointError(
            f"{problem}: {len(broken)} tensors hold NaN or infinity, first {broken[0]!r}; {remedy}"
        )
