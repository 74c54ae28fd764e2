"""A queue of work does every structure once, whoever does it and however often it is stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read, write
from factories import write_model

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.files import locked
from jmp_md.runs.screen import _resource, run_screen


def waters(count: int) -> list[Atoms]:
    structures = [molecule("H2O") for _ in range(count)]
    for i, atoms in enumerate(structures):
        atoms.rattle(0.1, seed=i)
    return structures


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_model(tmp_path, head={"elements": (1, 8)}))


def energies(structures: list[Atoms]) -> list[float]:
    return [atoms.get_potential_energy() for atoms in structures]


def test_a_stopped_queue_does_nothing_twice(model: str, tmp_path: Path) -> None:
    structures = waters(5)
    options: dict[str, Any] = {"task": "singlepoint", "chunk": 2, "device": "cpu"}
    whole = run_screen(structures, model, tmp_path / "whole", **options)
    assert [atoms.info["index"] for atoms in whole] == list(range(5))

    def stop(done: int, count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_screen(structures, model, tmp_path / "parts", progress=stop, **options)
    again: list[tuple[int, int]] = []
    found = run_screen(
        structures,
        model,
        tmp_path / "parts",
        restart=True,
        progress=lambda *counts: again.append(counts),
        **options,
    )
    assert again == [(2, 3), (3, 3)]
    assert energies(found) == energies(whole)
    assert energies(read(tmp_path / "parts/results.extxyz", index=":")) == energies(whole)
    with pytest.raises(InputError, match="holds a run"):
        run_screen(structures, model, tmp_path / "parts", **options)
    with pytest.raises(InputError, match="number of structures: 5, now 4"):
        run_screen(structures[:4], model, tmp_path / "parts", restart=True, **options)
    structures[4].rattle(0.1, seed=9)
    with pytest.raises(InputError, match=r"different: structures\.positions: give"):
        run_screen(structures, model, tmp_path / "parts", restart=True, **options)


def test_a_queue_is_overwritten_when_asked_to_be_and_tags_are_part_of_it(
    model: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"task": "singlepoint", "chunk": 1, "device": "cpu"}
    run_screen(waters(3), model, tmp_path, **options)
    with pytest.raises(InputError, match=r"model\.tags: None, now 'oc'"):
        run_screen(waters(3), model, tmp_path, restart=True, tags="oc", **options)
    with pytest.warns(UserWarning, match=r"overwriting the run in .*: 7 files"):
        found = run_screen(waters(2), model, tmp_path, overwrite=True, **options)
    assert len(found) == len(read(tmp_path / "results.extxyz", index=":")) == 2
    assert len(list(tmp_path.glob("chunk-*"))) == 2


def test_a_queue_is_one_of_its_model_wherever_that_is(tmp_path: Path) -> None:
    structures = waters(4)
    options: dict[str, Any] = {"task": "singlepoint", "chunk": 2, "device": "cpu"}
    path = write_model(tmp_path, head={"elements": (1, 8)})
    run_screen(structures, str(path), tmp_path / "run", **options)
    (tmp_path / "run/chunk-000001.extxyz").unlink()
    with locked(tmp_path / "run"), pytest.raises(InputError, match="another process is writing"):
        run_screen(structures, str(path), tmp_path / "run", restart=True, **options)
    other = write_model(tmp_path, "other", num_blocks=1, head={"elements": (1, 8)})
    first = path.read_bytes()
    path.write_bytes(other.read_bytes())
    with pytest.raises(InputError, match=r"model\.sha256"):
        run_screen(structures, str(path), tmp_path / "run", restart=True, **options)
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(first)
    counts: list[tuple[int, int]] = []
    found = run_screen(
        structures,
        str(moved),
        tmp_path / "run",
        restart=True,
        progress=lambda *now: counts.append(now),
        **options | {"chunk": 7},
    )
    assert counts == [(2, 2)]
    assert len(found) == 4
    with pytest.raises(InputError, match="structure 1 has no atoms"):
        run_screen([structures[0], Atoms()], str(moved), tmp_path / "none", **options)


def test_labels_in_the_input_do_not_pass_for_results(model: str, tmp_path: Path) -> None:
    structures = waters(2)
    for atoms in structures:
        atoms.info |= {"energy": -1.0, "stress": np.ones(6), "note": "kept", "strange": {1, 2}}
        atoms.arrays["forces"] = np.ones((3, 3))
    structures[1].positions[1] = structures[1].positions[0]
    with pytest.warns(UserWarning, match="'strange' of the structure"):
        run_screen(structures, model, tmp_path / "run", task="singlepoint", device="cpu")
    good, failed = read(tmp_path / "run/results.extxyz", index=":")
    structures[0].calc = JMPCalculator(model, dtype="float64", device="cpu")
    assert good.get_potential_energy() == pytest.approx(structures[0].get_potential_energy())
    assert good.get_forces() == pytest.approx(structures[0].get_forces(), abs=1e-6)
    assert good.info["note"] == "kept"
    assert "apart" in failed.info["error"]
    assert failed.calc is None


def test_results_can_be_queued_again(model: str, tmp_path: Path) -> None:
    marked = waters(1)
    marked[0].info |= {"converged": False, "steps": 3, "error": "of an earlier queue"}
    for task in ("relax", "singlepoint"):
        [found] = run_screen(
            marked,
            model,
            tmp_path / task,
            task=task,
            device="cpu",
            steps=0,
        )
        assert "error" not in found.info
        assert found.info.get("steps", 0) == 0
    assert "converged" not in found.info
    assert marked[0].info["steps"] == 3


def test_another_model_in_the_same_file_is_read_again(tmp_path: Path) -> None:
    found = []
    for blocks in (1, 2):
        file = str(write_model(tmp_path, num_blocks=blocks, head={"elements": (1, 8)}))
        found += run_screen(
            waters(1), file, tmp_path / str(blocks), task="singlepoint", device="cpu"
        )
    assert found[0].get_potential_energy() != found[1].get_potential_energy()


def test_relaxations_are_queued_from_the_command_line(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    broken = molecule("H2O")
    broken.positions[1] = broken.positions[0]
    write("all.xyz", [*waters(2), broken])
    command = ["screen", "all.xyz", "--chunk", "2", "--fmax", "0.05"]
    assert main([*command, "--model", model]) == 2
    assert "3 structures, 1 failed, 0 not converged" in capsys.readouterr().out
    found = read("all-screen/results.extxyz", index=":")
    assert [bool(atoms.info["converged"]) for atoms in found] == [True, True, False]
    assert "Å apart" in found[2].info["error"]
    assert np.linalg.norm(found[0].get_forces(), axis=1).max() <= 0.05
    assert main(command) == 1
    assert "give the model" in capsys.readouterr().err


def test_ray_does_the_same_work(model: str, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    structures = waters(5)
    options: dict[str, Any] = {"task": "singlepoint", "chunk": 1, "device": "cpu"}
    alone = run_screen(structures, model, tmp_path / "alone", **options)
    ray.init(num_cpus=2, include_dashboard=False)
    options["ray"] = "local"
    try:
        shared = run_screen(structures, model, tmp_path / "shared", **options)
        with pytest.raises(InputError, match="device 'cuda': the Ray cluster has no GPU"):
            run_screen(structures, model, tmp_path / "none", **options | {"device": "cuda"})
    finally:
        ray.shutdown()
    assert energies(shared) == pytest.approx(energies(alone), abs=1e-9)
    assert [atoms.info["index"] for atoms in shared] == list(range(5))


def test_a_chunk_takes_a_gpu_of_a_cluster_that_has_some() -> None:
    assert _resource(None, {"CPU": 8.0, "GPU": 2.0}) == "GPU"
    assert _resource("cuda", {"CPU": 8.0, "GPU": 2.0}) == "GPU"
    assert _resource("cpu", {"CPU": 8.0, "GPU": 2.0}) == "CPU"
    assert _resource(None, {"CPU": 8.0}) == "CPU"
    with pytest.raises(InputError, match="device 'cuda:1': Ray chooses"):
        _resource("cuda:1", {"CPU": 8.0, "GPU": 2.0})


def test_work_that_cannot_be_meant_is_refused(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="task 'md': choose one of relax"):
        run_screen(waters(1), model, tmp_path / "run", task="md")
    with pytest.raises(InputError, match="chunk 0: must be 1 or more"):
        run_screen(waters(1), model, tmp_path / "run", chunk=0)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match="pip install ray"):
        run_screen(waters(1), model, tmp_path / "run", ray="local")
