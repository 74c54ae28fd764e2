"""The saved state of a run: arrays and facts in one file, replaced as a whole."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError
from jmp_md.files import atomic_write

if TYPE_CHECKING:
    import numpy as np

NAME = "state.npz"
_FACTS = "facts"


def save_state(folder: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """Replace the state of a run; a kill or power cut leaves the old one or the new one.

    Args:
        folder: Folder of the run.
        arrays: Arrays, kept bit for bit.
        facts: Whatever JSON can hold.
    """
    import numpy as np

    named: dict[str, Any] = {**arrays, _FACTS: np.array(json.dumps(facts))}
    with atomic_write(folder / NAME) as temporary, temporary.open("wb") as file:
        np.savez(file, **named)
        file.flush()
        os.fsync(file.fileno())


def load_state(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The saved arrays and facts of a run; None where nothing was saved.

    Raises:
        InputError: The file is damaged.
    """
    import numpy as np

    path = folder / NAME
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:  # what is compressed could unpack to any size
            if any(entry.compress_type for entry in archive.infolist()):
                raise ValueError("it has compressed entries, which no run writes")
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        facts = json.loads(str(arrays.pop(_FACTS)))
        if not isinstance(facts, dict):
            raise ValueError("its facts are no mapping")
        return arrays, facts
    # RecursionError: nesting; MemoryError: claims without end; RuntimeError: encrypted entries.
    except (
        *(OSError, ValueError, KeyError, EOFError, RecursionError, MemoryError, RuntimeError),
        *(zipfile.BadZipFile, TypeError),
    ) as error:
        raise InputError(
            f"cannot read the state {path}: {error}; start the run again in another folder"
        ) from error
