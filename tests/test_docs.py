"""What the pages say is so: commands have these options, marked blocks run, the site builds."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jmp_md import load_model
from jmp_md.cli.main import COMMANDS, parser_for
from jmp_md.fingerprint import fingerprint

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"<!-- (run|run if (\w+), tried with [^\n]+|not run: [^\n]+) -->\n```(\w+)\n(.*?)```", re.DOTALL
)
MARKED = [ROOT / "docs" / name for name in ("quickstart.md", "integrations.md")]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
RUN = [
    pytest.param(
        *found.groups()[2:],
        id=f"{page.stem}-{number}",
        marks=pytest.mark.skipif(
            bool(found[2]) and importlib.util.find_spec(found[2]) is None,
            reason=f"needs {found[2]}",
        ),
    )
    for page in MARKED
    for number, found in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")))
    if not found[1].startswith("not run")
]


def command_lines(page: Path) -> list[str]:
    """Lines of code that call ``jmp-md``, continued lines joined, without comments."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip().removeprefix("$ ") for line in text.splitlines()]
    return [line.split(" #")[0] for line in lines if line.startswith("jmp-md ")]


def _options(parser: argparse.ArgumentParser) -> set[str]:
    """Options of a parser and of its sub-commands, hidden ones too."""
    known: set[str] = set()
    for action in parser._actions:
        known |= set(action.option_strings)
        if isinstance(action.choices, dict):
            known |= set().union(*map(_options, action.choices.values()))
    return known


def test_every_command_is_in_the_readme_and_on_a_page() -> None:
    pages = {line.split()[1] for page in PAGES[1:] for line in command_lines(page)}
    readme = PAGES[0].read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"`jmp-md {name}" in readme or f"`{name}`" in readme, name
        assert name in pages, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_a_page_have_the_options_it_gives_them(page: Path) -> None:
    for line in command_lines(page):
        words = [word for word in shlex.split(line)[1:] if word != "--debug"]
        assert words[0] in COMMANDS or words[0] == "--version", line
        if words[0] in COMMANDS:
            asked = parser_for([words[0]]).asked
            assert asked is not None
            known = _options(asked)
            options = {word.split("=")[0] for word in words if word.startswith("--")}
            assert not options - known, line


@pytest.mark.parametrize("page", MARKED, ids=lambda page: page.stem)
def test_every_block_runs_or_says_why_not(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(BLOCK.findall(text)) == len(re.findall(r"^```\w+$", text, re.MULTILINE)) > 0


@pytest.mark.slow
@pytest.mark.parametrize(("language", "code"), RUN)
def test_a_block_runs(language: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    bash = ["bash", "-euc", 'jmp-md() { "$0" -m jmp_md.cli.main "$@"; }\n' + code, sys.executable]
    command = bash if language == "bash" else [sys.executable, "-c", code]
    own = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=300, env=own
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_two_pages_have_like_titles() -> None:
    headings = {page: page.read_text(encoding="utf-8").split("\n")[0][2:] for page in PAGES[1:]}
    for path in TUTORIALS:
        headings[path] = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"][0][2:]
    listed = re.findall(r"- ([^:\n]+): [\w/-]+\.md", (ROOT / "mkdocs.yml").read_text())
    for titles in ([text.strip().lower() for text in headings.values()], listed):
        assert len(titles) > 20
        assert not [(a, b) for a in titles for b in titles if a is not b and b.startswith(a)]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorials_are_kept_as_they_were_executed(path: Path) -> None:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in cells]
    assert counts == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error"]


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path: Path, tmp_path: Path) -> None:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    there = os.environ | {"JMP_MD_HOME": str(tmp_path / "models"), "MPLBACKEND": "Agg"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=550, env=there
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("material", "mkdocstrings", "nbconvert"))),
    reason="needs the extra 'docs'",
)
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "--ensemble" in (tmp_path / "cli" / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("material", "mkdocstrings", "nbconvert", "mike")))
    or not (ROOT / ".git").exists(),
    reason="needs the extra 'docs' and a checkout",
)
def test_the_site_of_a_version_stays_beside_the_next(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", ROOT, copy], check=True, timeout=60)
    programs = Path(sys.executable).parent  # mike, and mkdocs, which it calls
    names = [f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
    there = os.environ | dict.fromkeys(names, "a@b.c")
    there["PATH"] = f"{programs}{os.pathsep}{there['PATH']}"
    for version in ("0.1", "0.2"):
        done = subprocess.run(
            [programs / "mike", "deploy", "--update-aliases", version, "latest"],
            capture_output=True, text=True, cwd=copy, timeout=300, env=there,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def read(name: str) -> str:
        found = subprocess.run(
            ["git", "show", f"gh-pages:{name}"],
            capture_output=True,
            text=True,
            cwd=copy,
            check=True,
        )
        return found.stdout

    versions = {each["version"]: each["aliases"] for each in json.loads(read("versions.json"))}
    assert versions == {"0.2": ["latest"], "0.1": []}
    for version in versions:
        assert "--ensemble" in read(f"{version}/cli/index.html")


def test_tables_of_shipped_models_are_of_the_weights_that_are_shipped() -> None:
    spec = importlib.util.spec_from_file_location("shipped", ROOT / "docs" / "site" / "shipped.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, rows in module.PAGES.items():
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        assert module.with_table(text, rows) == text, "python docs/site/shipped.py"
    kept = json.loads((module.MODELS / f"{module.MODEL}.benchmark.json").read_text())
    for head, found in kept.items():
        potential = load_model(module.MODEL, head=head, dtype=torch.float64, kernels=False)
        assert found["about"]["sha256"] == fingerprint(potential)


def test_pages_run_their_blocks_or_say_why_not() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        fenced = re.findall(r"^```\w+$", text, re.MULTILINE)
        if page in MARKED:
            assert len(BLOCK.findall(text)) == len(fenced), page.name
        elif (fenced or re.search(r"\n\n    \S", text)) and "\n::: " not in text:
            assert re.search(r"<!-- blocks of this page are not run: .{10,} -->", text), page.name
