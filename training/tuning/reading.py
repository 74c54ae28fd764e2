"""The user's files: where they are, what they call their labels, and their frames."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jmp_md.errors import InputError
from jmp_md.files import exists, user_path
from jmp_md.training.data.frame import Frame, frames
from jmp_md.training.data.open import format_of, open_dataset
from jmp_md.training.data.tags import tagged
from jmp_md.training.tuning.options import Options

_ENERGY = re.compile(r"(.*?)_?energy", re.IGNORECASE)
_FORCES = re.compile(r"(.*?)_?(?:forces?|gradients?)", re.IGNORECASE)
_FIRST = ("ref", "dft")  # of several sets of labels that agree, as MACE and GAP call them
_COMPARED = 5  # frames


@dataclass(frozen=True)
class Files:
    """Files as a recipe names them.

    Attributes:
        folder: What the names are relative to.
        train, validation, test, replay: Names.
        reading: Options of their format.
        frames: Of ``train``.
    """

    folder: Path
    train: tuple[str, ...]
    validation: str | None
    test: str | None
    replay: str | None
    reading: dict[str, Any]
    frames: list[Frame]


def find_files(files: Sequence[str | Path], options: Options) -> tuple[Path, list[Path]]:
    """The folder that holds all files, and their paths: those to train on, then the others.

    Raises:
        InputError: One is not there.
    """
    if not files:
        raise InputError("give one file of labelled frames at least")
    paths = [user_path(file) for file in (*files, *_others(options).values())]
    for path in paths:
        if not exists(path):
            raise InputError(f"{path}: there is no such file or folder")
    paths = [path.resolve() for path in paths]
    return Path(os.path.commonpath([path.parent for path in paths])), paths


def _others(options: Options) -> dict[str, str]:
    """Files besides those to train on, by the option that names them."""
    found = {
        key: text
        for key in ("valid", "test")
        if (text := getattr(options, key)) and share(text) is None
    }
    replay = options.replay
    return found | ({"replay": replay} if replay is not None and replay != "auto" else {})


def share(text: str) -> float | None:
    """A share of the frames; None for the name of a file.

    Raises:
        InputError: A number that is no share.
    """
    try:
        value = float(text)
    except ValueError:
        return None
    if not 0 < value < 1:
        raise InputError(f"{text}: give a share of the frames between 0 and 1, or a file")
    return value


def read_files(files: Sequence[str | Path], options: Options) -> Files:
    """Read the files to train on, their labels found by name.

    Raises:
        InputError: A file that is not there or cannot be read, or whose labels are not clear.
    """
    folder, paths = find_files(files, options)
    names = [path.relative_to(folder).as_posix() for path in paths]
    n = len(files)
    rest = dict(zip(_others(options), names[n:], strict=True))
    reading = _asked(options)
    every: list[Frame] = []
    keys: dict[str, str] = {}
    for path in paths[:n]:
        found = list(frames(tagged(open_dataset(path, **reading), options.tags)))
        if format_of(path) == "ase" and not {"energy_key", "forces_key"} & set(reading):
            own = _find_labels(path, found, reading)
            if every and own != keys:
                raise InputError(
                    f"{path} calls its labels otherwise ({_described(own)}) than {paths[0]} "
                    f"({_described(keys)}): give the same names to both"
                )
            if own:
                found = list(frames(tagged(open_dataset(path, **reading, **own), options.tags)))
            keys = own
        every += found
    others = (rest.get("valid"), rest.get("test"), rest.get("replay"))
    return Files(folder, tuple(names[:n]), *others, reading | keys, every)


def _asked(options: Options) -> dict[str, Any]:
    """Options of the format that a user gave."""
    named = ("energy_key", "forces_key", "stress_key", "energy_unit", "force_unit", "length_unit")
    given = {name: value for name in named if (value := getattr(options, name)) is not None}
    return given | ({"targets": [options.weights]} if options.weights else {})


def _described(keys: dict[str, str]) -> str:
    return ", ".join(keys.values()) or "energy, forces"


def _find_labels(path: Path, found: list[Frame], reading: dict[str, Any]) -> dict[str, str]:
    """Options that name energies and forces; empty for the names that ASE knows.

    Raises:
        InputError: There are none, frames differ in what they call them, or there are two sets
            that differ.
    """
    energies, forces = _names(found, "energy", _ENERGY), _names(found, "forces", _FORCES)
    if not forces:
        raise InputError(
            f"{path} holds no forces, which a fine-tune learns from; it holds "
            f"{', '.join(energies) or 'no energies either'}: compute forces, or name them with "
            "--forces-key"
        )
    pairs = {
        (energy, force): min(energies[energy], forces[force])
        for energy in energies
        for force in forces
        if _prefix(energy, _ENERGY) == _prefix(force, _FORCES)
    }
    if not pairs and energies:  # e.g. free_energy with forces
        pairs = {(next(iter(energies)), next(iter(forces))): 1}
    if not pairs:
        return _keys("energy", next(iter(forces)))
    whole = [pair for pair, count in pairs.items() if count == max(pairs.values())]
    if max(pairs.values()) < len(found) and len(pairs) > 1 and len(whole) < len(pairs):
        listed = "; ".join(f"{' and '.join(pair)} in {n} frames" for pair, n in pairs.items())
        raise InputError(
            f"{path}: frames differ in what they call their labels ({listed}): rename them, or "
            "train on those of one name in a file of their own"
        )
    whole.sort(key=lambda pair: _prefix(pair[0], _ENERGY) not in _FIRST)
    chosen = _keys(*whole[0])
    for pair in whole[1:]:
        _require_same(path, chosen, _keys(*pair), reading)
    return chosen


def _names(found: list[Frame], usual: str, pattern: re.Pattern[str]) -> dict[str, int]:
    """Names of a label, and in how many frames each is; lone atoms need none."""
    counts: Counter[str] = Counter()
    for frame in found:
        if getattr(frame, usual) is not None:
            counts[usual] += 1
        counts.update(name for name in frame.others if pattern.fullmatch(name))
    return dict(counts)


def _prefix(name: str, pattern: re.Pattern[str]) -> str:
    match = pattern.fullmatch(name)
    return match.group(1).lower() if match else name


def _keys(energy: str, forces: str) -> dict[str, str]:
    keys = {"energy_key": energy} if energy != "energy" else {}
    return keys | ({"forces_key": forces} if forces != "forces" else {})


def _require_same(
    path: Path, one: dict[str, str], other: dict[str, str], reading: dict[str, Any]
) -> None:
    """Refuse two sets of labels that differ: only the user knows which to learn."""
    first, second = (open_dataset(path, **reading, **keys) for keys in (one, other))
    for index in range(min(_COMPARED, len(first))):
        a, b = first[index], second[index]
        if a.forces is None or b.forces is None or a.energy is None or b.energy is None:
            continue
        apart = float(np.abs(a.forces - b.forces).max())
        if apart > 1e-4 or abs(a.energy - b.energy) > 1e-4:
            raise InputError(
                f"{path} holds two sets of labels that differ, {_described(one)} and "
                f"{_described(other)} (frame {index}: by {a.energy - b.energy:.4g} eV and up to "
                f"{apart:.4g} eV/Å): say which with --energy-key and --forces-key"
            )
