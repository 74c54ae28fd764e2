"""Structures outside of what a model was trained on are told from those that only vibrate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from factories import random_potential, write_model

from jmp_md import check as checks
from jmp_md.calculators.ase import JMPCalculator
from jmp_md.check.training_data import training_data
from jmp_md.checkpoints.native import read_header, read_native
from jmp_md.cli.main import main
from jmp_md.connectivity import Contacts, graph_hash
from jmp_md.domain import findings, foreign, forms, seen
from jmp_md.errors import CheckpointError, DomainWarning, InputError, ModelNotFoundError
from jmp_md.models.cards import model_card
from jmp_md.models.choice import choose
from jmp_md.models.registry import resolve
from jmp_md.runs.md import run_md
from jmp_md.simulate.watch import DomainWatch
from jmp_md.training.data.hashing import sha256_of
from jmp_md.training.seen import record

EXAMPLES = Path(__file__).parents[1] / "examples"
RMD17 = Path(__file__).parents[2] / "shared" / "data" / "rmd17"
ENOL, DIKETONE = "malonaldehyde", "malonaldehyde-diketone"
SHIPPED = {
    "ethanol": "jmp-xs-rmd17-ethanol",
    "benzene": "jmp-xs-rmd17-benzene",
    "aspirin": "jmp-xs-rmd17-aspirin",
    "paracetamol": "jmp-xs-rmd17-paracetamol",
    "toluene": "jmp-xs-rmd17-toluene",
    "uracil": "jmp-xs-rmd17-uracil",
    DIKETONE: "jmp-xs-rmd17-malonaldehyde",
}


def example(name: str) -> Atoms:
    return read(EXAMPLES / f"{name}.xyz")


def name_of(atoms: Atoms) -> str:
    return graph_hash(atoms.numbers, Contacts(atoms).bonds())


def kinds(atoms: Atoms, model: str, head: str | None = None) -> list[str]:
    header = read_header(resolve(model))
    return [finding.kind for finding in findings(atoms, header, header.head(head))]


def wrapped(atoms: Atoms, cell: list[list[float]]) -> Atoms:
    """The molecule across the corner of a cell."""
    copy = atoms.copy()
    copy.set_cell(cell)
    copy.pbc = True
    copy.positions -= copy.positions.mean(axis=0)
    copy.wrap()
    return copy


def hydrogen(distance: float) -> Atoms:
    return Atoms("H2", [[0, 0, 0], [0, 0, distance]])


@pytest.mark.parametrize("name", [ENOL, DIKETONE, "ethanol", "benzene", "aspirin"])
def test_the_order_and_place_of_atoms_do_not_change_a_molecule(name: str) -> None:
    atoms = example(name)
    rng = np.random.default_rng(1)
    shuffled = atoms[rng.permutation(len(atoms))]
    shuffled.euler_rotate(20, 50, 70)
    mirrored = atoms.copy()
    mirrored.positions[:, 0] *= -1
    assert {name_of(atoms), name_of(shuffled), name_of(mirrored)} == {name_of(atoms)}


def test_isomers_are_told_apart() -> None:
    isomers = [example(ENOL), example(DIKETONE)]
    assert isomers[0].get_chemical_formula() == isomers[1].get_chemical_formula()
    assert name_of(isomers[0]) != name_of(isomers[1])
    assert name_of(molecule("CH3CH2OH")) != name_of(molecule("CH3OCH3"))
    assert name_of(molecule("isobutane")) != name_of(molecule("trans-butane"))


def test_rings_that_refinement_alone_does_not_tell_apart_differ() -> None:
    """Carbons of decalin and bicyclopentyl: a textbook pair of equal colours."""
    chain = [(i, i + 1) for i in range(9)]
    decalin = np.array(sorted([*chain, (0, 9), (0, 5)]))
    bicyclopentyl = np.array(sorted([*chain[:4], *chain[5:], (0, 4), (5, 9), (0, 5)]))
    carbons = np.full(10, 6)
    assert graph_hash(carbons, decalin) != graph_hash(carbons, bicyclopentyl)


@pytest.mark.parametrize(
    "cell",
    [
        [[12, 0, 0], [0, 12, 0], [0, 0, 12]],
        [[0, 12, 0], [12, 0, 0], [0, 0, 12]],  # left-handed
        [[12, 0, 0], [30, 13, 0], [5, -20, 12]],  # far from reduced
    ],
)
def test_a_molecule_across_the_border_of_a_cell_is_the_same(cell: list[list[float]]) -> None:
    for name in (ENOL, "ethanol"):
        across = wrapped(example(name), cell)
        assert name_of(across) == name_of(example(name))
        assert not Contacts(across).is_network
        assert len(set(Contacts(across).molecules())) == 1


def test_crystals_slabs_and_polymers_are_networks_and_gases_are_not() -> None:
    polymer = Atoms("CH2", [[0, 0, 0], [0, 0.9, 0.6], [0, -0.9, 0.6]], cell=[1.5, 9, 9], pbc=True)
    for atoms in (bulk("Si"), bulk("NaCl", "rocksalt", a=5.64), fcc111("Cu", (1, 1, 3), vacuum=8)):
        assert Contacts(atoms).is_network
    assert Contacts(polymer).is_network
    free = fcc111("Cu", (2, 2, 3), vacuum=8)
    free.pbc = False
    assert not Contacts(free).is_network
    assert not Contacts(wrapped(molecule("H2O"), np.diag([4.0, 4, 4]).tolist())).is_network


@pytest.mark.parametrize("name", SHIPPED)
def test_thermal_motion_is_no_other_molecule(name: str) -> None:
    """Independent displacements of 0.06 Å stretch bonds as classical motion at 600 K does:
    sqrt(kT / k) is 0.06 Å for a force constant of 15 eV/Å², that of a weak single bond.
    """
    atoms = example(name)
    header = read_header(resolve(SHIPPED[name]))
    rng = np.random.default_rng(7)
    for _ in range(150):
        shaken = atoms.copy()
        shaken.positions += rng.normal(scale=0.06 / np.sqrt(2), size=(len(atoms), 3))
        assert foreign(shaken, header) == ""


def test_conformers_are_the_same_molecule() -> None:
    header = read_header(resolve("jmp-xs-rmd17-ethanol"))
    atoms = molecule("CH3CH2OH")
    oxygen = next(a.index for a in atoms if a.symbol == "O")
    carbons = [a.index for a in atoms if a.symbol == "C"]
    near = min(carbons, key=lambda i: atoms.get_distance(i, oxygen))
    far = next(i for i in carbons if i != near)
    proton = min((a.index for a in atoms if a.symbol == "H"),
                 key=lambda i: atoms.get_distance(i, oxygen))  # fmt: skip
    for angle in range(0, 360, 15):
        turned = atoms.copy()
        turned.set_dihedral(far, near, oxygen, proton, angle, indices=[proton])
        assert foreign(turned, header) == ""


@pytest.mark.skipif(not RMD17.is_dir(), reason="needs revised MD17")
@pytest.mark.parametrize("name", SHIPPED)
def test_no_frame_of_dynamics_at_500_kelvin_is_found_outside(name: str) -> None:
    stem = name.partition("-")[0]
    data = np.load(RMD17 / f"rmd17_{stem}_test_01.npz")
    header = read_header(resolve(SHIPPED[name]))
    found = []
    for positions in data["coords"][::4]:
        atoms = Atoms(data["nuclear_charges"], positions)
        found += findings(atoms, header, header.head())
    assert found == []


@pytest.mark.parametrize(
    ("atoms", "model"),
    [
        (example(ENOL), "jmp-xs-organic"),
        (example(DIKETONE), "jmp-xs-rmd17-malonaldehyde"),
        (example("ethanol"), "jmp-xs-rmd17-ethanol"),
        (molecule("CH3CH2OH"), "jmp-xs-rmd17-ethanol"),
        (molecule("CH3OCH3"), "jmp-xs-organic"),
        (wrapped(example("benzene"), np.diag([30.0, 30, 30]).tolist()), "jmp-xs-rmd17-benzene"),
        (example("paracetamol"), "jmp-xs-rmd17-paracetamol"),
        (example("toluene"), "jmp-xs-rmd17-toluene"),
        (example("uracil"), "jmp-xs-rmd17-uracil"),
    ],
    ids=["enol", "diketone", "ethanol", "ethanol G2", "dimethyl ether", "wrapped benzene"]
    + ["paracetamol", "toluene", "uracil"],
)
def test_models_are_chosen_by_bonds(atoms: Atoms, model: str) -> None:
    assert choose(atoms) == model


def test_one_model_is_chosen_for_structures_that_go_together() -> None:
    assert choose(example("ethanol"), example("benzene")) == "jmp-xs-organic"
    assert choose(example(DIKETONE), example(ENOL)) == "jmp-xs-organic"


@pytest.mark.parametrize("element", ["Si", "C"])
def test_a_crystal_gets_no_model_of_molecules_but_advice(element: str) -> None:
    with pytest.raises(ModelNotFoundError) as error:
        choose(bulk(element))
    text = str(error.value)
    assert "for molecules, not for crystals" in text
    assert "--model jmp-xs --head oc20 (RPBE (VASP)) or mptrj (PBE(+U))" in text
    assert "ani1x" not in text


def test_each_way_to_lie_outside_is_found() -> None:
    organic = "jmp-xs-organic"
    assert kinds(hydrogen(0.4), organic) == ["closest H-H"]
    assert kinds(bulk("Si"), organic) == ["elements", "crystal"]
    assert kinds(bulk("C"), organic) == ["crystal"]
    assert kinds(example("benzene"), "jmp-xs-rmd17-ethanol")[0] == "composition"
    assert kinds(example(ENOL), "jmp-xs-rmd17-malonaldehyde")[0] == "bonds"
    assert kinds(molecule("CH3OCH3"), "jmp-xs-rmd17-ethanol")[0] == "bonds"
    tight = wrapped(example("ethanol"), np.diag([7.0, 7, 7]).tolist())
    assert kinds(tight, "jmp-xs-rmd17-ethanol") == ["images"]
    assert kinds(molecule("CH4"), "jmp-xs", "mptrj")[0] == "periodicity"
    collapsed = example("ethanol")
    collapsed.positions *= 0.7
    assert "closest C-H" in kinds(collapsed, "jmp-xs-rmd17-ethanol")
    pulled = example("ethanol")
    pulled.positions[-1] += 6.0
    assert {"bonds", "molecules"} <= set(kinds(pulled, "jmp-xs-rmd17-ethanol"))


def test_bonds_that_training_never_had_are_found_where_all_of_it_was_looked_at() -> None:
    apart = Atoms("NF", [[0, 0, 0], [0, 0, 5.0]])
    bonded = Atoms("NF", [[0, 0, 0], [0, 0, 1.4]])
    for total, expected in ((None, ["contact F-N"]), (100, [])):
        header = random_potential(header={"training": {"seen": seen([apart], None, total)}}).header
        found = [finding.kind for finding in findings(bonded, header, header.heads[0])]
        assert [kind for kind in found if kind.startswith("contact")] == expected


def test_forces_far_beyond_those_of_training_are_found() -> None:
    header = random_potential(header={"training": {"seen": seen([molecule("H2O")], 2.0)}}).header
    for force, expected in ((2.3, []), (2.5, ["forces"])):
        atoms = molecule("H2O")
        forces = np.zeros((3, 3))
        forces[1, 2] = force
        atoms.calc = SinglePointCalculator(atoms, forces=forces)
        assert [f.kind for f in findings(atoms, header, header.heads[0])] == expected


def test_what_cannot_be_a_structure_is_left_to_who_computes() -> None:
    for atoms in (
        Atoms(),
        Atoms("H", [[np.nan, 0, 0]]),
        Atoms("H", cell=[0, 0, 0], pbc=True),
    ):
        assert "closest H-H" not in kinds(atoms, "jmp-xs-organic")
        assert foreign(Atoms("C2H6O", np.full((9, 3), np.nan)),
                       read_header(resolve("jmp-xs-rmd17-ethanol"))) == ""  # fmt: skip


def test_a_form_counts_from_one_frame_in_a_hundred() -> None:
    enol, diketone = example(ENOL), example(DIKETONE)
    assert list(forms([diketone] * 200 + [enol])) == [name_of(diketone)]
    assert list(forms([diketone] * 60 + [enol] * 2)) == [name_of(diketone), name_of(enol)]


def test_the_record_of_training_is_right_by_hand() -> None:
    pair = [hydrogen(0.7), hydrogen(0.9), Atoms("H2O", [[2.0, 0, 0], [0, 0.9, 0], [0, 0, 0]])]
    record = seen(pair, 1.5, 12)
    assert record["closest_A"] == {"H-H": 0.7, "H-O": 0.9}
    assert record["coordination"] == {"H": [0, 1], "O": [1, 1]}
    assert (record["periodic"], record["molecules"]) == ("none", 2)
    assert (record["structures"], record["of"], record["max_force_eV_per_A"]) == (3, 12, 1.5)
    assert seen([*pair, bulk("C")], None)["periodic"] == "some"
    assert seen([bulk("C")], None)["closest_A"] == {"C-C": 1.5459}


def test_the_calculator_warns_of_another_molecule_once(
    recwarn: pytest.WarningsRecorder,
) -> None:
    calculator = JMPCalculator("jmp-xs-rmd17-ethanol", device="cpu")
    ether = molecule("CH3OCH3")
    ether.calc = calculator
    with pytest.warns(DomainWarning, match="another molecule, with 1 C-C bond fewer"):
        ether.get_potential_energy()
    ether.rattle(0.01)
    ether.get_potential_energy()
    assert not recwarn.list


def test_a_watch_tells_each_departure_once_and_counts_all(
    recwarn: pytest.WarningsRecorder,
) -> None:
    calculator = JMPCalculator("jmp-xs-rmd17-ethanol", device="cpu")
    inside, broken = example("ethanol"), example("ethanol")
    broken.positions[-1] += 6.0
    watch = DomainWatch(calculator)
    watch.begin([inside])
    for step in range(5):
        watch.see(broken if step > 1 else inside, f"step {step}")
    watch.end([broken])
    texts = [str(w.message) for w in recwarn.list if w.category is DomainWarning]
    assert len(texts) == 2
    assert texts[0].startswith("step 2 left what model 'jmp-xs-rmd17-ethanol' was trained on")
    assert texts[1].startswith("the last structure lies outside")
    assert watch.left
    record = watch.record()
    assert record is not None
    assert record["recorded"] is True
    assert record["start"] == {"structures": 1, "outside": 0, "findings": []}
    assert (record["run"]["structures"], record["run"]["outside"]) == (5, 3)
    bonds = next(f for f in record["run"]["findings"] if f["kind"] == "bonds")
    assert (bonds["structures"], bonds["first"]) == (3, "step 2")


def test_a_watch_over_another_calculator_says_nothing(recwarn: pytest.WarningsRecorder) -> None:
    watch = DomainWatch(EMT())
    watch.begin([hydrogen(0.1)])
    watch.see(hydrogen(0.1), "step 0")
    watch.end([hydrogen(0.1)])
    assert watch.record() is None
    assert not watch.left
    assert not recwarn.list


def test_a_cell_is_looked_at_only_where_it_can_be() -> None:
    with pytest.raises(InputError):
        JMPCalculator("jmp-xs-organic", device="cpu").calculate(Atoms("H", pbc=True))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_enol_is_refused_by_the_model_of_the_diketone_unless_forced(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["relax", str(EXAMPLES / f"{ENOL}.xyz"), "--model", "jmp-xs-rmd17-malonaldehyde"]
    words += ["--steps", "1", "--output", "out"]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "another molecule, with 1 C-H bond fewer, 1 H-O bond more" in error
    assert "--force-model" in error
    assert not Path("out").exists()
    assert main([*words, "--force-model"]) == 2  # one step does not converge
    told = capsys.readouterr().err.splitlines()
    assert any(line.startswith("warning: the structure lies outside") for line in told)
    assert any(line.startswith("warning: the last structure lies outside") for line in told)
    domain = json.loads(Path("out/summary.json").read_text())["domain"]
    [record] = domain.values()
    for phase, count in (("start", 1), ("run", 2), ("end", 1)):
        assert record[phase]["outside"] == record[phase]["structures"] == count
        assert record[phase]["findings"][0]["kind"] == "bonds"


def test_structures_that_relax_in_a_batch_are_watched_on_their_way(here: Path) -> None:
    enol = read(EXAMPLES / f"{ENOL}.xyz")
    write("two.xyz", [enol, enol])
    words = ["relax", "two.xyz", "--model", "jmp-xs-rmd17-malonaldehyde", "--force-model"]
    words += ["--batch-size", "2", "--steps", "25", "--fmax", "1e-5", "--output", "out"]
    main(words)
    [record] = json.loads(Path("out/summary.json").read_text())["domain"].values()
    assert record["run"]["structures"] == 2  # each once in 20 steps
    assert record["run"]["findings"][0]["first"] == "step 19 of structure 0"


def test_the_enol_relaxes_with_the_model_of_reactions(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["relax", str(EXAMPLES / f"{ENOL}.xyz"), "--steps", "1", "--output", "out"]
    assert main(words) == 2
    captured = capsys.readouterr()
    assert "model jmp-xs-organic" in captured.out
    assert "outside" not in captured.err


def test_benzene_gets_no_energy_of_the_ethanol_model(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["singlepoint", str(EXAMPLES / "benzene.xyz"), "--model", "jmp-xs-rmd17-ethanol"]
    assert main(words) == 1
    captured = capsys.readouterr()
    assert "another molecule, C6H6 and not C2H6O" in captured.err
    assert "eV" not in captured.out
    assert main(["singlepoint", str(EXAMPLES / "benzene.xyz"), "--force-model"]) == 1
    assert "--force-model needs the model" in capsys.readouterr().err


def test_free_atoms_and_radicals_are_told_of(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Atoms("H").write("h.xyz")
    assert main(["singlepoint", "h.xyz", "--model", "jmp-xs-organic"]) == 0
    assert "a single atom: the model was trained on molecules" in capsys.readouterr().err
    known = seen([molecule("CH4"), molecule("H2O")], 1.0)
    assert (known["smallest"], known["odd_electrons"]) == (3, False)
    potential = random_potential(header={"training": {"seen": known}})
    texts = [f.text for f in findings(molecule("CH3"), potential.header, potential.head)]
    assert any(text.startswith("an odd number of electrons") for text in texts)
    radicals = seen([molecule("CH4"), molecule("CH3"), Atoms("H")], 1.0)
    assert (radicals["smallest"], radicals["odd_electrons"]) == (1, True)
    potential = random_potential(header={"training": {"seen": radicals}})
    assert not findings(Atoms("H"), potential.header, potential.head)


def test_a_collapsed_molecule_is_told_of(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hydrogen(0.4).write("h2.xyz")
    words = ["singlepoint", "h2.xyz", "--model", "jmp-xs-organic", "--output", "out"]
    assert main(words) == 0
    told = capsys.readouterr().err
    assert "H-H at 0.400 Å, training had no such pair below" in told
    [record] = json.loads(Path("out/summary.json").read_text())["domain"].values()
    assert record["start"]["findings"][0]["kind"] == "closest H-H"


def test_checks_do_not_pass_outside_of_the_training_data(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert training_data in checks.CHECKS
    monkeypatch.setattr(checks, "CHECKS", (training_data,))  # others take a while
    enol = str(EXAMPLES / f"{ENOL}.xyz")
    words = ["check", enol, "--model", "jmp-xs-rmd17-malonaldehyde"]
    assert main(words) == 1
    assert main([*words, "--force-model"]) == 2
    rows = capsys.readouterr().out.splitlines()
    row = next(line for line in rows if line.startswith("like the training data"))
    assert "FAIL" in row
    assert main(["check", str(EXAMPLES / f"{DIKETONE}.xyz")]) == 0
    assert "all passed" in capsys.readouterr().out


def test_a_folder_of_results_says_what_lay_outside(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bulk("C").write("c.extxyz")
    hydrogen(0.4).write("h2.extxyz")
    model = ["--model", "jmp-xs-organic"]
    loose = ["--steps", "0", "--fmax", "100"]
    for verb, options, folder, phase in (
        (["descriptors", "h2.extxyz", "c.extxyz"], [], "h2-descriptors", "start"),
        (["elastic", "c.extxyz"], ["--relax", "none", "--clamped"], "c-elastic", "end"),
        (["vibrations", "h2.extxyz"], ["--no-relax"], "h2-vibrations", "end"),
        (["screen", "h2.extxyz", "c.extxyz"], loose, "h2-screen", "end"),
    ):
        main([*verb, *model, *options])
        assert "outside of what model 'jmp-xs-organic' was trained on" in capsys.readouterr().err
        record = json.loads((here / folder / "summary.json").read_text())["domain"]
        assert record[phase]["outside"] == len(verb) - 1, verb


def test_a_card_says_what_training_structures_were() -> None:
    card = model_card(read_header(resolve("jmp-xs-rmd17-malonaldehyde")), 1)
    assert (
        "molecule C3H4O2 only with the bonds of its training frames (2 C-C, 4 C-H, 2 C-O)" in card
    )
    assert "no periodic ones; one molecule each; forces up to 8.16 eV/Å" in card
    assert "closest_A" not in card
    assert "all periodic" in model_card(read_header(resolve("jmp-xs")), 1)


def test_an_old_model_gets_the_record_of_its_training_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    positions = np.array([[[0, 0, 0], [0, 0, d]] for d in (0.72, 0.76, 0.74, 0.75)])
    arrays = {"z": np.array([1, 1]), "R": positions, "E": rng.normal(size=(4, 1))}
    np.savez(tmp_path / "h2.npz", F=rng.normal(size=(4, 2, 3)), **arrays)
    text = (
        "model: {name: h2}\ndata: {train: h2.npz, split: frames, n_train: 3, n_validation: 1, "
        "n_test: 0, single_molecule: true}\n"
    )
    about = {"recipe": text, "data_sha256": {"h2.npz": sha256_of(tmp_path / "h2.npz")}}
    path = write_model(tmp_path, "h2", header={"training": about})
    before = read_native(path)[1]
    record(path, tmp_path)
    header, after = read_native(path)
    known = header.training_range(header.heads[0])
    assert known["of"] == 3  # of four, one is for validation
    assert list(known["closest_A"]) == ["H-H"]
    assert list(header.training["domain"]["molecules"].values()) == [{"H-H": 1}]
    assert all(np.array_equal(before[name], after[name]) for name in before | after)
    np.savez(tmp_path / "h2.npz", F=rng.normal(size=(4, 2, 3)), **arrays)
    with pytest.raises(InputError, match="not the file"):
        record(path, tmp_path)


def test_dynamics_tells_when_a_molecule_comes_apart(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    atoms = example("ethanol")
    atoms.calc = JMPCalculator("jmp-xs-rmd17-ethanol", device="cpu")
    far = atoms.copy()
    velocities = np.zeros((9, 3))
    velocities[-1] = [0.0, 0.0, 2.5]  # in ASE's units: 3 eV
    far.set_velocities(velocities)
    far.calc = atoms.calc
    options = {"ensemble": "nve", "steps": 8, "interval": 2, "report": False, "timestep": 0.5}
    run_md(far, tmp_path / "out", remove_drift=False, **options)
    texts = [str(w.message) for w in recwarn.list if w.category is DomainWarning]
    assert any(" left what model 'jmp-xs-rmd17-ethanol' was trained on" in t for t in texts)
    record = json.loads((tmp_path / "out" / "summary.json").read_text())["domain"]
    assert record["start"]["outside"] == 0
    assert record["run"]["structures"] == 5
    assert record["end"]["outside"] == 1
    bonds = next(f for f in record["run"]["findings"] if f["kind"] == "bonds")
    assert int(bonds["first"].split()[1]) > 0


@pytest.mark.parametrize(
    "training",
    [
        {"seen": {"coordination": {"C": 4}}},
        {"seen": {"coordination": {"C": [1, "x"]}}},
        {"seen": {"closest_A": {"C-H": "near"}}},
        {"seen": {"heads": {"test": {"max_force_eV_per_A": "large"}}}},
        {"domain": {"formula": "CH4", "molecules": ["CH4"]}},
        {"domain": "CH4"},
    ],
)
def test_a_damaged_record_is_refused_as_a_header_is(
    tmp_path: Path, training: dict[str, object]
) -> None:
    path = write_model(tmp_path, header={"training": training})
    with pytest.raises(CheckpointError, match="header is damaged"):
        read_header(path)
