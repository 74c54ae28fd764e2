"""``jmp-md analyse`` writes tables of what a trajectory says, and doubts what it does not."""

from __future__ import annotations

import csv
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.io import write

from jmp_md.analysis import diffusion
from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.runs.analysis import analyse, run_analysis
from jmp_md.runs.md import run_md
from jmp_md.runs.options import AnalysisOptions

CM_PER_FS = 2.99792458e-5


class Spring(Calculator):
    """A harmonic bond of two atoms, 30 eV/Å² and 1.1 Å."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(
        self, atoms: Any = None, properties: Any = None, system_changes: Any = ()
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        bond = atoms.positions[1] - atoms.positions[0]
        length = np.linalg.norm(bond)
        pull = 30.0 * (length - 1.1) * bond / length
        self.results = {"energy": 15.0 * (length - 1.1) ** 2, "forces": np.array([pull, -pull])}


def table(path: Path) -> dict[str, np.ndarray]:
    with path.open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    return dict(zip(rows[0], np.array(rows[1:], dtype=float).T, strict=True))


def walkers(path: Path, n: int = 1200, variance: float = 0.01, interval: float = 10.0) -> None:
    """Two kinds of Brownian particles in a cell they are folded into, the second twice as fast."""
    rng = np.random.default_rng(0)
    spread = np.sqrt(variance * np.repeat([1.0, 2.0], 30))[:, None]
    places = rng.uniform(0, 10, (60, 3)) + (spread * rng.normal(size=(n, 60, 3))).cumsum(axis=0)
    frames = []
    for i, positions in enumerate(places):
        frames.append(Atoms("Ar30Ne30", positions, cell=[10] * 3, pbc=True))
        frames[-1].wrap()
        frames[-1].info["time_fs"] = interval * i
    write(path, frames)


def test_walkers_have_their_coefficients_and_an_ideal_gas_its_g(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    walkers(Path("walk.traj"))
    assert main(["analyse", "walk.traj"]) == 0
    out = capsys.readouterr().out
    assert "Ar30Ne30: 1200 frames, 10 fs apart, 11.99 ps" in out
    assert "wrote walk-analyse: jmp-md.log, msd.csv, rdf.csv, report.html, summary.json" in out
    results = json.loads(Path("walk-analyse/summary.json").read_text())["results"]
    for name, variance in (("Ar", 0.01), ("Ne", 0.02), ("all", 0.015)):
        found = results["diffusion_m2_per_s"][name]
        expected = variance / 20 * 1e-5  # s / 2 h, Å²/fs in m²/s
        # Relative to the centre of mass, which moves as the mean of all.
        assert found["value"] == pytest.approx(expected, abs=4 * found["error"])
        assert found["error"] < 0.15 * expected
    g = table(Path("walk-analyse/rdf.csv"))
    far = g["distance_A"] > 2
    for name in ("g", "g_Ar-Ar", "g_Ar-Ne", "g_Ne-Ne"):
        assert g[name][far].mean() == pytest.approx(1.0, abs=0.05)
    msd = table(Path("walk-analyse/msd.csv"))
    assert msd["msd_Ar_A2"][1] == pytest.approx(0.03, rel=0.03)
    page = Path("walk-analyse/report.html").read_text()
    whole = results["diffusion_m2_per_s"]["all"]
    assert f"<dt>diffusion</dt><dd>{whole['value']:.3g} ± {whole['error']:.2g} m²/s</dd>" in page
    captions = ("Radial distribution functions", "Mean squared displacements")
    places = [page.index(word) for word in ("verdicts", "headlines", "view0", *captions)]
    assert places == sorted(places)
    assert '"labels": ["0 ps", ' in page
    assert '"11.99 ps"]' in page
    assert main(["analyse", "walk.traj"]) == 1
    assert "holds a run: remove it with overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["h5", "extxyz"])
def test_a_spring_has_its_frequency_and_each_atom_its_temperature(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By hand: sqrt(k / mu) / 2 pi c."""
    atoms = molecule("N2")
    atoms.set_distance(0, 1, 1.1)
    atoms.calc = Spring()
    speed = np.sqrt(0.15 / atoms.get_masses()[0])  # of each, along the bond: 0.15 eV of both
    atoms.set_velocities([[0, 0, speed], [0, 0, -speed]])
    run = tmp_path / "run"
    options: dict[str, Any] = {"ensemble": "nve", "timestep": 0.5, "steps": 1503, "interval": 5}
    run_md(atoms, run, report=False, trajectory=ending, **options)
    output = tmp_path / "out"
    assert main(["analyse", str(run), "--output", str(output), "--resolution", "30"]) == 0
    mu = atoms.get_masses()[0] / 2
    expected = np.sqrt(30.0 / mu) * units.fs / (2 * np.pi * CM_PER_FS)
    results = json.loads((output / "summary.json").read_text())["results"]
    assert results["spectrum_peaks_per_cm"] == pytest.approx([expected], abs=30)
    assert results["n_frames"] == 301  # without the last one, out of turn
    # Half of the energy is in motion on average, of 3 degrees of freedom.
    temperature = results["temperatures_K"]["N"]["value"]
    assert temperature == pytest.approx(0.075 / 1.5 / units.kB, rel=0.02)
    assert results["energy_eV"] == pytest.approx(0.075, rel=0.02)
    blocks = table(output / "blocks.csv")
    assert blocks["block_fs"][:3].tolist() == [2.5, 5.0, 10.0]
    assert blocks["energy_error_eV"][0] > 3 * blocks["energy_error_eV"][-1]  # it oscillates
    spectrum = table(output / "spectrum.csv")
    area = spectrum["density_cm"].sum() * spectrum["wavenumber_per_cm"][1]
    assert area == pytest.approx(1.0)
    assert table(output / "vacf.csv")["correlation"][0] == 1.0
    assert "spectrum, resolution" in capsys.readouterr().out
    page = (output / "report.html").read_text()
    assert f"peaks at {results['spectrum_peaks_per_cm'][0]:.0f} cm⁻¹" in page
    for word in ("by the spread of blocks", "Lengths of the bonds", "autocorrelation"):
        assert word in page


def test_hydrogen_that_is_seen_too_seldom_is_in_doubt(tmp_path: Path) -> None:
    frames = []
    for i in range(2000):
        frames.append(molecule("H2"))
        frames[-1].set_velocities([[0, 0, np.cos(i)], [0, 0, -np.cos(i)]])
    write(tmp_path / "h2.traj", frames)
    [doubt] = analyse(tmp_path / "h2.traj", interval=5.0).doubts
    assert "the spectrum ends at 3336 cm⁻¹" in doubt
    assert not analyse(tmp_path / "h2.traj", interval=3.0).doubts


def test_a_run_that_is_too_short_for_the_resolution_is_in_doubt(tmp_path: Path) -> None:
    frames = [molecule("N2") for _ in range(40)]
    for i, atoms in enumerate(frames):
        atoms.set_velocities([[0, 0, np.cos(i)], [0, 0, -np.cos(i)]])
    write(tmp_path / "n2.traj", frames)
    [doubt] = analyse(tmp_path / "n2.traj", interval=2.5).doubts
    assert "it resolves 334 cm⁻¹" in doubt  # 1 / (40 * 2.5 fs * c)
    assert not analyse(tmp_path / "n2.traj", interval=2.5, resolution=200).doubts


def test_options_of_the_analysis_are_those_of_its_parts(tmp_path: Path) -> None:
    shown = inspect.signature(diffusion).parameters
    own = AnalysisOptions()
    assert (own.fit_from, own.fit_to) == (shown["first"].default, shown["last"].default)
    walkers(tmp_path / "a.traj", n=20)
    assert not analyse(tmp_path / "a.traj").diffusion
    with pytest.raises(InputError, match="a line needs 3 lags"):
        analyse(tmp_path / "a.traj", fit_to=0.05)
    with pytest.raises(InputError, match="there is no trajectory"):
        run_analysis(tmp_path / "none.traj", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"reach 9.0 Å: must be positive and at most 5.000 Å"):
        analyse(tmp_path / "a.traj", reach=9.0)
