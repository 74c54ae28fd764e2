"""A model is the same potential whatever it is loaded from."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import random_potential, write_model

import jmp_md
from jmp_md import CheckpointError, InputError, ModelNotFoundError, load_model
from jmp_md.checkpoints.official import OfficialCheckpoint, to_native
from jmp_md.graph.pairs import find_pairs
from jmp_md.graph.policy import GraphPolicy
from jmp_md.models.registry import add_model
from jmp_md.potential import Potential
from jmp_md.structures import Structures, single_structure


def water(cutoff: float = 12.0) -> Structures:
    positions = np.array([[0.0, 0.0, 0.1], [0.0, 0.8, -0.5], [0.1, -0.7, -0.5]])
    cell = np.zeros((3, 3))
    pairs = find_pairs(positions, cell, np.zeros(3, dtype=bool), cutoff)
    return single_structure(positions, np.array([8, 1, 1]), cell, pairs)


def energy(potential: Potential) -> float:
    return float(potential.predict(water(), forces=False).energy[0])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JMP_MD_HOME", str(tmp_path / "home"))
    return tmp_path


def test_a_name_a_path_and_a_potential_give_the_same_model(home: Path) -> None:
    potential = random_potential()
    path = write_model(home)
    add_model("mine", path)
    for model in ("mine", path, str(path), potential):
        loaded = load_model(model, dtype=torch.float64, device="cpu")
        assert energy(loaded) == pytest.approx(energy(potential), rel=1e-13)
        assert loaded.embedding.weight.dtype == torch.float64
        assert not any(p.requires_grad for p in loaded.parameters())


def test_loading_copies_a_potential_with_the_graphs_it_has() -> None:
    potential = random_potential()
    graph = GraphPolicy.smooth(1.6, 1.6, 1.4, 1.6)
    changed = load_model(potential, graph=graph, dtype=torch.float64, device="cpu")
    again = load_model(changed, dtype=torch.float64, device="cpu")
    assert again.policy == graph
    assert energy(again) == energy(changed) != energy(potential)
    changed.embedding.weight.zero_()
    assert energy(again) != energy(changed)


def test_cutoff_and_count_replace_those_of_official_graphs() -> None:
    potential = random_potential(smooth=False)
    assert load_model(potential, cutoff=5.0).policy == GraphPolicy.official(5.0, 30)
    assert load_model(potential, max_neighbors=7).policy == GraphPolicy.official(6.0, 7)
    with pytest.raises(InputError, match="either graph or cutoff and max_neighbors"):
        load_model(potential, cutoff=5.0, graph=GraphPolicy.smooth())


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    path = write_model(tmp_path)
    before = torch.random.get_rng_state()
    load_model(path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_raw_weights_are_not_made_up(tmp_path: Path) -> None:
    path = write_model(tmp_path, header={"weights": "ema"})
    with pytest.raises(InputError, match=r"holds EMA weights only: .*--weights raw"):
        load_model(path, weights="raw")


def test_models_that_are_not_there_or_have_no_such_head_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no model file"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="'random' has no head 'oc20': choose one of test"):
        load_model(write_model(tmp_path), head="oc20")


@pytest.mark.parametrize("head", ["ani1x", "oc20"])
def test_an_official_checkpoint_gives_its_published_outputs(shared: Path, head: str) -> None:
    reference = shared / "reference"
    expected = json.loads((reference / "tiny-pretrain-expected.json").read_text())["cases"]
    structures = json.loads((reference / "tiny-structures.json").read_text())
    task = ["oc20", "oc22", "ani1x", "transition1x"].index(head)
    graph = {"oc20": "12A_30", "ani1x": "8A_30"}[head]
    potential = load_model(
        reference / "tiny-pretrain.ckpt", head=head, dtype=torch.float64, device="cpu"
    )
    seen = 0
    for raw in structures:
        if f"ema/{raw['name']}/{graph}" not in expected:
            continue
        seen += 1
        case = expected[f"ema/{raw['name']}/{graph}"]
        positions, cell = np.array(raw["positions"]), np.array(raw["cell"])
        pairs = find_pairs(positions, cell, np.array(raw["pbc"]), potential.policy.cutoff)
        prediction = potential.predict(
            single_structure(positions, np.array(raw["numbers"]), cell, pairs, raw["tags"])
        )
        scale = potential.head.energy_scale
        assert prediction.energy[0] / scale == pytest.approx(case[f"energy_{task}"], rel=1e-10)
        forces = np.array(case[f"conservative_forces_{task}"])
        assert prediction.forces is not None
        error = np.abs(prediction.forces.numpy() / scale - forces).max()
        assert error <= 1e-9 * max(np.abs(forces).max(), 1e-6)
    assert seen >= 2


def test_an_official_checkpoint_of_several_tasks_asks_for_one(shared: Path) -> None:
    expected = r"head= \(--head\) one of oc20, oc22, ani1x, transition1x"
    with pytest.raises(CheckpointError, match=expected):
        load_model(shared / "reference" / "tiny-pretrain.ckpt")


def test_raw_and_averaged_weights_of_an_official_checkpoint_differ(shared: Path) -> None:
    path = shared / "reference" / "tiny-pretrain.ckpt"
    options: dict[str, Any] = {"head": "ani1x", "dtype": torch.float64, "device": "cpu"}
    assert energy(load_model(path, **options)) != energy(load_model(path, weights="raw", **options))


def test_scale_factors_that_were_not_fitted_scale_nothing() -> None:
    potential = random_potential(smooth=False)
    state = {
        name.replace("backbone.radial.", "backbone.bases.radial_basis.rbf.")
        .replace("energy_head", "out_energy")
        .replace("embedding", "embedding.atom_embedding"): value
        for name, value in potential.state_dict().items()
    }
    unfitted = {k: v * 0 if k.endswith("scale_factor") else v for k, v in state.items()}
    config, heads = potential.header.architecture, potential.header.heads
    for tensors in (state, unfitted):
        checkpoint = OfficialCheckpoint(config, tensors, "finetune", "raw", heads)
        header, native = to_native(checkpoint, "tiny")
        head = header.heads[0]
        assert head.bias
        loaded = Potential.from_state(header, native)
        assert energy(loaded) == energy(potential)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, jmp_md; from jmp_md.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ase', 'numpy', 'scipy', 'matscipy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "relax" in done.stdout


def test_every_public_name_can_be_had() -> None:
    for name in jmp_md.__all__:  # what is imported with them may warn
        assert getattr(jmp_md, name) is not None
        assert name in dir(jmp_md)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in jmp_md.__all__:
            assert getattr(jmp_md, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Potentail'"):
        _ = jmp_md.Potentail


@pytest.mark.parametrize("num_spherical", [4, 7])
def test_lean_memory_changes_no_result_and_bfloat16_little(
    tmp_path: Path, num_spherical: int
) -> None:
    """Powers of cosines, in place of Legendre functions, would lose 1.3 % with seven."""
    path = write_model(tmp_path, num_spherical=num_spherical)
    structures = water()
    forces = {
        name: load_model(path, **options).predict(structures).forces
        for name, options in (
            ("fast", {"memory": "fast", "kernels": False}),
            ("lean", {"memory": "lean"}),
            ("bf16", {"precision": "bf16"}),
        )
    }
    assert torch.equal(forces["fast"], forces["lean"])
    deviation = (forces["bf16"] - forces["fast"]).square().mean().sqrt()
    assert 0 < deviation < 0.01 * forces["fast"].square().mean().sqrt()


@pytest.mark.parametrize("option", ["precision", "memory", "weights"])
def test_an_unknown_option_value_is_named(tmp_path: Path, option: str) -> None:
    with pytest.raises(InputError, match=f"{option} = 'most'.*choose"):
        load_model(write_model(tmp_path), **{option: "most"})
