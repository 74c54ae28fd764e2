"""The reports of many structures: computed as they are, or screened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jmp_md.report.figures import histogram, numbered
from jmp_md.report.judgement import judge_domain
from jmp_md.report.page import Report
from jmp_md.simulate.verdict import Verdict

if TYPE_CHECKING:
    from ase import Atoms

_MOST_ROWS = 200  # of a table
_MOST_ERRORS = 5  # in a sentence
_LEAST = 10  # values of a distribution
_MOST_GROUPS = 6  # curves that one can tell apart


def write_singlepoint_report(
    folder: Path, structures: Sequence[Atoms], names: Sequence[str], summary: Mapping[str, Any]
) -> Path:
    """Write ``report.html`` of structures that were computed as they are.

    Args:
        folder: Where to.
        structures: With energies and forces, or with an ``error`` in ``info``.
        names: Where each is from.
        summary: What ``summary.json`` says.

    Returns:
        The file.
    """
    good = _good(structures)
    report = Report(f"Energies and forces of {_subject(structures)}")
    report.add_verdicts([_computed(structures), judge_domain(_domains(summary))])
    report.add_headlines(_headlines(structures, good))
    _add_structures(report, structures, good)
    forces = _forces_by_element([structures[i] for i in good])
    if sum(map(len, forces.values())) >= _LEAST:
        report.add_figure(
            histogram(forces, "force (eV/Å)"),
            f"Forces on atoms{_by_what(forces, 'element')}",
        )
    _add_table(report, structures, names)
    return report.write_run(folder, summary)


def write_screen_report(
    folder: Path, structures: Sequence[Atoms], summary: Mapping[str, Any]
) -> Path:
    """Write ``report.html`` of structures that were screened.

    Args:
        folder: Where to.
        structures: With energies and forces, or with an ``error`` in ``info``; those that were
            relaxed with ``converged``, ``steps`` and ``energy_change`` there.
        summary: What ``summary.json`` says.

    Returns:
        The file.
    """
    good, settings = _good(structures), summary["settings"]
    relaxed = settings["task"] == "relax"
    report = Report(f"Screening of {_subject(structures)}", "relaxed" if relaxed else "as they are")
    verdicts = [_computed(structures)]
    verdicts += [_convergence([structures[i] for i in good], settings)] if relaxed else []
    report.add_verdicts([*verdicts, judge_domain(_domains(summary))])
    report.add_headlines(_counts(structures, summary) | _headlines(structures, good))
    _add_structures(report, structures, good)
    if relaxed:
        _add_relaxations(report, [structures[i] for i in good])
    _add_table(report, structures)
    return report.write_run(folder, summary)


def _good(structures: Sequence[Atoms]) -> list[int]:
    """Numbers of those that could be computed."""
    return [i for i, atoms in enumerate(structures) if "error" not in atoms.info]


def _subject(structures: Sequence[Atoms]) -> str:
    if len(structures) == 1:
        return _formula(structures[0])
    return f"{len(structures)} structures"


def _formula(atoms: Atoms) -> str:
    return str(atoms.get_chemical_formula(mode="hill"))


def _domains(summary: Mapping[str, Any]) -> list[Mapping[str, Any] | None]:
    """Records of all models, whether they are by name or there is one."""
    domain = summary.get("domain")
    return [domain] if domain is None or "recorded" in domain else list(domain.values())


def _computed(structures: Sequence[Atoms]) -> Verdict:
    lost = {i: a.info["error"] for i, a in enumerate(structures) if "error" in a.info}
    said = [f"structure {i}: {error}" for i, error in list(lost.items())[:_MOST_ERRORS]]
    more = f"; and {len(lost) - len(said)} more" if len(lost) > len(said) else ""
    return Verdict(
        "computed",
        not lost,
        f"{len(structures) - len(lost)} of {len(structures)}",
        "all",
        "those that cannot be computed are left out, each with its reason",
        "; ".join(said) + more,
    )


def _convergence(structures: Sequence[Atoms], settings: Mapping[str, Any]) -> Verdict:
    done = sum(bool(atoms.info.get("converged")) for atoms in structures)
    largest = max((_largest_force(atoms)[0] for atoms in structures), default=float("nan"))
    return Verdict(
        "convergence",
        done == len(structures),
        f"{done} of {len(structures)}, largest force {largest:.4f} eV/Å",
        f"at most {settings['fmax']} eV/Å",
        "fmax, of all that could be computed",
        f"{len(structures) - done} of {len(structures)} NOT converged: take more steps (--steps)",
    )


def _counts(structures: Sequence[Atoms], summary: Mapping[str, Any]) -> dict[str, str]:
    results, count = summary["results"], len(structures)
    found = {
        "computed": f"{count - results['n_failed']} of {count}",
        "not converged": str(results["n_not_converged"]),
    }
    if summary["settings"]["task"] != "relax":
        del found["not converged"]
    ends = [record["end"] for record in _domains(summary) if record and "end" in record]
    if ends:
        outside, looked = (sum(end[name] for end in ends) for name in ("outside", "structures"))
        found["outside the domain at the end"] = f"{outside} of {looked}"
    return found


def _headlines(structures: Sequence[Atoms], good: Sequence[int]) -> dict[str, str]:
    if not good:
        return {}
    forces = {i: _largest_force(structures[i]) for i in good}
    worst = max(good, key=lambda i: forces[i][0])
    which = f", structure {worst}" if len(structures) > 1 else ""
    found = {"largest force": f"{forces[worst][0]:.4f} eV/Å ({forces[worst][1]}{which})"}
    energies = {i: structures[i].get_potential_energy() for i in good}
    if len(structures) == 1:
        return {"energy": f"{energies[0]:.6f} eV"} | found
    if len({_formula(structures[i]) for i in good}) == 1:
        low = min(good, key=lambda i: energies[i])
        spread = max(energies.values()) - energies[low]
        return {
            "lowest energy": f"{energies[low]:.6f} eV (structure {low})",
            "highest above it": f"{spread:.4f} eV",
        } | found
    return found


def _largest_force(atoms: Atoms) -> tuple[float, str]:
    """eV/Å, and the atom that it acts on."""
    forces = np.linalg.norm(atoms.get_forces(), axis=1)
    atom = int(forces.argmax())
    return float(forces[atom]), f"{atoms.symbols[atom]}{atom}"


def _add_structures(report: Report, structures: Sequence[Atoms], good: Sequence[int]) -> None:
    """Add the 3D view, and a figure of the energies in which a click chooses a structure."""
    if not good:
        return
    labels = [
        f"{i}: {_formula(structures[i])}, {structures[i].get_potential_energy():.4f} eV"
        for i in good
    ]
    frames = [structures[i] for i in good]
    caption = "The structure" if len(frames) == 1 else "The structures"
    shown = report.add_structures(frames, caption, labels)
    if len(good) < 2:
        return
    numbers = np.array(good)
    energies = np.array([atoms.get_potential_energy() for atoms in frames])
    if len({_formula(atoms) for atoms in frames}) == 1:
        label, column, values = "above the lowest (eV)", "energy_eV", energies - energies.min()
        caption = "Energy of each structure above the lowest"
    else:
        label, column = "energy per atom (eV)", "energy_eV_per_atom"
        values = energies / [len(atoms) for atoms in frames]
        caption = "Energy per atom of each structure, that of its elements included"
    data = {"structure": numbers, column: values}
    report.add_figure(numbered(numbers, values, label), caption, data, numbers[shown])


def _forces_by_element(structures: Sequence[Atoms]) -> dict[str, np.ndarray]:
    found: dict[str, list[float]] = {}
    for atoms in structures:
        sizes = np.linalg.norm(atoms.get_forces(), axis=1)
        for symbol, size in zip(atoms.get_chemical_symbols(), sizes.tolist(), strict=True):
            found.setdefault(symbol, []).append(size)
    return _few({symbol: np.array(sizes) for symbol, sizes in found.items()})


def _few(groups: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The groups, or all together where they are too many to tell apart."""
    if len(groups) <= _MOST_GROUPS:
        return dict(groups)
    return {"all": np.concatenate(list(groups.values()))}


def _by_what(groups: Mapping[str, np.ndarray], kind: str) -> str:
    return f", by {kind}" if len(groups) > 1 else ""


def _add_relaxations(report: Report, structures: Sequence[Atoms]) -> None:
    """Add distributions of what relaxing brought, and how many steps it took."""
    known = [atoms for atoms in structures if "energy_change" in atoms.info]
    if len(known) < _LEAST:
        return
    groups: dict[str, list[float]] = {}
    for atoms in known:
        change = 1000 * atoms.info["energy_change"] / len(atoms)
        groups.setdefault(_formula(atoms), []).append(change)
    changes = _few({formula: np.array(values) for formula, values in groups.items()})
    report.add_heading("Relaxation")
    report.add_figure(
        histogram(changes, "change of the energy (meV per atom)"),
        f"What relaxing changed{_by_what(changes, 'formula')}",
    )
    steps = np.array([atoms.info["steps"] for atoms in known], dtype=float)
    report.add_figure(
        histogram({"all structures": steps}, "steps"),
        f"Steps that relaxations took; median {np.median(steps):.0f}, most {steps.max():.0f}",
    )


def _add_table(report: Report, structures: Sequence[Atoms], names: Sequence[str] = ()) -> None:
    """Add all structures, or those that one should look at first."""
    relaxed = any("converged" in atoms.info for atoms in structures)
    order = list(range(len(structures)))
    if len(order) > _MOST_ROWS:
        order.sort(key=lambda i: _rank(structures[i]))
    shown = order[:_MOST_ROWS]
    what = "failed and not converged first, then by force"
    some = f" (of {len(order)}: {what})" if len(shown) < len(order) else ""
    report.add_heading(f"{len(shown)} structures{some}")
    columns = ["structure", *(["from"] if names else []), "formula"]
    columns += ["converged", "steps"] if relaxed else []
    columns += ["energy (eV)", "per atom (eV)", "largest force (eV/Å)", "on", "why it failed"]
    lost = any("error" in structures[i].info for i in shown)
    rows = [[i, *names[i : i + 1], *_row(structures[i], relaxed)] for i in shown]
    report.add_table(columns if lost else columns[:-1], rows if lost else [r[:-1] for r in rows])


def _rank(atoms: Atoms) -> tuple[bool, bool, float]:
    if "error" in atoms.info:
        return False, False, 0.0
    return True, bool(atoms.info.get("converged", True)), -_largest_force(atoms)[0]


def _row(atoms: Atoms, relaxed: bool) -> list[Any]:
    about: list[Any] = [_formula(atoms)]
    if relaxed:
        about += ["yes" if atoms.info.get("converged") else "NO", atoms.info.get("steps", "")]
    if "error" in atoms.info:
        return [*about, "", "", "", "", str(atoms.info["error"])]
    energy, (force, atom) = atoms.get_potential_energy(), _largest_force(atoms)
    return [*about, f"{energy:.6f}", f"{energy / len(atoms):.6f}", force, atom, ""]
