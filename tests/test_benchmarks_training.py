"""The scripts that measure training compare like with like."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pretraining
import pytest
import torch
import training_memory
import training_speed
from ase.build import molecule
from training_cases import tiny_trainer, well, write_npz

from jmp_md.training.data.npz import open_npz
from jmp_md.training.data.splits import split_by_system, write_split

PRETRAIN = """
task: pretrain
model: {name: tiny}
tasks: {ani1x: {train: ani1x.npz}, transition1x: {train: transition1x.npz}, oc20: {train: oc20.npz}}
"""


def test_the_enumerating_trainer_has_our_loss_and_gradient(tmp_path: Path) -> None:
    found = []
    for enumerating in (False, True):
        options = ("model.graph.quadruplet=3.0", "model.repulsion=null")  # which the other lacks
        trainer = tiny_trainer(tmp_path, *options, "optimiser.clip_norm=null")
        generator = torch.Generator().manual_seed(0)
        for p in trainer.objective.model.parameters():  # the last layer starts at zero
            p.data += 0.05 * torch.randn(p.shape, generator=generator)
        if enumerating:
            training_speed.enumerate_instead(trainer.objective.model.potential())
        sums, _ = trainer.objective(
            trainer.frames.collate([trainer.frames["energy", k] for k in range(4)])
        )
        gradients = torch.autograd.grad(
            sums.sum(), list(trainer.objective.model.parameters()), allow_unused=True
        )
        found.append((float(sums.detach().sum()), [g for g in gradients if g is not None]))
    (ours, ours_by), (theirs, theirs_by) = found
    assert ours == pytest.approx(theirs, rel=1e-5)
    largest = max(float(g.abs().max()) for g in theirs_by)
    for a, b in zip(ours_by, theirs_by, strict=True):
        assert float((a - b).abs().max()) < 1e-4 * largest


def test_organic_files_keep_held_out_systems_apart(tmp_path: Path) -> None:
    for k, name in enumerate(("ani1x", "transition1x", "oc20")):
        frames = well(12, seed=k)
        path = write_npz(tmp_path / f"{name}.npz", frames)
        write_split(tmp_path / f"split-{name}.json", split_by_system(open_npz(path), (0.7, 0.3, 0)))
    (tmp_path / "recipe.yaml").write_text(PRETRAIN)
    pretraining.organic(argparse.Namespace(run=tmp_path, data=tmp_path, output=tmp_path))
    train, test = (open_npz(tmp_path / f"organic-{part}.npz") for part in ("train", "test"))
    assert len(train) + len(test) == 24
    places = [{f.positions.tobytes() for f in map(d.__getitem__, range(len(d)))}
              for d in (train, test)]  # fmt: skip
    assert not places[0] & places[1]
    assert len({test[k].system for k in range(len(test))} | {""}) > 1


def test_a_broken_bond_is_found_in_a_trajectory() -> None:
    ethanol = molecule("CH3CH2OH")
    frames = [ethanol.copy() for _ in range(3)]
    for k, frame in enumerate(frames):
        frame.info["time_fs"] = 10.0 * k
    frames[1].rattle(0.05, seed=0)
    assert pretraining.bonded(ethanol, 1.2).sum() == 16
    assert pretraining.first_change(ethanol, frames) is None
    frames[2].positions[8] += 5.0
    assert pretraining.first_change(ethanol, frames) == 20.0
    frames[1].positions[3] = frames[1].positions[4] + [0.3, 0.0, 0.0]
    assert pretraining.first_change(ethanol, frames) == 10.0


def test_tables_are_read_from_finished_runs_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = argparse.Namespace(
        output=tmp_path, molecules=["ethanol"], frames=50, epochs=1, base="jmp-xs", table=True,
        learning_rate=1e-3, data=tmp_path, seeds=[0, 1],
    )  # fmt: skip
    pretraining.compare(args)
    assert "ethanol" not in capsys.readouterr().out
    assert pretraining.finished(tmp_path / "none") is None


def test_structures_that_memory_is_measured_with_have_the_sizes_of_the_data_sets() -> None:
    for case, n_atoms, volume in (("qmof", 114, 2500.0), ("matbench", 30, 500.0)):
        for atoms in training_memory.structures(case, 2):
            assert len(atoms) == n_atoms
            assert atoms.get_volume() == pytest.approx(volume)
            distances = atoms.get_all_distances(mic=True) + 9 * np.eye(n_atoms)
            assert distances.min() > 0.8  # Å
    assert len(training_memory.structures("md22", 1)[0]) == 364
    (slab,) = training_memory.structures("oc20", 1)
    assert len(slab) == 82
    assert slab.pbc.all()
