"""Whole files or none, and folders with one writer at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jmp_md.errors import InputError
from jmp_md.files import locked, require_writable


def test_a_folder_has_one_writer_and_a_killed_one_leaves_it_free(tmp_path: Path) -> None:
    code = (
        "import sys; from jmp_md.files import locked, require_writable\n"
        f"with locked({str(tmp_path)!r}): print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process is writing"), locked(tmp_path):
            pass
    finally:
        process.kill()
        process.communicate()
    with locked(tmp_path):
        pass


def test_nothing_is_written_to_the_root() -> None:
    with pytest.raises(InputError, match="choose another output"):
        require_writable("/")
