"""Benchmarks as Markdown, JSON and a page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jmp_md.benchmarking.results import Benchmark, Case, Part
from jmp_md.errors import InputError
from jmp_md.files import atomic_write
from jmp_md.simulate.summary import finite

JSON, MARKDOWN = "benchmark.json", "benchmark.md"


def write_benchmark(folder: Path, results: Sequence[Benchmark]) -> None:
    """Write the first of ``results``, beside the others in tables and a page, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder, results[0])
    write_markdown(folder, results)
    write_page(folder, results, {"model": results[0].about})


def write_json(folder: Path, result: Benchmark) -> None:
    """Write ``benchmark.json``, which :func:`read_benchmark` reads."""
    with atomic_write(folder / JSON) as path:
        path.write_text(json.dumps(finite(result.to_dict()), indent=1), encoding="utf-8")


def write_markdown(folder: Path, results: Sequence[Benchmark]) -> None:
    """Write ``benchmark.md``: the overview, and all cases of each part."""
    with atomic_write(folder / MARKDOWN) as path:
        path.write_text(markdown(results), encoding="utf-8")


def write_page(folder: Path, results: Sequence[Benchmark], summary: Mapping[str, Any]) -> None:
    """Write ``report.html``: verdicts and the same, with what ``summary.json`` says."""
    from jmp_md.benchmarking.verdicts import judge_parts
    from jmp_md.report.page import Report

    report = Report(f"Benchmark of {results[0].model}", _names(results))
    report.add_verdicts(judge_parts(results[0].parts))
    report.add_table(*overview(results))
    for part in results[0].parts:
        report.add_heading(part.name)
        report.add_table(*details(part, results))
        report.add_notes([f"{name} left out: {why}" for name, why in part.left_out.items()])
    report.write_run(folder, summary)


def read_benchmark(path: Path) -> Benchmark:
    """Read what :func:`write_benchmark` wrote as JSON.

    Raises:
        InputError: It is no such file.
    """
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a benchmark ({error}): give a {JSON} that 'jmp-md benchmark' wrote"
        ) from error


def from_json(content: Any) -> Benchmark:
    """A benchmark as JSON has it, where numbers that are not finite are null."""
    for part in content["parts"]:
        for case in part["cases"]:
            if case["value"] is None:
                case["value"] = math.nan
    return Benchmark.from_dict(content)


def markdown(results: Sequence[Benchmark]) -> str:
    """The overview and a table of each part."""
    parts = [f"# Benchmark of {_names(results)}", table(*overview(results))]
    for part in results[0].parts:
        parts += [f"## {part.name}", table(*details(part, results))]
        parts += [f"Left out: {name}, {why}" for name, why in part.left_out.items()]
    return "\n\n".join(parts) + "\n"


def overview(results: Sequence[Benchmark]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: mean absolute error of each part, the worst case of the first model."""
    columns = ["", "against", "cases", *(each.model for each in results), "unit", "worst"]
    rows = []
    for part in results[0].parts:
        means = [_number(_mean(other)) if (other := _same(each, part)) else "" for each in results]
        worst = part.worst
        text = "" if worst is None else f"{worst.name} {worst.error:+.3g}"
        rows.append([part.name, part.source, str(len(part.cases)), *means, part.unit, text])
    return columns, rows


def details(part: Part, results: Sequence[Benchmark]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of one part, case by case."""
    unit = f", {part.unit}" if part.unit else ""
    columns = ["case", *(f"{each.model}{unit}" for each in results), f"reference{unit}"]
    found = [_cases(_same(each, part)) for each in results]
    rows = [
        [case.name, *(_number(by_name.get(case.name)) for by_name in found),
         _number(case.reference)]
        for case in part.cases
    ]  # fmt: skip
    return columns, rows


def _mean(part: Part) -> float:
    """Mean error, or mean value where nothing is compared."""
    compared = any(case.reference is not None for case in part.cases)
    values = [case.value for case in part.cases]
    if compared or not values:
        return part.mean_error
    return sum(values) / len(values)


def _same(result: Benchmark, part: Part) -> Part | None:
    return next((each for each in result.parts if each.name == part.name), None)


def _cases(part: Part | None) -> dict[str, float]:
    cases: Sequence[Case] = () if part is None else part.cases
    return {case.name: case.value for case in cases}


def _names(results: Sequence[Benchmark]) -> str:
    return ", ".join(each.model for each in results)


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4g}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
