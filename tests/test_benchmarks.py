"""The scripts in ``benchmarks`` run, measure what they say, and draw the same figure twice."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import batching
import drift
import drift_models
import engine
import figures
import goals
import growth
import methods
import numpy as np
import pytest
import smoothness
import split
import structures
import torch
import turns

BENCHMARKS = Path(engine.__file__).parent
pytestmark = pytest.mark.filterwarnings("ignore:energies of head")


def test_the_oracle_row_computes_what_our_row_computes() -> None:
    atoms = structures.build("ethanol")
    model = "jmp-xs-official"
    (gradient,) = methods.oracle(methods.make_potential(model), atoms)()
    calculator = methods.JMPCalculator(methods.make_potential(model))
    calculator.calculate(atoms)
    forces = calculator.get_forces(atoms)
    assert np.abs(forces + gradient.numpy()).max() < 1e-3 * np.abs(forces).max()


def test_steps_move_atoms_from_call_to_call() -> None:
    atoms = structures.build("ethanol")
    step = methods.make_call("jmp-xs", "fast", atoms)
    first, second = step(), step()
    assert not np.array_equal(first, second)


def test_the_floor_counts_the_layers_on_main_edges() -> None:
    weights = methods.edge_weights(methods.make_potential("jmp-xs"))
    assert sum(w.numel() for w in weights) == 166_144
    assert methods.make_call("jmp-xs", "floor", structures.build("ethanol"))() is None


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("ammonia", "H48N16"),
        ("catcher", "C120H28"),
        ("tube", "C200"),
        ("nanotube", "C296H74"),
        ("aspirins", "C27H24O12"),
        ("water-8", "H16O8"),
    ],
)
def test_structures_have_the_atoms_they_are_named_for(name: str, formula: str) -> None:
    atoms = structures.build(name)
    assert atoms.get_chemical_formula() == formula
    distances = atoms.get_all_distances(mic=True)
    assert distances[np.triu_indices(len(atoms), 1)].min() > 0.7


WORKER = """
import sys, time
sys.path.insert(0, {path!r})
from turns import serve
keep = []
def call():
    {body}
serve(call, memory={memory})
"""


def worker(body: str, memory: float | None = None) -> list[str]:
    """Command of a worker with this call."""
    return [sys.executable, "-c", WORKER.format(path=str(BENCHMARKS), body=body, memory=memory)]


def test_workers_take_turns_and_failures_leave_others_running() -> None:
    commands = {
        "sleeps": worker("time.sleep(0.02)"),
        "fails": worker("raise ValueError('no such thing')"),
        "fills": worker("keep.append(bytearray(2**30))", memory=0.25),
        "hangs": worker("time.sleep(60)"),
    }
    began = time.monotonic()
    results = turns.take_turns(commands, rounds=2, seconds=0.0, timeout=2.0)
    assert time.monotonic() - began < 30
    assert len(results["sleeps"].wall) == 2
    summary = results["sleeps"].summary()
    assert summary["ms"] >= 20 > summary["cpu_ms"]
    assert results["fails"].summary() == {"error": "ValueError: no such thing"}
    assert results["fills"].error == "does not fit in memory"
    assert results["hangs"].error == "over 2 s"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts the peak")
def test_peak_memory_is_that_of_calls() -> None:
    result = turns.take_turns({"": worker("bytearray(100 * 2**20)")}, rounds=1, seconds=0.0)[""]
    assert 95 < result.peak < 110


def test_one_command_measures_keeps_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "engine.json"
    command = ["engine.py", "--rounds", "1", "--seconds", "0", "--parts", "steps"]
    command += ["--rows", "jmp-xs:ethanol", "--methods", "floor", "--peer-python", "none"]
    monkeypatch.setattr(sys, "argv", [*command, "--json", str(file), "--svg", str(tmp_path)])
    engine.main()
    kept = json.loads(file.read_text())
    assert kept["steps"]["jmp-xs:ethanol"]["floor"]["ms"] > 0
    assert (tmp_path / "engine-steps.svg").stat().st_size < 50_000
    monkeypatch.setattr(engine, "take_turns", None)  # nothing is measured again
    capsys.readouterr()
    engine.main()
    assert "jmp-xs:ethanol" in capsys.readouterr().out


def test_goals_are_compared_with_what_was_measured() -> None:
    steps = {"jmp-xs:aspirin": {"fast": {"ms": 20.0}, "compiled": {"ms": 10.0}}}
    results = {"clock": "ms", "steps": steps, "growth": [], "split": [], "batching": []}
    line = next(text for text in goals.lines(results) if "steps/s" in text)
    assert "100.00  met" in line
    assert sum("not measured" in text for text in goals.lines(results)) == len(goals.GOALS) - 1
    del steps["jmp-xs:aspirin"]["compiled"]
    assert any("50.00  NOT met" in text for text in goals.lines(results))


def test_growth_is_the_distance_from_proportionality() -> None:
    rows = [{"method": "fast", "atoms": n, "ms": 2.0 * n, "peak_MiB": 1.0 * n} for n in (3, 6)]
    rows.append({"method": "fast", "atoms": 9, "ms": 27.0, "peak_MiB": 9.0})
    rows.append({"method": "fast", "atoms": 12, "error": "does not fit in memory"})
    assert growth.deviation(rows, "ms") == pytest.approx(0.5)
    assert growth.deviation(rows, "peak_MiB") == 0
    assert "does not fit" in "\n".join(growth.table(rows, "ms"))


def test_the_parts_of_a_step_add_up() -> None:
    result = split.measure("jmp-xs", "ethanol", steps=3)
    assert result["network"] > result["selection"] > 0
    assert sum(result[part] for part in split.PARTS) == pytest.approx(result["step"])
    assert 0 < result["neighbour_share"] < 0.5


def test_batches_are_compared_with_single_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(batching.COUNTS, "ethanol", 4)
    (row,) = batching.measure(["ethanol"], rounds=1, singles=1)
    assert row["faster"] == row["single_ms"] / row["batch_ms"]


def test_jumps_are_seen_with_official_graphs_only() -> None:
    atoms = structures.aspirins()
    potentials = smoothness.random_potentials(atoms)
    path = np.linspace(0.38, 0.39, 3)  # here neighbours swap ranks
    jump = {
        name: np.abs(smoothness.scan(potentials[name], atoms, path)["jump"]).max()
        for name in ("official", "smooth")
    }
    assert jump["official"] > 20 * jump["smooth"]


def test_dynamics_go_on_where_they_were_stopped(tmp_path: Path) -> None:
    potential = smoothness.random_potentials(structures.aspirins())["smooth, own cutoffs"]
    late = time.monotonic() + 1e6
    for steps in (2, 4):
        drift.go_on(tmp_path / "parts.npz", potential, steps, late, "float32")
    drift.go_on(tmp_path / "whole.npz", potential, 4, late, "float32")
    parts, whole = (np.load(tmp_path / f"{name}.npz") for name in ("parts", "whole"))
    assert len(parts["energies"]) == 4
    np.testing.assert_allclose(parts["energies"], whole["energies"], atol=1e-4)
    np.testing.assert_allclose(parts["positions"], whole["positions"], atol=1e-6)


def test_drift_and_temperatures_of_a_shipped_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "jmp-xs-rmd17-ethanol"
    lengths = ["--nve", "0.1", "--langevin", "0.2", "--replicas", "2", "--slice", "150"]
    command = ["drift_models.py", "--models", name, "--eager", *lengths]
    monkeypatch.setattr(sys, "argv", [*command, "--folder", str(tmp_path)])
    drift_models.main()
    shown = capsys.readouterr().out
    assert "NVE 0.1 ps" in shown
    assert "Langevin 2 x 0.10 ps" in shown
    log = np.genfromtxt(tmp_path / name / "nve" / "log.csv", delimiter=",", names=True)
    assert log["step"][-1] == 200  # 150, and what was left
    # 3N momenta share what is counted by 3N - 3 here.
    assert log["temperature_K"][0] == pytest.approx(2 * drift_models.TEMPERATURE * 9 / 8, abs=1)
    drift_models.main()  # all is done
    assert capsys.readouterr().out == shown


def test_a_slope_in_a_log_is_the_drift(tmp_path: Path) -> None:
    """0.9 meV in a ps for 9 atoms, and a wave that is none."""
    fs = np.arange(0.0, 20_000.0, 10.0)
    total = 9e-7 * fs + 0.01 * np.sin(fs / 5)
    (tmp_path / "nve").mkdir()
    lines = [f"{t},{e},300" for t, e in zip(fs, total, strict=True)]
    text = "\n".join(["time_fs,total_eV,temperature_K", *lines])
    (tmp_path / "nve" / "log.csv").write_text(text)
    case = drift_models.Case.__new__(drift_models.Case)
    case.folder, case.atoms = tmp_path, structures.build("ethanol")
    shown = re.search(r"drift ([+-][\d.]+) ± ([\d.]+) meV/atom/ns", case.drift())
    assert shown is not None
    slope, error = map(float, shown.groups())
    assert slope == pytest.approx(100.0, abs=3 * error)
    assert error < 2.0


def test_figures_come_out_the_same(tmp_path: Path) -> None:
    path = np.linspace(0, 1, 5)
    curve = {"energy": path**2, "force": -2 * path, "jump": 1e-3 * path[1:]}
    for name in ("a.svg", "b.svg"):
        figures.save(figures.path_scan(path, {"smooth": curve}), tmp_path / name)
        figures.save(figures.drift({"smooth": (path, path)}), tmp_path / f"drift-{name}")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "drift-a.svg").read_bytes() == (tmp_path / "drift-b.svg").read_bytes()


def test_random_weights_leave_the_generator_alone() -> None:
    before = torch.get_rng_state()
    methods.make_potential("jmp-xs")
    assert torch.equal(torch.get_rng_state(), before)
