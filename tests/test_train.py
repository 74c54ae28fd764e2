"""Training learns, survives whatever stops it, and computes the same on one process or two."""

from __future__ import annotations

import dataclasses
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import random_potential, write_model
from torch_geometric.data import Batch
from training_cases import (
    RECIPE,
    fine_tuner,
    history,
    tiny_recipe,
    tiny_trainer,
    well,
    write_npz,
)

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.checkpoints.native import read_header, read_native, write_native
from jmp_md.errors import InputError
from jmp_md.graph.policy import GraphPolicy
from jmp_md.nn import recompute
from jmp_md.training.batches import to_data, to_structures
from jmp_md.training.data.frame import FrameList, make_frame
from jmp_md.training.distributed import share
from jmp_md.training.loss import Scales, mean_terms, residuals
from jmp_md.training.recipe import from_yaml
from jmp_md.training.session import train
from jmp_md.training.store import load_checkpoint, save_checkpoint
from jmp_md.training.trainer import Trainer


def crystals(n: int = 3) -> FrameList:
    """Small crystals with random labels, the second without stress."""
    rng = np.random.default_rng(1)
    frames = []
    for k in range(n):
        frame = make_frame(
            "crystal",
            k,
            numbers=[12, 8],
            positions=[[0, 0, 0], [2.1, 0.1, 0]] + 0.1 * rng.normal(size=(2, 3)),
            energy=rng.normal() - 50,
            forces=rng.normal(size=(2, 3)),
            stress=None if k == 1 else 0.01 * rng.normal(size=(3, 3)),
            cell=4 * np.eye(3) + 0.1 * rng.normal(size=(3, 3)),
        )
        frames.append(frame)
    return FrameList(frames)


def assert_same_weights(a: Trainer, b: Trainer) -> None:
    for x, y in zip(a.average.parameters(), b.average.parameters(), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("direct", [False, True])
def test_loss_compares_with_the_labels_what_the_potential_predicts(direct: bool) -> None:
    head = {"energy_mean": 3.0, "references": {12: -20.0, 8: -30.0}}
    potential = random_potential(direct=direct, head=head).requires_grad_(True)
    frames = crystals()
    items = [to_data(frames[k], potential.policy.cutoff) for k in range(3)]
    batch = Batch.from_data_list(items)
    stress = not direct
    found = residuals(potential, batch, Scales(2.0, 0.5), stress=stress)
    expected = potential.predict(to_structures(batch), stress=stress, direct=direct)
    energies = torch.tensor([frames[k].energy for k in range(3)])
    assert torch.allclose(found.energy, (expected.energy - energies).abs() / 2.0, atol=1e-10)
    assert expected.forces is not None
    assert found.forces is not None
    forces = torch.from_numpy(np.concatenate([frames[k].forces for k in range(3)]))
    lengths = ((expected.forces - forces) / 0.5 + 1e-6).norm(dim=1)
    assert torch.allclose(found.forces, lengths, atol=1e-10)
    if stress:
        assert expected.stress is not None
        assert found.stress is not None
        label = torch.from_numpy(frames[2].stress)
        error = (expected.stress[2] - label).abs().mean() / 2.0
        assert torch.allclose(found.stress[2], error, atol=1e-10)
        assert found.stress.isnan().tolist() == [False, True, False]


def test_missing_labels_leave_gradients_finite(tmp_path: Path) -> None:
    """The second crystal lacks stress, the first an atom's force, the third its energy."""
    frames = [crystals()[k] for k in range(3)]
    fixed = np.array([True, False])
    frames[0] = dataclasses.replace(frames[0], fixed=fixed)
    frames[2] = dataclasses.replace(frames[2], energy=None)
    potential = random_potential().requires_grad_(True)
    items = [to_data(frame, potential.policy.cutoff) for frame in frames]
    found = residuals(potential, Batch.from_data_list(items), Scales(1.0, 1.0), stress=True)
    sums, counts = mean_terms([found.energy, found.forces, found.stress])
    assert counts.tolist() == [2, 5, 2]
    sums.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in potential.parameters())


def test_training_lowers_the_errors(tmp_path: Path) -> None:
    options = ("optimiser.epochs=15", "optimiser.learning_rate=1.0e-2", "optimiser.ema_decay=0.8")
    rows = tiny_trainer(tmp_path, *options).run().history
    errors = [row["force_mae_meV_per_A"] for row in rows]  # the best of them is kept
    assert min(errors) < 0.6 * errors[0]
    calculator = JMPCalculator(tmp_path / "model.safetensors")
    assert calculator.potential.head.elements == (1, 8)


def test_energies_forces_and_stress_train_together(tmp_path: Path) -> None:
    options = ("loss.energy=1", "loss.stress=100", "optimiser.epochs=6")
    trainer = tiny_trainer(tmp_path, *options, dataset=crystals(10))
    assert len(trainer.objective.weights) == 3
    rows = trainer.run().history
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.parametrize("edge_dropout", [0.2, 0.0])  # differentiated twice, and by differences
def test_a_resumed_run_repeats_the_losses_of_one_that_was_not_stopped(
    edge_dropout: float, tmp_path: Path
) -> None:
    section = (
        f"{{edge_dropout: {edge_dropout}, warmup_epochs: 0, cosine_epochs: 1, plateau_patience: 0, "
        "epochs: 3}"
    )
    options = (f"optimiser={section}",)
    straight = tiny_trainer(tmp_path / "straight", *options)
    straight.run()
    stopped = tiny_trainer(tmp_path / "resumed", *options)
    stopped.run(max_minutes=0)
    assert stopped.progress.epoch == 1
    resumed = tiny_trainer(tmp_path / "resumed", *options)
    resumed.resume()
    resumed.run()
    assert history(resumed) == history(straight)
    assert_same_weights(resumed, straight)
    with pytest.raises(InputError, match="written by another recipe"):
        tiny_trainer(tmp_path / "resumed", "seed=1").resume()


def test_tags_count_in_a_run_from_before_there_was_a_key_for_them(tmp_path: Path) -> None:
    first = tiny_trainer(tmp_path, "optimiser.epochs=1")
    first.run()
    state = load_checkpoint(tmp_path / "last.ckpt", torch.device("cpu"))
    lines = [line for line in state["recipe"].splitlines() if "tags:" not in line]
    save_checkpoint(tmp_path / "last.ckpt", state | {"recipe": "\n".join(lines)})
    tiny_trainer(tmp_path, "optimiser.epochs=1", "data.tags=oc").resume()
    first.save()
    with pytest.raises(InputError, match=r"differs in data\.tags"):
        tiny_trainer(tmp_path, "optimiser.epochs=1", "data.tags=oc").resume()


KILLED = """
import os, signal, sys, torch
from pathlib import Path
sys.path.insert(0, {tests!r})
from training_cases import tiny_trainer

save, calls = torch.save, []

def cut_short(state, file):
    calls.append(1)
    if len(calls) == 2:
        file.write(b"half a checkpoint")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    save(state, file)

torch.save = cut_short
tiny_trainer(Path({output!r})).run()
"""


def test_a_run_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before(
    tmp_path: Path,
) -> None:
    output = tmp_path / "killed"
    script = KILLED.format(tests=str(Path(__file__).parent), output=str(output))
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert list(output.glob(".last.ckpt.*.tmp"))  # what was being written
    resumed = tiny_trainer(output)
    resumed.resume()
    assert resumed.progress.epoch == 1
    resumed.run()
    straight = tiny_trainer(tmp_path / "straight")
    straight.run()
    assert history(resumed) == history(straight)
    assert_same_weights(resumed, straight)


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    trainer.run(max_minutes=0)
    with files_no_larger_than(10_000), pytest.raises(InputError, match="the one before it is inta"):
        trainer.save()
    assert not list(tmp_path.glob(".*.tmp"))
    again = tiny_trainer(tmp_path)
    again.resume()
    assert again.progress.epoch == 1


def poison(trainer: Trainer, calls: int) -> None:
    """Let the objective give NaN the first times it is called."""
    forward, left = trainer.objective.forward, [calls]

    def poisoned(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        sums, counts = forward(batch)
        left[0] -= 1
        return (sums * torch.nan if left[0] >= 0 else sums), counts

    trainer.objective.forward = poisoned  # type: ignore[method-assign]


def test_batches_that_are_not_finite_are_skipped_then_stop_the_run(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path / "a")
    poison(trainer, 2)
    trainer.run()
    assert trainer.progress.skipped == 2
    assert all(p.isfinite().all() for p in trainer.objective.model.parameters())

    trainer = tiny_trainer(tmp_path / "b", "optimiser.max_skipped=3")
    poison(trainer, 99)
    with pytest.raises(InputError, match=r"more than 3 batches.*not-finite\.ckpt"):
        trainer.run()
    saved = torch.load(tmp_path / "b" / "not-finite.ckpt", weights_only=True)
    assert saved["energy"]["positions"].shape == (12, 3)


def test_a_run_that_skipped_every_batch_fails_and_leaves_no_model(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    poison(trainer, 99)
    with pytest.raises(InputError, match="none of 6 batches gave a finite loss"):
        trainer.run()
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("noise", [0.0, 1e-15])
def test_frames_without_forces_to_learn_leave_the_scale_at_one(
    tmp_path: Path, noise: float
) -> None:
    """Energies of perfect crystals, and atoms on their own, have labels of zero force."""
    frames = [
        dataclasses.replace(f, forces=np.full_like(f.positions, noise))
        for f in (crystals(11)[k] for k in range(11))
    ]
    frames[0] = make_frame(
        "atom", 0, numbers=[8], positions=[[0, 0, 0]], energy=-30, forces=[[0, 0, 0]]
    )
    trainer = tiny_trainer(tmp_path, "loss.energy=1", dataset=FrameList(frames))
    assert trainer.objective.model.potential().head.energy_scale == 1.0
    rows = trainer.run().history
    assert trainer.progress.skipped == 0
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_a_run_stops_when_it_no_longer_improves(tmp_path: Path) -> None:
    trainer = tiny_trainer(
        tmp_path, "optimiser.patience=2", "optimiser.learning_rate=0", "optimiser.epochs=20"
    )
    assert trainer.run().epoch == 3


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_close_to_single(tmp_path: Path, precision: str) -> None:
    losses = {}
    for choice in ("float32", precision):
        trainer = tiny_trainer(tmp_path / choice, f"optimiser.precision={choice}")
        losses[choice] = [row["loss"] for row in trainer.run().history]
    assert losses[precision] == pytest.approx(losses["float32"], rel=0.05)
    assert losses[precision] != losses["float32"]


def test_scaled_gradients_do_not_vanish_in_half_precision(tmp_path: Path) -> None:
    """Energies so small that gradients need the scale, both in the forces and in the loss."""

    def gradient(precision: str, force_scale: float, loss_scale: float) -> torch.Tensor:
        trainer = tiny_trainer(tmp_path, f"optimiser.precision={precision}")
        model, objective = trainer.objective.model.potential(), trainer.objective
        with torch.no_grad():
            model.energy_head[-1].weight.mul_(1e-5)
        objective.gradient_scale = force_scale
        sums, _ = objective(trainer.frames.collate([trainer.frames["energy", k] for k in range(4)]))
        (sums.sum() * loss_scale).backward()
        weight = model.backbone.int_blocks[0].dense_ca.linear.weight
        assert weight.grad is not None
        return weight.grad / loss_scale

    exact = gradient("float32", 1.0, 1.0)
    errors = [
        float((gradient("fp16", *scales) - exact).norm() / exact.norm())
        for scales in ((1.0, 1.0), (1.0, 4096.0), (4096.0, 4096.0))
    ]
    assert errors[2] < 0.05
    assert min(errors[:2]) > 0.5


def test_an_overflow_lowers_the_scale_and_is_no_failure(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, "optimiser.precision=fp16", "optimiser.max_skipped=0")
    start = trainer.update.scale.value
    poison(trainer, 3)
    trainer.run()
    assert trainer.progress.skipped == 0
    assert trainer.update.scale.value == start / 8
    resumed = tiny_trainer(tmp_path, "optimiser.precision=fp16", "optimiser.max_skipped=0")
    resumed.resume()
    assert resumed.update.scale.value == start / 8


def test_recomputation_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses, calls = [], []
    checkpoint = recompute.checkpoint

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return checkpoint(*args, **options)

    monkeypatch.setattr(recompute, "checkpoint", counted)
    for value in ("false", "true"):
        assert not calls
        trainer = tiny_trainer(tmp_path / value, f"optimiser.recompute={value}")
        losses.append([row["loss"] for row in trainer.run().history])
    assert calls
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_dropout_acts_in_training_only_and_resumes(tmp_path: Path) -> None:
    options = ("optimiser.dropout=0.3",)
    trainer = tiny_trainer(tmp_path / "a", *options)
    batch = trainer.frames.collate([trainer.frames["energy", k] for k in range(4)])
    plain = tiny_trainer(tmp_path / "b").objective(batch)[0]
    drawn = [trainer.objective(batch)[0] for _ in range(2)]
    assert not torch.allclose(*drawn)
    assert torch.allclose(trainer.objective.eval()(batch)[0], plain)
    trainer.objective.train()
    straight = trainer.run().history
    resumed = tiny_trainer(tmp_path / "c", *options)
    resumed.run(max_minutes=0)
    resumed = tiny_trainer(tmp_path / "c", *options)
    resumed.resume()
    resumed.run()
    assert history(resumed) == [{k: v for k, v in r.items() if k != "seconds"} for r in straight]


@pytest.mark.parametrize("forces", ["conservative", "direct"])
def test_a_base_gives_backbone_sizes_and_licence(tmp_path: Path, forces: str) -> None:
    about = {"licence": "CC-BY-NC-4.0 (non-commercial)", "data": "OC20"}
    base = write_model(tmp_path, direct=True, header=about)
    recipe = tiny_recipe(f"model.base={base}", "model.sizes={}", f"model.forces={forces}", "seed=5")
    frames = FrameList(well(4))
    trainer = fine_tuner(recipe, frames, frames, tmp_path)
    trained = trainer.objective.model.potential().state_dict()
    original = random_potential(direct=True).state_dict()
    same = [name for name in trained if name.startswith(("embedding", "backbone"))]
    assert all(torch.equal(trained[name], original[name].float()) for name in same)
    assert ("backbone.out_mlp_F.out_mlp.0.linear.weight" in same) == (forces == "direct")
    assert not torch.equal(
        trained["energy_head.0.weight"], original["energy_head.0.weight"].float()
    )
    trainer.run(max_minutes=0)
    header = read_header(tmp_path / "model.safetensors")
    assert header.licence == about["licence"]
    assert header.data.startswith("OC20; then")
    assert header.heads[0].level_of_theory == "unknown"
    again = tiny_recipe(f"model.base={tmp_path / 'model.safetensors'}", "model.sizes={}")
    next_stage = fine_tuner(again, frames, frames, tmp_path / "next")
    assert next_stage.objective.model.potential().header.data == header.data  # named once


def test_a_base_gives_its_graphs_where_the_recipe_has_none(tmp_path: Path) -> None:
    frames = FrameList(well(4))
    policies = {"a": GraphPolicy.smooth(main=4.5), "b": GraphPolicy.official(5.0, 20)}
    base = write_model(tmp_path, graph=policies["a"])
    options = (f"model.base={base}", "model.sizes={}")
    trainer = fine_tuner(tiny_recipe(*options, "model.graph={}"), frames, frames, tmp_path)
    assert trainer.objective.model.potential().policy == policies["a"]
    smooth = tiny_recipe(*options, "model.graph={kind: smooth}")
    trainer = fine_tuner(smooth, frames, frames, tmp_path)
    assert trainer.objective.model.potential().policy == GraphPolicy.smooth()
    header, state = read_native(base)
    heads = tuple(
        dataclasses.replace(header.heads[0], name=name, graph=policy)
        for name, policy in policies.items()
    )
    state |= {k.replace(".test.", f".{n}."): v for k, v in state.items() for n in policies}
    write_native(base, dataclasses.replace(header, heads=heads), state)
    with pytest.raises(InputError, match="the heads a, b of the base have different graphs"):
        fine_tuner(tiny_recipe(*options, "model.graph={}"), frames, frames, tmp_path)


def test_official_checkpoints_are_bases(tmp_path: Path, shared: Path) -> None:
    base = shared / "reference" / "tiny-pretrain.ckpt"
    recipe = tiny_recipe(f"model.base={base}", "model.sizes={}", "optimiser.epochs=1")
    frames = FrameList(well(4))
    trainer = fine_tuner(recipe, frames, frames, tmp_path)
    trainer.run()
    assert "non-commercial" in read_header(tmp_path / "model.safetensors").licence


def test_labels_that_are_missing_are_told_before_the_first_step(tmp_path: Path) -> None:
    """In the validation frames, too, and under the names that the file has for them."""
    frames = well(11)
    for k in range(8, 11):
        frames[k] = dataclasses.replace(frames[k], forces=None)
    with pytest.raises(InputError, match="the validation frames hold no forces: set loss"):
        tiny_trainer(tmp_path, dataset=FrameList(frames))
    bare = [dataclasses.replace(f, energy=None, others=("REF_energy",)) for f in frames]
    with pytest.raises(InputError, match=r"hold no energy: the file has REF_energy, read it with "
                       r"data\.options\.energy_key=REF_energy"):  # fmt: skip
        tiny_trainer(tmp_path, "loss.energy=1", dataset=FrameList(bare))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["wB97x.def2", "keys"])
def test_names_that_tensors_cannot_go_by_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="a head cannot have this name"):
        tiny_trainer(tmp_path, f"model.head={name}")


def test_crystals_with_stress_train_beside_molecules_without(tmp_path: Path) -> None:
    frames = [crystals(11)[k] for k in range(11)]
    frames[3] = make_frame("O2", 0, numbers=[8, 8], positions=[[0, 0, 0], [0, 0, 1.2]], energy=-60)
    rows = tiny_trainer(tmp_path, "loss.stress=100", dataset=FrameList(frames)).run()
    assert rows.skipped == 0


def test_work_is_shared_by_atoms() -> None:
    sizes = [5, 80, 20, 30, 40, 9]
    parts = share(sizes, 3)
    assert sorted(k for part in parts for k in part) == list(range(6))
    assert [sum(sizes[k] for k in part) for part in parts] == [80, 54, 50]


def test_a_run_is_not_continued_with_other_data(tmp_path: Path) -> None:
    recipe = from_yaml(RECIPE, "test", ["data.n_train=null", "data.n_test=2"])
    write_npz(tmp_path / "train.npz", well(12))
    train(recipe, tmp_path, tmp_path / "run", max_minutes=0)
    before = (tmp_path / "run" / "split.json").read_text()
    write_npz(tmp_path / "train.npz", well(16))
    with pytest.raises(InputError, match=r"is not that of .*split.json"):
        train(recipe, tmp_path, tmp_path / "run", resume=True)
    for others in (well(12)[::-1], well(12, seed=3)):  # another order, and other labels
        write_npz(tmp_path / "train.npz", others)
        with pytest.raises(InputError, match=r"data file train.npz is not what it was"):
            train(recipe, tmp_path, tmp_path / "run", resume=True)
    other = from_yaml(RECIPE, "test", ["data.n_train=null", "data.n_test=2", "data.split_seed=7"])
    write_npz(tmp_path / "train.npz", well(12))
    with pytest.raises(InputError, match=r"is not that of .*split.json"):
        train(other, tmp_path, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "split.json").read_text() == before
    train(recipe, tmp_path, tmp_path / "run", resume=True)


def test_weights_of_frames_multiply_their_terms_of_the_loss() -> None:
    frames = [
        dataclasses.replace(frame, targets={"importance": weight})
        for frame, weight in zip(well(2), (0.0, 3.0), strict=True)
    ]
    potential = random_potential()
    cutoff = potential.policy.cutoff
    plain, weighed = (
        residuals(
            potential,
            Batch.from_data_list([to_data(frame, cutoff, weight=name) for frame in frames]),
            Scales(1.0, 1.0),
        )
        for name in (None, "importance")
    )
    assert torch.equal(weighed.energy, plain.energy * torch.tensor([0.0, 3.0]))
    assert plain.forces is not None
    assert weighed.forces is not None
    by_atom = torch.tensor([0.0] * 3 + [3.0] * 3)
    assert torch.equal(weighed.forces, plain.forces * by_atom)
