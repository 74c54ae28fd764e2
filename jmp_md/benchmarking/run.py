"""Benchmarks in a folder, which can be killed and continued part by part."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jmp_md.benchmarking import about, benchmark
from jmp_md.benchmarking.results import Benchmark, Part
from jmp_md.benchmarking.tables import (
    JSON,
    MARKDOWN,
    read_benchmark,
    write_json,
    write_markdown,
    write_page,
)
from jmp_md.options import with_options
from jmp_md.report.page import NAME as REPORT
from jmp_md.runs.folder import opened
from jmp_md.runs.options import BenchmarkOptions, RestartOptions, divided
from jmp_md.simulate.identity import require_same
from jmp_md.simulate.summary import NAME as SUMMARY
from jmp_md.simulate.summary import describe, write_summary

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

VERB = "benchmark"
FILES = (JSON, MARKDOWN, REPORT, SUMMARY)


@with_options(BenchmarkOptions, RestartOptions)
def run_benchmark(
    calculator: Calculator,
    name: str,
    output: str | Path,
    options: BenchmarkOptions | None = None,
    *,
    beside: Sequence[Benchmark] = (),
    progress: Callable[[Part], None] | None = None,
    **changes: Any,
) -> Benchmark:
    """Test a calculator with :func:`jmp_md.benchmarking.benchmark` in a folder.

    It gets ``benchmark.json``, which grows by each part that is done, and at the end
    ``benchmark.md``, ``summary.json`` and ``report.html``. With ``restart`` the parts that it holds
    are kept, and the others that are asked for are done.

    Args:
        calculator: Any of ASE's; a ``JMPCalculator`` best in float64.
        name: Of it, in tables.
        output: Folder of the run, created if need be.
        options: See :class:`~jmp_md.runs.options.BenchmarkOptions`; None for the defaults.
        beside: Benchmarks of other models, for columns beside this one's.
        progress: Called with each part that is done.
        changes: Options by name, in place of those of ``options``, and ``restart``,
            ``overwrite`` and ``report``, see :class:`~jmp_md.runs.options.RestartOptions`.

    Raises:
        InputError: An option that does not fit, or a folder that holds a run, of another
            calculator where it is to be continued.
    """
    options, around = divided(options or BenchmarkOptions(), changes, RestartOptions)
    started, folder = time.monotonic(), Path(output)
    with opened(folder, FILES, around):
        done = _done(folder, calculator, around.restart)
        so_far = Benchmark(name, about(calculator), done)

        def note(part: Part) -> None:
            nonlocal so_far
            so_far = replace(so_far, parts=(*so_far.parts, part))
            write_json(folder, so_far)
            if progress is not None:
                progress(part)

        found = benchmark(calculator, name, options, known=done, progress=note)
        write_markdown(folder, [found, *beside])
        summary = write_summary(
            folder,
            VERB,
            model=describe(calculator),
            settings=options.model_dump(),
            results={"parts": {part.name: _figures(part) for part in found.parts}},
            seconds=time.monotonic() - started,
        )
        if around.report:
            write_page(folder, [found, *beside], summary)
    return found


def _done(folder: Path, calculator: Calculator, restart: bool) -> tuple[Part, ...]:
    """The parts that the folder holds, of the same calculator, version and machine."""
    if not (restart and (folder / JSON).exists()):
        return ()
    saved = read_benchmark(folder / JSON)
    require_same(saved.about, about(calculator), folder)
    return tuple(saved.parts)


def _figures(part: Part) -> dict[str, Any]:
    worst = part.worst
    return {
        "unit": part.unit,
        "n_cases": len(part.cases),
        "n_left_out": len(part.left_out),
        "mean_error": part.mean_error,
        "worst": None if worst is None else {"case": worst.name, "error": worst.error},
        "seconds": part.seconds,
    }
