"""Figures of the benchmarks: small SVG files that come out the same every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from jmp_md.files import atomic_write

_MARKS = {
    "fast": ("tab:blue", "o"),
    "lean": ("tab:cyan", "v"),
    "bf16": ("tab:green", "^"),
    "compiled": ("tab:purple", "D"),
    "oracle": ("tab:red", "s"),
    "floor": ("black", "|"),
    "mace": ("tab:orange", "P"),
    "jmp-xs": ("tab:cyan", "o"),
    "jmp-xs-organic": ("tab:blue", "s"),
    "mace-96": ("tab:orange", "P"),
    "mace-32": ("tab:red", "X"),
    "mace-32-falling": ("tab:pink", "x"),
}


def save(figure: Figure, path: Path) -> None:
    """Write an SVG without dates, with text as text."""
    style = {"svg.hashsalt": "jmp-md", "svg.fonttype": "none", "path.simplify_threshold": 0.5}
    with mpl.rc_context(style), atomic_write(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def step_times(rows: Mapping[str, Mapping[str, Any]], clock: str) -> Figure:
    """Time of a step by every method, one line per row.

    Args:
        rows: By row, then by method, what was measured.
        clock: ``"ms"`` or ``"cpu_ms"``.
    """
    figure = Figure(figsize=(7.0, 1.1 + 0.26 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    shown: set[str] = set()
    for y, results in enumerate(rows.values()):
        for method, result in results.items():
            if clock in result:
                color, mark = _MARKS[method]
                label = method if method not in shown else None
                axes.plot(result[clock], y, mark, color=color, ms=6, mew=1.5, label=label)
                shown.add(method)
    axes.set_yticks(range(len(rows)), list(rows), fontsize="small")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set(xscale="log", xlabel="ms per step")
    axes.grid(axis="x", lw=0.4)
    figure.legend(ncols=len(shown), fontsize="small", frameon=False, loc="outside upper center")
    return figure


def growth(rows: Sequence[Mapping[str, Any]], clock: str) -> Figure:
    """Time and memory per atom against the number of atoms, one line per method."""
    figure = Figure(figsize=(7.0, 2.8), layout="constrained")
    labels = {clock: "ms per atom", "peak_MiB": "MiB per atom, at the peak"}
    for axes, (key, label) in zip(figure.subplots(1, 2), labels.items(), strict=True):
        for method in dict.fromkeys(row["method"] for row in rows):
            done = [row for row in rows if row["method"] == method and key in row]
            atoms = np.array([row["atoms"] for row in done])
            color, mark = _MARKS[method]
            per_atom = np.array([row[key] for row in done]) / atoms
            axes.plot(atoms, per_atom, f"{mark}-", color=color, label=method)
        axes.set(xscale="log", xlabel="atoms of water", ylabel=label)
        sizes = sorted({row["atoms"] for row in rows})
        axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
        axes.minorticks_off()
        axes.margins(y=0.15)
        axes.set_ylim(bottom=0)
        axes.grid(lw=0.4)
        axes.legend(fontsize="small", frameon=False)
    return figure


def path_scan(distance: np.ndarray, curves: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Energy, force and jump along the path of an atom.

    Args:
        distance: (n + 1,) Å.
        curves: By graphs: ``energy`` (n + 1,) eV, ``force`` (n + 1,) eV/Å and ``jump`` (n,) eV.
    """
    figure = Figure(figsize=(7.0, 6.0), layout="constrained")
    energy, force, jump = figure.subplots(3, 1, sharex=True)
    middle = 0.5 * (distance[1:] + distance[:-1])
    for name, curve in curves.items():
        energy.plot(distance, 1e3 * (curve["energy"] - curve["energy"][0]), lw=1.2, label=name)
        force.plot(distance, curve["force"], lw=1.2, label=name)
        jump.plot(middle, 1e3 * np.abs(curve["jump"]) + 1e-9, lw=1.0, label=name)
    energy.set(ylabel="energy (meV)")
    force.set(ylabel="force (eV/Å)")
    jump.set(xlabel="displacement of one atom (Å)", ylabel="|jump| (meV)", yscale="log")
    energy.legend(fontsize="small", frameon=False)
    return figure


def drift(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Total energy in NVE: by graphs, time in ps and change in meV per atom."""
    figure = Figure(figsize=(7.0, 2.8), layout="constrained")
    axes = figure.add_subplot()
    for name, (time, energy) in curves.items():
        stride = max(len(time) // 500, 1)
        axes.plot(time[::stride], energy[::stride], lw=1.0, label=name)
    axes.set(xlabel="time (ps)", ylabel="total energy (meV/atom)")
    axes.legend(fontsize="small", frameon=False)
    return figure


def pareto(runs: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> Figure:
    """Errors against the time of a step, and validation errors against that of training.

    Args:
        runs: Their ``molecule``, ``method``, ``seed``, ``minutes`` of the budget, ``force_mae`` in
            meV/Å, ``ms`` of a step or None, and ``history``, rows with ``cpu`` in s and
            ``force_mae``, which are drawn of the longest with the first seed.
        labels: Of the methods.
    """
    molecules = list(dict.fromkeys(run["molecule"] for run in runs))
    figure = Figure(figsize=(7.0, 0.6 + 2.9 * len(molecules)), layout="constrained")
    panels = figure.subplots(len(molecules), 2, squeeze=False)
    for (by_step, by_training), molecule in zip(panels, molecules, strict=True):
        for method in labels:
            own = [r for r in runs if (r["molecule"], r["method"]) == (molecule, method)]
            color, mark = _MARKS[method]
            for run in own:
                if run["ms"] is not None:
                    place = run["ms"], run["force_mae"]
                    by_step.plot(*place, mark, color=color)
                    by_step.annotate(
                        f"{run['minutes']:g} min", place, (6, -3), fontsize="x-small",
                        textcoords="offset points",
                    )  # fmt: skip
            if own:
                longest = max(own, key=lambda run: (run["minutes"], -run["seed"]))
                rows = [r for r in longest["history"] if r["cpu"] > r["validation_cpu"]]
                minutes = [row["cpu"] / 60 for row in rows]
                errors = [row["force_mae"] for row in rows]
                by_training.plot(minutes, errors, color=color, lw=1.0)
        by_step.set(xlabel="ms per step", ylabel=f"{molecule}: test error, meV/Å")
        by_training.set(xlabel="CPU minutes of training", ylabel="validation error, meV/Å")
        for axes in (by_step, by_training):
            axes.set(xscale="log", yscale="log")
            axes.margins(x=0.2)
            axes.grid(lw=0.4)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter("{x:g}")
                axis.set_minor_locator(NullLocator())
    for method in dict.fromkeys(run["method"] for run in runs):
        color, mark = _MARKS[method]
        panels[0, 1].plot([], [], f"{mark}-", color=color, label=labels[method].replace("`", ""))
    figure.legend(ncols=2, fontsize="small", frameon=False, loc="outside upper center")
    return figure
