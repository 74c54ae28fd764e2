"""Reports of many structures: numbers are those put in, what went wrong comes first."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write
from factories import write_model

from jmp_md.cli.main import main
from jmp_md.graph.policy import GraphPolicy
from jmp_md.report.structures import write_screen_report, write_singlepoint_report
from jmp_md.runs.singlepoint import run_singlepoint

SMALL = GraphPolicy.smooth(3.0, 3.0, 2.0, 3.0)
PHASE = {"structures": 3, "outside": 0, "findings": []}
DOMAIN = {"recorded": True, "start": PHASE, "end": PHASE | {"outside": 1}}


@pytest.fixture
def model(here: Path) -> str:
    write("water.xyz", molecule("H2O"))
    return str(write_model(here, graph=SMALL, head={"elements": (1, 8)}))


def computed(energy: float, force: float, atom: int, **info: object) -> Atoms:
    """Water of an energy, with one force on it."""
    atoms = molecule("H2O")
    forces = np.zeros((3, 3))
    forces[atom, 1] = -force
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    atoms.info.update(info)
    return atoms


def lost(reason: str, **info: object) -> Atoms:
    atoms = molecule("SiH4")
    atoms.info.update(info, error=reason)
    return atoms


def text(folder: Path) -> str:
    """The page, without the joiners that keep units together."""
    html = unescape((folder / "report.html").read_text(encoding="utf-8"))
    return html.replace("\u2060", "")


def test_energies_forces_and_what_failed_are_those_of_the_structures(tmp_path: Path) -> None:
    structures = [computed(-10.0, 0.5, 0), lost("no <Si>"), computed(-11.5, 2.25, 2)]
    names = ["a.xyz[0]", "a.xyz[1]", "b.xyz[0]"]
    write_singlepoint_report(tmp_path, structures, names, {"domain": {"m": DOMAIN}})
    html = text(tmp_path)
    assert '<strong>computed</strong> <span class="measured">2 of 3' in html
    assert "structure 1: no <Si>" in html
    assert "0 of 3 at the start, 1 of 3 at the end outside" in html
    assert "<dd>2.2500 eV/Å (H2, structure 2)</dd>" in html
    assert "<dd>-11.500000 eV (structure 2)</dd>" in html
    assert "<dd>1.5000 eV</dd>" in html  # the highest above it
    row = '<td class="number">2</td><td class="short">b.xyz[0]</td><td class="short">H2O</td>'
    assert f'{row}<td class="number">-11.500000</td><td class="number">-3.833333</td>' in html
    marks = (
        'class="verdicts"',
        'class="headlines"',
        'class="view"',
        "<img",
        "<thead>",
        "<details>",
    )
    places = [html.index(mark) for mark in marks]
    assert places == sorted(places)
    assert '"labels": ["0: H2O, -10.0000 eV", "2: H2O, -11.5000 eV"]' in html


def test_a_report_without_anything_computed_says_why(tmp_path: Path) -> None:
    write_singlepoint_report(tmp_path, [lost("why")], ["a[0]"], {"domain": None})
    assert "structure 0: why" in text(tmp_path)
    assert 'class="view"' not in text(tmp_path)


def test_what_failed_or_did_not_converge_comes_first_in_a_long_table(tmp_path: Path) -> None:
    course = {"converged": True, "steps": 4, "energy_change": -0.3}
    structures = [computed(-1.0 - i, 0.001, 0, **course) for i in range(250)]
    structures[240] = computed(-1.0, 0.7, 1, **(course | {"converged": False, "steps": 20}))
    structures[245] = lost("broken", converged=False, steps=0)
    summary = {
        "settings": {"task": "relax", "fmax": 0.01},
        "results": {"n_structures": 250, "n_failed": 1, "n_not_converged": 1},
        "domain": DOMAIN,
    }
    write_screen_report(tmp_path, structures, summary)
    html = text(tmp_path)
    assert "248 of 249, largest force 0.7000 eV/Å" in html
    assert "<dt>outside the domain at the end</dt><dd>1 of 3</dd>" in html
    assert "200 structures (of 250: failed and not converged first" in html
    body = html.split("<tbody>")[1]
    first = [row.split("</td>")[0].rpartition(">")[2] for row in body.split("<tr>")[1:3]]
    assert first == ["245", "240"]
    assert "What relaxing changed" in html
    assert "median 4, most 20" in html


def test_forces_that_constraints_hide_are_in_the_report_of_structures_as_they_are(
    tmp_path: Path,
) -> None:
    dimer = Atoms("Cu2", [(0, 0, 0), (0, 0, 2.0)], constraint=FixAtoms([0, 1]))
    found = run_singlepoint([dimer], [("emt", EMT())], tmp_path / "out")
    [row] = found.rows
    assert row["fmax_eV_per_A"] > 1
    assert f"<dd>{row['fmax_eV_per_A']:.4f} eV/Å" in text(tmp_path / "out")
    assert len(dimer.constraints) == 1


def test_no_report_is_written_where_none_is_wanted(here: Path, model: str) -> None:
    words = ["singlepoint", "water.xyz", "--model", model, "--output", "out", "--no-report"]
    assert main(words) == 0
    assert sorted(path.name for path in Path("out").glob("[!.]*")) == [
        "jmp-md.log", "results.extxyz", "summary.json"
    ]  # fmt: skip
    screen = ["screen", "water.xyz", "--model", model, "--task", "singlepoint"]
    assert main(screen) == 0
    assert "Screening of H2O" in text(Path("water-screen"))
    assert json.loads(Path("water-screen/summary.json").read_text())["results"]["n_failed"] == 0
