"""OC20's S2EF as it is published: folders of `N.extxyz.xz` with `N.txt.xz` beside them.

Each extended xyz file holds some 5,000 frames with `energy` (eV, the total energy), `forces` (eV/Å,
as calculated, also of fixed atoms), `tags` (0 below the surface, 1 surface, 2 adsorbate) and
`move_mask` (F for atoms held in place). Line k of the text file belongs to frame k:
`system_id,frame_number,reference_energy`, where the energy less the reference, that of the bare
slab and the gas, is the adsorption energy. Files that were decompressed are read as well.
"""

from __future__ import annotations

import dataclasses
import io
import lzma
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jmp_md.errors import InputError
from jmp_md.structure_files import decode, xyz_frames
from jmp_md.training.data.ase_files import xyz_frame
from jmp_md.training.data.frame import Frame, wrap_index
from jmp_md.training.data.labels import Keys

ENERGIES = ("total", "adsorption")
FORM = "system_id,frame_number,reference_energy"
MAX_BYTES = 2**31  # of a file, decompressed; those of OC20 have some 50 MB
MANY_JUMPS = 20  # from file to file, after which reading at random is said to be slow


def open_oc20_text(path: str | Path, energy: str = "total") -> Oc20Text:
    """Open OC20's S2EF in its published form.

    Args:
        path: A folder of `N.extxyz.xz` and `N.txt.xz`, such as `s2ef_train_2M`, or one such file.
        energy: What `Frame.energy` holds: `"total"`, or `"adsorption"`, less the reference.

    Raises:
        InputError: There are no such files, one of a pair is missing, or they are broken.
    """
    if energy not in ENERGIES:
        raise InputError(f"OC20 energy {energy!r}: choose {', '.join(ENERGIES)}")
    path = Path(path)
    files = frame_files(path)
    if not files:
        raise InputError(f"{path}: holds no frames such as 0.extxyz.xz with 0.txt.xz")
    return Oc20Text([Pair(file, _notes_of(file)) for file in files], energy == "adsorption")


def frame_files(path: Path) -> list[Path]:
    """Files of frames in the order of their numbers; none where it is not this format."""
    if not path.is_dir():
        return [path] if _number(path) and any(file.is_file() for file in _beside(path)) else []
    found = [file for file in path.iterdir() if _number(file)]
    plain = {file for file in found if file.suffix == ".extxyz"}
    found = [file for file in found if file in plain or file.with_suffix("") not in plain]
    if not any(file.is_file() for frames in found for file in _beside(frames)):
        return []
    return sorted(found, key=lambda file: int(_number(file)))


@dataclass(frozen=True)
class Pair:
    """A file of frames and the notes on each of them."""

    frames: Path
    notes: Path


class OpenPair:
    """A pair of files, decompressed.

    Args:
        pair: The files.

    Raises:
        InputError: One is broken, or they do not belong together.
    """

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self._data = _content(pair.frames)
        self._starts = xyz_frames(io.BytesIO(self._data), pair.frames)
        self._notes = _lines(pair.notes)
        n_frames = len(self._starts) - 1
        if n_frames != len(self._notes):
            raise InputError(
                f"{pair.frames} has {n_frames} frames, {pair.notes.name} {len(self._notes)} "
                "lines: get both again, or leave both out"
            )

    def frame(self, row: int, adsorption: bool) -> Frame:
        """A frame with its system; see :class:`Oc20Text`."""
        where = f"{self.pair.notes}, line {row + 1}"
        system, reference = _parsed(where, self._notes[row])
        data = self._data[slice(*self._starts[row : row + 2])]
        frame = dataclasses.replace(xyz_frame(self.pair.frames, row, data, Keys()), system=system)
        if not adsorption or frame.energy is None:
            return frame
        if reference is None:
            raise InputError(f"{where}: {self._notes[row][:60]!r} has no reference energy")
        return dataclasses.replace(frame, energy=frame.energy - reference)


class Oc20Text:
    """Frames of many compressed files, of which the last one that was read stays decompressed.

    Reading in order decompresses each file once. Reading at random does so for each frame, which a
    warning says: prepare such data first.

    Args:
        pairs: The files.
        adsorption: Whether energies are less the reference of their note.

    Raises:
        InputError: A file of notes is broken.
    """

    def __init__(self, pairs: list[Pair], adsorption: bool) -> None:
        self._pairs = pairs
        self._adsorption = adsorption
        self._ends = np.cumsum([len(_lines(pair.notes)) for pair in pairs], dtype=np.int64)
        if not len(self):
            raise InputError(f"{pairs[0].notes.parent}: its text files have no lines")
        self._open: OpenPair | None = None
        self._number, self._jumps, self._read = -1, 0, 0

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Frame:
        index = wrap_index(index, len(self))
        number = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[number - 1]) if number else 0
        if self._open is None or number != self._number:
            self._jumps += number != self._number + 1
            self._open, self._number = OpenPair(self._pairs[number]), number
        self._read += 1
        if self._jumps == MANY_JUMPS > self._read / 10:
            warnings.warn(
                f"{self._pairs[0].frames.parent} is read at random, which decompresses a file of "
                "frames for each: run 'jmp-md data prepare' on it and use the folder that it makes",
                stacklevel=2,
            )
        return self._open.frame(index - start, self._adsorption)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None, "_number": -1}


def _number(path: Path) -> str:
    """The number N of `N.extxyz.xz` or `N.extxyz`; else nothing."""
    stem = path.name.removesuffix(".xz").removesuffix(".extxyz")
    return stem if stem.isdigit() and path.name in (f"{stem}.extxyz", f"{stem}.extxyz.xz") else ""


def _beside(frames: Path) -> list[Path]:
    """Where the notes on a file of frames may lie."""
    return [frames.with_name(f"{_number(frames)}.txt{end}") for end in ("", ".xz")]


def _notes_of(frames: Path) -> Path:
    for notes in _beside(frames):
        if notes.is_file():
            return notes
    raise InputError(f"{frames}: {_number(frames)}.txt.xz is missing; get both files again")


def _content(path: Path) -> bytes:
    try:
        with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise InputError(f"{path}: broken or cut short ({error}); get it again") from error
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: more than {MAX_BYTES} bytes, which no file of OC20 has")
    return data


def _lines(path: Path) -> list[str]:
    return [line for line in decode(_content(path)).splitlines() if line.strip()]


def _parsed(where: str, line: str) -> tuple[str, float | None]:
    """System and reference energy, eV, of a note; test sets have no energies."""
    system, _, reference = (*line.strip().split(",", 2), "", "")[:3]
    try:
        energy = float(reference) if reference else None
    except ValueError:
        energy = np.nan
    if not system or (energy is not None and not np.isfinite(energy)):
        raise InputError(f"{where}: {line[:60]!r} is not {FORM}")
    return system, energy
