"""Every check passes on a sound model and fails on one with the fault it is there to find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.io import write
from factories import random_potential, write_model

from jmp_md import check as checks
from jmp_md.check import Outcome, Subject, check
from jmp_md.cli.main import main
from jmp_md.domain import seen
from jmp_md.errors import InputError
from jmp_md.evaluation import evaluate
from jmp_md.export import export
from jmp_md.graph.policy import GraphPolicy
from jmp_md.potential import Potential, Prediction
from jmp_md.structures import Structures


def shaken(atoms: Atoms) -> Atoms:
    atoms.rattle(0.05, seed=3)
    return atoms


def subject(potential: Potential, atoms: Atoms | None = None) -> Subject:
    atoms = shaken(molecule("CH3OH")) if atoms is None else atoms
    return Subject(atoms, potential, dtype="float32", seed=0, steps=20)


def test_a_sound_model_passes_everything_on_a_crystal() -> None:
    crystal = shaken(bulk("NaCl", "rocksalt", a=5.6))
    crystal.set_constraint(FixAtoms([0]))
    known = {"training": {"seen": seen([crystal], max_force=None)}}
    outcomes = list(check(crystal, random_potential(header=known), steps=20))
    assert len({o.name for o in outcomes}) == len(checks.CHECKS)
    for outcome in outcomes:
        assert outcome.measured is not None or outcome.name == "compiled"  # not asked for
        assert outcome.passed, outcome


def tampered(change: Callable[[Structures, Prediction], Prediction]) -> Potential:
    """A potential whose results are changed as a fault would change them."""
    potential = random_potential()
    sound = potential.predict

    def predict(structures: Structures, **options: bool) -> Prediction:
        return change(structures, sound(structures, **options))

    potential.predict = predict  # type: ignore[method-assign]
    return potential


def wrong_forces(s: Structures, p: Prediction) -> Prediction:
    return p if p.forces is None else p._replace(forces=p.forces * 1.001)


def wrong_stress(s: Structures, p: Prediction) -> Prediction:
    return p if p.stress is None else p._replace(stress=p.stress * 1.01)


def noise(s: Structures, p: Prediction) -> Prediction:
    last_digits = (s.positions * 1e9).sum() % 1.0
    return p._replace(energy=p.energy + 1e-6 * last_digits)


def preferred_axis(s: Structures, p: Prediction) -> Prediction:
    return p._replace(energy=p.energy + 1e-6 * s.positions[:, 2].square().sum())


def first_atom(s: Structures, p: Prediction) -> Prediction:
    return p._replace(energy=p.energy + 1e-6 * s.numbers[0])


def rounded(s: Structures, p: Prediction) -> Prediction:
    return p._replace(energy=p.energy.round(decimals=3))


def others_in_batch(s: Structures, p: Prediction) -> Prediction:
    return p._replace(energy=p.energy + 1e-6 * len(s.cells))


def pairs_beyond_cutoff(s: Structures, p: Prediction) -> Prediction:
    return p._replace(energy=p.energy + 1e-6 * len(s.pairs.source))


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (checks.force_gradient, wrong_forces),
        (checks.stress_gradient, wrong_stress),
        (checks.translation, noise),
        (checks.rotation, preferred_axis),
        (checks.permutation, first_atom),
        (checks.continuity, rounded),
        (checks.batch_independence, others_in_batch),
        (checks.cached_neighbours, pairs_beyond_cutoff),
        (checks.compiled, first_atom),
    ],
)
def test_a_fault_fails_the_check_for_it(
    function: Callable[[Subject], Outcome], fault: Callable[[Structures, Prediction], Prediction]
) -> None:
    atoms = shaken(bulk("NaCl", "rocksalt", a=5.6))
    outcome = function(subject(tampered(fault), atoms))
    assert outcome.measured is not None
    assert not outcome.passed, outcome


def test_truncated_graphs_jump_depend_on_order_and_do_not_conserve_energy() -> None:
    official = GraphPolicy.official(6.0, 3)
    truncated = subject(random_potential(graph=official, head={"energy_scale": 50.0}))
    continuity = checks.continuity(truncated)
    assert not continuity.passed
    assert "6 of 6 atoms have more neighbours" in continuity.note
    assert not checks.permutation(truncated).passed
    assert not checks.energy_drift(truncated).passed
    whole = checks.continuity(subject(random_potential(smooth=False)))
    assert whole.passed
    assert "no neighbours are left out" in whole.note


def test_the_error_of_single_precision_is_measured() -> None:
    sound = checks.single_precision(subject(random_potential()))
    coarse = checks.single_precision(subject(random_potential(head={"energy_scale": 1e6})))
    assert 0 < (sound.measured or 0) < 1e-2
    assert not coarse.passed
    reduced = checks.bfloat16(subject(random_potential()))
    assert reduced.measured is not None
    assert sound.measured is not None
    assert reduced.measured > 10 * sound.measured
    assert reduced.passed  # told, not judged


def test_checks_that_do_not_apply_say_so() -> None:
    stress = checks.stress_gradient(subject(random_potential()))
    drift = checks.energy_drift(subject(random_potential(), Atoms("H")))
    for outcome, reason in ((stress, "not periodic"), (drift, "two atoms")):
        assert outcome.measured is None
        assert outcome.passed
        assert reason in outcome.note


def test_a_value_that_is_not_finite_fails() -> None:
    assert not Outcome("any", float("nan"), 1.0, "eV").passed


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(InputError, match="steps = 2"):
        next(check(molecule("H2O"), random_potential(), steps=2))


def test_the_command_prints_a_table_and_tells_by_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = (checks.rotation, checks.permutation, checks.stress_gradient, checks.bfloat16)
    monkeypatch.setattr(checks, "CHECKS", chosen)
    write(tmp_path / "methanol.xyz", shaken(molecule("CH3OH")))
    sound = write_model(tmp_path, "sound")
    truncated = write_model(tmp_path, "truncated", graph=GraphPolicy.official(6.0, 3))
    assert main(["check", str(tmp_path / "methanol.xyz"), "--model", str(sound)]) == 0
    printed = capsys.readouterr().out
    assert "CH4O" in printed
    for words in ("rotation", "1e-08", "pass", "does not apply; not periodic", "for information"):
        assert words in printed
    assert printed.endswith("all passed\n")
    assert main(["check", str(tmp_path / "methanol.xyz"), "--model", str(truncated)]) == 2
    printed = capsys.readouterr().out
    assert "FAIL; the official main graph depends on the order" in printed
    assert printed.endswith("1 failed\n")
    assert np.sum([line.count("FAIL") for line in printed.splitlines()]) == 1


def test_exported_files_are_checked_in_their_own_precision(tmp_path: Path) -> None:
    export(random_potential(), tmp_path / "m.pt", dtype="float64")
    found = {o.name: o for o in check(molecule("H2O"), tmp_path / "m.pt", steps=20, trust=True)}
    assert found["forces are the gradient"].passed
    assert found["energy is conserved"].passed
    assert found["float32 against float64"].measured is None
    export(random_potential(), tmp_path / "single.pt")
    with pytest.raises(InputError, match="computes in float32, not float64"):
        list(check(molecule("H2O"), tmp_path / "single.pt", trust=True))


def test_tags_count_in_checks_where_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def energy(s: Subject) -> Outcome:
        return Outcome("energy", s.own.energy, None, "eV")

    those = (energy, checks.cached_neighbours, checks.single_precision, checks.compiled)
    monkeypatch.setattr(checks, "CHECKS", those)
    slab = shaken(bulk("MgO", "rocksalt", a=4.2, cubic=True))
    slab.set_tags([0, 0, 0, 0, 1, 1, 2, 2])
    potential = random_potential(graph=GraphPolicy.official(6.0, 30))
    plain, tagged = (
        {o.name: o for o in check(slab, potential, tags=tags)} for tags in (None, "oc")
    )
    [apart], [alike] = (evaluate([slab], potential, tags=tags) for tags in ("oc", None))
    assert abs(apart.energy - alike.energy) > 1e-3
    assert tagged["energy"].measured == pytest.approx(apart.energy, abs=1e-9)
    assert plain["energy"].measured == pytest.approx(alike.energy, abs=1e-9)
    for name in ("reused neighbours", "float32 against float64", "TorchScript"):
        assert tagged[name].measured is not None
        assert tagged[name].passed, tagged[name]
