"""What can be known of a run before its first step: labels that are missing, and their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from jmp_md.errors import InputError
from jmp_md.training.data.frame import Frame
from jmp_md.training.sections import LossSection

LABELS = ("energy", "forces", "stress")


def monitored(loss: LossSection) -> str:
    """The label whose error chooses the best model: forces, energy or stress."""
    return "forces" if loss.forces else "energy" if loss.energy else "stress"


def require_labels(
    part: str, frames: Iterable[Frame], names: Iterable[str], task: str | None = None
) -> None:
    """Refuse a part of the data in which no frame has a label that is needed.

    Args:
        part: What the frames are for.
        frames: Its frames.
        names: Labels of :class:`.Frame`.
        task: As for :func:`refuse_missing`.

    Raises:
        InputError: There is such a label; what the file has in its place is named.
    """
    missing = list(names)
    others: tuple[str, ...] = ()
    for frame in frames:
        missing = [name for name in missing if getattr(frame, name) is None]
        others = others or frame.others
        if not missing:
            return
    refuse_missing(part, missing, others, task)


def refuse_missing(
    part: str, missing: Sequence[str], others: Sequence[str], task: str | None = None
) -> None:
    """Tell what to do about labels that no frame of a part has; nothing where none is missing.

    Args:
        part: What the frames are for.
        missing: Labels of :class:`.Frame`.
        others: Names under which the file holds what may be labels and was not read.
        task: Name of the task of a mix, whose loss has energies and forces in any case.

    Raises:
        InputError: One is missing.
    """
    for name in missing[:1]:
        word = "force" if name == "forces" else name
        similar = [other for other in others if word in other.lower()]
        key = f"data.options.{name}_key" if task is None else f"tasks.{task}.options.{name}_key"
        if similar:
            remedy = f"the file has {similar[0]}, read it with {key}={similar[0]}"
        elif others:
            remedy = f"the file has {', '.join(others)}, name one with {key}"
        elif task is None:
            remedy = f"set loss.{name} to 0, or use other data"
        else:
            remedy = "pre-training needs energies and forces, use other data"
        where = "" if task is None else f"task {task!r}: "
        raise InputError(f"{where}the {part} frames hold no {name}: {remedy}")


def target_value(part: str, frame: Frame, name: str) -> float:
    """The value of a target that every frame of a part must have.

    Raises:
        InputError: This one lacks it; what it has is named.
    """
    if name not in frame.targets:
        known = ", ".join(map(repr, frame.targets)) or "none"
        raise InputError(
            f"target.name = {name!r} is not a target of every {part} frame; it has {known}"
        )
    return frame.targets[name]


def target_values(part: str, frames: Iterable[Frame], name: str) -> np.ndarray:
    """(n,) values of a target that every frame must have.

    Raises:
        InputError: A frame lacks it, or there is no frame; what it has is named.
    """
    values = [target_value(part, frame, name) for frame in frames]
    if not values:
        raise InputError(f"there is no {part} frame to take target {name!r} from")
    return np.array(values)
