"""Where the progress of a run is written: a table, and TensorBoard or Weights & Biases if asked."""

from __future__ import annotations

import csv
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jmp_md.errors import InputError
from jmp_md.files import atomic_write

IDENTITY_FILE = "wandb-id.txt"


class Log(Protocol):
    """Something that takes the errors of a run as they come."""

    def write(self, row: Mapping[str, float], step: int) -> None:
        """Take one row."""
        ...


class TensorBoardLog:
    """TensorBoard's event files in the folder of the run.

    Raises:
        InputError: It is not installed.
    """

    def __init__(self, output: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                f"--tensorboard needs its package ({error}): pip install tensorboard"
            ) from error
        self._writer: Any = SummaryWriter(str(output / "tensorboard"))

    def write(self, row: Mapping[str, float], step: int) -> None:
        """Take one row."""
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)


class WandbLog:
    """A run of Weights & Biases; its own settings say where it goes.

    Args:
        output: Folder of the run.
        settings: The recipe.

    Raises:
        InputError: It is not installed.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise InputError(f"--wandb needs its package ({error}): pip install wandb") from error
        self._run: Any = wandb.init(
            project="jmp-md",
            id=identity(output),
            name=output.resolve().name,
            dir=str(output),
            config=dict(settings),
            resume="allow",
        )

    def write(self, row: Mapping[str, float], step: int) -> None:
        """Take one row."""
        self._run.log(dict(row), step=step)


def identity(output: Path) -> str:
    """A name for the run in this folder that no other has; it stays when the run is resumed."""
    path = output / IDENTITY_FILE
    if not path.exists():
        output.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(secrets.token_hex(8), encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


def write_table(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write all rows as CSV, atomically."""
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        names = dict.fromkeys(name for row in history for name in row)
        writer = csv.DictWriter(file, list(names))
        writer.writeheader()
        writer.writerows(history)
