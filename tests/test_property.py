"""Property models pool what atoms say, and are measured as the benchmarks measure."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import write
from factories import SIZES
from torch_geometric.data import Batch
from training_cases import ALONE, history

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.checkpoints.native import read_header, write_native
from jmp_md.cli.main import main
from jmp_md.errors import CheckpointError, InputError
from jmp_md.graph.policy import GraphPolicy
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.nn.config import BackboneConfig
from jmp_md.training.assembly import assemble
from jmp_md.training.batches import PairedFrames, to_data, to_structures
from jmp_md.training.data.frame import Frame, FrameList, make_frame
from jmp_md.training.property import PropertyModel
from jmp_md.training.property_metrics import roc_auc
from jmp_md.training.recipe import PropertyRecipe, from_yaml
from jmp_md.training.sections import TargetSection
from jmp_md.training.session import train
from jmp_md.training.task import TaskData
from jmp_md.training.trainer import Trainer
from jmp_md.training.validation import property_errors

RECIPE = f"""
task: property
model:
  name: tiny
  sizes: {SIZES | {"num_blocks": 1}}
  graph: {{main: 4.0, atom_edge: 4.0, quadruplet: 2.0, atom_atom: 4.0}}
data: {{train: unused}}
target: {{name: gap}}
optimiser: {{epochs: 2, batch_size: 4, learning_rate: 5.0e-3, ema_decay: 0.5}}
"""


def molecules(n: int = 12) -> list[Frame]:
    """Rattled molecules whose gap is the number of their carbon atoms."""
    frames = []
    for k in range(n):
        atoms = molecule(("H2O", "CH4", "C2H2")[k % 3])
        atoms.rattle(0.05, seed=k)
        carbons = float(np.sum(atoms.numbers == 6))
        targets = {"gap": carbons, "organic": float(carbons > 0)}
        frame = make_frame(
            "test", k, numbers=atoms.numbers, positions=atoms.positions, targets=targets
        )
        frames.append(frame)
    return frames


def trainer(output: Path, *overrides: str) -> Trainer:
    recipe = from_yaml(RECIPE, "test", list(overrides))
    assert isinstance(recipe, PropertyRecipe)
    frames = molecules()
    data = TaskData(FrameList(frames[:9]), FrameList(frames[9:]))
    return assemble(recipe, {recipe.target.name: data}, output, ALONE)


def model(**target: object) -> PropertyModel:
    head = HeadInfo("gap", GraphPolicy.smooth(), energy_scale=2.0, energy_mean=5.0)
    header = ModelHeader("p", BackboneConfig(**SIZES), (head,))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = PropertyModel(header, TargetSection(name="gap", **target))  # type: ignore[arg-type]
    return made.double().eval()


def batch() -> Batch:
    return Batch.from_data_list([to_data(frame, 6.0) for frame in molecules(3)])


@pytest.mark.parametrize("pooling", ["sum", "mean", "max"])
@pytest.mark.parametrize("kind", ["scalar", "extent", "classes"])
def test_outputs_of_atoms_are_pooled_by_structure(kind: str, pooling: str) -> None:
    made = model(kind=kind, pooling=pooling)
    s = to_structures(batch())
    graph = made.graph(s.positions, s.cells, s.structure, s.tags, s.pairs)
    with torch.no_grad():
        atoms = made.property_head(made.backbone(made.embedding(s.numbers - 1), graph)[0]).numpy()
        found = made(s).numpy()
    reduce = {"sum": np.sum, "mean": np.mean, "max": np.max}[pooling]
    for k, frame in enumerate(molecules(3)):
        rows = atoms[s.structure.numpy() == k]
        if kind == "extent":
            ase = molecule(("H2O", "CH4", "C2H2")[k])
            ase.positions = frame.positions
            rows = rows * ((ase.positions - ase.get_center_of_mass()) ** 2).sum(1, keepdims=True)
        np.testing.assert_allclose(found[k], reduce(rows, axis=0).squeeze(), rtol=1e-6)


def test_training_lowers_the_error_and_resumes(tmp_path: Path) -> None:
    rows = trainer(tmp_path / "a", "optimiser.epochs=12").run().history
    assert rows[-1]["mae"] < 0.5 * rows[0]["mae"]
    straight = trainer(tmp_path / "straight", "target.dropout=0.2")
    straight.run()
    trainer(tmp_path / "resumed", "target.dropout=0.2").run(max_minutes=0)
    resumed = trainer(tmp_path / "resumed", "target.dropout=0.2")
    resumed.resume()
    resumed.run()
    assert history(resumed) == history(straight)


def test_classes_are_learned(tmp_path: Path) -> None:
    made = trainer(
        tmp_path, "target={name: organic, kind: classes, pooling: sum}", "optimiser.epochs=12"
    )
    rows = made.run().history
    assert rows[-1]["cross_entropy"] < 0.6 * rows[0]["cross_entropy"]
    assert rows[-1]["accuracy"] == rows[-1]["roc_auc"] == 1.0
    with pytest.raises(InputError, match="values besides 0 and 1"):
        trainer(tmp_path, "target={name: gap, kind: classes}")
    with pytest.raises(
        InputError, match="'colour' is not a target of every training frame; it has 'g"
    ):
        trainer(tmp_path, "target.name=colour")


def test_a_saved_model_predicts_the_same_and_is_no_potential(tmp_path: Path) -> None:
    made = model(pooling="mean")
    path = tmp_path / "gap.safetensors"
    write_native(path, made.header, made.native_state())
    again = PropertyModel.load(path).double()
    s = to_structures(batch())
    assert torch.allclose(again.predict(s), made.predict(s), rtol=1e-6)
    assert torch.allclose(made.predict(s), made(s).detach() * 2.0 + 5.0)
    with pytest.raises(CheckpointError, match="predicts the property 'gap', no energies"):
        JMPCalculator(path)


def test_errors_are_means_over_structures() -> None:
    made = model(pooling="mean")
    frames = molecules(3)
    items = [Batch.from_data_list([to_data(frame, 6.0, "gap")]) for frame in frames]
    errors = property_errors(made, PairedFrames(FrameList(frames), 6.0, "gap"), ALONE)
    wanted = np.array([frame.targets["gap"] for frame in frames])
    found = np.concatenate([made.predict(to_structures(item)).numpy() for item in items])
    assert errors["mae"] == pytest.approx(np.abs(found - wanted).mean())
    assert errors["rmse"] == pytest.approx(np.sqrt(((found - wanted) ** 2).mean()))


def test_area_under_the_curve_counts_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 5, 40) / 5, rng.random(40) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in score[positive] for b in score[~positive]]
    assert roc_auc(score, positive) == pytest.approx(np.mean(pairs))
    assert roc_auc(score, np.ones(40, dtype=bool)) == 0.5


def evaluate(path: Path, data: Path, *options: str) -> tuple[int, dict[str, Any]]:
    out = data.with_suffix("")
    status = main(["evaluate", "--model", str(path), "--data", str(data), "--output", str(out),
                   "--dtype", "float64", "--overwrite", *options])  # fmt: skip
    summary = out / "summary.json"
    return status, json.loads(summary.read_text())["results"] if summary.exists() else {}


def test_the_command_predicts_and_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = model(pooling="mean")
    path = tmp_path / "gap.safetensors"
    write_native(path, made.header, made.native_state())
    structures = []
    for frame in molecules(4):
        structures.append(Atoms(frame.numbers, frame.positions, info={"gap": frame.targets["gap"]}))
    write(tmp_path / "set.extxyz", structures)
    predictions = tmp_path / "set" / "predictions.csv"
    options = ("--option", "targets=[gap]", "--batch-size", "3")
    status, report = evaluate(path, tmp_path / "set.extxyz", *options)
    assert status == 0
    with predictions.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["formula"] for row in rows] == ["H2O", "CH4", "C2H2", "H2O"]
    items = [to_structures(to_data(frame, 6.0)) for frame in molecules(4)]
    expected = [float(made.predict(item)) for item in items]
    found = [float(row["predicted gap"]) for row in rows]
    assert found == pytest.approx(expected, rel=1e-6)
    error = np.abs(np.array(expected) - [float(row["label gap"]) for row in rows])
    assert report["mae"] == pytest.approx(error.mean(), rel=1e-6)
    assert report["by_element"]["O"]["mae"] == pytest.approx(error[[0, 3]].mean(), rel=1e-6)
    assert report["by_element"]["O"]["n_frames"] == 2
    assert "4 frames, 4 with labels" in capsys.readouterr().out


def test_predictions_need_no_labels_but_known_elements(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = model(pooling="mean")
    head = dataclasses.replace(made.head, elements=(1, 8))
    made.header = dataclasses.replace(made.header, heads=(head,))
    path = tmp_path / "gap.safetensors"
    write_native(path, made.header, made.native_state())
    write(tmp_path / "set.extxyz", [molecule("H2O"), molecule("CH4")])
    predictions = tmp_path / "set" / "predictions.csv"
    assert evaluate(path, tmp_path / "set.extxyz")[0] == 1
    assert "frame 1: model 'p' was not trained on C: it knows H, O" in capsys.readouterr().err
    status, report = evaluate(path, tmp_path / "set.extxyz", "--skip-bad")
    assert (status, report["n_predicted"], report["n_skipped"]) == (0, 1, 1)
    assert "mae" not in report
    assert predictions.read_text().splitlines()[1].startswith("0,H2O,")
    assert predictions.read_text().splitlines()[1].endswith(",")


def test_a_test_frame_with_an_unknown_element_is_left_out(tmp_path: Path) -> None:
    def write_frames(name: str, formulas: tuple[str, ...]) -> None:
        frames = []
        for k, formula in enumerate(formulas):
            atoms = molecule(formula)
            atoms.rattle(0.05, seed=k)
            atoms.info["gap"] = float(len(atoms))
            frames.append(atoms)
        write(tmp_path / name, frames)

    write_frames("train.extxyz", ("H2O", "CH4") * 4)
    write_frames("test.extxyz", ("H2O", "NH3"))
    data = "{train: train.extxyz, test: test.extxyz, n_train: 6, n_validation: 2, "
    data += "options: {targets: [gap]}}"
    recipe = from_yaml(RECIPE, "test", [f"data={data}"])
    path = train(recipe, tmp_path, tmp_path / "run")
    assert read_header(path).metrics["n_skipped"] == 1
    assert (tmp_path / "run" / "report.html").exists()


def test_a_property_of_atoms_is_learned_less_its_sum_over_elements(tmp_path: Path) -> None:
    """As the paper does for QM9: of u0's 1,464 eV standard deviation, 0.57 eV are left."""
    atomic = {1: -13.6, 6: -1030.0, 8: -2042.0}
    rng = np.random.default_rng(0)
    frames, left = [], []
    for k in range(24):
        atoms = molecule(("H2O", "CH4", "C2H2", "CH3OH", "H2CO")[k % 5])
        left.append(0.1 * rng.normal())
        energy = sum(atomic[int(z)] for z in atoms.numbers) + left[-1]
        frames.append(
            make_frame(
                "test", k, numbers=atoms.numbers, positions=atoms.positions, targets={"gap": energy}
            )
        )
    recipe = from_yaml(RECIPE, "test", ["target.references=true", "target.pooling=sum"])
    assert isinstance(recipe, PropertyRecipe)
    data = TaskData(FrameList(frames), FrameList(frames))
    trainer = assemble(recipe, {"gap": data}, tmp_path, ALONE)
    head = trainer.objective.model.head
    assert head.energy_mean == 0.0
    assert head.energy_scale == pytest.approx(np.std(left), rel=0.15)
    assert head.references == pytest.approx(atomic, abs=0.2)
    before = trainer.objective.measure(trainer.average.module, ALONE)["mae"]
    assert before < 100 * np.std(left)  # without references, hundreds of eV
    trainer.run()
    model = PropertyModel.load(tmp_path / "model.safetensors")
    assert model.predict(to_structures(to_data(frames[0], 4.0))).item() == pytest.approx(
        sum(atomic[int(z)] for z in frames[0].numbers), abs=10.0
    )
