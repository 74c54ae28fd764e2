"""Two processes compute what one does: with whole models, split ones, and gradients by task."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.multiprocessing import start_processes
from training_cases import PRETRAIN, RECIPE, well, write_npz

from jmp_md.checkpoints.native import read_native
from jmp_md.potential import Potential, Prediction
from jmp_md.structures import Structures, centred
from jmp_md.training.data.open import open_dataset
from jmp_md.training.distributed import share, take_part
from jmp_md.training.recipe import AnyRecipe, from_yaml
from jmp_md.training.session import train

LIMIT = 600.0  # seconds, for what takes some ten on an idle machine
# Seven training frames: the last batch of an epoch has three, for two processes.
POTENTIAL = (
    *("data.n_train=7", "data.n_validation=3", "optimiser.epochs=2"),
    # As Adam makes whole steps of what differences leave of gradients that are nearly zero; the
    # other recipes take differences.
    "optimiser.derivatives=exact",
)
# Without edge dropout, for which every process draws its own numbers.
MIX = ("optimiser.edge_dropout=0", "optimiser.validate_every=2")
LONG = 100_000  # epochs of a run that is stopped


def recipes() -> dict[str, AnyRecipe]:
    return {
        "potential": from_yaml(RECIPE, "test", list(POTENTIAL)),
        "half": from_yaml(RECIPE, "test", [*POTENTIAL, "optimiser.epochs=1"]),
        "extended": from_yaml(RECIPE, "test", [*POTENTIAL, "optimiser.cosine_epochs=1"]),
        "mix": from_yaml(PRETRAIN, "test", list(MIX)),
        "pcgrad": from_yaml(PRETRAIN, "test", [*MIX, "mix.pcgrad=true"]),
    }


def write_data(folder: Path) -> None:
    write_npz(folder / "train.npz", well(6) + well(6, "CH3OH", seed=1))
    write_npz(folder / "water.npz", well(16))
    write_npz(folder / "methanol.npz", well(12, "CH3OH", seed=1))


@contextmanager
def measured(path: Path) -> Iterator[None]:
    """Write down which structures are evaluated while the block lasts, by their extent."""
    found: list[float] = []
    predict = Potential.predict

    def recorded(self: Potential, structures: Structures, **options: bool) -> Prediction:
        found.extend(extents(structures.positions, structures.structure, len(structures.cells)))
        return predict(self, structures, **options)

    Potential.predict = recorded  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        Potential.predict = predict  # type: ignore[method-assign]
    path.write_text(json.dumps(found))


def extents(positions: Tensor, structure: Tensor, n: int) -> list[float]:
    """Å², wherever structures are."""
    square = centred(positions.double(), structure, n).square().sum(dim=1)
    sums = square.new_zeros(n).index_add(0, structure, square)
    return [round(value, 5) for value in sums.tolist()]


def two_processes(rank: int, folder: Path) -> None:
    """All runs of two processes, so that they start but once."""
    made, runs = recipes(), count()

    def run(name: str, output: str, **options: object) -> None:
        take_part(rank, 2, str(folder / f"store-{next(runs)}"))  # a store serves one run
        train(made[name], folder, folder / output, **options)  # type: ignore[arg-type]

    with measured(folder / f"measured-by-{rank}.json"):
        run("potential", "potential-two")
    for name in ("mix", "pcgrad"):
        run(name, f"{name}-two")
    run("half", "potential-extended")
    run("potential", "potential-extended", resume=True)
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
    with measured(folder / "measured.json"):
        train(recipes()["potential"], folder, folder / "potential")
    for name in ("extended", "mix", "pcgrad"):
        train(recipes()[name], folder, folder / name)
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


def test_a_run_of_two_processes_is_extended_as_one_of_one_is(folder: Path) -> None:
    assert_same_curve(folder / "extended", folder / "potential-extended", "force_mae_meV_per_A")


def test_validation_and_test_are_shared(folder: Path) -> None:
    """Together they evaluate what one process does, as often, and each frame falls to one."""
    alone, *shared = (
        Counter(json.loads((folder / f"measured{end}.json").read_text()))
        for end in ("", "-by-0", "-by-1")
    )
    assert shared[0] + shared[1] == alone
    assert not shared[0].keys() & shared[1].keys()
    split = json.loads((folder / "potential" / "split.json").read_text())
    frames = open_dataset(folder / "train.npz")
    for part, one_less in (("val", 1), ("test", 0)):
        places = [torch.from_numpy(frames[k].positions) for k in split[part]]
        keys = {extents(x, torch.zeros(len(x), dtype=torch.long), 1)[0] for x in places}
        assert all(alone[key] > 0 for key in keys)
        found = [len(keys & counts.keys()) for counts in shared]
        assert found[0] - found[1] == one_less


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


def start_a_long_run(folder: Path) -> tuple[subprocess.Popen[str], list[str]]:
    """A run of two processes that has validated at least twice, and its command."""
    write_data(folder)
    (folder / "tiny.yaml").write_text(RECIPE)
    command = ["train", str(folder / "tiny.yaml"), "--data", str(folder), "--devices", "2"]
    command += ["--output", str(folder / "run")]
    for change in (*POTENTIAL[:2], f"optimiser.epochs={LONG}"):
        command += ["--set", change]
    process = subprocess.Popen(
        [sys.executable, "-m", "jmp_md.cli.main", *command], stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + LIMIT
    while epochs_of(folder / "run") < 2:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.1)
    return process, command


def epochs_of(run: Path) -> int:
    log = run / "log.csv"
    return log.read_text().count("\n") - 1 if log.exists() else 0


def assert_it_goes_on(folder: Path, command: list[str]) -> None:
    """Resumed for two more epochs, it has the losses of a run that nothing stopped."""
    epochs = epochs_of(folder / "run") + 2
    done = run_in_time([*command, "--restart", "--epochs", str(epochs)])
    assert done.returncode == 0, done.stderr
    changes = [f"optimiser.epochs={epochs}", f"optimiser.cosine_epochs={LONG}"]
    train(from_yaml(RECIPE, "test", [*POTENTIAL[:2], *changes]), folder, folder / "whole")
    assert epochs_of(folder / "whole") == epochs
    assert_same_curve(folder / "whole", folder / "run", "force_mae_meV_per_A")


def test_a_signal_stops_all_processes_and_the_run_goes_on(tmp_path: Path) -> None:
    """It is sent to the process that started the others, as a batch system does."""
    process, command = start_a_long_run(tmp_path)
    process.terminate()
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "--restart goes on" in errors
    assert_it_goes_on(tmp_path, command)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_of_which_a_process_is_killed_ends_and_goes_on(tmp_path: Path, rank: int) -> None:
    process, command = start_a_long_run(tmp_path)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("needs /proc to find the processes of a run")
    workers = [int(pid) for pid in children.read_text().split() if is_rank(int(pid))]
    os.kill(workers[rank], signal.SIGKILL)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + signal.SIGKILL, errors
    assert f"process {rank} of 2 was killed" in errors
    assert_it_goes_on(tmp_path, command)


def is_rank(pid: int) -> bool:
    """Whether a child is a process of the run, not one that watches over shared memory."""
    return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
