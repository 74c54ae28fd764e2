"""Many structures in chunks: a queue of work that can be stopped, continued and shared out.

With Ray (an optional extra) the chunks go to its workers, on one machine or on many.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.errors import InputError
from jmp_md.files import atomic_write
from jmp_md.simulate.state import check_same

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.calculators.ase import JMPCalculator

TASKS = ("relax", "singlepoint")
RESULTS = "results.extxyz"
_QUEUE = "queue.json"
_WAITING = 2  # chunks on their way for each worker, so that none waits for work


def screen(
    structures: Sequence[Atoms],
    model: str,
    output: str | Path,
    *,
    task: str = "relax",
    head: str | None = None,
    dtype: str = "float64",
    device: str | None = None,
    compile: bool = False,
    trust: bool = False,
    options: Mapping[str, Any] | None = None,
    chunk: int = 256,
    ray: str | None = None,
    restart: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Atoms]:
    """Relax or compute structures in chunks; what a chunk gave is on the disk before the next.

    The folder gets a file for each chunk and at the end ``results.extxyz``: every structure once,
    in the order given, with energy and forces, and in ``info`` its ``index``, for relaxations
    ``converged`` and ``steps``, and ``error`` where it could not be computed.

    Args:
        structures: Any number, of any sizes.
        model: Name or file of a model, which every worker can find.
        output: Folder, created if need be.
        task: ``"relax"`` or ``"singlepoint"``.
        head: Task of a model with several.
        dtype: Precision.
        device: Of the workers; None takes CUDA where there is one. With Ray every chunk has a GPU
            or a CPU to itself.
        compile: Compile the network, in every worker.
        trust: Whether ``model`` may be an exported file, which runs code that it holds.
        options: Of :func:`jmp_md.simulate.many.relax_many`.
        chunk: Structures in a chunk, the most that a kill costs a worker.
        ray: Address of a Ray cluster, ``"auto"`` for the one this machine belongs to, ``"local"``
            to start one here; None computes in this process.
        restart: Continue the queue in ``output``.
        progress: Called with chunks done and chunks in all.

    Raises:
        InputError: An option that does not exist, a folder with another queue, or no Ray.
    """
    if task not in TASKS:
        raise InputError(f"task {task!r}: choose one of {', '.join(TASKS)}")
    if chunk < 1 or not structures:
        raise InputError(f"chunk {chunk!r}, {len(structures)} structures: must be 1 or more")
    about = {"head": head, "dtype": dtype, "device": device, "compile": compile, "trust": trust}
    job = {"task": task, "model": model, "about": about, "options": dict(options or {})}
    folder = Path(output)
    queue = {"structures": len(structures), "sha256": _digest(structures), "chunk": chunk}
    _check_queue(folder, {**job, **queue}, restart)
    _calculator.cache_clear()  # the model may be another one by now
    parts = [structures[i : i + chunk] for i in range(0, len(structures), chunk)]
    todo = {i: part for i, part in enumerate(parts) if not _file(folder, i).exists()}
    done = len(parts) - len(todo)
    for i, found in _with_ray(job, todo, ray) if ray else _here(job, todo):
        for k, atoms in enumerate(found):
            atoms.info["index"] = i * chunk + k
        _write(_file(folder, i), found)
        done += 1
        if progress is not None:
            progress(done, len(parts))
    results = [atoms for i in range(len(parts)) for atoms in _read(_file(folder, i))]
    _write(folder / RESULTS, results)
    return results


def compute_chunk(job: Mapping[str, Any], structures: Sequence[Atoms]) -> list[Atoms]:
    """Do a chunk of work.

    Args:
        job: ``task``, ``model``, ``options`` and, as ``about``, the others of ``JMPCalculator``.
        structures: Structures of the chunk.
    """
    calculator = _calculator(job["model"], **job["about"])
    if job["task"] == "relax":
        from jmp_md.simulate.many import relax_many

        ends = relax_many(structures, calculator, **job["options"])
        found = [_unmarked(end.atoms) for end in ends]
        for atoms, end in zip(found, ends, strict=True):
            atoms.info |= {"converged": end.converged, "steps": end.steps}
            if end.error is not None:
                atoms.info["error"] = str(end.error)
        return found
    from ase.calculators.singlepoint import SinglePointCalculator

    from jmp_md.simulate.singlepoint import singlepoint

    found = [_unmarked(atoms.copy()) for atoms in structures]
    results = singlepoint(structures, calculator, on_error="keep", **job["options"])
    for atoms, result in zip(found, results, strict=True):
        if result.error is None:
            known = {"energy": result.energy, "forces": result.forces}
            atoms.calc = SinglePointCalculator(atoms, **known)
        else:
            atoms.info["error"] = str(result.error)
    return found


@lru_cache(maxsize=1)
def _calculator(model: str, **about: Any) -> JMPCalculator:
    """Loaded once in a worker."""
    from jmp_md.calculators.ase import JMPCalculator

    return JMPCalculator(model, **about)


def _unmarked(atoms: Atoms) -> Atoms:
    """The same structure without what an earlier queue has noted."""
    for name in ("converged", "steps", "error"):
        atoms.info.pop(name, None)
    return atoms


def _here(
    job: Mapping[str, Any], todo: Mapping[int, Sequence[Atoms]]
) -> Iterator[tuple[int, list[Atoms]]]:
    for i, part in todo.items():
        yield i, compute_chunk(job, part)


def _with_ray(
    job: Mapping[str, Any], todo: Mapping[int, Sequence[Atoms]], address: str
) -> Iterator[tuple[int, list[Atoms]]]:
    """Chunks as workers finish them; a worker that dies has its chunk done again, by Ray."""
    try:
        import ray
    except ImportError as error:
        raise InputError("ray is not installed: pip install 'jmp-md[ray]'") from error
    own = not ray.is_initialized()
    if own:
        ray.init(address=address, log_to_driver=False)
    try:
        resources = ray.cluster_resources()
        kind = _resource(job["about"]["device"], resources)
        work = ray.remote(**{f"num_{kind.lower()}s": 1})(compute_chunk)
        most = max(int(_WAITING * resources.get(kind, 1)), 1)
        waiting = iter(todo.items())
        running: dict[Any, int] = {}
        while True:
            while len(running) < most and (entry := next(waiting, None)) is not None:
                running[work.remote(dict(job), list(entry[1]))] = entry[0]
            if not running:
                return
            [ready], _ = ray.wait(list(running), num_returns=1)
            yield running.pop(ready), ray.get(ready)
    finally:
        if own:
            ray.shutdown()


def _resource(device: str | None, cluster: Mapping[str, float]) -> str:
    """What a chunk takes one of, ``"CPU"`` or ``"GPU"``; Ray hides GPUs that are not asked for."""
    if device is not None and ":" in device:
        raise InputError(f"device {device!r}: Ray chooses which GPU a worker has, write 'cuda'")
    if device == "cuda" and not cluster.get("GPU"):
        raise InputError("device 'cuda': the Ray cluster has no GPU: choose 'cpu' or none")
    return "GPU" if device in ("cuda", None) and cluster.get("GPU") else "CPU"


def _digest(structures: Sequence[Atoms]) -> str:
    """A hash of what is computed."""
    digest = sha256()
    for atoms in structures:
        numbers = np.concatenate([atoms.numbers, atoms.pbc, atoms.get_tags()])
        lengths = np.concatenate([atoms.positions, atoms.cell.array])
        digest.update(numbers.astype(np.int64).tobytes())
        digest.update(lengths.tobytes())
    return digest.hexdigest()


def _check_queue(folder: Path, settings: dict[str, Any], restart: bool) -> None:
    path = folder / _QUEUE
    if path.exists() and not restart:
        raise InputError(
            f"{folder} holds a queue: continue it with restart (--restart), or choose another "
            "output"
        )
    if path.exists():
        check_same(json.loads(path.read_text()), settings)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n")


def _file(folder: Path, index: int) -> Path:
    return folder / f"chunk-{index:06d}.extxyz"


def _write(path: Path, structures: Sequence[Atoms]) -> None:
    from ase.io import write

    with atomic_write(path) as temporary:
        write(temporary, structures, format="extxyz")


def _read(path: Path) -> list[Atoms]:
    from ase.io import read

    found: list[Atoms] = read(path, index=":", format="extxyz")
    return found
