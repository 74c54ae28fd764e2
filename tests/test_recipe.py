"""Recipes say what they mean: unknown keys and wrong types are refused, and every one runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import SIZES
from test_data_hdf5 import write_spice
from test_data_materials import write_matbench, write_qmof
from test_data_molecules import write_pdbbind, write_qm9
from training_cases import RECIPE, tiny_recipe, well, write_npz

from jmp_md.checkpoints.native import read_header
from jmp_md.cli.main import main
from jmp_md.cli.train import find_recipe
from jmp_md.errors import InputError
from jmp_md.training.data.open import open_dataset
from jmp_md.training.optimisation import Schedule
from jmp_md.training.recipe import PretrainRecipe, from_yaml, load_recipe, to_yaml

FOLDER = find_recipe("rmd17").parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "optimiser.learnin_rate=1",
            "optimiser.learnin_rate: did you mean optimiser.learning_rate",
        ),
        ("optimizer.epochs=1", "unknown recipe key optimizer: did you mean optimiser?"),
        ("model.paint=red", "unknown recipe key model.paint: known: name, preset"),
        ("model.sizes.emb_size_atm=8", "model.sizes.emb_size_atm: did you mean model.sizes.emb"),
        ("model.graph.mian=5", "model.graph.mian: did you mean model.graph.main?"),
        ("optimiser.epochs=many", "optimiser.epochs = 'many': expected int"),
        ("optimiser.epochs=true", "optimiser.epochs = True: expected int"),
        ("optimiser.betas=[0.9,x]", r"optimiser.betas\[1\] = 'x': expected float"),
        ("optimiser.precision=fp8", "'fp8': expected 'float32', 'bf16' or 'fp16'"),
        ("optimiser.batch_size=0", "optimiser.batch_size = 0: must be at least 1"),
        ("optimiser.layer_factors=3", "'optimiser.layer_factors' must be a mapping"),
        ("task=sing", "task = 'sing': expected potential, property, pretrain"),
        ("optimiser", "write it as section.key=value"),
        ("model.name={base}-x", "not valid YAML; put text with brackets or colons in quotes"),
        ("optimiser.epochs.more=1", "'epochs' is not a section"),
        ("data.train=rmd17_{molecule}.npz", "add --set model.molecule=NAME"),
        ("data={n_train: 4}", "the recipe needs data.train"),
        ("optimiser.ema_decay=1.5", "recipe key optimiser.ema_decay = 1.5: must be below 1$"),
        ("optimiser.learning_rate=-1e-3", "optimiser.learning_rate = '-1e-3': must be at least 0$"),
        ("optimiser.weight_decay=.nan", "optimiser.weight_decay = nan: expected a finite number"),
        ("optimiser.betas=[0.9, 1.0]", r"optimiser.betas\[1\] = 1.0: must be below 1"),
        ("optimiser.clip_norm=0", "optimiser.clip_norm = 0: must be above 0"),
        ("optimiser.patience=0", "optimiser.patience = 0: must be at least 1"),
        ("loss.forces=-1", "loss.forces = -1: must be at least 0"),
        ("loss={forces: 0}", "recipe section loss: all weights are zero"),
        ("data.n_train=1.5", "data.n_train = 1.5: a number with a point is a share"),
        ("data.n_train=-3", "data.n_train = -3: must be at least 0"),
        ("data.n_test=few", "data.n_test = 'few': expected a number of frames, or a share"),
        ("data.fold=5", "data.fold = 5: must be at most 4"),
        ("model.name=7", "model.name = 7: expected text"),
        ("seed=-1", "seed = -1: must be at least 0"),
    ],
)
def test_what_does_not_belong_is_refused(tmp_path: Path, change: str, message: str) -> None:
    from training_cases import tiny_trainer

    with pytest.raises(InputError, match=message):
        tiny_trainer(tmp_path, change)


def test_overrides_are_yaml_and_reach_any_depth() -> None:
    recipe = tiny_recipe(
        "optimiser.learning_rate=1e-3", "model.graph.main=3.5", "optimiser.clip_norm=null",
        "optimiser.layer_factors.blocks=[0.5]", "data.n_train=0.8", "data.n_test=7",
    )  # fmt: skip
    assert recipe.optimiser.learning_rate == 1e-3
    assert recipe.model.graph["main"] == 3.5
    assert recipe.optimiser.clip_norm is None
    assert recipe.optimiser.layer_factors.blocks == (0.5,)
    assert (recipe.data.n_train, recipe.data.n_test) == (0.8, 7)
    assert recipe.optimiser.epochs == 3  # the rest stays


def test_words_fill_the_places_meant_for_them() -> None:
    recipe = tiny_recipe(
        "model.name='{base}-{molecule}'", "model.molecule=aspirin", "model.base=/x/jmp-l.pt",
        "data.options={subset: '{molecule}'}",
    )  # fmt: skip
    assert recipe.model.name == "jmp-l-aspirin"
    assert recipe.data.options == {"subset": "aspirin"}


@pytest.mark.parametrize("name", NAMES)
def test_packaged_recipes_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(find_recipe(name), ["model.molecule=DHA"])
    path = tmp_path / "again.yaml"
    path.write_text(to_yaml(recipe))
    assert load_recipe(path) == recipe


def test_the_whole_recipe_is_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    assert main(["train", str(tmp_path / "r.yaml"), "--print-config", "--set", "seed=4"]) == 0
    printed = capsys.readouterr().out
    assert from_yaml(printed, "printed") == tiny_recipe("seed=4")
    assert main(["train", str(tmp_path / "none.yaml")]) == 1
    assert "cannot read recipe" in capsys.readouterr().err


def test_temperature_may_be_infinite() -> None:
    recipe = load_recipe(find_recipe("pretrain"), ["mix.temperature=.inf"])
    assert isinstance(recipe, PretrainRecipe)
    assert math.isinf(recipe.mix.temperature)
    assert from_yaml(to_yaml(recipe), "again") == recipe


def write_rmd17(folder: Path) -> None:
    write_npz(folder / "rmd17_ethanol.npz", well(8))
    write_npz(folder / "rmd17_ethanol_train_01.npz", well(8))
    write_npz(folder / "rmd17_ethanol_test_01.npz", well(2, seed=1))


def write_tasks(folder: Path) -> None:
    for name in ("oc20", "ani1x", "transition1x", "qm7x", "mptrj"):
        write_npz(folder / f"{name}.npz", well(24))


def in_folder(write: Any, name: str, *arguments: str) -> Any:
    def make(folder: Path) -> None:
        (folder / name).mkdir()
        write(folder / name, *arguments)

    return make


FEW = ["data.split=frames", "data.n_train=1", "data.n_validation=1"]
SAMPLES: dict[str, tuple[Any, list[str]]] = {
    "rmd17": (write_rmd17, ["model.molecule=ethanol", *FEW]),
    "rmd17-ethanol": (write_rmd17, FEW),
    "rmd17-xs": (write_rmd17, ["model.molecule=ethanol", *FEW]),
    "organic": (
        lambda folder: [
            write_npz(folder / f"{level}-train.npz", well(24, "CH3CONH2"))
            for level in ("wb97m", "wb97x")
        ],
        ["optimiser.batch_size=16"],
    ),
    "md22": (
        lambda folder: write_npz(folder / "md22_AT-AT.npz", well(8)),
        ["model.molecule=AT-AT", *FEW],
    ),
    "md22-large": (
        lambda folder: write_npz(folder / "md22_buckyball-catcher.npz", well(8)),
        ["model.molecule=buckyball-catcher", *FEW],
    ),
    "spice": (lambda folder: write_spice(folder / "SPICE-1.1.4.hdf5", "attribute"), FEW),
    "qm9": (
        lambda folder: (write_qm9(folder), (folder / "uncharacterized.txt").write_text("99 C\n")),
        FEW,
    ),
    "matbench": (
        lambda folder: write_matbench(
            folder / "matbench_phonons.json.gz", [0.1 * k for k in range(20)],
            ("structure", "last phdos peak"),
        ),
        ["optimiser.batch_size=7"],
    ),
    "qmof": (
        in_folder(write_qmof, "qmof", "csv", "json"),
        [*FEW, "model.graph.cutoff=6"],
    ),
    "pdbbind": (
        lambda folder: (in_folder(write_pdbbind, "pdbbind")(folder),
                        (folder / "pdbbind" / "INDEX_core_data.2013").write_text(
                            "1abc 2.0 2010 4.5\n2xyz 1.0 2011 5.5\n")),
        FEW,
    ),
    "pretrain-demo": (write_tasks, ["optimiser.batch_size=32"]),
}  # fmt: skip


def test_a_folder_of_that_name_does_not_hide_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "organic").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_recipe("organic") == FOLDER / "organic.yaml"
    (tmp_path / "rmd17").write_text(RECIPE)
    assert find_recipe("rmd17") == Path("rmd17")


@pytest.mark.parametrize("name", SAMPLES)
def test_recipes_run_two_steps_on_a_sample(tmp_path: Path, name: str) -> None:
    """The packaged recipe, on data in the published layout, with a network small enough."""
    write, changes = SAMPLES[name]
    write(tmp_path)
    changes = [*changes, "model.base=null", f"model.sizes={SIZES | {'num_blocks': 1}}",
               "optimiser.layer_factors={}", "optimiser.epochs=2"]  # fmt: skip
    mix = isinstance(load_recipe(find_recipe(name), ["model.molecule=x"]), PretrainRecipe)
    if mix:
        changes += ["optimiser.validate_every=2"]
    output = tmp_path / "run"
    command = ["train", name, "--data", str(tmp_path), "--output", str(output)]
    for change in changes:
        command += ["--set", change]
    more = ["--max-minutes", "0"] if mix else []
    assert main([*command, *more]) == 0
    assert (output / "log.csv").read_text().count("\n") == (2 if more else 3)
    header = read_header(output / "model.safetensors")
    assert header.training["data_sha256"]
    assert all(math.isfinite(v) for v in header.metrics.values() if isinstance(v, float))


def test_a_target_that_a_matbench_file_lacks_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = ("structure", "gap pbe")
    write_matbench(tmp_path / "matbench_mp_gap.json.gz", [0.1 * k for k in range(20)], columns)
    command = ["train", "matbench", "--data", str(tmp_path), "--output", str(tmp_path / "run")]
    assert main([*command, "--set", "data.train=matbench_mp_gap.json.gz"]) == 1
    error = capsys.readouterr().err
    assert "target.name = 'last phdos peak' is not a target of every data frame" in error
    assert "it has 'gap pbe'" in error


def test_files_that_options_name_lie_in_the_folder_of_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_qm9(tmp_path)
    command = ["train", "qm9", "--data", str(tmp_path), "--output", str(tmp_path / "run")]
    assert main(command) == 1
    assert f"{tmp_path / 'uncharacterized.txt'} does not exist" in capsys.readouterr().err
    (tmp_path / "uncharacterized.txt").write_text("2 N\n")  # the other of two molecules
    changes = ("data.split=frames", "data.n_train=1", "data.n_validation=1")
    assert main([*command, *(word for c in changes for word in ("--set", c))]) == 1
    assert "of 1 frames" in capsys.readouterr().err


def test_a_baseline_trains_a_new_network_at_one_rate_lowered_on_a_plateau() -> None:
    recipe = load_recipe(find_recipe("rmd17"), ["model.molecule=aspirin"], scratch=True)
    assert recipe.model.base is None
    assert (recipe.model.preset, recipe.model.name) == ("jmp-s", "jmp-s-rmd17-aspirin-scratch")
    section = recipe.optimiser
    assert section.layer_factors.blocks == ()
    optimiser = torch.optim.AdamW([torch.zeros(1)], lr=1.0)
    schedule = Schedule(optimiser, [1.0], section, steps_per_epoch=10)
    rates = []
    for step in range(100):
        schedule.before_step(step)
        rates.append(schedule.rate)
        if step % 10 == 9:
            schedule.after_validation(step + 1, metric=1.0)
    assert rates[:60] == [8e-5] * 60  # before patience runs out
    assert rates[-1] == pytest.approx(8e-6)
    with pytest.raises(InputError, match="starts from no base: leave out --scratch"):
        load_recipe(find_recipe("pretrain"), scratch=True)


def test_parts_of_a_data_set_are_prepared_by_system(tmp_path: Path) -> None:
    """As the recipe for pre-training says, for sets that are published in one piece."""
    write_npz(tmp_path / "all.npz", well(40))
    systems = []
    for part in ("train", "validation", "test"):
        command = ["data", "prepare", str(tmp_path / "all.npz"), "--output", str(tmp_path / part)]
        assert main([*command, "--part", part, "--shares", "0.8,0.1,0.1"]) == 0
        prepared = open_dataset(tmp_path / part)
        systems.append({prepared[k].system for k in range(len(prepared))})
    assert list(map(len, systems)) == [16, 2, 2]
    assert len(set.union(*systems)) == 20
