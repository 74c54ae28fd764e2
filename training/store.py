"""Checkpoints of training runs on disk: whole or not there at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from jmp_md.errors import InputError
from jmp_md.files import atomic_write


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; whatever happens meanwhile, ``path`` holds the old one or the new one.

    Args:
        path: File to create or replace.
        state: Tensors and plain values, in dictionaries and lists.

    Raises:
        InputError: The file cannot be written, most often because the disk is full.
    """
    try:
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        kept = "the one before it is intact; " if path.exists() else ""
        raise InputError(
            f"cannot write checkpoint {path} ({error}): {kept}free some space on the disk, then "
            "continue with --restart"
        ) from error


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint without executing anything in it.

    Raises:
        InputError: There is none, or it is damaged.
    """
    if not path.exists():
        raise InputError(f"nothing to resume: {path} does not exist; start without --restart")
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds on damaged files
        raise InputError(f"{path} is damaged ({error}): start again in another folder") from error
    return state
