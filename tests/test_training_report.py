"""A finished run tells what it did: in the header of its model, its table and its report."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from training_cases import PRETRAIN, RECIPE, tiny_trainer, well, write_npz

from jmp_md.checkpoints.native import read_header
from jmp_md.errors import InputError
from jmp_md.training.parity import Parity
from jmp_md.training.recipe import from_yaml
from jmp_md.training.session import train


def test_a_run_ends_with_a_report(tmp_path: Path) -> None:
    write_npz(tmp_path / "train.npz", well(20))
    output = tmp_path / "run"
    train(from_yaml(RECIPE, "test", ["optimiser.epochs=2"]), tmp_path, output)
    text = (output / "report.html").read_text()
    metrics = read_header(output / "model.safetensors").metrics
    assert metrics["n_frames"] == 9
    assert f"{metrics['force_mae_meV_per_A']:.6g}" in text
    assert "Predicted against reference force (eV/Å), 81 values" in text
    assert "Predicted against reference energy less references (eV), 9 values" in text
    assert "optimiser.learning_rate" in text
    assert "2 epochs, 4 steps" in text
    assert text.count("<img") == 6  # two parity plots, loss, two units of errors, rate


def test_a_run_without_a_finite_error_says_so(tmp_path: Path) -> None:
    write_npz(tmp_path / "train.npz", well(20))
    options = ["optimiser.epochs=1", "optimiser.learning_rate=1.0e+30"]
    with pytest.raises(InputError, match=r"no validation gave a finite force_mae_meV_per_A.*log"):
        train(from_yaml(RECIPE, "test", options), tmp_path, tmp_path / "run")


def test_the_report_of_a_mix_shows_every_task(tmp_path: Path) -> None:
    write_npz(tmp_path / "water.npz", well(24))
    write_npz(tmp_path / "methanol.npz", well(24, "CH3OH", seed=1))
    output = tmp_path / "run"
    train(from_yaml(PRETRAIN, "test", ["optimiser.epochs=1"]), tmp_path, output)
    text = (output / "report.html").read_text()
    for task in ("water", "methanol"):
        assert f"Predicted against reference {task} force (eV/Å)" in text


def test_plots_leave_out_missing_labels_and_more_than_they_can_show() -> None:
    parity = Parity()
    parity.add("none", np.full(3, np.nan), np.zeros(3))
    parity.add("some", np.array([[1.0, np.nan], [3.0, 4.0]]), np.array([[5.0, 6.0], [7.0, 8.0]]))
    parity.add("many", np.zeros(Parity.LIMIT + 5), np.ones(Parity.LIMIT + 5))
    parity.add("many", np.zeros(5), np.ones(5))
    pairs = parity.pairs()
    assert list(pairs) == ["some", "many"]
    assert pairs["some"].label.tolist() == [1.0, 3.0, 4.0]
    assert pairs["some"].predicted.tolist() == [5.0, 7.0, 8.0]
    assert len(pairs["many"].label) == Parity.LIMIT


def test_rows_go_to_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, float]] = []
    started: list[dict[str, Any]] = []

    def init(**options: Any) -> SimpleNamespace:
        started.append(options)
        return SimpleNamespace(log=lambda row, step: rows.append({**row, "at": step}))

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    trainer = tiny_trainer(tmp_path / "one", "optimiser.epochs=2", wandb=True)
    trainer.run()
    assert started[0]["name"] == "one"
    tiny_trainer(tmp_path / "one", "optimiser.epochs=2", wandb=True)  # resumed
    tiny_trainer(tmp_path / "more" / "one", "optimiser.epochs=2", wandb=True)
    assert started[1]["id"] == started[0]["id"] != started[2]["id"]
    assert started[0]["config"]["optimiser"]["epochs"] == 2
    assert [row["at"] for row in rows] == [2, 4]
    assert rows[1]["loss"] == trainer.progress.history[1]["loss"]


def test_loggers_that_are_not_installed_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name in ("wandb", "torch.utils.tensorboard"):
            raise ImportError(f"No module named {name!r}")
        return find(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match="pip install wandb"):
        tiny_trainer(tmp_path, wandb=True)
    with pytest.raises(InputError, match="pip install tensorboard"):
        tiny_trainer(tmp_path, tensorboard=True)
