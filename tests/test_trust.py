"""Files that run code when they are loaded are loaded only when trusted; names are no files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ase.build import molecule
from ase.io import write
from factories import write_model

from jmp_md import CheckpointError, InputError, JMPCalculator, ModelNotFoundError, load_model
from jmp_md.check import check
from jmp_md.cli.main import COMMANDS, main, parser_for
from jmp_md.evaluation import evaluate
from jmp_md.export import export
from jmp_md.models import registry

CANARY = "canary"
PROGRAM = "program.pt"


class Hostile(torch.nn.Module):
    """Writes a file as soon as TorchScript loads it."""

    def __init__(self) -> None:
        super().__init__()
        self.x = torch.ones(2)

    @torch.jit.export
    def __getstate__(self):
        return self.x, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        torch.save(state[0], "canary")
        self.x, self.training = state

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return y


@pytest.fixture
def hostile(here: Path) -> Path:
    """A file in the working folder that leaves a canary when it is loaded."""
    torch.jit.save(torch.jit.script(Hostile()), here / PROGRAM)
    return here / PROGRAM


def openmm_force(model: Path) -> object:
    pytest.importorskip("openmm")
    from jmp_md.calculators.openmm import jmp_force

    return jmp_force(model, [8, 1, 1], periodic=False)


def openmm_ml(model: Path) -> object:
    pytest.importorskip("openmm")
    ml = pytest.importorskip("openmmml")
    from jmp_md.calculators.openmm import topology_from_ase

    water = molecule("H2O")
    return ml.MLPotential("jmp", model=str(model)).createSystem(topology_from_ase(water))


ENTRIES: dict[str, Callable[[Path], object]] = {
    "calculator": JMPCalculator,
    "load": load_model,
    "evaluate": lambda model: evaluate([molecule("H2O")], model),
    "check": lambda model: list(check(molecule("H2O"), model)),
    "export": lambda model: export(model, "again.pt"),
    "openmm": openmm_force,
    "openmm-ml": openmm_ml,
}


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("suffix", [".pt", ".pt2", ".anything"])
def test_a_program_is_loaded_only_when_trusted(name: str, suffix: str, hostile: Path) -> None:
    path = shutil.move(hostile, hostile.with_suffix(suffix))
    with pytest.raises(InputError, match=r"is a program.*pass trust=True or --trust"):
        ENTRIES[name](Path(path))
    assert not Path(CANARY).exists()


VERBS = {
    "relax": ["relax", "h2o.xyz"],
    "singlepoint": ["singlepoint", "h2o.xyz"],
    "md": ["md", "h2o.xyz", "--steps", "1"],
    "vibrations": ["vibrations", "h2o.xyz"],
    "screen": ["screen", "h2o.xyz"],
    "neb": ["neb", "h2o.xyz", "h2o.xyz"],
    "descriptors": ["descriptors", "h2o.xyz"],
    "check": ["check", "h2o.xyz"],
    "eos": ["eos", "h2o.xyz"],
    "elastic": ["elastic", "h2o.xyz"],
    "phonons": ["phonons", "h2o.xyz"],
    "evaluate": ["evaluate", "--data", "h2o.xyz", "--format", "ase"],
    "export": ["export", "--output", "again.pt"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_runs_a_program_unless_told(
    verb: str, hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("h2o.xyz", molecule("H2O", cell=[9, 9, 9], pbc=True))
    status = main([*VERBS[verb], "--model", PROGRAM])
    error = capsys.readouterr().err
    assert not Path(CANARY).exists()
    assert status in (1, 2)
    if "--trust" not in error:  # the verb says so of each structure, in its results
        assert any("--trust" in p.read_text(errors="ignore") for p in Path().rglob("*.extxyz"))


def test_every_verb_that_takes_a_model_is_among_them() -> None:
    parsers = {name: parser_for([name]).asked for name in COMMANDS}
    helps = {name: parser.format_help() for name, parser in parsers.items() if parser}
    takes = {name for name, text in helps.items() if "--model MODEL" in text}
    assert takes == set(VERBS)


def test_the_canary_would_notice(hostile: Path) -> None:
    with pytest.raises(CheckpointError, match="not of jmp-md"):
        load_model(hostile, trust=True)
    assert Path(CANARY).exists()


def test_what_is_no_model_of_ours_does_not_become_one_by_its_name(hostile: Path) -> None:
    for command in (["models", "add", "mine", PROGRAM], ["convert", PROGRAM, "out.safetensors"]):
        assert main(command) == 1
    with pytest.raises(CheckpointError):
        registry.add_model("mine", hostile)
    assert not Path(CANARY).exists()


@pytest.mark.parametrize("name", ["jmp-xs-rmd17-ethanol", "jmp-s", "unheard-of"])
def test_a_file_named_like_a_model_does_not_take_its_place(
    name: str, hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JMP_MD_OFFLINE", "1")
    shutil.move(hostile, name)
    if name == "jmp-xs-rmd17-ethanol":
        assert load_model(name, trust=True).header.name == name
    else:
        with pytest.raises(ModelNotFoundError, match=name):
            load_model(name, trust=True)
    assert not Path(CANARY).exists()
    with pytest.raises(InputError, match="is a program"):
        load_model(f"./{name}")


def test_a_screen_takes_the_model_of_that_name_not_the_file(here: Path) -> None:
    write_model(here, "m").rename("jmp-xs-rmd17-ethanol")
    write("ethanol.xyz", molecule("CH3CH2OH"))
    command = ["screen", "ethanol.xyz", "--model", "jmp-xs-rmd17-ethanol", "--output", "out"]
    assert main([*command, "--task", "singlepoint"]) == 0
    energy = JMPCalculator("jmp-xs-rmd17-ethanol", dtype="float64").get_potential_energy(
        molecule("CH3CH2OH")
    )
    assert f"energy={energy:.6f}"[:16] in Path("out/results.extxyz").read_text()


@pytest.mark.parametrize("name", ["~nobody-at-all/m.pt", "m\0.pt", "./m\0", "m\0"])
def test_what_no_file_can_be_called_is_one_error(name: str, here: Path) -> None:
    with pytest.raises((InputError, ModelNotFoundError)):
        load_model(name)
    with pytest.raises((InputError, ModelNotFoundError)):
        registry.resolve(name)
    assert main(["relax", "h2o.xyz", "--model", name]) == 1


def test_the_cache_is_not_in_the_home_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JMP_MD_HOME", "~nobody-at-all/cache")
    with pytest.raises(InputError, match="home folder of nobody"):
        load_model("unheard-of")
