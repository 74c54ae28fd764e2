"""One command from a user's file to a model with a name; what is wrong is said before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from factories import write_model
from training_cases import TINY, well

import jmp_md
from jmp_md.calculators.ase import JMPCalculator
from jmp_md.checkpoints.native import read_header
from jmp_md.cli.main import main
from jmp_md.errors import InputError, JMPError
from jmp_md.graph.policy import GraphPolicy
from jmp_md.training.data.frame import BOHR, HARTREE, Frame, make_frame
from jmp_md.training.recipe import Recipe, from_yaml
from jmp_md.training.tuning.contents import contents_of
from jmp_md.training.tuning.options import Options
from jmp_md.training.tuning.plan import references
from jmp_md.training.tuning.units import along_forces, check_lengths

GRAPH = GraphPolicy.smooth(main=4.0, atom_edge=4.0, quadruplet=2.0, atom_atom=4.0)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tiny model of H, C and O, and a registry of its own."""
    monkeypatch.setenv("JMP_MD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    head = {"name": "first", "elements": (1, 6, 8), "references": {1: -10.0, 6: -50.0, 8: -90.0}}
    return str(write_model(tmp_path, "tiny-base", graph=GRAPH, head=head, **TINY))


def write(
    path: Path,
    frames: list[Frame],
    *,
    keys: tuple[str, str] = ("energy", "forces"),
    change: Callable[[Atoms, float, np.ndarray], tuple[float, np.ndarray]] | None = None,
    extra: dict[str, Any] | None = None,
) -> str:
    """Frames as extended xyz, with the labels named and changed as asked."""
    images = []
    for frame in frames:
        atoms = Atoms(frame.numbers, frame.positions)
        assert frame.energy is not None
        energy, forces = frame.energy, frame.forces
        if change is not None:
            assert forces is not None
            energy, forces = change(atoms, energy, forces)
        if keys == ("energy", "forces"):
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        else:
            atoms.info[keys[0]] = energy
            atoms.arrays[keys[1]] = forces
        atoms.info.update(extra or {})
        images.append(atoms)
    ase.io.write(path, images, format="extxyz")
    return str(path)


def recipe_of(base: str, *files: str, **options: Any) -> Recipe:
    """The recipe that would be trained."""
    said: list[str] = []
    jmp_md.finetune(base, list(files), print_recipe=True, say=said.append, **options)
    recipe = from_yaml("\n".join(said), "printed")
    assert isinstance(recipe, Recipe)
    return recipe


def test_one_command_leads_from_a_file_to_a_calculator_by_name(
    base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "mine.xyz", well(30), keys=("REF_energy", "REF_forces"))
    options = ["--epochs", "12", "--lr", "1e-2", "--test", "0.2", "--device", "cpu"]
    assert main(["finetune", base, data, "--name", "mine", *options]) == 0
    said = capsys.readouterr().out
    assert "one molecule, H2O, 3 atoms" in said
    assert "REF_energy, REF_forces" in said
    assert "jmp-md relax molecule.xyz --model mine" in said
    log = (tmp_path / "runs/mine/jmp-md.log").read_text()
    assert f"$ jmp-md finetune {base}" in log.splitlines()[0]
    assert all(line in log for line in said.splitlines())
    header = read_header(tmp_path / "runs/mine/model.safetensors")
    assert header.metrics["force_mae_meV_per_A"] < 900 * np.mean(
        [np.abs(frame.forces).mean() for frame in well(30)]
    )  # of the zero forces' error
    atoms = molecule("H2O")
    atoms.calc = JMPCalculator("mine")
    assert atoms.get_potential_energy() == pytest.approx(-1000.0, abs=1.0)
    with pytest.raises(InputError, match=r"'mine' is there already .* --overwrite"):
        jmp_md.finetune(base, data, name="mine")
    recipe = (tmp_path / "runs/mine/recipe.yaml").read_text()
    assert str(tmp_path) not in recipe.replace(base, "")  # it can be moved with its data


def test_printed_recipe_is_the_one_that_is_trained_and_leaves_nothing(
    base: str, tmp_path: Path
) -> None:
    data = write(tmp_path / "mine.xyz", well(30))
    recipe = recipe_of(base, data, epochs=7, lr=3e-3, level="PBE", seed=5)
    assert (recipe.optimiser.epochs, recipe.optimiser.learning_rate) == (7, 3e-3)
    assert (recipe.seed, recipe.data.split_seed, recipe.model.level_of_theory) == (5, 5, "PBE")
    assert recipe.data.single_molecule
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "keys", [("REF_energy", "REF_forces"), ("dft_energy", "dft_forces"), ("Energy", "force")]
)
def test_labels_are_found_under_usual_names(
    base: str, tmp_path: Path, keys: tuple[str, str]
) -> None:
    data = write(tmp_path / "mine.xyz", well(12), keys=keys)
    options = recipe_of(base, data).data.options
    assert options == {"energy_key": keys[0], "forces_key": keys[1]}


def test_isolated_atoms_give_energies_of_elements_and_are_not_trained_on(
    base: str, tmp_path: Path
) -> None:
    atoms = [
        make_frame("atom", z, numbers=[z], positions=[[0, 0, 0]], energy=energy, forces=[[0, 0, 0]])
        for z, energy in ((1, -13.5), (8, -900.0))
    ]
    data = write(tmp_path / "mine.xyz", [*well(12), *atoms])
    recipe = recipe_of(base, data)
    assert recipe.model.references == {"H": -13.5, "O": -900.0}
    assert not recipe.data.isolated_atoms
    near_base = recipe_of(base, data, e0="base")
    assert near_base.model.references == {"H": -10.0, "O": -90.0}


def test_elements_without_an_isolated_atom_take_what_the_others_leave() -> None:
    contents = contents_of(
        [
            *well(12),
            make_frame("a", 0, numbers=[1], positions=[[0, 0, 0]], energy=-13.0),
        ]
    )
    found = references("base", None, contents, "fit")  # type: ignore[arg-type]
    mean = float(np.mean([frame.energy for frame in well(12)]))  # type: ignore[misc]
    assert found == pytest.approx({"H": -13.0, "O": mean + 26.0})


WRONG: list[tuple[str, Callable[[Path], str], dict[str, Any], str]] = [
    ("no such file", lambda p: str(p / "nothing.xyz"), {}, "no such file"),
    ("few frames", lambda p: write(p / "a.xyz", well(3)), {}, "3 frames"),
    ("all equal", lambda p: write(p / "a.xyz", well(1) * 6), {}, "same geometry"),
    ("a path as a name", lambda p: write(p / "a.xyz", well(9)), {"name": "a/b"}, "model name"),
    ("a shipped name", lambda p: write(p / "a.xyz", well(9)), {"name": "jmp-xs"}, "shipped"),
    (
        "other elements",
        lambda p: write(p / "a.xyz", well(9, "NH3")),
        {},
        "not trained on N: take jmp-xs",
    ),
    ("a share above 1", lambda p: write(p / "a.xyz", well(9)), {"valid": "1.5"}, "between 0 and 1"),
    ("all is test", lambda p: write(p / "a.xyz", well(9)), {"test": "0.95"}, "leave no frames"),
    ("no stress", lambda p: write(p / "a.xyz", well(9)), {"stress_key": "s"}, "needs a cell"),
    ("unknown key", lambda p: write(p / "a.xyz", well(9)), {"energy_key": "E"}, "field E: missing"),
    ("unknown head", lambda p: write(p / "a.xyz", well(9)), {"head": "second"}, "no head 'second'"),
    ("unknown option", lambda p: write(p / "a.xyz", well(9)), {"epoch": 3}, "option 'epoch'"),
    ("gradients", lambda p: write(p / "a.xyz", well(30), change=lambda a, e, f: (e, -f)), {},
     "forces look like gradients.*--force-unit=-eV/Å"),
    ("energies in Ha", lambda p: write(p / "a.xyz", well(30),
                                       change=lambda a, e, f: (e / HARTREE, f)), {},
     "energies look like Ha.*--energy-unit Ha"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "options", "message"), [w[1:] for w in WRONG], ids=[
    w[0] for w in WRONG])  # fmt: skip
def test_wrong_input_is_told_before_any_work(
    base: str,
    tmp_path: Path,
    make: Callable[[Path], str],
    options: dict[str, Any],
    message: str,
) -> None:
    data = make(tmp_path)
    with pytest.raises(JMPError, match=message):
        jmp_md.finetune(base, data, say=lambda line: None, **{"name": "mine", **options})
    assert not (tmp_path / "runs").exists()


def test_frames_of_validation_among_those_of_training_are_refused(
    base: str, tmp_path: Path
) -> None:
    data = write(tmp_path / "train.xyz", well(12))
    other = write(tmp_path / "valid.xyz", well(12)[3:5] + well(4, seed=1))
    with pytest.raises(InputError, match=r"2 of 6 validation frames in valid.xyz are among those"):
        recipe_of(base, data, valid=other)


def test_test_frames_among_those_of_validation_are_refused(base: str, tmp_path: Path) -> None:
    data = write(tmp_path / "train.xyz", well(12))
    one = write(tmp_path / "valid.xyz", well(4, seed=1))
    other = write(tmp_path / "test.xyz", well(4, seed=1)[:2] + well(3, seed=2))
    with pytest.raises(InputError, match=r"2 of 5 test frames in test.xyz .* that validate"):
        recipe_of(base, data, valid=one, test=other)


def test_two_sets_of_labels_that_differ_are_asked_about(base: str, tmp_path: Path) -> None:
    frames = well(12)
    images = ase.io.read(write(tmp_path / "a.xyz", frames), ":")
    for atoms in images:
        atoms.info["REF_energy"] = atoms.get_potential_energy() + 1.0
        atoms.arrays["REF_forces"] = atoms.get_forces() * 1.1
    ase.io.write(tmp_path / "b.xyz", images, format="extxyz")
    with pytest.raises(InputError, match="two sets of labels that differ"):
        recipe_of(base, str(tmp_path / "b.xyz"))
    keys = {"energy_key": "energy", "forces_key": "forces"}
    assert recipe_of(base, str(tmp_path / "b.xyz"), **keys).data.options == keys


def test_positions_in_bohr_are_seen_by_distances() -> None:
    frames = [
        make_frame("a", k, numbers=f.numbers, positions=f.positions / BOHR, forces=f.forces)
        for k, f in enumerate(well(5))
    ]
    with pytest.raises(InputError, match=r"positions look like bohr.*--length-unit bohr"):
        check_lengths(frames, None)
    check_lengths(frames, "Å")  # whoever says so is believed
    check_lengths(well(5), None)


def test_energies_along_forces_of_a_conservative_field_have_slope_one() -> None:
    """Springs: the trapezoid errs in third order of the steps; rotations between frames count."""
    rng = np.random.default_rng(3)
    frames = []
    for k, frame in enumerate(well(40)):
        q, r = np.linalg.qr(rng.normal(size=(3, 3)))
        turn = q * np.sign(np.diag(r))
        turn[:, 0] *= np.linalg.det(turn)
        assert frame.forces is not None
        frames.append(
            make_frame(
                "turned",
                k,
                numbers=frame.numbers,
                positions=frame.positions @ turn + rng.normal(size=3),
                energy=frame.energy,
                forces=frame.forces @ turn,
            )
        )
    found = along_forces(frames)
    assert found.sure
    assert found.slope == pytest.approx(1.0, abs=0.1)


def test_help_alone_tells_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["finetune", "--help"])
    said = capsys.readouterr().out
    for name in Options.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in said


def test_recipes_are_listed_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--list"]) == 0
    assert "rmd17-ethanol" in capsys.readouterr().out


def test_replay_freeze_and_low_rank_are_handed_to_the_recipe(base: str, tmp_path: Path) -> None:
    data = write(tmp_path / "mine.xyz", well(12))
    recipe = recipe_of(base, data, replay="auto", freeze=1, lora=4, keep_head=True)
    assert (recipe.model.freeze, recipe.model.lora) == (1, 4)
    assert recipe.replay is not None
    assert (recipe.replay.head, recipe.replay.data) == ("first", None)
    assert recipe.model.keep_head == "first"
    assert recipe.model.head != "first"
    with pytest.raises(InputError, match=r"--freeze 9: .* has 1 blocks"):
        recipe_of(base, data, freeze=9)


def test_runs_go_on_are_replaced_only_when_asked_and_weights_reach_the_loss(
    base: str, tmp_path: Path
) -> None:
    data = write(tmp_path / "mine.xyz", well(12), extra={"config_weight": 2.0})
    said: list[str] = []
    options: dict[str, Any] = {"say": said.append, "name": "mine", "device": "cpu"}
    jmp_md.finetune(base, data, epochs=1, weights="config_weight", **options)
    said.clear()
    model = jmp_md.finetune(base, data, epochs=2, resume=True, **options)
    assert said[0].startswith("goes on as runs/mine/recipe.yaml says; of the options only --epochs")
    assert model is not None
    assert "weights: config_weight" in read_header(model).training["recipe"]
    assert len((tmp_path / "runs/mine/log.csv").read_text().splitlines()) >= 3
    other = {**options, "name": "other", "output": "runs/mine"}
    with pytest.raises(InputError, match=r"holds a run: .*--restart.*--overwrite"):
        jmp_md.finetune(base, data, **other)
    with pytest.raises(InputError, match="the run in runs/mine is of 'mine', not of 'other'"):
        jmp_md.finetune(base, data, resume=True, **other)
    jmp_md.finetune(base, data, epochs=1, overwrite=True, **options)
    assert "weights: null" in read_header(model).training["recipe"]
    assert (
        "weights: null" in read_header(tmp_path / "home/models/mine.safetensors").training["recipe"]
    )


def test_a_registry_that_cannot_be_written_is_told_before_any_work(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "mine.xyz", well(12))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JMP_MD_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match="is a file"):
        jmp_md.finetune(base, data, name="mine", say=lambda line: None)
    assert not (tmp_path / "runs").exists()


def test_negative_weights_are_refused(base: str, tmp_path: Path) -> None:
    data = write(tmp_path / "mine.xyz", well(12), extra={"config_weight": -1.0})
    with pytest.raises(InputError, match="--weights config_weight: they are -1"):
        recipe_of(base, data, weights="config_weight")


def test_labels_of_the_base_itself_leave_it_unchanged_and_this_is_said(
    base: str, tmp_path: Path
) -> None:
    calculator, images = JMPCalculator(base, dtype="float64", device="cpu"), []
    for frame in well(30):
        atoms = Atoms(frame.numbers, frame.positions)
        energy, forces = calculator.get_potential_energy(atoms), calculator.get_forces(atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        images.append(atoms)
    ase.io.write(tmp_path / "own.xyz", images, format="extxyz")
    said: list[str] = []
    options = {"name": "mine", "epochs": 1, "lr": 1e-2, "device": "cpu", "say": said.append}
    jmp_md.finetune(base, "own.xyz", **options)
    assert any("no epoch was better than the base" in line for line in said)
