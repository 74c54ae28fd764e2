"""Prepared data sets: frames of any source in memory-mapped shards, read at random.

A prepared data set is a folder of shards (:mod:`jmp_md.training.data.shards`). `index.json`,
written last, lists them and the hashes of the source. A shard is mapped when it is first read and
costs address space only, so that opening 120 million frames takes milliseconds, and reading one
takes two pages or three of the disk.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from jmp_md.errors import InputError
from jmp_md.files import atomic_write
from jmp_md.training.data.frame import Dataset, Frame, wrap_index
from jmp_md.training.data.shards import Shard, frames_to_arrays

FORMAT = "jmp-md prepared 1"
INDEX_FILE, SOURCE_FILE = "index.json", "source.json"
SHARD_SIZE = 100_000
MAX_OPEN = 800  # shards mapped at a time: each takes a file descriptor, of which 1,024 are usual
_Work = tuple[Dataset, int, float | None, bool]


class PreparedDataset:
    """Frames of a prepared folder.

    Args:
        folder: What :func:`prepare` wrote.

    Raises:
        InputError: The folder is not a prepared data set, or its preparation was not finished.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = _read_json(self.folder / INDEX_FILE)
        if index.get("format") != FORMAT:
            raise InputError(f"{folder}: format {index.get('format')!r}, expected {FORMAT!r}")
        self.source: dict[str, str] = index["source"]["files"]
        self._ends = np.cumsum([shard["n_frames"] for shard in index["shards"]], dtype=np.int64)
        self._shards: dict[int, Shard] = {}

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Frame:
        return self._place(index, Shard.frame)

    def n_atoms(self, index: int) -> int:
        """Atoms of a frame, without reading the frame."""
        return self._place(index, Shard.n_atoms)

    def _place(self, index: int, read: Callable[[Shard, int], Any]) -> Any:
        index = wrap_index(index, len(self))
        number = int(np.searchsorted(self._ends, index, side="right"))
        if number not in self._shards:
            if len(self._shards) >= MAX_OPEN:
                self._shards.pop(next(iter(self._shards)))
            self._shards[number] = Shard(self.folder / _shard_name(number))
        start = int(self._ends[number - 1]) if number else 0
        return read(self._shards[number], index - start)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": {}}


def prepare(
    dataset: Dataset,
    folder: str | Path,
    *,
    source: dict[str, str],
    reading: dict[str, Any] | None = None,
    shard_size: int = SHARD_SIZE,
    processes: int = 1,
    max_force: float | None = None,
    double: bool = False,
    progress: Callable[[int], object] | None = None,
) -> PreparedDataset:
    """Write a data set in the prepared format; continues where an earlier call was stopped.

    Args:
        dataset: What to write; with several processes it is pickled to each.
        folder: Where to, created if need be.
        source: Hash of each source file, kept in the index; a folder begun from other files is
            not continued.
        reading: How the source is read, by name; a folder begun in another way is not continued.
        shard_size: Frames of the source per shard.
        processes: Processes that read and write shards.
        max_force: eV/Å; frames with a force above it are left out.
        double: Keep positions and forces in double precision, twice as large.
        progress: Called with the number of source frames of each shard that is finished.

    Raises:
        InputError: A frame is broken, the folder belongs to another source, or shards cannot be
            written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"shard_size": shard_size, "max_force": max_force, "double": double}
    begun = {"files": source, "reading": reading or {}, "n_frames": len(dataset), **settings}
    if (folder / SOURCE_FILE).exists():
        if {"reading": {}, **_read_json(folder / SOURCE_FILE)} != begun:
            raise InputError(
                f"{folder} was begun from other files or with other settings: choose another folder"
            )
    else:
        _write_json(folder / SOURCE_FILE, begun)
    n_shards = -(-len(dataset) // shard_size)
    jobs = [(folder / _shard_name(k), k * shard_size) for k in range(n_shards)]
    work = (dataset, shard_size, max_force, double)
    sizes: list[int] = []
    try:
        for k, size in enumerate(_run(jobs, work, processes)):
            sizes.append(size)
            if progress:
                progress(min(shard_size, len(dataset) - k * shard_size))
    except OSError as error:
        raise InputError(
            f"{folder}: cannot write ({error}); free some space and run the same command again, "
            "finished shards are kept"
        ) from error
    shards = [{"n_frames": size} for size in sizes]
    _write_json(folder / INDEX_FILE, {"format": FORMAT, "source": begun, "shards": shards})
    return PreparedDataset(folder)


def _run(jobs: list[tuple[Path, int]], work: _Work, processes: int) -> Iterator[int]:
    """Frames written by each job, in order."""
    if processes == 1:
        yield from (_write_shard(work, job) for job in jobs)
        return
    # Spawned, not forked: open files and threads do not survive a fork.
    with ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=_begin, initargs=(work,)
    ) as pool:
        yield from pool.map(_write_shard_here, jobs)


_WORK: list[_Work] = []  # what a worker process was started for


def _begin(work: _Work) -> None:
    _WORK.append(work)


def _write_shard_here(job: tuple[Path, int]) -> int:
    return _write_shard(_WORK[0], job)


def _write_shard(work: _Work, job: tuple[Path, int]) -> int:
    """Write one shard unless it is there; returns its number of frames."""
    dataset, shard_size, max_force, double = work
    path, start = job
    if not path.exists():
        chosen = range(start, min(start + shard_size, len(dataset)))
        frames = [f for f in map(dataset.__getitem__, chosen) if not _exceeds(f, max_force)]
        arrays = frames_to_arrays(frames, np.float64 if double else np.float32)
        with atomic_write(path) as temporary:
            save_file(arrays, temporary)
    return len(Shard(path))


def _exceeds(frame: Frame, max_force: float | None) -> bool:
    if max_force is None or frame.forces is None:
        return False
    return bool(np.linalg.norm(frame.forces, axis=1).max() > max_force)


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); finish 'jmp-md data prepare' for this folder first"
        ) from error
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
