"""The comparison with MACE gives equal time, equal frames and true errors to all."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pareto
import pareto_mace
import pareto_ours
import pareto_table
import pytest
from ase.io import read
from training_cases import tiny_trainer

# CODATA 2018: 4184 J/kcal over the Faraday constant.
EV_PER_KCAL_PER_MOL = 4184.0 / 96485.33212


def epoch_rows(costs: list[tuple[float, float]]) -> list[dict[str, float]]:
    """A history with these CPU seconds of an epoch and, among them, of its validation."""
    spent = np.cumsum([total for total, _ in costs])
    return [{"cpu": float(s), "validation_cpu": v} for s, (_, v) in zip(spent, costs, strict=True)]


def test_a_budget_holds_whole_epochs_with_their_validations() -> None:
    """At 10 ms a frame and 1 s a validation, 60 s hold 1 + 5 x (9.5 + 1) s, and 6.5 s are left."""
    assert pareto.epochs_within(60.0, 0.01, 1.0, 950) == 6  # 64 s are nearer than 53.5 s
    assert pareto.epochs_within(55.0, 0.01, 1.0, 950) == 5
    assert pareto.epochs_within(1.0, 0.01, 1.0, 950) == 1


def test_rates_are_those_of_an_epoch_that_nobody_slowed() -> None:
    first, clean, slowed = (9.0, 4.0), (1.5, 0.5), (3.0, 1.0)
    histories = [epoch_rows([first, slowed, clean]), epoch_rows([first, slowed, slowed])]
    frame, validation = pareto.rate(histories, 100)
    assert frame == pytest.approx(0.01)
    assert validation == pytest.approx(0.5)


def test_processor_time_of_mace_is_shared_out_as_its_wall_time() -> None:
    step = {"mode": "opt", "time": 3.0}
    check = {"mode": "eval", "time": 2.0, "mae_f": 0.1}
    rows = pareto_mace.history([check, step, step, check | {"mae_f": 0.05}], [10.0, 11.0, 15.0])
    assert rows[0] == {"cpu": 1.0, "validation_cpu": 1.0, "force_mae": 100.0}
    assert rows[1] == {"cpu": 5.0, "validation_cpu": 1.0, "force_mae": 50.0}
    with pytest.raises(SystemExit, match="another MACE"):
        pareto_mace.history([check, step, check], [10.0, 11.0])


def test_the_clock_hears_what_mace_says_of_validations() -> None:
    clock = pareto_mace.Clock()
    for text in (
        "Started training, reporting errors on validation set",
        "Loss metrics on validation set",
        "Initial: head: Default, loss=1.0, MAE_E=  1.00 meV, MAE_F=  1.00 meV / A",
        "Epoch 0: head: Default, loss=1.0, MAE_E=  1.00 meV, MAE_F=  1.00 meV / A",
        "Training complete",
    ):
        clock.handle(logging.LogRecord("", logging.INFO, "", 0, text, None, None))
    assert len(clock.marks) == 3


def test_schedules_of_mace_are_made_for_the_length_of_the_run(tmp_path: Path) -> None:
    job = {"frames": "f", "train": "train", "seed": 0, "options": {"max_ell": 2}}
    patience = {}
    for epochs in (3, 11, 2048):
        given = dict(
            text.partition("=")[::2]
            for text in pareto_mace.arguments(tmp_path, job | {"epochs": epochs})
        )
        assert float(given["--lr_scheduler_gamma"]) ** (epochs - 1) == pytest.approx(0.1)
        assert int(given["--patience"]) > epochs  # none stops early
        assert given["--max_ell"] == "2"
        patience[epochs] = int(given["--scheduler_patience"])
    assert patience == {3: 1, 11: 1, 2048: 50}


def test_a_run_that_was_stopped_counts_the_time_before(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    clock = pareto_ours.Clock(tmp_path, trainer)

    def stop(row: dict[str, float]) -> None:
        clock.report(row)
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(report=stop, stepped=clock.stepped)
    spent = clock.rows[-1]["cpu"]
    again = tiny_trainer(tmp_path)
    again.resume()
    clock = pareto_ours.Clock(tmp_path, again)
    again.run(report=clock.report, stepped=clock.stepped)
    assert [row["step"] for row in clock.rows] == [2, 4, 6]
    assert clock.rows[1]["cpu"] == spent < clock.rows[2]["cpu"]
    for before, after in zip(clock.rows, clock.rows[1:], strict=False):
        assert 0 < after["validation_cpu"] < after["cpu"] - before["cpu"]


@pytest.fixture
def rmd17(tmp_path: Path) -> Path:
    """A molecule of three atoms in kcal/mol, 1,000 frames to train and 5 to test."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 1000), ("test", 5)):
        np.savez(
            tmp_path / f"rmd17_ethanol_{part}_01.npz",
            nuclear_charges=[8, 1, 1],
            coords=rng.normal(size=(n, 3, 3)).round(4) + [[0, 0, 0], [5, 0, 0], [0, 5, 0]],
            energies=-97208.0 + rng.normal(size=n),
            forces=10 * rng.normal(size=(n, 3, 3)),
        )
    return tmp_path


def test_all_methods_have_the_same_frames_in_the_same_units(rmd17: Path) -> None:
    source = np.load(rmd17 / "rmd17_ethanol_train_01.npz")
    bench = pareto.Bench(rmd17, rmd17 / "out", None)
    folder = bench.write_frames("ethanol")
    files = {part: read(folder / f"{part}.xyz", ":") for part in ("train", "validation", "test")}
    assert [len(files[part]) for part in files] == [pareto.N_FRAMES, 50, 5]
    index = {tuple(np.round(x[0], 4)): k for k, x in enumerate(source["coords"])}
    atoms = files["train"] + files["validation"]
    rows = [index[tuple(np.round(a.positions[0], 4))] for a in atoms]
    assert sorted(rows) == list(range(1000))
    forces = np.array([a.arrays["REF_forces"] for a in atoms])
    np.testing.assert_allclose(forces, EV_PER_KCAL_PER_MOL * source["forces"][rows], atol=1e-7)
    energies = np.array([a.info["REF_energy"] for a in atoms])
    expected = EV_PER_KCAL_PER_MOL * (source["energies"][rows] - source["energies"][rows[0]])
    np.testing.assert_allclose(energies, expected, atol=1e-5)
    recipe = pareto_ours.make_recipe("ethanol", {"model.base": None, "seed": 3})
    ours = pareto_ours.dealt_frames(recipe, rmd17)
    for part in files:
        own = [ours[part][k].positions for k in range(len(ours[part]))]
        np.testing.assert_allclose(own, [a.positions for a in files[part]], atol=1e-7)


def finished_run(output: Path, method: str, seed: int, spent: float, error: float) -> None:
    """A run of a minute whose forces are off by ``error`` eV/Å."""
    file = output / "frames" / "ethanol" / "test.xyz"
    folder = pareto.Run("ethanol", 1.0, method, seed).folder(output)
    folder.mkdir(parents=True)
    job = {"molecule": "ethanol", "minutes": 1.0, "method": method, "seed": seed, "epochs": 7}
    history = [
        {"cpu": share * spent, "validation_cpu": 1.0, "force_mae": 1000 * error / share}
        for share in (0.5, 1.0)
    ]
    training: dict[str, Any] = {"history": history, "parameters": 424000, "versions": "torch 2"}
    (folder / "job.json").write_text(json.dumps(job | {"machine": "a chip"}))
    (folder / "training.json").write_text(json.dumps(training))
    labels = np.array([a.arrays["REF_forces"] for a in read(file, ":")])
    np.save(folder / "forces.npy", labels + error)


def test_the_table_holds_the_errors_of_finished_runs(
    rmd17: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = rmd17 / "out"
    pareto.Bench(rmd17, output, None).write_frames("ethanol")
    with pytest.raises(SystemExit, match="no finished run"):
        pareto_table.report(output)
    finished_run(output, "jmp-xs", 0, 60.0, 0.010)
    finished_run(output, "jmp-xs", 1, 60.0, 0.012)
    finished_run(output, "mace-32", 0, 75.0, -0.030)
    finished_run(output, "mace-96", 0, 60.0, 0.040)
    (output / "runs" / "ethanol-1-mace-96-0" / "forces.npy").unlink()
    (output / "speed").mkdir()
    speeds = {"jmp-xs": {"cpu_ms": 4.0, "ms": 9.0}}
    (output / "speed" / "ethanol.json").write_text(json.dumps(speeds))
    figures = []
    for _ in range(2):
        pareto_table.report(output)
        figures.append((output / "pareto.svg").read_bytes())
    text = (output / "pareto.md").read_text()
    assert text in capsys.readouterr().out
    (ours, mace) = [line for line in text.splitlines() if line.startswith("| ethanol")]
    assert "| 0, 1 | 11.0 ± 1.4 | 7, 7 | 4.0 | 250 | 424,000 |" in ours
    assert "(!)" not in ours
    assert "| 1.2 (!) |" in mace
    assert "| 30.0 | 7 | not measured |" in mace
    assert figures[0] == figures[1]
    assert b"MACE, 32 channels" in figures[0]


def test_mace_needs_its_interpreter(rmd17: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["pareto.py", "--data", str(rmd17), "--output", str(rmd17 / "out")]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(pareto.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit, match=r"mace-96.*--peer-python"):
        pareto.main()
    assert not (rmd17 / "out").exists()
