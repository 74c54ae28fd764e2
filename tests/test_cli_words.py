"""What commands say, and where: words, summaries for programs, and names of older versions."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from ase.build import bulk, molecule
from ase.io import write
from factories import write_model

from jmp_md.cli.main import main
from jmp_md.graph.policy import GraphPolicy

SMALL = GraphPolicy.smooth(3.0, 3.0, 2.0, 3.0)
CAPTURE = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("water.xyz", molecule("H2O"))
    write("si.cif", bulk("Si"))
    return tmp_path


@pytest.fixture
def model(here: Path) -> str:
    return str(write_model(here, graph=SMALL, head={"elements": (1, 8, 14)}))


COMMANDS = {
    "md": ["water.xyz", "--steps", "2"],
    "relax": ["water.xyz", "--steps", "1"],
    "singlepoint": ["water.xyz", "--output", "out"],
    "vibrations": ["water.xyz", "--steps", "1"],
    "eos": ["si.cif", "--points", "5", "--relax", "none"],
    "descriptors": ["water.xyz"],
    "screen": ["water.xyz", "--task", "singlepoint"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_json_is_all_there_is_on_standard_output(
    name: str, here: Path, model: str, capsys: CAPTURE
) -> None:
    words = [name, *COMMANDS[name], "--model", model, "--device", "cpu", "--json"]
    assert main(words) in (0, 2)
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert summary["verb"] == name
    folder = next(path.parent for path in here.glob("*/summary.json"))
    assert summary == json.loads((folder / "summary.json").read_text())
    assert f"wrote {folder.name}: " in captured.err


@pytest.mark.parametrize("name", ["singlepoint", "check"])
def test_json_of_a_command_without_a_folder_has_its_table(
    name: str, model: str, capsys: CAPTURE
) -> None:
    assert main([name, "water.xyz", "--model", model, "--json"]) in (0, 2)
    results = json.loads(capsys.readouterr().out)["results"]
    if name == "singlepoint":
        assert results["structures"][0]["formula"] == "H2O"
        assert isinstance(results["structures"][0]["energy_eV"], float)
    else:
        failed = sum(not row["passed"] for row in results["checks"])
        assert results["n_failed"] == failed


def test_quiet_leaves_warnings_and_the_exit_code(model: str, capsys: CAPTURE) -> None:
    words = ["md", "water.xyz", "--model", model, "--steps", "2", "--quiet", "--no-report"]
    assert main(words) == 0
    assert capsys.readouterr().out == ""
    assert main(words) == 1
    captured = capsys.readouterr()
    assert (captured.out, "holds a run" in captured.err) == ("", True)
    assert main([*words, "--overwrite", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["verb"] == "md"
    assert captured.err.startswith("warning: overwriting the run in water-md")


@pytest.mark.parametrize("name", ["vibrations", "eos", "descriptors", "screen"])
def test_a_dry_run_computes_and_writes_nothing(
    name: str, here: Path, model: str, capsys: CAPTURE
) -> None:
    before = set(here.rglob("*"))
    assert main([name, *COMMANDS[name], "--model", model, "--dry-run"]) == 0
    assert "dry run: nothing was computed" in capsys.readouterr().out
    assert set(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--json", "errors.json"], "--json takes no value any more: --output FOLDER gets summary"),
        (["--report=page.html"], "--report takes no value any more: --output FOLDER gets report"),
        (["--output", "out.csv"], "--output is a folder now, not the file out.csv: give --output"),
    ],
)
def test_an_old_spelling_gets_one_line_that_names_the_new_one(
    words: list[str], message: str, model: str, capsys: CAPTURE
) -> None:
    assert main(["evaluate", "--model", model, "--data", "water.xyz", *words]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_judgements_have_colours_on_a_terminal_alone(
    model: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    words = ["relax", "water.xyz", "--model", model, "--steps", "1", "--fmax", "1e-9"]
    for variable, expected in (("", "\033[31mNOT converged\033[0m"), ("1", "NOT converged")):
        shown = Terminal()
        monkeypatch.setattr("sys.stdout", shown)
        monkeypatch.setenv("NO_COLOR", variable)
        monkeypatch.setenv("TERM", "xterm")
        assert main([*words, "--overwrite"]) == 2
        assert expected in shown.getvalue()
        assert ("\033[31m" in shown.getvalue()) == ("\033[31m" in expected)
        log = (here / "water-relax" / "jmp-md.log").read_text()
        assert "\033[31m" not in log
        assert "NOT converged" in log
