"""Two processes compute what one does: with whole models, split ones, and gradients by task."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest
import torch
from torch.multiprocessing import start_processes
from training_cases import PRETRAIN, RECIPE, well, write_npz

from jmp_md.checkpoints.native import read_native
from jmp_md.training.distributed import share, take_part
from jmp_md.training.recipe import AnyRecipe, from_yaml
from jmp_md.training.session import train

LIMIT = 600.0  # seconds, for what takes some ten on an idle machine
# Seven training frames: the last batch of an epoch has three, for two processes.
POTENTIAL = ("data.n_train=7", "data.n_validation=3", "optimiser.epochs=2")
# Without edge dropout, for which every process draws its own numbers.
MIX = ("optimiser.edge_dropout=0", "optimiser.validate_every=2")


def recipes() -> dict[str, AnyRecipe]:
    return {
        "potential": from_yaml(RECIPE, "test", list(POTENTIAL)),
        "mix": from_yaml(PRETRAIN, "test", list(MIX)),
        "pcgrad": from_yaml(PRETRAIN, "test", [*MIX, "mix.pcgrad=true"]),
    }


def write_data(folder: Path) -> None:
    write_npz(folder / "train.npz", well(5) + well(5, "CH3OH", seed=1))
    write_npz(folder / "water.npz", well(16))
    write_npz(folder / "methanol.npz", well(12, "CH3OH", seed=1))


def two_processes(rank: int, folder: Path) -> None:
    """All runs of two processes, so that they start but once."""
    made, runs = recipes(), count()

    def run(name: str, output: str, **options: object) -> None:
        take_part(rank, 2, str(folder / f"store-{next(runs)}"))  # a store serves one run
        train(made[name], folder, folder / output, **options)  # type: ignore[arg-type]

    for name in made:
        run(name, f"{name}-two")
    run("potential", "potential-split", shard=True)
    run("mix", "mix-split", shard=True, max_minutes=0)
    if rank == 0:
        shutil.copytree(folder / "mix-split", folder / "mix-joined")
    run("mix", "mix-split", shard=True, resume=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of runs by one and by two processes."""
    folder = tmp_path_factory.mktemp("runs")
    write_data(folder)
    context = start_processes(two_processes, (folder,), 2, join=False, start_method="spawn")
    for name, recipe in recipes().items():
        train(recipe, folder, folder / name)
    end = time.monotonic() + LIMIT
    while not context.join(timeout=5):
        if time.monotonic() > end:
            for process in context.processes:
                process.kill()
            pytest.fail(f"the training processes did not end within {LIMIT:.0f} s")
    return folder


def assert_same_curve(one: Path, two: Path, metric: str) -> None:
    logs = []
    for output in (one, two):
        with (output / "log.csv").open() as file:
            logs.append(list(csv.DictReader(file)))
    assert len(logs[0]) > 1
    for a, b in zip(*logs, strict=True):
        for name in ("loss", metric):
            assert float(a[name]) == pytest.approx(float(b[name]), rel=2e-5)


@pytest.mark.parametrize("how", ["two", "split"])
def test_losses_of_a_potential_are_those_of_one_process(folder: Path, how: str) -> None:
    two = folder / f"potential-{how}"
    assert_same_curve(folder / "potential", two, "force_mae_meV_per_A")
    _, state = read_native(folder / "potential" / "model.safetensors")
    _, other = read_native(two / "model.safetensors")
    assert state.keys() == other.keys()
    assert all(torch.allclose(state[name], other[name], atol=1e-4) for name in state)


@pytest.mark.parametrize("name", ["mix", "pcgrad"])
def test_losses_of_a_mix_are_those_of_one_process(folder: Path, name: str) -> None:
    assert_same_curve(folder / name, folder / f"{name}-two", "relative_force_mae")


def test_split_models_resume_in_parts_and_in_one_piece(folder: Path) -> None:
    """Some batches lack a task on one process, or on both."""
    assert_same_curve(folder / "mix", folder / "mix-split", "relative_force_mae")
    train(recipes()["mix"], folder, folder / "mix-joined", resume=True)
    assert_same_curve(folder / "mix", folder / "mix-joined", "relative_force_mae")


def test_work_is_shared_by_atoms() -> None:
    sizes = [5, 80, 20, 30, 40, 9]
    parts = share(sizes, 3)
    assert sorted(k for part in parts for k in part) == list(range(6))
    assert [sum(sizes[k] for k in part) for part in parts] == [80, 54, 50]


def run_in_time(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """``jmp-md`` in a process that is ended after :data:`LIMIT`, with those it started."""
    command = [sys.executable, "-m", "jmp_md.cli.main", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        _, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"did not end within {LIMIT:.0f} s: {' '.join(command)}")
    return subprocess.CompletedProcess(command, process.returncode, "", errors)


def test_the_command_starts_processes(tmp_path: Path) -> None:
    write_data(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    command = ["train", str(tmp_path / "tiny.yaml"), "--data", str(tmp_path), "--devices", "2"]
    command += ["--output", str(tmp_path / "run"), "--set", "optimiser.epochs=1"]
    command += ["--set", "data.n_train=7", "--set", "data.n_validation=3"]
    done = run_in_time(command)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_signal_stops_all_processes_and_the_run_goes_on(tmp_path: Path) -> None:
    """It is sent to the process that started the others, as a batch system does."""
    write_data(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    command = ["train", str(tmp_path / "tiny.yaml"), "--data", str(tmp_path), "--devices", "2"]
    command += ["--output", str(tmp_path / "run"), "--set", "optimiser.epochs=100000"]
    command += ["--set", "data.n_train=7", "--set", "data.n_validation=3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "jmp_md.cli.main", *command], stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + LIMIT
    while not (tmp_path / "run" / "log.csv").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.2)
    process.terminate()
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "--resume goes on" in errors
    done = run_in_time([*command, "--resume", "--epochs", "2"])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.safetensors").exists()
