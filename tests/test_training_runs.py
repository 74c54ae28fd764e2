"""Runs stop and go on as they were, keep to themselves, and validate within their memory."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import random_potential
from torch_geometric.data import Batch
from training_cases import (
    ALONE,
    RECIPE,
    history,
    tiny_recipe,
    tiny_trainer,
    well,
    write_npz,
)

from jmp_md.checkpoints.native import read_header
from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.files import locked
from jmp_md.graph.pairs import Pairs, find_pairs
from jmp_md.graph.policy import GraphPolicy
from jmp_md.training import batches, packing
from jmp_md.training.batches import PairedFrames, TaskFrames, to_data, to_structures
from jmp_md.training.data.frame import Dataset, Frame, FrameList, make_frame, sampled
from jmp_md.training.interruption import InterruptedRunError
from jmp_md.training.logs import identity
from jmp_md.training.metrics import ErrorSums, Values, dataset_errors
from jmp_md.training.packing import packed
from jmp_md.training.recipe import extended
from jmp_md.training.session import train
from jmp_md.training.trainer import Trainer
from jmp_md.training.validation import potential_errors


def assert_same_run(a: Trainer, b: Trainer) -> None:
    np.testing.assert_equal(history(a), history(b))  # NaN, too
    for x, y in zip(a.average.parameters(), b.average.parameters(), strict=True):
        assert torch.equal(x, y)


def signal_at(step: int, trainer: Trainer) -> None:
    """Send SIGTERM to this process in a step."""
    original = trainer._step

    def step_and_signal(batch: object) -> float | None:
        if trainer.progress.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(batch)

    trainer._step = step_and_signal  # type: ignore[method-assign]


@pytest.mark.parametrize("step", [0, 2, 3])
def test_a_run_that_a_signal_stops_between_validations_loses_no_step(
    tmp_path: Path, step: int
) -> None:
    straight = tiny_trainer(tmp_path / "straight")
    straight.run()
    stopped = tiny_trainer(tmp_path / "stopped")
    signal_at(step, stopped)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptedRunError, match=f"at step {step + 1} of 6, .*--restart"):
        stopped.run()
    assert signal.getsignal(signal.SIGTERM) == before
    resumed = tiny_trainer(tmp_path / "stopped")
    resumed.resume()
    assert resumed.progress.step == step + 1
    resumed.run()
    assert_same_run(resumed, straight)


def test_a_signal_in_a_validation_stops_it_at_once(tmp_path: Path) -> None:
    straight = tiny_trainer(tmp_path / "straight")
    straight.run()
    stopped = tiny_trainer(tmp_path / "stopped")
    measure, frames = stopped.objective.measure, []

    def interrupted(*given: object) -> dict[str, float]:
        if stopped.progress.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
            frames.append("measured all the same")
        return measure(*given)  # type: ignore[arg-type]

    stopped.objective.measure = interrupted  # type: ignore[method-assign]
    with pytest.raises(InterruptedRunError) as stop:
        stopped.run()
    assert stop.value.signum == signal.SIGINT
    assert not frames
    resumed = tiny_trainer(tmp_path / "stopped")
    resumed.resume()
    assert resumed.progress.validated == 2
    resumed.run()
    assert_same_run(resumed, straight)


def test_the_command_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_npz(tmp_path / "train.npz", well(11))
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    command = ["train", str(tmp_path / "tiny.yaml"), "--data", str(tmp_path)]
    command += ["--output", str(tmp_path / "run")]
    step = Trainer._step

    def step_and_signal(trainer: Trainer, batch: object) -> float | None:
        os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", step_and_signal)
        assert main(command) == 128 + signal.SIGTERM
    assert "--restart goes on" in capsys.readouterr().err
    assert main([*command, "--restart", "--epochs", "1"]) == 0
    assert main([*command, "--restart", "--epochs", "3"]) == 0  # what was planned, after all
    assert (tmp_path / "run" / "log.csv").read_text().count("\n") == 4
    log = (tmp_path / "run" / "jmp-md.log").read_text()
    assert (log.count("$ jmp-md train"), log.count("--restart goes on")) == (3, 1)


def test_an_extended_run_is_one_whose_cosine_ends_earlier(tmp_path: Path) -> None:
    short, long = tiny_recipe("optimiser.epochs=2"), tiny_recipe("optimiser.epochs=4")
    begun = extended(long, short)
    assert begun.optimiser.cosine_epochs == 2
    assert extended(long, begun) == begun
    straight = tiny_trainer(
        tmp_path / "straight", "optimiser.epochs=4", "optimiser.cosine_epochs=2"
    )
    straight.run()
    tiny_trainer(tmp_path / "run", "optimiser.epochs=2").run()
    more = tiny_trainer(tmp_path / "run", "optimiser.epochs=4", "optimiser.cosine_epochs=2")
    more.resume()
    more.run()
    assert_same_run(more, straight)
    other = tiny_trainer(tmp_path / "run", "optimiser.epochs=4", "optimiser.batch_size=2")
    with pytest.raises(InputError, match=r"differs in optimiser\.batch_size, optimiser\.cosine_e"):
        other.resume()


def test_patience_counts_epochs_however_often_they_validate(tmp_path: Path) -> None:
    options = ("optimiser.patience=2", "optimiser.learning_rate=0", "optimiser.epochs=20")
    p = tiny_trainer(tmp_path, *options, "optimiser.validate_every=1").run()
    assert (p.best_step, p.step) == (1, 5)  # two epochs of two steps after the first validation


def test_one_run_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    write_npz(tmp_path / "train.npz", well(11))
    with locked(tmp_path / "run"), pytest.raises(InputError, match="another process is writing to"):
        train(tiny_recipe(), tmp_path, tmp_path / "run")
    assert not (tmp_path / "run" / "split.json").exists()


def test_runs_of_one_name_are_two_to_weights_and_biases(tmp_path: Path) -> None:
    first = identity(tmp_path / "a" / "run")
    assert identity(tmp_path / "b" / "run") != first
    assert identity(tmp_path / "a" / "run") == first


def test_tests_take_a_sample_unless_asked_and_say_so(tmp_path: Path) -> None:
    write_npz(tmp_path / "train.npz", well(20))
    for limit, expected in (("3", ": 3 of 9 frames, drawn at random"), ("null", "frames")):
        recipe = tiny_recipe(f"data.max_test={limit}", "optimiser.epochs=1")
        path = train(recipe, tmp_path, tmp_path / limit)
        assert read_header(path).metrics["test"].endswith(expected)
        assert read_header(path).metrics["n_frames"] == (3 if limit == "3" else 9)


def test_a_sample_is_drawn_from_all_systems() -> None:
    frames = FrameList(
        [
            make_frame("test", k, numbers=[1], positions=[[0, 0, 0]], system=f"s{k // 100}")
            for k in range(3000)
        ]
    )
    part = sampled(frames, 300, seed=1)
    found = [part[k].system for k in range(len(part))]
    assert len(set(found)) == 30
    assert max(found.count(name) for name in set(found)) < 30  # of 10 on average
    assert len(sampled(frames, 5000, seed=1)) == 3000


def crystal(n: int = 3) -> Frame:
    positions = np.stack(np.meshgrid(*[np.arange(n) * 2.1] * 3), axis=-1).reshape(-1, 3)
    return make_frame(
        "crystal", 0, numbers=np.full(n**3, 12), positions=positions, cell=np.eye(3) * 2.1 * n
    )


def test_a_pair_takes_fifteen_bytes_and_reaches_the_network_unchanged() -> None:
    frame = crystal()
    data = to_data(frame, 6.0)
    pairs = find_pairs(frame.positions, frame.cell, np.ones(3), 6.0)
    assert sum(data[name].nbytes for name in Pairs._fields) == 15 * len(pairs.source)
    batch = Batch.from_data_list([data, data])
    found = to_structures(batch).pairs
    n, m = len(frame), len(pairs.source)
    for name, value, shift in zip(Pairs._fields, pairs, (n, n, 0, m), strict=True):
        assert getattr(found, name).dtype == torch.int64
        assert torch.equal(getattr(found, name), torch.cat([value, value + shift]))


@pytest.mark.parametrize("periodic", [False, True])
def test_where_a_structure_is_costs_no_digits(periodic: bool) -> None:
    """Files hold molecules far from the origin, and atoms far outside of their cells."""
    near = crystal() if periodic else well(1, "CH3OH")[0]
    moved = near.positions + [1e5, -3e4, 2e3]
    if periodic:
        moved += np.random.default_rng(0).integers(-200, 200, near.positions.shape) @ near.cell
    far = dataclasses.replace(near, positions=moved)
    potential = random_potential(graph=GraphPolicy.smooth(5.0)).float()
    energies = [
        potential.predict(to_structures(to_data(frame, 5.0)).to(torch.device("cpu"), torch.float32))
        for frame in (near, far)
    ]
    torch.testing.assert_close(energies[0].forces, energies[1].forces, rtol=0, atol=5e-5)


def test_structures_that_fit_in_the_cache_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(
        batches, "to_data", lambda frame, *rest: made.append(1) or to_data(frame, *rest)
    )
    frames = FrameList([crystal()] * 4)
    size = sum(v.nbytes for _, v in to_data(crystal(), 6.0) if isinstance(v, torch.Tensor))
    for room, expected in ((0, 12), (2 * size, 4 + 2 * 2), (4 * size, 4)):
        made.clear()
        paired = PairedFrames(frames, 6.0, cache=room)
        for k in [0, 1, 2, 3] * 3:
            assert paired[k].num_nodes == 27
        assert len(made) == expected


class Counted:
    """A data set that writes down what is read of it, in whatever process."""

    def __init__(self, dataset: Dataset, path: Path) -> None:
        self.dataset, self.path = dataset, path

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Frame:
        with self.path.open("a") as file:
            file.write(f"{index}\n")
        return self.dataset[index]


def test_processes_that_make_batches_keep_them_from_epoch_to_epoch(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, "optimiser.epochs=4", workers=1)
    counted = Counted(trainer.frames.tasks["energy"].dataset, tmp_path / "read.txt")
    trainer.frames = TaskFrames({"energy": PairedFrames(counted, 4.0)})
    trainer.run()
    read = (tmp_path / "read.txt").read_text().split()
    assert sorted(read) == [str(k) for k in range(8)]


def test_validation_asks_for_no_gradient_of_weights(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    model = trainer.objective.model
    potential = model.potential()
    predict, asked = potential.predict, []

    def watched(*given: object, **options: object) -> object:
        asked.extend(p.requires_grad for p in model.parameters())
        return predict(*given, **options)

    potential.predict = watched
    measured = trainer.objective.measure(model, ALONE)
    assert asked
    assert not any(asked)
    assert measured["n_frames"] == 3
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert model.training


def test_batches_hold_as_many_edges_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Atoms times the largest number of neighbours, which the network sets up for every atom."""
    potential = random_potential()
    cutoff = potential.policy.cutoffs[0]
    frames = [crystal(2), crystal(3), *well(20), crystal(4)]
    items = [to_data(frame, potential.policy.cutoff) for frame in frames]
    monkeypatch.setattr(packing, "usual_edges", lambda sizes, weight: 300)
    parts = list(packed(potential, items))
    assert [item for part in parts for item in part] == items
    slots = []
    for part in parts:
        degree = 0
        for item in part:
            s = to_structures(item)
            offset = s.pairs.offset.double() @ s.cells[0]
            vector = s.positions[s.pairs.target] - s.positions[s.pairs.source] - offset
            near = s.pairs.target[vector.norm(dim=1) <= cutoff]
            degree = max(degree, int(torch.bincount(near).max()))
        slots.append(degree * sum(item.num_nodes for item in part))
    assert all(n <= 300 for n, part in zip(slots, parts, strict=True) if len(part) > 1)
    assert len(parts[-1]) == 1  # too large, but it must be measured
    assert max(map(len, parts)) > 10


def test_errors_of_stress_are_those_of_its_components(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label, found = rng.normal(size=(2, 4, 3, 3))
    label[1] = np.nan
    sums = ErrorSums()
    for k in range(4):
        values = (Values(np.zeros(1), np.zeros((1, 3)), t[k : k + 1]) for t in (found, label))
        sums.add(*values, np.ones(1, dtype=int), np.zeros(1))
    error = 1000 * (found - label)[[0, 2, 3]]
    for total in (sums, sums + ErrorSums()):
        assert total.summary()["stress_mae_meV_per_A3"] == pytest.approx(np.abs(error).mean())
        rmse = np.sqrt(np.square(error).mean())
        assert total.summary()["stress_rmse_meV_per_A3"] == pytest.approx(rmse)


def test_validation_measures_the_stress_of_the_frames_that_have_one() -> None:
    potential = random_potential()
    frames = [crystal(2), *well(2), crystal(2)]
    stress = 0.01 * np.arange(9.0).reshape(3, 3)
    frames[3] = make_frame(
        "crystal",
        1,
        numbers=frames[3].numbers,
        positions=frames[3].positions,
        cell=frames[3].cell,
        stress=stress + stress.T,
    )
    paired = PairedFrames(FrameList(frames), potential.policy.cutoff)
    measured = potential_errors(potential, paired, ALONE).summary()
    predicted = potential.predict(to_structures(paired[3]), stress=True).stress
    assert predicted is not None
    error = 1000 * np.abs(predicted[0].numpy() - stress - stress.T).mean()
    assert measured["stress_mae_meV_per_A3"] == pytest.approx(error)


@pytest.mark.parametrize("direct", [False, True])
def test_validation_and_the_command_measure_the_same(direct: bool) -> None:
    """Of frames with and without stress, with atoms held in place, and with labels missing."""
    potential = random_potential(direct=direct, head={"references": {1: -3.0, 8: -70.0, 12: -20.0}})
    frames = [crystal(2), *well(3)]
    frames[0] = dataclasses.replace(
        frames[0], energy=-5.0, forces=np.ones((8, 3)), stress=0.01 * np.eye(3)
    )
    frames[1] = dataclasses.replace(frames[1], fixed=np.array([True, False, False]))
    frames[2] = dataclasses.replace(frames[2], forces=None)
    frames[3] = dataclasses.replace(frames[3], energy=None)
    paired = PairedFrames(FrameList(frames), potential.policy.cutoff)
    one = potential_errors(potential, paired, ALONE)
    other = dataset_errors(potential, FrameList(frames), direct=direct)
    assert one.summary() == pytest.approx(other.summary(), rel=1e-9)
    assert ("stress_mae_meV_per_A3" in one.summary()) == (not direct)
    assert one.force_errors_by_element().keys() == {"H", "O", "Mg"}
