"""The paper: recipes start from the published files with commands of this package alone."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest
from factories import SIZES
from test_data_lmdb import write_oc20
from test_data_oc20_text import write_oc20_text
from training_cases import well

from jmp_md.checkpoints.native import read_header
from jmp_md.cli.main import main
from jmp_md.cli.train import find_recipe
from jmp_md.training.data.open import open_dataset

HARTREE = 27.211386245988  # eV, CODATA 2018


def commands(recipe: str) -> list[list[str]]:
    """The commands in the comment of a recipe, without the name of the program."""
    lines = find_recipe(recipe).read_text().splitlines()
    return [shlex.split(line)[2:] for line in lines if line.startswith("#   jmp-md ")]


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
