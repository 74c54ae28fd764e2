"""Pre-training samples, weighs and normalises its tasks as the paper does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule
from torch_geometric.data import Batch
from training_cases import ALONE, PRETRAIN, history, well, write_npz

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.checkpoints.native import read_header
from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.load import load_model
from jmp_md.training.assembly import assemble
from jmp_md.training.batches import to_data, to_structures
from jmp_md.training.data.frame import FrameList
from jmp_md.training.distributed import Ranks
from jmp_md.training.heads import Heads
from jmp_md.training.loss import Scales, mean_terms, residuals
from jmp_md.training.objective import PotentialObjective
from jmp_md.training.recipe import PretrainRecipe, from_yaml
from jmp_md.training.sampling import EpochSampler, MixSampler, SortedSampler, expanded_sizes
from jmp_md.training.shuffle import Shuffle
from jmp_md.training.task import TaskData
from jmp_md.training.trainer import Trainer
from jmp_md.training.update import Update


def recipe(*overrides: str) -> PretrainRecipe:
    made = from_yaml(PRETRAIN, "test", list(overrides))
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
    return assemble(recipe(*overrides), tasks(), output, ALONE)


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


def test_batches_of_similar_size_take_every_frame_as_often_as_before() -> None:
    sizes = np.random.default_rng(0).integers(2, 30, 103)
    drawn = EpochSampler("molecules", len(sizes), 4, seed=1)

    def sampler() -> SortedSampler:
        return SortedSampler(drawn, lambda key: int(sizes[key[1]]), 8, seed=2)

    steps = range(drawn.steps_per_epoch, 2 * drawn.steps_per_epoch)
    batches = [sampler().batch(step) for step in steps]  # anew: a resumed run takes the same
    going = sampler()
    assert batches == [going.batch(step) for step in steps]
    assert Counter(k for b in batches for k in b) == Counter(
        k for s in steps for k in drawn.batch(s)
    )
    assert sorted(map(len, batches)) == [3] + [4] * 25

    def spread(some: list[list[tuple[str, int]]]) -> float:
        return float(np.mean([np.ptp([sizes[index] for _, index in batch]) for batch in some]))

    assert spread(batches) < 0.3 * spread([drawn.batch(step) for step in steps])
    means = [np.mean([sizes[index] for _, index in batch]) for batch in batches]
    assert abs(np.corrcoef(means[:8], range(8))[0, 1]) < 0.9  # not from small to large


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
    assert isinstance(objective, PotentialObjective)
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
            found = residuals(potential, part, objective.tasks[name].scales)
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
    assert isinstance(objective, PotentialObjective)
    for name, data in tasks().items():
        forces = np.concatenate([data.train[k].forces for k in range(len(data.train))])
        energies = [data.train[k].energy for k in range(len(data.train))]
        assert objective.tasks[name].scales.forces == pytest.approx(np.sqrt(np.mean(forces**2)))
        assert objective.tasks[name].scales.energy == pytest.approx(np.std(energies))


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
    (tmp_path / "r.yaml").write_text(PRETRAIN)
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
    (tmp_path / "r.yaml").write_text(PRETRAIN)
    write_npz(tmp_path / "methanol.npz", well(24, "CH3OH", seed=1))
    output = tmp_path / "run"
    command = ["train", str(tmp_path / "r.yaml"), "--data", str(tmp_path), "--output", str(output)]
    command += ["--set", "tasks.water.reference=w.json", "--set", "optimiser.epochs=1"]
    assert main([*command, "--max-minutes", "0"]) == 0
    head = read_header(output / "model.safetensors").head("water")
    assert 2 * head.references[1] + head.references[8] == pytest.approx(-1000, abs=5)
    (tmp_path / "w.json").write_text("{}")
    assert main([*command, "--restart"]) == 1


def test_tasks_without_labels_are_refused(tmp_path: Path) -> None:
    bare = FrameList([well(1)[0].__class__(numbers=np.array([1]), positions=np.zeros((1, 3)))])
    with pytest.raises(InputError, match="task 'water': the training frames hold no energy: pre-"):
        assemble(recipe(), tasks() | {"water": TaskData(bare, bare)}, tmp_path, ALONE)


def test_heads_share_what_is_trained(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    model = made.objective.model
    assert isinstance(model, Heads)
    copies = made.average.module
    assert isinstance(copies, Heads)
    for multi in (model, copies):
        assert multi.potential("water").backbone is multi.potential("methanol").backbone
    assert copies.backbone is not model.backbone


def test_errors_below_the_margins_of_a_task_teach_nothing(tmp_path: Path) -> None:
    """Water's margins are halfway between the errors of two structures, methanol has none."""
    plain = trainer(tmp_path).objective
    assert isinstance(plain, PotentialObjective)
    plain.eval()
    potential = plain.model.potential("water")
    batch = Batch.from_data_list([to_data(f, potential.policy.cutoff) for f in well(2, seed=2)])
    scales = plain.tasks["water"].scales
    found = residuals(potential, batch, scales)
    one = Scales(1.0, 1.0)
    prediction = potential.predict(to_structures(batch))
    assert found.forces is not None
    assert prediction.forces is not None
    energy = (prediction.energy - batch.energy).abs()
    force = (prediction.forces - batch.forces).abs().mean(dim=1)
    margins = one._replace(energy=float(energy.mean()), forces=float(force.mean()))
    options = (f"tasks.water.energy_margin={margins.energy}",
               f"tasks.water.force_margin={margins.forces}")  # fmt: skip
    objective = trainer(tmp_path, *options).objective
    assert isinstance(objective, PotentialObjective)
    assert {name: task.margins for name, task in objective.tasks.items()} == {
        "water": margins,
        "methanol": Scales(0.0, 0.0),
    }
    objective.eval()
    cut = residuals(potential, batch, scales, margins=margins)
    assert cut.forces is not None
    for some, every, size, limit in (
        (cut.energy, found.energy, energy, margins.energy),
        (cut.forces, found.forces, force, margins.forces),
    ):
        assert 0 < int((size < limit).sum()) < len(size)
        assert torch.equal(some[size < limit], torch.zeros_like(some[size < limit]))
        assert torch.equal(some[size >= limit], every[size >= limit])
    below = residuals(potential, batch, scales, margins=Scales(1e9, 1e9))
    sums, counts = mean_terms([below.energy, below.forces])
    sums.sum().backward()
    assert counts.tolist() == [2, 6]  # they still count
    assert all(p.grad is None or not p.grad.any() for p in potential.parameters())
    sums, _ = objective({"water": batch})
    assert sums[0] < plain({"water": batch})[0][0]


def test_one_task_has_nothing_to_conflict_with(tmp_path: Path) -> None:
    histories = []
    for value in ("false", "true"):
        options = ("tasks={water: {train: water.npz}}", f"mix.pcgrad={value}")
        data = {"water": tasks()["water"]}
        made = assemble(recipe(*options), data, tmp_path / value, ALONE)
        histories.append([row["loss"] for row in made.run().history])
    assert histories[0] == pytest.approx(histories[1], rel=1e-5)


def test_steps_oppose_no_task_where_conflicts_are_projected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jmp_md.training.update.scale_shared_gradients", lambda backbone: None)
    options = ("mix.pcgrad=true", "optimiser.edge_dropout=0", "optimiser.clip_norm=null")
    found = set()
    for k in range(4):
        made = trainer(tmp_path, *options)
        update = made.update
        batch = made.frames.collate([made.frames[key] for key in [("water", k), ("methanol", 1)]])
        shared = [p for p, own in zip(update.parameters, update.shared, strict=True) if own]
        by_task = []
        for task in batch:
            sums, counts = made.objective({task: batch[task]})
            whole = torch.autograd.grad((sums / counts).sum() / 2, shared, allow_unused=True)
            by_task.append(torch.cat([torch.zeros(p.numel()) if g is None else g.flatten()
                                      for p, g in zip(shared, whole, strict=True)]))  # fmt: skip
        assert update(batch, 0, 2) is not None
        taken = torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten()
                           for p in shared])  # fmt: skip
        conflict = bool(torch.dot(*by_task) < 0)
        found.add(conflict)
        assert torch.allclose(taken, sum(by_task), rtol=1e-3, atol=1e-6) == (not conflict)
        assert all(torch.dot(taken, gradient) > 0 for gradient in by_task)
    assert found == {False, True}


def test_a_mix_without_conflicts_trains(tmp_path: Path) -> None:
    rows = trainer(tmp_path, "mix.pcgrad=true", "optimiser.epochs=8").run().history
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_projected_gradients_are_not_split(tmp_path: Path) -> None:
    objective = trainer(tmp_path, "mix.pcgrad=true").objective
    ranks = Ranks(0, 2, torch.device("cpu"))
    with pytest.raises(InputError, match=r"mix.pcgrad needs whole gradients: leave out --shard"):
        Update(objective, recipe().optimiser, ranks, shard=True)


def test_a_mix_goes_on_from_the_heads_of_its_base(tmp_path: Path) -> None:
    """Of the task whose level of theory is known to be the same; the other's is drawn anew."""
    trainer(tmp_path / "first").run()
    path = tmp_path / "first" / "model.safetensors"
    again = trainer(tmp_path / "second", f"model.base={path}", "model.sizes={}")
    model = again.objective.model
    assert isinstance(model, Heads)
    for task, kept in (("water", True), ("methanol", False)):
        base = load_model(path, head=task)
        same = torch.equal(model.potential(task).energy_head[0].weight, base.energy_head[0].weight)
        assert same == kept
    assert model.potential("water").head == load_model(path, head="water").head
