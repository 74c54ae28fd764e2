"""Reports: what they show is right, nothing is fetched, and a browser draws them."""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from factories import random_potential

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.domain import coordination, findings, seen
from jmp_md.report import Report
from jmp_md.report.dynamics import headlines
from jmp_md.report.figures import parity, time_series
from jmp_md.report.structures import write_screen_report
from jmp_md.report.view import view_data
from jmp_md.runs.analysis import run_analysis
from jmp_md.runs.descriptors import run_descriptors
from jmp_md.runs.md import run_md, run_md_replicas
from jmp_md.runs.singlepoint import run_singlepoint
from jmp_md.simulate.md.log import Log

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Tags(HTMLParser):
    """Collects tags with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page() -> Report:
    report = Report("Run <1>", "of water & more")
    report.add_heading("Numbers")
    report.add_values({"barrier_eV": 0.123456789, "name": "<b>"})
    report.add_table(("mode", "frequency"), [(1, 3650.0), (2, 1600.0)])
    report.add_notes(["forces > 5 eV/Å"])
    report.add_figure(parity(np.arange(3.0), np.arange(3.0), "energy (eV)"), 'parity "plot"')
    frames = [molecule("H2O") for _ in range(3)]
    report.add_structures(frames, "water")
    return report


def test_a_page_needs_nothing_from_outside(page: Report) -> None:
    tags = Tags(page.html())
    images = tags.named("img")
    assert len(images) == 1
    assert str(images[0]["src"]).startswith("data:image/svg+xml;base64,")
    assert not tags.named("link")
    assert not any("src" in script for script in tags.named("script"))


def test_text_cannot_become_markup(page: Report) -> None:
    html = page.html()
    assert "Run &lt;1&gt;" in html
    assert "<b>" not in html
    assert "0.123457" in html


def test_no_notes_leave_no_box() -> None:
    report = Report("x")
    report.add_notes([])
    assert "<ul" not in report.html()


def test_a_long_trajectory_is_thinned_and_keeps_its_ends() -> None:
    frames = [Atoms("H", [[0, 0, float(i)]]) for i in range(1000)]
    report = Report("x")
    shown = report.add_structures(frames, "walk", [f"step {i}" for i in range(1000)])
    view = report._views[0]
    assert len(view["frames"]) == len(shown) == 200
    assert (view["frames"][0][2], view["frames"][-1][2]) == (0.0, 999.0)
    assert (view["labels"][0], view["labels"][-1]) == ("step 0", "step 999")


def test_a_view_has_the_cell_of_each_frame_and_elements_where_they_differ() -> None:
    small, large = bulk("Cu", cubic=True), bulk("Cu", a=4.0, cubic=True)
    assert len(view_data([small, small])["cells"]) == 1
    assert [cell[0] for cell in view_data([small, large])["cells"]] == [3.61, 4.0]
    assert view_data([molecule("H2O")])["cells"] is None
    assert view_data([molecule("H2O"), molecule("CO")])["symbols"] == [["O", "H", "H"], ["O", "C"]]


def test_figures_say_where_the_frames_are() -> None:
    report = Report("x")
    report.add_structures([molecule("H2O")] * 3, "water")
    time = np.linspace(0.0, 2.0, 50)
    figure = time_series(time, {"energy": time}, "energy (eV)")
    frames = np.array([0.0, 1.0, 2.0])
    report.add_figure(figure, "Energy", {"time_ps": time, "energy_eV": time}, frames)
    html = Tags(report.html())
    [plot] = [tag for tag in html.named("div") if tag.get("class") == "plot"]
    first, middle, last = json.loads(str(plot["data-places"]))
    assert 0 < first < middle < last < 1
    assert middle == pytest.approx((first + last) / 2, abs=1e-3)
    [link] = html.named("a")
    assert link["download"] == "energy.csv"
    table = base64.b64decode(str(link["href"]).partition("base64,")[2]).decode().splitlines()
    assert table[0] == "time_ps,energy_eV"
    assert (len(table), table[-1]) == (51, "2,2")


def test_coordination_of_ethanol() -> None:
    atoms = molecule("CH3CH2OH")
    by_element = dict(zip(atoms.get_chemical_symbols(), coordination(atoms), strict=True))
    assert by_element == {"C": 4, "O": 2, "H": 1}


def test_leaving_the_training_data_is_named() -> None:
    header = random_potential(
        header={"training": {"seen": seen([molecule("CH4")], max_force=2.0)}}
    ).header
    methane = molecule("CH4")
    forces = np.zeros((5, 3))
    forces[0, 0] = 3.0
    methane.calc = SinglePointCalculator(methane, energy=0.0, forces=forces)
    head = header.heads[0]
    [found] = findings(methane, header, head)
    assert found.text == "forces up to 3.00 eV/Å, training had at most 2.00"
    broken = molecule("CH4")
    broken.positions[1] += 5.0
    texts = [found.text for found in findings(broken, header, head)]
    assert any(text.startswith("C with 3 bonded neighbours, training had 4") for text in texts)
    assert any(text.startswith("H with 0 bonded neighbours, training had 1") for text in texts)
    assert any(text.startswith("2 separate molecules or atoms") for text in texts)
    assert not findings(molecule("CH4"), header, head)


def write_run(folder: Path, ensemble: str = "nvt-langevin") -> Path:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    run_md(atoms, folder, ensemble=ensemble, steps=4, interval=1)
    return folder / "report.html"


def test_the_report_of_a_run_has_all_its_figures(tmp_path: Path) -> None:
    html = write_run(tmp_path).read_text(encoding="utf-8")
    captions = [str(image["alt"]) for image in Tags(html).named("img")]
    for word in ("total energy", "Drift", "Temperature", "bonds", "Forces", "Radial"):
        assert any(word in caption for caption in captions), word


def test_headlines_are_those_of_all_lines_with_units() -> None:
    columns = ("time_fs", "potential_eV", "total_eV", "conserved_eV", "temperature_K")
    means = np.array([500.0, -3.5, -3.0, -3.0, 300.0])
    log = Log(np.zeros((2, 5)), columns, 1000, means, np.full(5, 25.0), slope=0.004)
    assert headlines(log, Atoms("H8")) == {
        "mean temperature": "300.0 K (standard deviation 25.0 K)",
        "mean potential energy": "-3.5000 eV",
        "drift": "0.5 meV/atom/ps",
    }


def test_verdicts_come_first_then_headlines_the_structure_figures_and_settings(
    tmp_path: Path,
) -> None:
    html = write_run(tmp_path).read_text(encoding="utf-8")
    marks = ('class="verdicts"', 'class="headlines"', 'class="view"', "<img", "<details>")
    places = [html.index(word) for word in marks]
    assert places == sorted(places)


def browse(page: Path, profile: Path) -> Tags:
    """What a browser made of a page, without an error in it."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--enable-unsafe-swiftshader",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--no-first-run", f"--user-data-dir={profile}", "--enable-logging=stderr",
        "--virtual-time-budget=5000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not [line for line in console if "rror" in line]
    return Tags(done.stdout)


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium")
def test_a_browser_draws_the_3d_view(tmp_path: Path) -> None:
    tags = browse(write_run(tmp_path), tmp_path / "profile")
    assert tags.named("canvas")
    [view] = [tag for tag in tags.named("div") if tag.get("class") == "view"]
    assert view["data-ready"] == "true"
    assert any(tag.get("type") == "range" for tag in tags.named("input"))
    assert [tag for tag in tags.named("div") if tag.get("class") == "cursor"]


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium")
def test_clicked_atoms_give_the_geometry_and_modes_move_them(tmp_path: Path) -> None:
    atoms = molecule("CH3CH2OH")
    report = Report("Ethanol")
    report.add_structures([atoms], "still", modes={"twist": np.ones((9, 3))})
    script = """<script>onload = async () => {
      const view = document.getElementById("view0").view, said = [];
      await view.go(0);
      for (const atom of [3, 0, 1, 2]) { view.pick(atom); said.push(view.said()); }
      Object.assign(document.body.dataset, { said: said.join("|"), count: view.count() });
    }</script>"""
    (tmp_path / "page.html").write_text(report.html() + script, encoding="utf-8")
    [body] = browse(tmp_path / "page.html", tmp_path / "profile").named("body")
    _, length, angle, torsion = str(body["data-said"]).split("|")
    names = [f"{atoms.symbols[i]}{i}" for i in (3, 0, 1, 2)]
    assert length.startswith(f"{names[0]}–{names[1]}: ")
    distance = float(length.split(": ")[1].rstrip(" Å"))
    assert distance == pytest.approx(atoms.get_distance(3, 0), abs=1e-3)
    number = float(angle.split(": ")[1].rstrip("°"))
    assert number == pytest.approx(atoms.get_angle(3, 0, 1), abs=0.1)
    turned = float(torsion.split(": ")[1].rstrip("°")) % 360
    assert turned == pytest.approx(atoms.get_dihedral(3, 0, 1, 2), abs=0.1)
    assert body["data-count"] == "24"


def _pages(folder: Path) -> Iterator[Path]:
    """A page of each verb on structures and trajectories."""
    molecules = [molecule(name) for name in ("H2O", "CO2", "CH4", "NH3", "C2H6")]
    run_singlepoint(molecules, [("emt", EMT())] * 5, folder / "singlepoint")
    for i, atoms in enumerate(molecules):
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.ones((len(atoms), 3)))
        atoms.info.update(converged=True, steps=i, energy_change=-0.1)
    summary = {"settings": {"task": "relax", "fmax": 0.01}}
    summary |= {"results": {"n_failed": 0, "n_not_converged": 0}}
    (folder / "screen").mkdir()
    write_screen_report(folder / "screen", molecules, summary)
    calculator = JMPCalculator(random_potential(), dtype="float64", device="cpu")
    run_descriptors(molecules, calculator, folder / "descriptors")
    crystal = bulk("Cu", cubic=True)
    crystal.calc = EMT()
    run_md(crystal, folder / "md", steps=60, interval=1, report=False)
    run_analysis(folder / "md" / "trajectory.extxyz", folder / "analyse")
    for name in ("singlepoint", "screen", "descriptors", "analyse"):
        yield folder / name / "report.html"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium")
def test_pages_of_structures_and_trajectories_are_drawn_and_fit_a_telephone(tmp_path: Path) -> None:
    script = """<script>onload = () => setTimeout(() => parent.postMessage([
      document.title, document.querySelector(".view").dataset.ready,
      document.documentElement.scrollWidth - document.documentElement.clientWidth], "*"), 2000);
    </script>"""
    frames = ""
    for path in _pages(tmp_path):
        path.write_text(path.read_text(encoding="utf-8") + script, encoding="utf-8")
        frames += f'<iframe src="{path.as_uri()}" style="width: 390px; height: 800px"></iframe>'
    listen = """<script>onmessage = (e) => {
      const said = document.createElement("p");
      said.dataset.said = e.data.join("|");
      document.body.append(said);
    }</script>"""
    (tmp_path / "outer.html").write_text(f"<body>{listen}{frames}</body>", encoding="utf-8")
    drawn = browse(tmp_path / "outer.html", tmp_path / "profile")
    assert sorted(str(p["data-said"]) for p in drawn.named("p")) == [
        "Analysis of Cu4|true|0",
        "Descriptors of 5 structures|true|0",
        "Energies and forces of 5 structures|true|0",
        "Screening of 5 structures|true|0",
    ]


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium")
def test_a_page_fits_a_telephone_and_its_wide_tables_scroll(tmp_path: Path) -> None:
    page = Report("Widths")
    page.add_table([f"a long column {i}" for i in range(20)], [range(20)])
    page.add_values({"a_long_name_of_a_setting": "x" * 300})
    page.add_headlines({"mean temperature": "300.0 K (standard deviation 25.0 K)"})
    script = (
        "<script>const root = document.documentElement;"
        'onload = () => parent.postMessage(root.scrollWidth - root.clientWidth, "*")</script>'
    )
    (tmp_path / "page.html").write_text(page.html() + script, encoding="utf-8")
    frame = '<iframe src="page.html" style="width: 390px; height: 800px; border: 0"></iframe>'
    listen = "<script>onmessage = (e) => { document.body.dataset.beyond = e.data }</script>"
    (tmp_path / "outer.html").write_text(f"<body>{listen}{frame}</body>", encoding="utf-8")
    [body] = browse(tmp_path / "outer.html", tmp_path / "profile").named("body")
    assert body["data-beyond"] == "0"


def test_the_report_of_replicas_has_the_figures_of_all(tmp_path: Path) -> None:
    calculator = JMPCalculator(random_potential(), dtype="float64", device="cpu")
    structures = [molecule("H2O"), molecule("CO2")]
    run_md_replicas(structures, calculator, tmp_path, replicas=2, steps=6, interval=1)
    tags = Tags((tmp_path / "report.html").read_text(encoding="utf-8"))
    captions = [str(image["alt"]) for image in tags.named("img")]
    assert sum("Temperature of all replicas" in caption for caption in captions) == 1
    assert sum("Lengths of the bonds" in caption for caption in captions) == 2
    assert len([tag for tag in tags.named("div") if tag.get("class") == "view"]) == 2
