"""Figures of crystals and of embeddings, and the reports of what is computed of crystals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.units import GPa, kB
from matplotlib.figure import Figure

from jmp_md.report.judgement import judge_domain
from jmp_md.report.page import Report

if TYPE_CHECKING:
    from ase import Atoms

    from jmp_md.simulate.elastic import Elastic
    from jmp_md.simulate.eos import EquationOfState
    from jmp_md.simulate.phonons import Phonons

_VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")


def phonon_bands(result: Phonons) -> Figure:
    """Bands along the path, beside the density of states."""
    figure = Figure(figsize=(7.0, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": (4, 1)})
    bands = result.bands
    for distances, frequencies in zip(bands.distances, bands.frequencies, strict=True):
        left.plot(distances, frequencies, color="tab:blue", lw=1.0)
    places, names = _ticks(bands.distances, bands.labels)
    left.set_xticks(places, names)
    for place in places:
        left.axvline(place, color="gray", lw=0.5)
    left.set(xlim=(places[0], places[-1]), ylabel="frequency (THz)")
    right.plot(result.dos, result.dos_frequencies, color="tab:blue", lw=1.0)
    right.set(xlabel="DOS (1/THz)", xlim=(0, None))
    for axes in (left, right):
        axes.axhline(0.0, color="gray", lw=0.8, ls=":")
    return figure


def thermal_properties(result: Phonons) -> Figure:
    """Free energy, and entropy and heat capacity in units of Boltzmann's constant."""
    thermal = result.thermal
    figure = Figure(figsize=(7.0, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(thermal.temperatures, thermal.free_energy, lw=1.2)
    left.set(xlabel="temperature (K)", ylabel="free energy (eV per cell)")
    for name, values in (("entropy", thermal.entropy), ("heat capacity", thermal.heat_capacity)):
        right.plot(thermal.temperatures, values / kB, lw=1.2, label=name)
    right.set(xlabel="temperature (K)", ylabel="per cell ($k_B$)", ylim=(0, None))
    right.legend(fontsize="small", frameon=False)
    return figure


def energy_volume(result: EquationOfState) -> Figure:
    """Computed energies over volumes, with the fit and its minimum."""
    figure = Figure(figsize=(5.0, 3.5), layout="constrained")
    axes = figure.add_subplot()
    volumes = np.linspace(result.volumes.min(), result.volumes.max(), 200)
    axes.plot(volumes, result.fit(volumes), color="tab:blue", lw=1.2, label=result.form)
    axes.plot(result.volumes, result.energies, "o", color="tab:blue", ms=5, label="computed")
    axes.axvline(result.volume, color="gray", lw=0.8, ls=":")
    axes.set(xlabel="volume (Å³)", ylabel="energy (eV)")
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.legend(fontsize="small", frameon=False)
    return figure


def embedding_map(planes: Mapping[str, np.ndarray], groups: Sequence[str], label: str) -> Figure:
    """Structures as points in planes, coloured by group.

    Args:
        planes: Title and points (n, 2) of each plane.
        groups: Name of the group of each point; beyond ten groups, the rest share a colour.
        label: How the planes were found.
    """
    figure = Figure(figsize=(3.6 * len(planes) + 1.4, 3.6), layout="constrained")
    names = np.array(groups)
    kinds, counts = np.unique(names, return_counts=True)
    common = kinds[np.argsort(-counts, kind="stable")]
    shown = common[:10] if len(common) <= 10 else common[:9]
    rest, many = ~np.isin(names, shown), len(names) > 300
    panels = figure.subplots(1, len(planes), squeeze=False)[0]
    for axes, (title, points) in zip(panels, planes.items(), strict=True):
        for name in shown:
            axes.plot(*points[names == name].T, ".", ms=4, label=name, rasterized=many)
        if rest.any():
            style = {"color": "0.6", "label": "others", "zorder": 0}
            axes.plot(*points[rest].T, ".", ms=3, rasterized=many, **style)
        axes.set(title=title, xlabel=f"{label} 1", ylabel=f"{label} 2")
    handles, texts = panels[0].get_legend_handles_labels()
    figure.legend(handles, texts, fontsize="small", frameon=False, loc="outside right center")
    return figure


def write_phonon_report(
    folder: Path, atoms: Atoms, result: Phonons, summary: Mapping[str, Any]
) -> Path:
    """Write ``report.html``.

    Args:
        folder: Where to.
        atoms: The crystal.
        result: Its phonons.
        summary: What ``summary.json`` says.

    Returns:
        The file.
    """
    cells = round(len(result.phonopy.supercell) / len(atoms))
    report = Report(
        f"Phonons of {atoms.get_chemical_formula(mode='hill')}",
        f"{result.n_displacements} displacements in a supercell of {cells} cells",
    )
    report.add_verdicts([*result.verdicts, judge_domain([summary.get("domain")])])
    warm = int(np.abs(result.thermal.temperatures - 300.0).argmin())
    report.add_headlines(
        {
            "frequencies": f"{result.lowest:.3f} to {result.highest:.3f} THz",
            "zero-point energy": f"{result.thermal.free_energy[0]:.5f} eV per primitive cell",
            f"heat capacity at {result.thermal.temperatures[warm]:g} K": (
                f"{result.thermal.heat_capacity[warm] / kB:.3f} k per primitive cell"
            ),
        }
    )
    report.add_structures([atoms], "The crystal")
    report.add_heading("Frequencies")
    report.add_figure(
        phonon_bands(result),
        "Phonon bands along the standard path and density of states; negative frequencies stand "
        "for imaginary ones",
    )
    report.add_heading("Thermal properties")
    report.add_figure(
        thermal_properties(result),
        "Harmonic free energy, entropy and heat capacity at constant volume, per primitive cell",
    )
    return report.write_run(folder, summary)


def write_eos_report(
    folder: Path, atoms: Atoms, result: EquationOfState, summary: Mapping[str, Any]
) -> Path:
    """Write ``report.html``.

    Args:
        folder: Where to.
        atoms: The crystal.
        result: Its equation of state.
        summary: What ``summary.json`` says.

    Returns:
        The file.
    """
    report = Report(
        f"Equation of state of {atoms.get_chemical_formula(mode='hill')}",
        f"{len(result.volumes)} volumes, {result.form}",
    )
    report.add_verdicts([*result.verdicts, judge_domain([summary.get("domain")])])
    modulus, error = result.bulk_modulus / GPa, result.modulus_error / GPa
    report.add_headlines(
        {
            "volume": f"{result.volume:.4f} Å³ ({result.volume / len(atoms):.4f} Å³ per atom)",
            "bulk modulus": f"{modulus:.2f} GPa (standard error {error:.2g} GPa)",
            "its derivative with pressure": f"{result.derivative:.3f}",
            "energy": f"{result.energy:.6f} eV",
        }
    )
    report.add_structures([atoms], "The crystal")
    report.add_heading("Energy over volume")
    report.add_figure(
        energy_volume(result),
        "Energies as computed, the fit, and its minimum",
        {"volume_A3": result.volumes, "energy_eV": result.energies},
    )
    return report.write_run(folder, summary)


def write_elastic_report(
    folder: Path, atoms: Atoms, result: Elastic, summary: Mapping[str, Any]
) -> Path:
    """Write ``report.html``.

    Args:
        folder: Where to.
        atoms: The crystal.
        result: Its elastic constants.
        summary: What ``summary.json`` says.

    Returns:
        The file.
    """
    report = Report(f"Elastic constants of {atoms.get_chemical_formula(mode='hill')}")
    report.add_verdicts([*result.verdicts, judge_domain([summary.get("domain")])])
    low, high, mean = result.reuss, result.voigt, result.hill
    report.add_headlines(
        {
            name: f"{middle / GPa:.2f} GPa (Reuss {least / GPa:.2f}, Voigt {most / GPa:.2f})"
            for name, middle, least, most in (
                ("bulk modulus", mean.bulk, low.bulk, high.bulk),
                ("shear modulus", mean.shear, low.shear, high.shear),
                ("Young's modulus", mean.young, low.young, high.young),
            )
        }
        | {"Poisson's ratio": f"{mean.poisson:.4f}"}
    )
    report.add_structures([atoms], "The crystal")
    report.add_heading("Elastic constants in GPa, and their standard errors")
    for name, values in (("C", result.stiffness), ("error", result.errors)):
        tidy = (values / GPa).round(3) + 0.0  # no -0
        rows = [(way, *row) for way, row in zip(_VOIGT, tidy.tolist(), strict=True)]
        report.add_table((name, *_VOIGT), rows)
    return report.write_run(folder, summary)


def _ticks(
    distances: Sequence[np.ndarray], labels: Sequence[tuple[str, str]]
) -> tuple[list[float], list[str]]:
    """Where segments meet, and what is there: "X", or "U|K" where the path jumps."""
    places, names = [float(distances[0][0])], [labels[0][0]]
    for i, (along, (_, end)) in enumerate(zip(distances, labels, strict=True)):
        following = labels[i + 1][0] if i + 1 < len(labels) else end
        places.append(float(along[-1]))
        names.append(end if following == end else f"{end}|{following}")
    return places, names
