"""What a command says is kept in the folder of its run, in whole lines, whatever becomes of it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import write
from factories import write_model

from jmp_md.cli.main import main
from jmp_md.graph.policy import GraphPolicy
from jmp_md.run_log import NAME, RunLog, recorded
from jmp_md.runs.eos import run_eos
from jmp_md.runs.folder import opened

SMALL = GraphPolicy.smooth(3.0, 3.0, 2.0, 3.0)
CAPTURE = pytest.CaptureFixture[str]
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d .*")


@pytest.fixture
def model(here: Path) -> str:
    write("water.xyz", molecule("H2O"))
    return str(write_model(here, graph=SMALL, head={"elements": (1, 8)}))


def lines(folder: str) -> list[str]:
    """What a log holds, without the times, which every line has."""
    found = (Path(folder) / NAME).read_text().split("\n")
    assert found.pop() == ""
    assert all(LINE.fullmatch(line) for line in found if line)
    return [line.partition(" ")[2] for line in found]


def test_the_log_has_the_command_versions_words_and_warnings(model: str, capsys: CAPTURE) -> None:
    words = ["md", "water.xyz", "--model", model, "--steps", "2", "--no-report"]
    assert main(words) == 0
    first = lines("water-md")
    assert first[0] == f"$ jmp-md {shlex.join(words)}"
    assert "torch" in first[1]
    assert f"H2O, model {model}, 2 steps" in first
    out = capsys.readouterr().out
    assert f"wrote water-md: {NAME}, log.csv" in out
    assert set(out.splitlines()) <= set(first)
    assert main([*words, "--overwrite", "--quiet"]) == 0
    second = lines("water-md")
    assert second[0].endswith("--overwrite --quiet")
    [warning] = [line for line in second if line.startswith("warning: ")]
    assert warning.startswith("warning: overwriting the run in water-md: 6 files")
    assert capsys.readouterr().err == f"{warning}\n"
    assert set(first[1:-1]) & set(second)


def test_a_run_that_goes_on_appends_and_one_that_is_refused_leaves_no_trace(model: str) -> None:
    words = ["md", "water.xyz", "--model", model, "--steps", "2", "--no-report"]
    assert main(words) == 0
    once = (Path("water-md") / NAME).read_bytes()
    assert main(words) == 1
    assert main([*words, "--restart", "--temperature", "10"]) == 1
    assert (Path("water-md") / NAME).read_bytes() == once
    with (Path("water-md") / NAME).open("ab") as file:
        file.write(once[:50])  # as a full disk leaves it
    assert main([*words[:-2], "4", "--restart"]) == 0
    both = (Path("water-md") / NAME).read_bytes()
    assert both.startswith(once + once[:50] + b"\n")
    assert b"--restart" in both.removeprefix(once)


def test_the_error_that_ends_a_run_is_its_last_line(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **parts: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jmp_md.runs.md_folder.write_summary", fail)
    words = ["md", "water.xyz", "--model", model, "--steps", "2", "--no-report"]
    assert main(words) == 1
    assert lines("water-md")[-1] == "error: [Errno 28] No space left on device"


def test_a_command_without_a_folder_and_a_function_keep_no_log(model: str, here: Path) -> None:
    assert main(["singlepoint", "water.xyz", "--model", model]) == 0
    assert main(["md", "water.xyz", "--model", model, "--dry-run"]) == 0
    run_eos(bulk("Cu"), EMT(), "cu", points=5, relax="none", report=False)
    assert not list(here.rglob(NAME))


def test_a_refused_run_leaves_no_folder(here: Path) -> None:
    def refused() -> None:
        with RunLog(["x"]).listening(None), opened(here / "new", ()):
            print("said before")
            raise KeyError

    with pytest.raises(KeyError):
        refused()
    assert not (here / "new").exists()


def test_a_moving_line_is_kept_in_its_last_state(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("jmp_md.run_log.time.monotonic", lambda: clock[0])
    with RunLog(["x"]).listening(None), recorded(here):
        for step in range(500):
            clock[0] += 0.5
            print(f"\r  step {step}\033[K", end="")
        print()
        print("end", end="")
    kept = lines(".")[2:]
    # One at first, then one a minute, then the last.
    assert kept == [*(f"  step {step}" for step in (0, 121, 242, 363, 484, 499)), "end"]


def test_a_run_that_is_killed_leaves_whole_lines(here: Path) -> None:
    script = """
        from pathlib import Path
        from jmp_md.run_log import RunLog, recorded
        with RunLog(["x"]).listening(None), recorded(Path()):
            while True:
                print("a line")
    """
    log = here / NAME
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)]) as run:
        until = time.monotonic() + 60
        while not (log.exists() and log.stat().st_size > 10_000) and time.monotonic() < until:
            time.sleep(0.01)
        run.kill()
    said = lines(".")
    assert said[0] == "$ x"
    assert set(said[2:]) == {"a line"}


def test_a_log_that_cannot_be_written_does_not_end_the_run(
    model: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "out" / "jmp-md.log").mkdir(parents=True)
    words = ["md", "water.xyz", "--model", model, "--steps", "2", "--no-report", "--output", "out"]
    assert main(words) == 0
    assert "mean temperature" in capsys.readouterr().out
    assert (here / "out" / "summary.json").exists()
