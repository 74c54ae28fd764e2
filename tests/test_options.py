"""Options of a verb: one class, of which keyword arguments, command line and messages are made."""

from __future__ import annotations

import inspect
import json
import os
import signal
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from jmp_md.benchmarking import benchmark
from jmp_md.benchmarking.run import run_benchmark
from jmp_md.cli import progress as progress_module
from jmp_md.cli.check import CheckOptions
from jmp_md.cli.evaluate import EvaluateOptions
from jmp_md.cli.main import COMMANDS, main, parser_for
from jmp_md.cli.progress import Progress
from jmp_md.errors import InputError
from jmp_md.options import Options, choices_of, unit_of
from jmp_md.runs.analysis import run_analysis
from jmp_md.runs.descriptors import run_descriptors
from jmp_md.runs.elastic import run_elastic
from jmp_md.runs.eos import run_eos
from jmp_md.runs.md import run_md, run_md_replicas
from jmp_md.runs.neb import run_neb
from jmp_md.runs.options import (
    AnalysisOptions,
    BenchmarkOptions,
    DescriptorOptions,
    ElasticRunOptions,
    EOSRunOptions,
    FolderOptions,
    PhononRunOptions,
    RestartOptions,
    ScreenOptions,
    VibrationRunOptions,
)
from jmp_md.runs.phonons import run_phonons
from jmp_md.runs.screen import run_screen
from jmp_md.runs.singlepoint import run_singlepoint
from jmp_md.runs.vibrations import run_vibrations
from jmp_md.signals import StopRequest
from jmp_md.simulate.elastic import elastic
from jmp_md.simulate.eos import eos
from jmp_md.simulate.md.options import MDOptions
from jmp_md.simulate.options import (
    ElasticOptions,
    EOSOptions,
    GasOptions,
    NEBOptions,
    PhononOptions,
    RelaxOptions,
    SinglepointOptions,
    VibrationOptions,
)
from jmp_md.simulate.phonons import phonons
from jmp_md.simulate.relax import relax, relax_batched
from jmp_md.simulate.thermochemistry import thermochemistry
from jmp_md.simulate.vibrations import vibrations

CLASSES = {
    "md": MDOptions,
    "relax": RelaxOptions,
    "neb": NEBOptions,
    "singlepoint": SinglepointOptions,
    "vibrations": VibrationRunOptions,
    "phonons": PhononRunOptions,
    "eos": EOSRunOptions,
    "elastic": ElasticRunOptions,
    "descriptors": DescriptorOptions,
    "screen": ScreenOptions,
    "check": CheckOptions,
    "analyse": AnalysisOptions,
    "benchmark": BenchmarkOptions,
}


def test_texts_stand_for_numbers_units_and_choices() -> None:
    found = RelaxOptions(
        steps="1e3", fmax="2e-2", optimizer="fire", relax_cell=True, pressure="1 bar"
    )
    assert (found.steps, found.fmax, found.optimizer) == (1000, 0.02, "FIRE")
    assert found.pressure == pytest.approx(1e5 / 1e9)  # 1 bar is 100 kPa
    assert MDOptions(pressure="2.5").pressure == MDOptions(pressure="2.5 gpa").pressure == 2.5
    assert MDOptions(pressure="1atm").pressure == pytest.approx(101325 / 1e9)
    assert MDOptions(steps=np.int64(3), timestep=np.float32(0.5)).timestep == 0.5
    assert MDOptions(steps=1e6).steps == 1_000_000
    assert PhononOptions(supercell=["2", 2, "3"]).supercell == (2, 2, 3)
    assert PhononOptions(supercell=2 * np.eye(3, dtype=int)).supercell == (
        2,
        0,
        0,
        0,
        2,
        0,
        0,
        0,
        2,
    )
    assert GasOptions(pressure="1 atm").pressure == pytest.approx(1.01325)
    assert GasOptions(pressure="0.1 GPa").pressure == pytest.approx(1000)
    assert RelaxOptions(relax_cell=True, cell_mask=["1", "0", 0, 0, 0, 1]).cell_mask[1] == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"timestpe": 1.0}, "there is no option timestpe: did you mean timestep"),
        ({"timestep": "fast"}, "timestep 'fast' fs: must be a number"),
        ({"timestep": "1 bar"}, "timestep '1 bar' fs: must be a number"),
        ({"pressure": "1 kg"}, "pressure '1 kg' GPa: must be a number"),
        ({"temperature": float("inf")}, "temperature inf K: must be a finite number"),
        ({"steps": 2.5}, "steps 2.5: must be a whole number"),
        ({"steps": True}, "steps True: must be a whole number"),
        ({"remove_drift": "no"}, "remove_drift 'no': must be true or false"),
        ({"ensemble": "ntp"}, "ensemble 'ntp': choose one of nve, .*did you mean npt"),
        ({"ensemble": "npt", "remove_drift": False}, "constant pressure goes without total"),
    ],
)
def test_what_cannot_be_meant_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MDOptions(**values)


def test_changed_options_are_checked_anew() -> None:
    options = MDOptions(ensemble="nvt-bussi", temperature_end=10.0)
    assert options.changed({"steps": 5}).temperature_end == 10.0
    with pytest.raises(InputError, match="temperature_end goes with"):
        options.changed({"ensemble": "nve"})
    with pytest.raises(InputError, match="no option step: did you mean steps"):
        options.changed({"step": 5})


@pytest.mark.parametrize(
    ("function", "cls"),
    [
        (run_md, MDOptions),
        (run_md_replicas, MDOptions),
        (relax, RelaxOptions),
        (relax_batched, RelaxOptions),
        (run_neb, NEBOptions),
        (vibrations, VibrationOptions),
        (run_vibrations, VibrationRunOptions),
        (thermochemistry, GasOptions),
        (phonons, PhononOptions),
        (run_phonons, PhononRunOptions),
        (eos, EOSOptions),
        (run_eos, EOSRunOptions),
        (elastic, ElasticOptions),
        (run_elastic, ElasticRunOptions),
        (run_descriptors, DescriptorOptions),
        (run_screen, ScreenOptions),
        (run_analysis, AnalysisOptions),
        (run_singlepoint, SinglepointOptions),
        (benchmark, BenchmarkOptions),
        (run_benchmark, BenchmarkOptions),
    ],
)
def test_functions_show_the_options_with_their_defaults(
    function: Callable[..., Any], cls: type[Options]
) -> None:
    shown = inspect.signature(function).parameters
    assert {n: shown[n].default for n in cls.model_fields} == cls().model_dump()


ALL_RUNS = [run_md, run_md_replicas, run_neb, run_vibrations, run_phonons, run_eos, run_elastic]
ALL_RUNS += [run_screen, run_benchmark, run_descriptors, run_analysis, run_singlepoint]


@pytest.mark.parametrize("function", ALL_RUNS)
def test_all_runs_have_the_same_options_of_their_folders(function: Callable[..., Any]) -> None:
    goes_on = function not in (run_descriptors, run_analysis, run_singlepoint)
    around = RestartOptions if goes_on else FolderOptions
    shown = inspect.signature(function).parameters
    assert {n: shown[n].default for n in around.model_fields} == around().model_dump()
    assert ("restart" in shown) == goes_on
    assert f"options.{around.__name__}`" in str(inspect.getdoc(function))
    assert "Args:\n    " in str(inspect.getdoc(function))
    assert function.__module__.startswith("jmp_md.")
    assert getattr(import_module(function.__module__), function.__name__) is function


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "check"])
def test_the_command_line_has_the_options_of_folders_in_their_words(name: str) -> None:
    goes_on = name not in ("descriptors", "analyse", "singlepoint")
    around = RestartOptions if goes_on else FolderOptions
    parser = parser_for([name]).asked
    assert parser is not None
    known = {action.dest: action for action in parser._actions}
    for option, field in around.model_fields.items():
        if option == "inputs":
            continue  # which the command knows by itself
        assert str(known[option].help).startswith(str(field.description))
        assert known[option].default == field.default
    assert ("restart" in known) == goes_on


def test_a_run_either_goes_on_or_is_removed() -> None:
    with pytest.raises(InputError, match="restart goes on with a run, and overwrite removes it"):
        RestartOptions(restart=True, overwrite=True)
    with pytest.raises(InputError, match="restart 'yes': must be true or false"):
        RestartOptions(restart="yes")


@pytest.mark.parametrize("name", CLASSES)
def test_help_has_each_option_with_unit_choices_and_default(name: str) -> None:
    parser = parser_for([name]).asked
    assert parser is not None
    text = "".join(parser.format_help().split())  # which breaks lines at hyphens
    for option, field in CLASSES[name].model_fields.items():
        assert f"--{option.replace('_', '-')}" in text
        assert field.description
        assert unit_of(field) in text
        assert all(choice in text for choice in choices_of(field))
        if field.default is not None and not isinstance(field.default, bool):
            assert f"(default:{field.default}" in text


@pytest.mark.parametrize("name", CLASSES)
def test_a_printed_config_gives_the_same_options_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JMP_MD_MODEL", "mine")
    own = {"md": ["--steps", "2e3", "--no-remove-drift"], "relax": ["--fmax", "1e-3"]}.get(name, [])
    assert main([name, "a.xyz", *own, "--print-config"]) == 0
    text = capsys.readouterr().out
    Path("run.yaml").write_text(text)
    assert main([name, "a.xyz", "--config", "run.yaml", "--print-config"]) == 0
    assert capsys.readouterr().out == text
    values = yaml.safe_load(text)
    assert values.get("model", "mine") == "mine"  # analyse has none
    known = {n: v for n, v in CLASSES[name]().model_dump().items() if v is not None}
    changed = {n for n, v in known.items() if values[n] != v}
    assert changed == {"md": {"steps", "remove_drift"}, "relax": {"fmax"}}.get(name, set())


def test_what_is_no_option_is_not_in_a_printed_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["benchmark", "mine", "--parts", "speed"], ["analyse", "a.traj"]):
        assert main([*words, "--print-config", "--quiet"]) == 0
        text = capsys.readouterr().out
        assert not {"model", "file", "quiet", "json"} & yaml.safe_load(text).keys()
        Path("run.yaml").write_text(text)
        assert main([*words[:2], "--config", "run.yaml", "--print-config"]) == 0
        assert capsys.readouterr().out == text


def test_training_goes_on_by_the_word_of_all_verbs() -> None:
    for words in (["train", "x"], ["finetune", "base", "a.xyz"]):
        for option in ("--restart", "--resume"):
            assert parser_for(words).parse_args([*words, option]).resume is True
        assert parser_for(words).parse_args(words).resume is False


@pytest.mark.parametrize("name", CLASSES)
def test_the_schema_has_types_limits_and_units(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "a.xyz", "--print-schema"]) == 0
    schema = json.loads(capsys.readouterr().out)["properties"]
    assert schema.keys() == CLASSES[name].model_fields.keys()
    if name == "md":
        timestep = {"type": "number", "default": 0.5, "unit": "fs", "exclusiveMinimum": 0}
        assert timestep.items() <= schema["timestep"].items()
        assert "nve" in schema["ensemble"]["enum"]


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"    {name}" in shown for name in COMMANDS)
    for name in ("md", "neb"):
        with pytest.raises(SystemExit, match="1"):
            main([name])
        assert "options of the calculation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["md", "a.xyz", "--tempreature", "3"], "did you mean --temperature"),
        (["relx", "a.xyz"], "did you mean relax"),
        (["md", "a.xyz", "--dtype", "float46"], "did you mean float64"),
    ],
)
def test_what_is_unknown_brings_the_nearest_that_is(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        main(words)
    assert hint in capsys.readouterr().err


def test_steps_and_time_are_one_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "h.xyz"
    file.write_text("1\n\nH 0 0 0\n")
    assert main(["md", str(file), "--time", "1", "--steps", "1000"]) == 1
    assert "--steps 1000 and --time 1 ps: give one of the two" in capsys.readouterr().err


def test_progress_is_sparse_in_a_file_and_one_line_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(np.arange(0.0, 1e6, 0.05))
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: float(next(clock)))
    progress = Progress(1000, timestep=0.5)
    for step in range(1001):
        progress.show(step, "x")
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[1].split("/")[0]) for line in lines] == list(range(0, 1001, 100))
    # 20 steps of 0.5 fs a second are 20 * 0.5 * 86400 fs = 0.864 ns a day; 900 steps are left.
    assert lines[1].endswith("20 steps/s  0.864 ns/day  0:00:45 left")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    progress = Progress(1000)
    for step in range(1001):
        progress.show(step, "x")
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    assert shown.count("\r") > 100


@pytest.fixture
def _interrupts() -> Iterator[None]:
    """SIGINT as in a terminal: jobs in the background of a script ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupts")
def test_a_second_signal_acts_as_before_the_run() -> None:
    request = StopRequest()
    with request.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.came()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert request.signum == signal.SIGTERM
    with (
        StopRequest().listening() as request,
        pytest.raises(RuntimeError, match="signal 15"),
        request.raising(lambda signum: RuntimeError(f"signal {signum}")),
    ):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_every_command_with_options_of_a_class_is_among_them() -> None:
    modules = {name: import_module(f"jmp_md.cli.{name}") for name in COMMANDS}
    classes = {name: m.OPTIONS for name, m in modules.items() if hasattr(m, "OPTIONS")}
    assert classes == CLASSES | {"evaluate": EvaluateOptions}  # which needs --data besides


def test_negative_numbers_may_have_an_exponent(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["md", "x.xyz", "--print-config", "--pressure"]
    for given, meant in (("-1e-3", -0.001), ("-2.5E2", -250), ("-.5e+1", -5), ("-5.", -5)):
        assert main([*words, given]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["pressure"] == meant


def test_of_a_list_the_value_out_of_place_is_named() -> None:
    with pytest.raises(InputError, match=r"supercell 1\.5: must be a whole number"):
        PhononOptions(supercell=[2, 1.5, 2])
