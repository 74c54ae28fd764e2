"""The commands of the simulation toolkit do what their functions do, and say what is wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import read, write
from factories import write_model

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.simulate.singlepoint import singlepoint


@pytest.fixture
def model(here: Path) -> str:
    return str(write_model(here, head={"elements": (1, 6, 8)}))


def test_a_batch_has_the_results_of_the_calculator(model: str) -> None:
    structures = [molecule("H2O"), molecule("CH3OH")]
    calculator = JMPCalculator(model, dtype="float64", device="cpu")
    results = singlepoint(structures, calculator)
    for atoms, result in zip(structures, results, strict=True):
        atoms.calc = calculator
        assert result.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        assert result.forces == pytest.approx(atoms.get_forces(), abs=1e-9)


def test_any_calculator_can_be_used_and_a_bad_structure_is_named() -> None:
    copper, methane = bulk("Cu"), molecule("CH4")
    [result] = singlepoint([copper], EMT(), stress=True)
    copper.calc = EMT()
    assert np.array_equal(result.stress, copper.get_stress(voigt=False))
    unknown = molecule("NaCl")
    with pytest.raises(InputError, match="structure 1: No EMT-potential for Na"):
        singlepoint([methane, unknown], EMT())
    kept = singlepoint([methane, unknown], EMT(), on_error="keep")
    assert [result.error is None for result in kept] == [True, False]


def test_singlepoint_computes_all_files_and_exits_2_where_one_cannot(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("a.xyz", [molecule("H2O"), molecule("N2")])
    write("b.xyz", molecule("CH3OH"))
    command = ["singlepoint", "a.xyz", "b.xyz", "--model", model]
    assert main([*command, "--output", "table", "--format", "csv"]) == 2
    with open("table/results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["index"], row["formula"]) for row in rows] == [
        ("a.xyz", "0", "H2O"),
        ("a.xyz", "1", "N2"),
        ("b.xyz", "0", "CH4O"),
    ]
    assert "atom 0 (N): head 'test'" in rows[1]["error"]
    summary = json.loads(Path("table/summary.json").read_text())
    assert summary["results"] == {"n_structures": 3, "n_failed": 1}
    assert summary["model"][model]["dtype"] == "float32"
    assert main([*command, "--output", "all", "--format", "json"]) == 2
    entries = json.loads(Path("all/results.json").read_text())
    assert float(rows[0]["energy_eV"]) == entries[0]["energy_eV"]
    assert np.shape(entries[2]["forces_eV_per_A"]) == (6, 3)
    assert main([*command, "--output", "good"]) == 2
    good = read("good/results.extxyz", index=":")
    assert [len(atoms) for atoms in good] == [3, 6]
    assert good[0].get_potential_energy() == pytest.approx(entries[0]["energy_eV"])
    capsys.readouterr()
    assert main(["singlepoint", "b.xyz", "--model", model]) == 0
    assert capsys.readouterr().out.startswith(f"b.xyz[0]  CH4O  model {model}  energy ")
    assert main([*command, "--output", "table.csv"]) == 1
    assert "--output is a folder now, not the file table.csv" in capsys.readouterr().err
    assert main([*command, "--output", "good"]) == 1
    assert "good holds a run: remove it with overwrite (--overwrite)" in capsys.readouterr().err
    assert main([*command, "--output", "good", "--overwrite"]) == 2
    assert "overwriting the run in good: 4 files" in capsys.readouterr().err


def test_md_runs_and_continues_from_the_command_line(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("water.xyz", molecule("H2O"))
    command = ["md", "water.xyz", "--model", model, "--interval", "2"]
    assert main([*command, "--time", "0.002"]) == 0
    assert len(read("water-md/trajectory.extxyz", index=":")) == 3
    assert main([*command, "--steps", "6"]) == 1
    assert "holds a run" in capsys.readouterr().err
    assert main([*command, "--steps", "6", "--restart"]) == 0
    frames = read("water-md/trajectory.extxyz", index=":")
    assert [frame.info["step"] for frame in frames] == [0, 2, 4, 6]
    out = capsys.readouterr().out
    assert "H2O, model" in out
    files = "jmp-md.log, log.csv, report.html, run.json, state.npz, summary.json, trajectory.extxyz"
    assert f"wrote water-md: {files}" in out
    assert "report: water-md/report.html" in out


def test_md_runs_replicas_and_whole_files(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = molecule("H2O")
    broken.positions[1] = broken.positions[0]
    write("two.xyz", [broken, molecule("H2O")])
    command = ["md", "two.xyz", "--model", model, "--steps", "4", "--interval", "2"]
    assert main([*command, "--replicas", "2", "--trajectory", "h5"]) == 0
    out = capsys.readouterr().out
    assert "2 replicas in one batch" in out
    assert "step 4/4" in out
    assert sorted(path.name for path in Path("two-md").glob("[!.]*")) == [
        "jmp-md.log",
        "replica-000",
        "replica-001",
        "report.html",
        "run.json",
        "state.npz",
        "summary.json",
    ]
    assert main([*command, "--all", "--output", "all"]) == 2
    assert "replica 0 was dropped after step 0: " in capsys.readouterr().out
    assert len(read("all/replica-001/trajectory.extxyz", index=":")) == 3
    assert main([*command, "--replicas", "0", "--output", "none"]) == 1
    assert "0 replicas: give 1 at least" in capsys.readouterr().err


def test_the_top_of_a_path_is_verified(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ammonia turns inside out through a plane, where it has one imaginary frequency."""
    ends = [molecule("NH3"), molecule("NH3")]
    ends[1].positions[:, 2] *= -1.0
    write("a.xyz", ends[0])
    write("b.xyz", ends[1])
    command = ["neb", "a.xyz", "b.xyz", "--model", "jmp-xs-organic", "--n-images", "3"]
    assert main([*command, "--steps", "1", "--verify"]) == 2
    out = capsys.readouterr().out
    frequencies = out.split("lowest frequencies ")[1]
    assert float(frequencies.split()[0].strip(",")) < 0.0
    assert "NO saddle" not in out
    assert "NOT a transition state" not in out
    monkeypatch.setattr("jmp_md.simulate.saddles.IMAGINARY", 5000.0)  # cm⁻¹, no mode counts
    assert main([*command, "--steps", "1", "--verify", "--output", "again"]) == 2
    assert "NOT a transition state" in capsys.readouterr().out


def test_neb_writes_a_path_and_exits_2_where_it_did_not_converge(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = [molecule("H2O"), molecule("H2O")]
    ends[1].positions[1] += [0.0, 0.3, 0.2]
    write("a.xyz", ends[0])
    write("b.xyz", ends[1])
    command = ["neb", "a.xyz", "b.xyz", "--model", model, "--n-images", "3", "--steps", "1"]
    assert main([*command, "--no-relax-ends", "--verify", "--fmax", "1e-5"]) == 2
    out = capsys.readouterr().out
    assert "NOT converged after 1 steps: barrier" in out
    assert "NO saddle" in out  # of random weights, so that there is nothing to verify
    assert len(read("a-neb/path.extxyz", index=":")) == 3
    assert main(["neb", "a.xyz", "--model", model]) == 1
    assert "a path needs its two ends" in capsys.readouterr().err


def test_vibrations_are_listed_and_written(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("water.xyz", molecule("H2O"))
    assert main(["vibrations", "water.xyz", "--model", model, "--fmax", "0.01"]) == 0
    out = capsys.readouterr().out
    assert out.count("cm⁻¹") == 3
    modes = read("water-vibrations/modes.extxyz", index=":")
    listed = json.loads(Path("water-vibrations/summary.json").read_text())["results"]
    assert [mode.info["frequency_per_cm"] for mode in modes][-1] == pytest.approx(
        listed["frequencies_per_cm"][-1]
    )
    assert modes[0].arrays["mode"].shape == (3, 3)
    assert main(["vibrations", "water.xyz", "--model", model, "--steps", "0", "--overwrite"]) == 2
    assert "NOT relaxed in 0 steps" in capsys.readouterr().out
    assert not json.loads(Path("water-vibrations/summary.json").read_text())["results"]["relaxed"]
    refused = ["vibrations", "water.xyz", "--model", model, "--thermo", "--no-relax"]
    assert main([*refused, "--temperature", "0"]) == 1
    assert "temperature 0.0 K: must be positive" in capsys.readouterr().err


def test_options_come_from_a_file_and_those_given_win(here: Path, model: str) -> None:
    write("water.xyz", molecule("H2O"))
    text = f"model: {model}\nsteps: 2\ntemperature: 150\nremove_drift: false\noutput: run\n"
    Path("run.yaml").write_text(text)
    assert main(["md", "--temperature", "200", "water.xyz", "--config", "run.yaml"]) == 0
    settings = json.loads(Path("run/summary.json").read_text())["settings"]
    assert settings["temperature"] == 200
    assert settings["steps"] == 2
    assert settings["remove_drift"] is False


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("timestep: abc", 1, "timestep 'abc' fs: must be a number"),
        ("timestp: 1", 1, "unrecognized arguments: --timestp=1"),
        ("- 1", 1, "run.yaml holds no options"),
        ("a: [", 1, "the file of options run.yaml is not valid YAML"),
    ],
)
def test_a_file_of_options_that_is_wrong_is_refused(
    here: Path, text: str, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run.yaml").write_text(text)
    try:
        code = main(["md", "water.xyz", "--config=run.yaml"])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    assert code == status
    assert message in capsys.readouterr().err
