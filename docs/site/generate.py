"""Pages of the site that are made: the command line, the changelog, tutorials from notebooks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that have no file."""
    files.append(File.generated(config, "cli.md", content=command_line()))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "changelog.md", content=changelog))
    for path in sorted((ROOT / "docs/tutorials").glob("*.ipynb")):
        for name, content in tutorial(path).items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files


def tutorial(notebook: Path) -> dict[str, str | bytes]:
    """The page of a notebook as it was executed, and its figures, by name of file."""
    from nbconvert import MarkdownExporter

    about = {"unique_key": notebook.stem}
    text, resources = MarkdownExporter().from_filename(str(notebook), resources=about)
    link = f"[This page as a notebook]({notebook.name})\n"
    return {f"{notebook.stem}.md": f"{text}\n{link}", **resources["outputs"]}


def command_line() -> str:
    """Help of every command, as the terminal shows it."""
    from jmp_md.cli.main import COMMANDS, parser_for

    os.environ["COLUMNS"] = "100"  # the width argparse wraps at
    parts = ["# Command line\n\nMade from the code: what `jmp-md COMMAND --help` prints.\n"]
    for name, summary in COMMANDS.items():
        asked = parser_for([name]).asked
        assert asked is not None
        parts.append(f"## {name}\n\n{summary}\n\n```text\n{asked.format_help()}```\n")
    return "\n".join(parts)
