"""Many structures in chunks: a queue of work that can be stopped, continued and shared out.

With Ray (an optional extra) the chunks go to its workers, on one machine or on many.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.errors import InputError, JMPError
from jmp_md.files import atomic_write
from jmp_md.options import with_options
from jmp_md.report.page import NAME as REPORT
from jmp_md.runs.folder import opened
from jmp_md.runs.options import RestartOptions, ScreenOptions, divided
from jmp_md.simulate.identity import identity, require_same
from jmp_md.simulate.summary import NAME as SUMMARY
from jmp_md.simulate.summary import describe, write_summary
from jmp_md.structure_files import read_structures, with_results, write_structures

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.calculators.ase import JMPCalculator
    from jmp_md.simulate.relax import RelaxResult

VERB, RESULTS = "screen", "results.extxyz"
_QUEUE = "queue.json"
_CHUNK = "chunk-"
FILES = (_QUEUE, f"{_CHUNK}*.extxyz", RESULTS, SUMMARY, REPORT)
_WAITING = 2  # chunks on their way for each worker, so that none waits for work


@with_options(ScreenOptions, RestartOptions)
def run_screen(
    structures: Sequence[Atoms],
    model: str,
    output: str | Path,
    options: ScreenOptions | None = None,
    *,
    head: str | None = None,
    dtype: str = "float64",
    device: str | None = None,
    compile: bool = False,
    trust: bool = False,
    tags: str | None = None,
    ray: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    **changes: Any,
) -> list[Atoms]:
    """Relax or compute structures in chunks; what a chunk gave is on the disk before the next.

    The folder gets a file for each chunk and at the end ``results.extxyz``: every structure once,
    in the order given, with energy and forces, and in ``info`` its ``index``, for relaxations
    ``converged``, ``steps`` and ``energy_change`` in eV, and ``error`` where it could not be
    computed; ``summary.json`` and ``report.html``.

    Args:
        structures: Any number, of any sizes.
        model: Name or file of a model, which every worker can find.
        output: Folder, created if need be.
        options: See :class:`~jmp_md.runs.options.ScreenOptions`; None for the defaults. A queue
            that is continued keeps its own ``chunk``.
        head: Task of a model with several.
        dtype: Precision.
        device: Of the workers; None takes CUDA where there is one. With Ray every chunk has a GPU
            or a CPU to itself.
        compile: Compile the network, in every worker.
        trust: Whether ``model`` may be an exported file, which runs code that it holds.
        tags: See :class:`~jmp_md.calculators.ase.JMPCalculator`.
        ray: Address of a Ray cluster, ``"auto"`` for the one this machine belongs to, ``"local"``
            to start one here; None computes in this process.
        progress: Called with chunks done and chunks in all.
        changes: Options by name, in place of those of ``options``, and ``restart``,
            ``overwrite`` and ``report``, see :class:`~jmp_md.runs.options.RestartOptions`.

    Raises:
        InputError: An option that does not exist or does not fit, a structure without atoms, a
            folder with another queue or another process at work in it, or no Ray.
    """
    from jmp_md.simulate.watch import DomainWatch

    options, around = divided(options or ScreenOptions(), changes, RestartOptions)
    if not structures:
        raise InputError("there are no structures to screen: check the files")
    empty = next((i for i, atoms in enumerate(structures) if len(atoms) == 0), None)
    if empty is not None:
        raise InputError(f"structure {empty} has no atoms: take it out")
    started, folder, task = time.monotonic(), Path(output), options.task
    own = options.model_dump(include={"fmax", "steps"}) if task == "relax" else {}
    about = {"head": head, "dtype": dtype, "device": device, "compile": compile, "trust": trust}
    about |= {"tags": tags}
    job = {"task": task, "model": model, "about": about, "options": own}
    _calculator.cache_clear()  # the model may be another one by now
    here = about if ray is None else {**about, "device": "cpu", "compile": False}
    calculator = _calculator(model, **here)
    same = identity(calculator, {"task": task, **own}, structures)
    watch = DomainWatch(calculator)
    with opened(folder, FILES, around):
        chunk = _open_queue(folder, same, options.chunk, around.restart)
        watch.begin(structures)
        parts = [structures[i : i + chunk] for i in range(0, len(structures), chunk)]
        todo = {i: part for i, part in enumerate(parts) if not _file(folder, i).exists()}
        done = len(parts) - len(todo)
        for i, found in _with_ray(job, todo, ray) if ray else _here(job, todo):
            for k, atoms in enumerate(found):
                atoms.info["index"] = i * chunk + k
            write_structures(_file(folder, i), found)
            done += 1
            if progress is not None:
                progress(done, len(parts))
        results = [atoms for i in range(len(parts)) for atoms in read_structures(_file(folder, i))]
        write_structures(folder / RESULTS, results)
        watch.end([atoms for atoms in results if "error" not in atoms.info])
        summary = write_summary(
            folder,
            VERB,
            model=describe(calculator) | {"device": device},
            settings=options.model_dump() | {"chunk": chunk},
            results=counts(results),
            seconds=time.monotonic() - started,
            domain=watch.record(),
        )
        if around.report:
            from jmp_md.report.structures import write_screen_report

            write_screen_report(folder, results, summary)
    return results


def counts(results: Sequence[Atoms]) -> dict[str, int]:
    """How many structures there are, have failed, and have not converged."""
    failed = sum("error" in atoms.info for atoms in results)
    open_ = sum(not atoms.info.get("converged", True) for atoms in results)
    lost = {"n_failed": failed, "n_not_converged": max(open_ - failed, 0)}
    return {"n_structures": len(results), **lost}


def compute_chunk(job: Mapping[str, Any], structures: Sequence[Atoms]) -> list[Atoms]:
    """Do a chunk of work.

    Args:
        job: ``task``, ``model``, ``options`` and, as ``about``, the others of ``JMPCalculator``.
        structures: Structures of the chunk.
    """
    calculator = _calculator(job["model"], **job["about"])
    if job["task"] == "relax":
        from jmp_md.simulate.relax import relax_batched

        ends = relax_batched(structures, calculator, **job["options"])
        return [_noted(end.atoms, None, end.error, **_course(end)) for end in ends]
    from jmp_md.simulate.singlepoint import singlepoint

    results = singlepoint(structures, calculator, on_error="keep", **job["options"])
    return [
        _noted(atoms, {"energy": result.energy, "forces": result.forces}, result.error)
        for atoms, result in zip(structures, results, strict=True)
    ]


def _course(end: RelaxResult) -> dict[str, Any]:
    known = {"converged": end.converged, "steps": end.steps}
    return known if end.error is not None else known | {"energy_change": end.energy_change}


@lru_cache(maxsize=1)
def _calculator(model: str, **about: Any) -> JMPCalculator:
    """Loaded once in a worker."""
    from jmp_md.calculators.ase import JMPCalculator

    return JMPCalculator(model, **about)


def _noted(
    atoms: Atoms, results: dict[str, Any] | None, error: JMPError | None, **info: Any
) -> Atoms:
    """A structure with its results, or with its error, and nothing of an earlier queue."""
    found = atoms.copy()
    found.calc = atoms.calc
    for name in ("converged", "steps", "energy_change", "error", "index"):
        found.info.pop(name, None)
    if error is not None:
        return with_results(found, {}, **info, error=str(error))
    return with_results(found, results, **info)


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
        raise InputError("ray is not installed: pip install ray") from error
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


def _open_queue(folder: Path, same: dict[str, Any], chunk: int, restart: bool) -> int:
    """Begin a queue, or take up the one that is there; returns the size of its chunks."""
    path = folder / _QUEUE
    if restart and path.exists():
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            before, size = saved["identity"], int(saved["chunk"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is damaged or of an older version ({error!r}): choose another output"
            ) from error
        require_same(before, same, folder)
        return size
    if next(folder.glob(f"{_CHUNK}*"), None) is not None:
        raise InputError(f"{folder} holds chunks of no queue: choose another output")
    with atomic_write(path) as temporary:
        text = json.dumps({"identity": same, "chunk": chunk}, indent=2)
        temporary.write_text(text + "\n", encoding="utf-8")
    return chunk


def _file(folder: Path, index: int) -> Path:
    return folder / f"{_CHUNK}{index:06d}.extxyz"
