"""The command line lists, adds and describes models, and reports errors in one line."""

from __future__ import annotations

import fractions
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jmp_md.checkpoints.native import read_native, write_native
from jmp_md.checkpoints.restricted import load_torch_file
from jmp_md.cli import main as main_module
from jmp_md.cli import models as models_command
from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.graph.policy import GraphPolicy
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.nn.config import preset

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JMP_MD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("JMP_MD_OFFLINE", "1")
    return tmp_path / "home"


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    head = HeadInfo("head", GraphPolicy.smooth(), elements=(1, 6, 8))
    metrics = {"force_mae_meV_per_A": 11.24}
    training = {"domain": {"formula": "C2H6O"}}
    header = ModelHeader("m", preset("jmp-xs"), (head,), "MIT", metrics=metrics, training=training)
    write_native(tmp_path / "m.safetensors", header, {"w": torch.ones(3)})
    return tmp_path / "m.safetensors"


def _run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jmp_md.cli.main", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_added_model_is_listed_described_and_found(
    model_file: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "add", "mine", str(model_file)]) == 0
    stored = home / "models" / "mine.safetensors"
    assert capsys.readouterr().out.strip() == str(stored)
    assert main(["models"]) == 0
    listing = capsys.readouterr().out
    row = next(line for line in listing.splitlines() if line.startswith("mine "))
    for cell in ("MIT", "H C O (only C2H6O)", "F 11.2 meV/Å", str(stored)):
        assert cell in row
    assert "jmp-l-spice" in listing
    assert next(line for line in listing.splitlines() if line.startswith("jmp-s "))
    assert main(["models", "path", "mine"]) == 0
    assert capsys.readouterr().out.strip() == str(stored)
    assert main(["models", "card", "mine"]) == 0
    assert "molecule C2H6O only" in capsys.readouterr().out


def test_a_model_of_many_heads_and_elements_takes_one_short_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = [HeadInfo(name, GraphPolicy.smooth(), elements=tuple(range(1, 90))) for name in "ab"]
    header = ModelHeader("m", preset("jmp-xs"), tuple(heads), "MIT")
    write_native(tmp_path / "m.safetensors", header, {"w": torch.ones(3)})
    assert main(["models", "add", "many", str(tmp_path / "m.safetensors")]) == 0
    assert main(["models"]) == 0
    rows = capsys.readouterr().out.splitlines()
    row = next(line for line in rows if line.startswith("many "))
    assert "89 elements" in row
    assert "by head, see its card" in row


def test_adding_twice_needs_force(model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["models", "add", "mine", str(model_file)]
    assert main(command) == 0
    assert main(command) == 1
    assert "--force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0


def test_unusable_cached_file_does_not_break_the_list(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "models").mkdir(parents=True)
    (home / "models" / "bad.safetensors").write_bytes(b"broken")
    assert main(["models"]) == 0
    assert "bad is unusable: " in capsys.readouterr().out


def test_known_model_not_at_hand_is_an_error_with_the_way_to_get_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "path", "jmp-l-spice"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: model 'jmp-l-spice' is known but not at hand")
    assert captured.err.count("\n") == 1


def test_card_of_an_official_checkpoint_says_to_convert_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "jmp-s.pt").write_bytes(b"official")
    assert main(["models", "card", str(tmp_path / "jmp-s.pt")]) == 1
    assert "jmp-md convert" in capsys.readouterr().err


def test_converted_checkpoint_is_a_model_file_with_the_chosen_weights(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = str(shared / "reference" / "tiny-pretrain.ckpt")
    states = {}
    for weights in ("ema", "raw"):
        out = tmp_path / f"{weights}.safetensors"
        assert main(["convert", checkpoint, str(out), "--weights", weights]) == 0
        assert f"{weights} weights, heads oc20" in capsys.readouterr().out
        header, states[weights] = read_native(out)
        assert header.name == header.weights == weights
    assert states["ema"].keys() == states["raw"].keys()
    assert any(not torch.equal(states["ema"][name], states["raw"][name]) for name in states["ema"])
    named = tmp_path / "named.safetensors"
    assert main(["convert", checkpoint, str(named), "--name", "tiny"]) == 0
    assert read_native(named)[0].name == "tiny"
    assert read_native(named)[0].weights == "ema"


def test_conversion_skips_a_foreign_class_only_when_told(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = load_torch_file(shared / "reference" / "tiny-pretrain.ckpt")
    checkpoint, out = tmp_path / "foreign.ckpt", tmp_path / "out.safetensors"
    torch.save({**content, "extra": fractions.Fraction(1, 2)}, checkpoint)
    assert main(["convert", str(checkpoint), str(out)]) == 1
    error = capsys.readouterr().err
    assert "--ignore-global fractions.Fraction" in error
    assert not out.exists()
    options = ["--ignore-global", "fractions.Fraction"]
    assert main(["convert", str(checkpoint), str(out), *options]) == 0
    assert read_native(out)[1].keys()


def test_conversion_refuses_wrong_files_at_either_end(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(model_file), str(tmp_path / "out.pt")]) == 1
    assert "ends in .safetensors" in capsys.readouterr().err
    assert main(["convert", str(model_file), str(tmp_path / "out.safetensors")]) == 1
    assert "native model file already" in capsys.readouterr().err


def test_error_is_one_line_and_debug_shows_where_it_arose(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "path", "nonsense"]) == 1
    assert capsys.readouterr().err.startswith("error: unknown model 'nonsense'")
    for arguments in (["--debug", "models", "path"], ["models", "--debug", "path"]):
        with pytest.raises(LookupError):
            main([*arguments, "nonsense"])


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (InputError("bad value"), 1, "error: bad value\n"),
        (FileNotFoundError(2, "No such file", "x.xyz"), 1, "error: [Errno 2]"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_a_command_raises_becomes_an_exit_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: BaseException,
    status: int,
    said: str,
) -> None:
    def fail(args: object) -> int:
        raise raised

    monkeypatch.setattr(models_command, "run", fail)
    assert main(["models"]) == status
    assert capsys.readouterr().err.startswith(said)


def test_help_names_every_command_without_importing_torch() -> None:
    code = (
        "import sys\nfrom jmp_md.cli.main import main\n"
        "try: main(['--help'])\n"
        "finally: print('heavy:', [m for m in ('torch', 'ase', 'numpy') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "heavy: []" in done.stdout
    for command in main_module.COMMANDS:
        assert f"\n    {command}" in done.stdout


def test_unknown_commands_are_usage_errors() -> None:
    for arguments in (["nonsense"], ["models", "add"]):
        done = _run(*arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("usage: jmp-md")


def test_no_command_shows_help() -> None:
    done = _run()
    assert done.returncode == 0
    assert done.stdout == _run("--help").stdout


def test_version_is_printed() -> None:
    done = _run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("jmp-md 0.")


def test_reader_that_leaves_early_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as stdout:
        command = [sys.executable, "-m", "jmp_md.cli.main", "models"]
        done = subprocess.run(
            command, stdout=stdout, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=60
        )
    assert done.stderr == ""
    assert done.returncode == 1


def test_bash_completes_commands_options_and_files(tmp_path: Path) -> None:
    script = _run("completion", "bash")
    assert script.returncode == 0
    (tmp_path / "water.xyz").touch()
    ask = (
        'complete_of() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        '$(complete -p jmp-md | sed "s/.*-F \\([^ ]*\\).*/\\1/"); echo "${COMPREPLY[@]}"; }\n'
    )
    words = ("relax --relax-c", "re", "relax wat")
    lines = "\n".join(f"complete_of jmp-md {each}" for each in words)
    done = subprocess.run(
        ["bash", "-c", f"{script.stdout}\n{ask}{lines}"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["--relax-cell", "relax", "water.xyz"], done.stderr
