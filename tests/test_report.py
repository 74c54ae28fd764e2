"""Reports: what they show is right, nothing is fetched, and a browser draws them."""

import shutil
import subprocess
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
from jmp_md.report.figures import parity
from jmp_md.runs.md import run_md, run_md_replicas
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
    report.add_structures(frames, "walk")
    view = report._views[0]
    lines = [line.split() for line in view["xyz"].splitlines() if line.startswith("H")]
    assert view["frames"] == len(lines) == 200
    assert float(lines[0][3]) == 0.0
    assert float(lines[-1][3]) == 999.0


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
    """What a browser made of a page."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--enable-unsafe-swiftshader",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--no-first-run", f"--user-data-dir={profile}",
        "--virtual-time-budget=5000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout, done.stderr[-2000:]
    return Tags(done.stdout)


@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium")
def test_a_browser_draws_the_3d_view(tmp_path: Path) -> None:
    tags = browse(write_run(tmp_path), tmp_path / "profile")
    assert tags.named("canvas")
    [view] = [tag for tag in tags.named("div") if tag.get("class") == "view"]
    assert view["data-ready"] == "true"
    assert any(tag.get("type") == "range" for tag in tags.named("input"))


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
