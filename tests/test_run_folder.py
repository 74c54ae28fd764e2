"""Folders of runs: what a run would write over is refused, by all runs alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import write

from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.runs.eos import run_eos
from jmp_md.runs.folder import opened, refuse_used
from jmp_md.runs.md import run_md
from jmp_md.runs.neb import run_neb
from jmp_md.runs.options import FolderOptions, RestartOptions


def with_emt(atoms: Atoms) -> Atoms:
    atoms.calc = EMT()
    return atoms


RUNS: list[tuple[str, Callable[[Path], Any]]] = [
    ("structure.extxyz", lambda folder: run_eos(bulk("Cu"), EMT(), folder, relax="none")),
    ("path.extxyz", lambda folder: run_neb([molecule("H2O")] * 3, EMT(), folder)),
    ("trajectory.h5", lambda folder: run_md(with_emt(molecule("H2O")), folder, steps=1)),
    ("log.csv", lambda folder: run_md(with_emt(molecule("H2O")), folder, steps=1)),
]


@pytest.mark.parametrize(("name", "run"), RUNS)
def test_files_of_others_are_not_written_over(
    name: str, run: Callable[[Path], Any], tmp_path: Path
) -> None:
    """As where a run is given a structure of the folder that it is to write to."""
    (tmp_path / name).write_text("mine")
    message = rf"holds a run: .*--restart.*--overwrite.*; there is {name}"
    with pytest.raises(InputError, match=message):
        run(tmp_path)
    assert (tmp_path / name).read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} <= {name, ".lock"}


RESTARTS: list[tuple[str, Callable[[Path], Any]]] = [
    ("structure.extxyz", lambda at: run_eos(bulk("Cu"), EMT(), at, relax="none", restart=True)),
    ("path.extxyz", lambda at: run_neb([molecule("H2O")] * 3, EMT(), at, restart=True)),
    ("trajectory.h5", lambda at: run_md(with_emt(molecule("H2O")), at, steps=1, restart=True)),
]


@pytest.mark.parametrize(("name", "restart"), RESTARTS)
def test_a_restart_writes_over_no_file_that_is_of_no_run(
    name: str, restart: Callable[[Path], Any], tmp_path: Path
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=rf"no run that could go on, but {name}"):
        restart(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize(("verb", "name"), [("relax", "relaxed.xyz"), ("neb", "path.extxyz")])
def test_overwrite_does_not_remove_what_is_read(
    verb: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / name, [molecule("H2O")] * 3)
    before = (tmp_path / name).read_bytes()
    words = [str(tmp_path / name), "--output", str(tmp_path), "--overwrite"]
    assert main([verb, *words, "--model", "jmp-xs-organic"]) == 1
    assert f"{name} is read, and overwrite" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("relaxed.extxyz", ["relax", "water.xyz"]),
        ("state/jmp-xs/state.npz", ["relax", "water.xyz"]),
        ("results.csv", ["singlepoint", "water.xyz"]),
        ("predictions.csv", ["evaluate", "--data", "water.xyz"]),
    ],
)
def test_a_used_folder_is_refused_before_a_model_is_loaded(
    name: str,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write("water.xyz", molecule("H2O"))
    Path("run", name).parent.mkdir(parents=True)
    Path("run", name).write_text("mine")
    assert main([*words, "--model", "no-such-model", "--output", "run"]) == 1
    assert f"run holds a run: {'continue' if words[0] == 'relax' else 'remove'} it with" in (
        capsys.readouterr().err
    )


def test_only_results_and_states_make_a_folder_used(tmp_path: Path) -> None:
    files = ("results.*", "run.json", "optimizer.log", "state/*/*")
    for name in ("run.json", "optimizer.log", "jmp-md.log", "results.docx", "notes.txt"):
        (tmp_path / name).touch()  # a run that fails at once leaves some of them
    (tmp_path / "state").mkdir()
    refuse_used(tmp_path, files, FolderOptions())
    refuse_used(tmp_path / ("x" * 5000), files, FolderOptions())
    (tmp_path / "results.cif").touch()
    with pytest.raises(InputError, match=r"holds a run: remove it with overwrite.*results\.cif"):
        refuse_used(tmp_path, files, FolderOptions())
    with pytest.raises(InputError, match="holds a run: continue it"):
        refuse_used(tmp_path, files, RestartOptions())
    refuse_used(tmp_path, files, RestartOptions(restart=True))
    anew = FolderOptions(overwrite=True)
    with pytest.warns(UserWarning, match="4 files"), opened(tmp_path, files, anew):
        assert {path.name for path in tmp_path.iterdir()} == {
            *("results.docx", "notes.txt", "state", ".lock")
        }
