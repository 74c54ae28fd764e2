"""Pre-training samples, weighs and normalises its tasks as the paper does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule
from factories import SIZES
from torch_geometric.data import Batch
from training_cases import ALONE, history, well, write_npz

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.checkpoints.native import read_header
from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.training.batches import to_data
from jmp_md.training.data.frame import FrameList
from jmp_md.training.loss import residuals
from jmp_md.training.mixture import MixSampler, expanded_sizes
from jmp_md.training.pretrain import MultiTask, PretrainObjective, TaskData, pretrainer
from jmp_md.training.recipe import PretrainRecipe, from_yaml
from jmp_md.training.shuffle import Shuffle
from jmp_md.training.trainer import Trainer

RECIPE = f"""
task: pretrain
model:
  name: tiny
  sizes: {SIZES | {"num_blocks": 1}}
  graph: {{main: 4.0, atom_edge: 4.0, quadruplet: 2.0, atom_atom: 4.0}}
tasks:
  water: {{train: water.npz, level_of_theory: springs}}
  methanol:
    train: methanol.npz
    graph: {{kind: official, cutoff: 5.0, max_neighbors: 20}}
mix: {{n_validation: 3}}
optimiser: {{epochs: 2, batch_size: 4, learning_rate: 2.0e-3, edge_dropout: 0.1, warmup_steps: 2}}
"""


def recipe(*overrides: str) -> PretrainRecipe:
    made = from_yaml(RECIPE, "test", list(overrides))
    assert isinstance(made, PretrainRecipe)
    return made


def tasks() -> dict[str, TaskData]:
    return {
        "water": TaskData(FrameList(well(8)), FrameList(well(2, seed=5))),
        "methanol": TaskData(
            FrameList(well(2, "CH3OH", seed=1)), FrameList(well(1, "CH3OH", seed=6))
        ),
    }


def trainer(output: Path, *overrides: str) -> Trainer:
    return pretrainer(recipe(*overrides), tasks(), output, ALONE)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(1.0, [400, 100, 25]), (2.0, [400, 200, 100]), (np.inf, [400, 400, 400]),
     (0.5, [6400, 400, 25])],
)  # fmt: skip
def test_sets_are_expanded_by_temperature(temperature: float, expected: list[int]) -> None:
    sizes = np.array([400, 100, 25])
    assert expanded_sizes(sizes, temperature) == expected
    p = sizes ** (1 / temperature)
    f = p / p.sum() / sizes
    assert expected == [int(x) for x in np.ceil((sizes * f / f.min()).round(6))]


def test_an_epoch_takes_every_frame_its_number_of_times() -> None:
    sampler = MixSampler({"large": 100, "small": 25}, 2.0, 10, seed=3)
    assert sampler.steps_per_epoch == 15
    keys = [key for step in range(15) for key in sampler.batch(step)]
    times = Counter(keys)
    assert times == {("large", k): 1 for k in range(100)} | {("small", k): 2 for k in range(25)}
    assert sampler.batch(4) == MixSampler({"large": 100, "small": 25}, 2.0, 10, seed=3).batch(4)
    again = [key for step in range(15, 30) for key in sampler.batch(step)]
    assert Counter(again) == times
    assert again != keys


@pytest.mark.parametrize("n", [1, 2, 7, 1000, 4097])
def test_shuffles_are_permutations(n: int) -> None:
    order = Shuffle(n, [1, 2])[np.arange(n)]
    assert sorted(order.tolist()) == list(range(n))
    if n > 100:
        assert not np.array_equal(order, Shuffle(n, [1, 3])[np.arange(n)])
        assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 0.1


def test_sampling_from_120_million_frames_lists_none_of_them() -> None:
    sizes = {"oc20": 100_000_000, "oc22": 8_000_000, "ani1x": 2_000_000, "transition1x": 10_000_000}
    sampler = MixSampler(sizes, 2.0, 1024, seed=0)
    keys = sampler.batch(sampler.steps_per_epoch + 12345)
    assert len(set(keys)) > 1000
    share = np.array([sum(task == t for t, _ in keys) for task in sizes]) / len(keys)
    p = np.sqrt(np.array(list(sizes.values())))
    np.testing.assert_allclose(share, p / p.sum(), atol=0.05)


@pytest.mark.parametrize("structure_wise", [True, False])
@pytest.mark.parametrize("forces", ["direct", "conservative"])
def test_the_loss_weighs_tasks_and_structures(
    tmp_path: Path, structure_wise: bool, forces: str
) -> None:
    options = (f"mix.structure_wise={structure_wise}", f"model.forces={forces}")
    objective = trainer(tmp_path, *options).objective
    assert isinstance(objective, PretrainObjective)
    objective.eval()  # no edges are dropped
    frames = {"water": well(2, seed=2), "methanol": well(1, "CH3OH", seed=3)}
    batch, energies, by_structure = {}, [], []
    for name, mean_atoms in (("water", 3), ("methanol", 6)):
        potential = objective.model.potential(name)
        assert (potential.policy.kind == "official") == (name == "methanol")
        items = [to_data(frame, potential.policy.cutoff) for frame in frames[name]]
        batch[name] = Batch.from_data_list(items)
        for item in items:
            part = Batch.from_data_list([item])
            found = residuals(potential, part, objective.scales[name])
            assert found.forces is not None
            energies.append(float(found.energy.detach()))
            by_structure.append(mean_atoms * found.forces.detach())
    sums, counts = objective(batch)
    means = (sums / counts).tolist()
    assert means[0] == pytest.approx(np.mean(energies), rel=1e-4)
    if structure_wise:
        assert means[1] == pytest.approx(np.mean([float(x.mean()) for x in by_structure]), rel=1e-4)
    else:
        assert means[1] == pytest.approx(float(torch.cat(by_structure).mean()), rel=1e-4)


def test_labels_are_normalised_by_task(tmp_path: Path) -> None:
    objective = trainer(tmp_path).objective
    assert isinstance(objective, PretrainObjective)
    for name, data in tasks().items():
        forces = np.concatenate([data.train[k].forces for k in range(len(data.train))])
        energies = [data.train[k].energy for k in range(len(data.train))]
        assert objective.scales[name].forces == pytest.approx(np.sqrt(np.mean(forces**2)))
        assert objective.scales[name].energy == pytest.approx(np.std(energies))


def test_a_resumed_run_repeats_the_losses(tmp_path: Path) -> None:
    options = ("optimiser.validate_every=2",)
    straight = trainer(tmp_path / "straight", *options)
    straight.run()
    stopped = trainer(tmp_path / "resumed", *options)
    stopped.run(max_minutes=0)
    assert stopped.progress.step == 2  # in the middle of the first epoch
    resumed = trainer(tmp_path / "resumed", *options)
    resumed.resume()
    resumed.run()
    assert history(resumed) == history(straight)


@pytest.mark.parametrize("forces", ["direct", "conservative"])
def test_the_model_has_a_head_per_task_on_one_backbone(tmp_path: Path, forces: str) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    write_npz(tmp_path / "water.npz", well(24))
    write_npz(tmp_path / "methanol.npz", well(24, "CH3OH", seed=1))
    output = tmp_path / "run"
    command = ["train", str(tmp_path / "r.yaml"), "--data", str(tmp_path), "--output", str(output)]
    command += ["--set", f"model.forces={forces}", "--set", "optimiser.epochs=1"]
    assert main(command) == 0
    header = read_header(output / "model.safetensors")
    assert [head.name for head in header.heads] == ["water", "methanol"]
    assert header.metrics.keys() >= {"validation_water_force_mae_meV_per_A"}
    assert len(header.training["data_sha256"]) == 2
    atoms = molecule("H2O")
    calculators = [
        JMPCalculator(output / "model.safetensors", head=head, forces=forces)
        for head in ("water", "methanol")
    ]
    a, b = (calculator.get_property("forces", atoms) for calculator in calculators)
    assert np.abs(a - b).max() > 1e-6
    weights = [c.potential.backbone.bases.mlp_rbf_h.linear.weight for c in calculators]
    assert torch.equal(*weights)
    assert set(np.load(tmp_path / "water.npz")["system_id"]) > {
        well(24)[k].system for k in _split(output / "split-water.json")
    }


def _split(path: Path) -> list[int]:
    import json

    content = json.loads(path.read_text())
    frames = well(24)
    train, val = ({frames[k].system for k in content[part]} for part in ("train", "val"))
    assert not train & val
    held_out: list[int] = content["val"]
    return held_out


def test_references_can_come_from_a_file(tmp_path: Path) -> None:
    write_npz(tmp_path / "water.npz", well(24))
    command = ["data", "reference", str(tmp_path / "water.npz"), "--json", str(tmp_path / "w.json")]
    assert main(command) == 0
    (tmp_path / "r.yaml").write_text(RECIPE)
    write_npz(tmp_path / "methanol.npz", well(24, "CH3OH", seed=1))
    output = tmp_path / "run"
    command = ["train", str(tmp_path / "r.yaml"), "--data", str(tmp_path), "--output", str(output)]
    command += ["--set", "tasks.water.reference=w.json", "--set", "optimiser.epochs=1"]
    assert main([*command, "--max-minutes", "0"]) == 0
    head = read_header(output / "model.safetensors").head("water")
    assert 2 * head.references[1] + head.references[8] == pytest.approx(-1000, abs=5)
    (tmp_path / "w.json").write_text("{}")
    assert main([*command, "--resume"]) == 1


def test_tasks_without_labels_are_refused(tmp_path: Path) -> None:
    bare = FrameList([well(1)[0].__class__(numbers=np.array([1]), positions=np.zeros((1, 3)))])
    with pytest.raises(InputError, match="task 'water': pre-training needs energies and forces"):
        pretrainer(recipe(), tasks() | {"water": TaskData(bare, bare)}, tmp_path, ALONE)


def test_heads_share_what_is_trained(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    model = made.objective.model
    assert isinstance(model, MultiTask)
    copies = made.average.module
    assert isinstance(copies, MultiTask)
    for multi in (model, copies):
        assert multi.potential("water").backbone is multi.potential("methanol").backbone
    assert copies.backbone is not model.backbone
