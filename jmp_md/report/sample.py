"""Some frames of a trajectory of any length, without reading the others into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import TextIO

from ase import Atoms

from jmp_md.report.view import evenly

SAMPLE = 200  # frames that reports show and take distributions from


def sample_frames(path: Path, count: int, most: int = SAMPLE) -> list[Atoms]:
    """Frames evenly spread over a trajectory, the first and the last among them.

    Args:
        path: Trajectory of a run.
        count: Frames it has, as the log says.
        most: How many to read.
    """
    chosen = evenly(count, most)
    if path.suffix == ".h5":
        from jmp_md.simulate.trajectory.h5md import read_h5md

        return read_h5md(path, chosen)
    if path.suffix == ".traj":
        from ase.io.trajectory import TrajectoryReader

        with TrajectoryReader(path) as trajectory:
            return [trajectory[i] for i in chosen]
    from ase.io import read

    with path.open(encoding="utf-8") as file:
        return [read(StringIO(text), format="extxyz") for text in _texts(file, chosen)]


def _texts(file: TextIO, chosen: Sequence[int]) -> Iterator[str]:
    """Text of some frames of an extended XYZ file, by number in ascending order."""
    wanted = iter(chosen)
    number = next(wanted, None)
    place = 0
    while number is not None and (head := file.readline()):
        rest = islice(file, int(head) + 1)
        if place == number:
            yield head + "".join(rest)
            number = next(wanted, None)
        else:
            for _ in rest:
                pass
        place += 1
