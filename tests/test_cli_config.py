"""A file of options stands for the options in it, of every kind, wherever it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from jmp_md.cli.config import expand_config
from jmp_md.cli.main import main, parser_for


def parsed(text: str, *words: str, folder: Path) -> dict[str, object]:
    (folder / "run.yaml").write_text(text)
    argv = expand_config([*words, f"--config={folder / 'run.yaml'}"])
    return vars(parser_for(argv).parse_args(argv))


def test_a_list_leaves_the_files_after_it_alone(tmp_path: Path) -> None:
    options = parsed("supercell: [2, 2, 3]", "phonons", "si.cif", folder=tmp_path)
    assert options["supercell"] == ["2", "2", "3"]  # which the class of options reads
    assert options["structure"] == Path("si.cif")


@pytest.mark.parametrize("value", [True, False])
def test_flags_are_given_and_taken_back(tmp_path: Path, value: bool) -> None:
    text = f"stress: {value}\ncompile: {value}"
    options = parsed(text, "singlepoint", "a.xyz", folder=tmp_path)
    assert options["stress"] is value
    assert options["compile"] is value
    text = f"relax_cell: {value}\nrestart: {value}"
    options = parsed(text, "relax", "a.xyz", "--no-restart", folder=tmp_path)
    assert options["relax_cell"] is value
    assert options["restart"] is False


@pytest.mark.parametrize("length", [["1", "--timestep", "0"], ["nan"], ["-1"]])
def test_a_time_that_is_no_number_of_steps_is_refused(
    tmp_path: Path,
    length: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("h.xyz").write_text("1\n\nH 0 0 0\n")
    assert main(["md", "h.xyz", "--time", *length]) == 1
    assert "must be positive" in capsys.readouterr().err
