"""The paper: recipes start from the published files with commands of this package alone."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from factories import SIZES
from test_data_lmdb import write_oc20
from test_data_materials import write_matbench
from test_data_molecules import write_qm9
from test_data_oc20_text import write_oc20_text
from training_cases import well

from jmp_md.checkpoints.native import read_header
from jmp_md.cli.main import main
from jmp_md.cli.train import find_recipe
from jmp_md.training.config import plain
from jmp_md.training.data.open import open_dataset
from jmp_md.training.recipe import from_yaml, load_recipe

HARTREE = 27.211386245988  # eV, CODATA 2018


def commands(recipe: str) -> list[list[str]]:
    """The commands in the comment of a recipe, without the name of the program."""
    text = find_recipe(recipe).read_text(encoding="utf-8").replace("\\\n#", "")
    lines = [line for line in text.splitlines() if line.startswith("#   jmp-md ")]
    return [shlex.split(line.removeprefix("#"), comments=True)[1:] for line in lines]


def write_ani1x(path: Path) -> None:
    """Hydrocarbons on springs, and water, which is too small for the paper."""
    with h5py.File(path, "w") as file:
        for name in ("CH4", "C2H2", "C2H4", "C2H6", "C6H6", "H2O"):
            frames = well(6, name)
            group = file.create_group(name)
            group["atomic_numbers"] = frames[0].numbers.astype("u1")
            group["coordinates"] = np.array([frame.positions for frame in frames], "f4")
            group["wb97x_dz.energy"] = np.array([frame.energy for frame in frames]) / HARTREE
            group["wb97x_dz.forces"] = np.array([frame.forces for frame in frames]) / HARTREE


def write_transition1x(path: Path) -> None:
    """Two reactions, one to train on and one to validate on, with both of their ends."""
    level = "wB97x_6-31G(d)"
    with h5py.File(path, "w") as file:
        for split, name in (("train", "C2H4"), ("val", "CH3OH"), ("train", "CH3CHO")):
            frames = well(8, name)
            for part, rows in (
                ("", frames[2:]),
                ("/reactant", frames[:1]),
                ("/product", frames[1:2]),
            ):
                group = file.require_group(f"data/{name}/rxn0000{part}")
                group["atomic_numbers"] = frames[0].numbers
                group["positions"] = np.array([frame.positions for frame in rows])
                group[f"{level}.energy"] = np.array([frame.energy for frame in rows])
                group[f"{level}.forces"] = np.array([frame.forces for frame in rows])
            file[f"{split}/{name}/rxn0000"] = file[f"data/{name}/rxn0000"]


@pytest.mark.slow
def test_the_commands_of_the_recipe_lead_from_the_published_files_to_pre_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are run as the recipe has them, but for the number of processes and the sizes."""
    monkeypatch.chdir(tmp_path)
    write_oc20_text(Path("OC20/s2ef_train_all"), sizes=(5, 5))
    write_oc20_text(Path("OC20/s2ef_val_id"), sizes=(3,))
    for part, first in (("train", 0), ("val_id", 100)):
        Path("OC22", part).mkdir(parents=True)
        write_oc20(Path("OC22", part, "data.0000.lmdb"), [-400.0 - k for k in range(8)], first)
    write_ani1x(Path("ani1x-release.h5"))
    write_transition1x(Path("Transition1x.h5"))
    *preparing, training = commands("pretrain")
    for command in preparing:
        words = [word for word in command if word not in ("--processes", "16")]
        assert main(words) == 0, command
    ani1x = [open_dataset(Path("DIR", name)) for name in ("ani1x", "ani1x-validation")]
    systems = [{part[k].system for k in range(len(part))} for part in ani1x]
    assert not systems[0] & systems[1]
    assert "H2O" not in systems[0] | systems[1]  # fewer atoms than four
    oc20 = open_dataset("DIR/oc20")
    assert [oc20[k].energy for k in (0, 9)] == [-100.0, -109.0]  # total, not of adsorption
    for change in (
        f"model.sizes={SIZES | {'num_blocks': 1}}", "optimiser.batch_size=12",
        "optimiser.epochs=1", "optimiser.validate_every=2", "optimiser.precision=float32",
    ):  # fmt: skip
        training += ["--set", change]
    assert main([*training, "--output", "run", "--max-minutes", "0"]) == 0
    header = read_header(Path("run/model.safetensors"))
    assert [head.name for head in header.heads] == ["oc20", "oc22", "ani1x", "transition1x"]
    for head in header.heads:
        assert math.isfinite(header.metrics[f"validation_{head.name}_force_mae_meV_per_A"])


def test_subsets_are_drawn_and_prepared_by_command(tmp_path: Path) -> None:
    write_oc20_text(tmp_path / "s2ef", sizes=(20, 20))
    command = ["data", "prepare", str(tmp_path / "s2ef"), "--sample", "10"]
    energies = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main([*command, "--output", str(tmp_path / name), "--seed", seed]) == 0
        part = open_dataset(tmp_path / name)
        energies.append([part[k].energy for k in range(len(part))])
    assert len(set(energies[0])) == 10
    assert energies[0] == energies[1] != energies[2]
    assert main([*command[:-1], "41", "--output", str(tmp_path / "d")]) == 1
    assert main([*command, "--output", str(tmp_path / "a"), "--seed", "2"]) == 1  # begun otherwise


FINE_TUNING = ("rmd17", "md22", "md22-large", "spice", "qm9", "matbench", "qmof", "pdbbind")


def table_rows() -> Iterator[tuple[list[str], str, Any]]:
    """Recipes, key and value of each row of the tables of settings in docs/paper.md."""
    text = (Path(__file__).parents[1] / "docs" / "paper.md").read_text(encoding="utf-8")
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and re.fullmatch(r"`[a-z_0-9.]+`", cells[2]):
            names, _, but = cells[1].partition(" but ")
            chosen = FINE_TUNING if names == "all" else names.split(", ")
            yield [name for name in chosen if name != but], cells[2].strip("`"), cells[3]


def test_the_tables_of_the_docs_say_what_the_recipes_do() -> None:
    recipes = {
        name: plain(load_recipe(find_recipe(name), ["model.molecule=DHA"]))
        for name in (*FINE_TUNING, "pretrain")
    }
    rows = list(table_rows())
    assert len(rows) > 60
    assert {name for names, _, _ in rows for name in names} == set(recipes)
    for names, key, value in rows:
        for name in names:
            found = recipes[name]
            for part in key.split("."):
                found = found[part]
            assert found == yaml.safe_load(value), (name, key)


@pytest.mark.parametrize("name", FINE_TUNING)
def test_the_commands_of_the_recipes_are_commands(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = commands(name)
    assert found
    for command in found:
        assert command[:2] == ["train", name]
        assert main([*command, "--print-config"]) == 0
        assert from_yaml(capsys.readouterr().out, "printed").model.name.startswith("jmp-s-")


# Commands with settings of their own, by a word in them; the others run in test_recipe.
OTHERS = [
    ("matbench", "is_metal"),
    ("qm9", "r2"),
    ("md22-large", "nanotube"),
    ("rmd17", "rmd17-50"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "word"), OTHERS)
def test_commands_of_the_recipes_train_on_the_published_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DIR").mkdir()
    write_npz_of_sgdml(tmp_path / "DIR" / "md22_double-walled_nanotube.npz", 801)
    write_rmd17(tmp_path / "DIR" / "rmd17_ethanol.npz", 1001)
    write_qm9(tmp_path / "DIR")
    (tmp_path / "DIR" / "uncharacterized.txt").write_text("99 C\n")
    metals = [k % 2 == 0 for k in range(20)]
    write_matbench(
        tmp_path / "DIR" / "matbench_mp_is_metal.json.gz", metals, ("structure", "is_metal")
    )
    (command,) = (words for words in commands(name) if word in " ".join(words))
    changes = ["model.base=null", f"model.sizes={SIZES | {'num_blocks': 1}}", "data.max_test=2",
               "optimiser.layer_factors={}", "optimiser.validate_every=2"]  # fmt: skip
    if name == "qm9":  # of two molecules
        changes += ["data.split=frames", "data.n_train=1", "data.n_validation=1"]
    command += [word for change in changes for word in ("--set", change)]
    assert main([*command, "--output", "run", "--max-minutes", "0"]) == 0
    header = read_header(Path("run/model.safetensors"))
    assert all(math.isfinite(v) for v in header.metrics.values() if isinstance(v, float))
    split = json.loads(Path("run/split.json").read_text())
    expected = {"md22-large": (760, 40, 1), "rmd17": (50, 50, 1), "matbench": (15, 1, 4)}
    if name in expected:
        assert tuple(len(split[part]) for part in ("train", "val", "test")) == expected[name]


def write_npz_of_sgdml(path: Path, n: int) -> None:
    frames = well(n)
    np.savez(
        path,
        z=frames[0].numbers,
        R=np.array([frame.positions for frame in frames]),
        E=np.array([[frame.energy] for frame in frames]),
        F=np.array([frame.forces for frame in frames]),
    )


def write_rmd17(path: Path, n: int) -> None:
    frames = well(n)
    np.savez(
        path,
        nuclear_charges=frames[0].numbers,
        coords=np.array([frame.positions for frame in frames]),
        energies=np.array([frame.energy for frame in frames]),
        forces=np.array([frame.forces for frame in frames]),
    )
