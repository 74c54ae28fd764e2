"""Frozen parts stay as they were, and low-rank updates become part of the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from factories import SIZES, write_model
from torch import Tensor
from training_cases import history, tiny_trainer, well

from jmp_md.checkpoints.native import read_header, read_native
from jmp_md.errors import InputError
from jmp_md.load import load_model
from jmp_md.training.batches import to_data, to_structures
from jmp_md.training.heads import Heads
from jmp_md.training.trainer import Trainer

BLOCKS = SIZES["num_blocks"]


def on_base(folder: Path, output: str, *overrides: str) -> Trainer:
    base = folder / "random.safetensors"
    if not base.exists():
        write_model(folder)
    options = (f"model.base={base}", "model.sizes={}", "optimiser.epochs=1", *overrides)
    return tiny_trainer(folder / output, *options)


def before_and_after(folder: Path, output: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Tensors of the base and of what was trained from it, but for those of the heads."""
    _, base = read_native(folder / "random.safetensors")
    _, state = read_native(folder / output / "model.safetensors")
    return {name: (base[name].float(), x) for name, x in state.items() if name in base}


@pytest.mark.parametrize("n", range(1, BLOCKS + 1))
def test_frozen_blocks_are_those_of_the_base_bit_for_bit(tmp_path: Path, n: int) -> None:
    on_base(tmp_path, "run", f"model.freeze={n}").run()
    fixed = ["embedding.", "backbone.bases."]
    fixed += [f"backbone.int_blocks.{k}." for k in range(n)]
    fixed += [f"backbone.out_blocks.{k}." for k in range(n + 1)]
    if n == BLOCKS:
        fixed = ["embedding.", "backbone."]
    changed = {name for name, (a, b) in before_and_after(tmp_path, "run").items()
               if not torch.equal(a, b)}  # fmt: skip
    assert not [name for name in changed if name.startswith(tuple(fixed))]
    if n < BLOCKS:
        assert any(name.startswith(f"backbone.int_blocks.{n}.") for name in changed)
    _, state = read_native(tmp_path / "run" / "model.safetensors")
    trained = [x for name, x in state.items() if not name.startswith(tuple(fixed))
               and not name.endswith(("scale_factor", "offset", "temps"))]  # fmt: skip
    header = read_header(tmp_path / "run" / "model.safetensors")
    assert header.training["trained_parameters"] == sum(x.numel() for x in trained)


def test_merged_updates_are_of_their_rank_and_give_what_was_trained(tmp_path: Path) -> None:
    trainer = on_base(tmp_path, "run", "model.lora=2", "optimiser.learning_rate=1.0e-2")
    trainer.run()
    path = tmp_path / "run" / "model.safetensors"
    ranks = {}
    for name, (a, b) in before_and_after(tmp_path, "run").items():
        dense = name.startswith(("backbone.int_blocks.", "backbone.out_blocks.")) and a.ndim == 2
        if not dense:
            assert torch.equal(a, b)
        else:
            sizes = torch.linalg.svdvals((b - a).double())
            ranks[name] = int((sizes > 1e-5 * torch.linalg.matrix_norm(a.double(), 2)).sum())
    still = {name for name, rank in ranks.items() if not rank}
    assert {ranks[name] for name in ranks.keys() - still} == {2}
    assert all("quad_" in name for name in still)  # water has no quadruplets
    kept = trainer.update.averages() if read_header(path).weights == "ema" else None
    model = kept or trainer.update.latest()
    assert isinstance(model, Heads)
    potential = load_model(path)
    structures = to_structures(to_data(well(1, seed=4)[0], potential.policy.cutoff))
    expected, found = model.potential().predict(structures), potential.predict(structures)
    assert expected.forces is not None
    assert found.forces is not None
    scale = expected.forces.abs().max()
    assert torch.allclose(found.forces, expected.forces, atol=1e-5 * scale)


def test_updates_are_all_that_is_trained_beside_heads(tmp_path: Path) -> None:
    trainer = on_base(tmp_path, "run", "model.lora=2")
    layers = [x for name, x in read_native(tmp_path / "random.safetensors")[1].items()
              if "_blocks." in name and x.ndim == 2]  # fmt: skip
    heads = sum(p.numel() for p in trainer.objective.model.potential().energy_head.parameters())
    expected = heads + sum(2 * (x.shape[0] + x.shape[1]) for x in layers)
    assert trainer.about()["trained_parameters"] == expected
    fewer = on_base(tmp_path, "other", "model.lora=2", "model.freeze=1")
    assert fewer.about()["trained_parameters"] < expected


@pytest.mark.slow
def test_a_run_with_updates_resumes(tmp_path: Path) -> None:
    options = ("model.lora=2", "optimiser.epochs=2")
    straight = on_base(tmp_path, "straight", *options)
    straight.run()
    on_base(tmp_path, "resumed", *options).run(max_minutes=0)
    resumed = on_base(tmp_path, "resumed", *options)
    resumed.resume()
    resumed.run()
    assert history(resumed) == history(straight)


def test_what_cannot_be_kept_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"freeze = 9: the base has {BLOCKS} blocks"):
        on_base(tmp_path, "run", "model.freeze=9")
    with pytest.raises(InputError, match=r"keep what a base knows: give model\.base"):
        tiny_trainer(tmp_path, "model.freeze=1")
