"""Equations of state find the minimum that relaxation finds, and the modulus of the stress."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.eos import EquationOfState as AseEquation
from ase.io import write
from ase.units import GPa
from factories import random_potential, write_model

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.graph.policy import GraphPolicy
from jmp_md.options import choices_of
from jmp_md.simulate.eos import eos
from jmp_md.simulate.options import EOSOptions
from jmp_md.simulate.relax import relax

SMALL = GraphPolicy.smooth(3.0, 3.0, 2.0, 3.0)


def copper(a: float = 3.6) -> Atoms:
    return bulk("Cu", a=a)


FORMS = choices_of(EOSOptions.model_fields["form"])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_finds_the_minimum_and_its_curvature(form: str) -> None:
    result = eos(copper(), EMT(), form=form, strain=0.03)
    start = copper()
    start.calc = EMT()
    relaxed = relax(start, relax_cell=True, fmax=1e-5).atoms
    assert result.bracketed
    assert result.volume == pytest.approx(relaxed.cell.volume, rel=1e-3)
    assert result.energy == pytest.approx(relaxed.get_potential_energy(), abs=1e-4)
    # B = -V dp/dV at the minimum, from stresses
    pressures = []
    for factor in (0.999, 1.001):
        relaxed.set_cell(relaxed.cell * factor ** (1 / 3), scale_atoms=True)
        pressures.append(-relaxed.get_stress()[:3].mean())
        relaxed.set_cell(relaxed.cell * factor ** (-1 / 3), scale_atoms=True)
    modulus = (pressures[0] - pressures[1]) / 0.002
    assert result.bulk_modulus == pytest.approx(modulus, rel=0.01)
    assert result.fit(result.volumes) == pytest.approx(result.energies, abs=4 * result.rms + 1e-9)


def test_it_is_said_how_many_volumes_are_relaxed() -> None:
    seen: list[tuple[int, int]] = []
    eos(copper(), EMT(), points=5, progress=lambda *now: seen.append(now))
    assert seen == [(i, 5) for i in range(1, 6)]


def test_the_fit_is_that_of_ase() -> None:
    result = eos(copper(), EMT())
    theirs = AseEquation(result.volumes, result.energies, eos="birchmurnaghan")
    volume, energy, modulus = theirs.fit()
    found = result.volume, result.energy, result.bulk_modulus
    assert found == pytest.approx((volume, energy, modulus), rel=1e-6)
    assert 3 < result.derivative < 6
    assert result.volumes[[0, -1]] == pytest.approx(copper().cell.volume * np.array([0.94, 1.06]))


def test_positions_relax_at_every_volume() -> None:
    rng = np.random.default_rng(0)
    atoms = bulk("Cu", cubic=True, a=3.6)
    atoms.positions += rng.normal(0, 0.05, (4, 3))
    free = eos(atoms, EMT())
    held = eos(atoms, EMT(), clamped=True)
    assert (free.energies < held.energies).all()
    assert free.volume / 4 == pytest.approx(eos(copper(), EMT()).volume, rel=1e-3)


def test_a_minimum_outside_is_told() -> None:
    assert not eos(copper(3.75), EMT(), strain=0.03).bracketed


def test_a_model_computes_all_volumes_in_batches() -> None:
    calculator = JMPCalculator(random_potential(graph=SMALL), dtype="float64", device="cpu")
    atoms = bulk("Si", a=5.3083)
    result = eos(atoms, calculator)
    scaled = atoms.copy()
    scaled.set_cell(atoms.cell * 0.94 ** (1 / 3), scale_atoms=True)
    scaled.calc = calculator
    assert result.energies[0] == pytest.approx(scaled.get_potential_energy(), abs=1e-8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "sj"}, "form 'sj': choose one of birchmurnaghan"),
        ({"strain": 0.0}, "strain 0.0"),
        ({"points": 4}, "points 4: must be 5 or more"),
        ({"relax": False}, r"relax is no option any more: clamped=True \(--clamped\)"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        eos(copper(), EMT(), **options)


def test_what_has_no_minimum_is_refused() -> None:
    with pytest.raises(InputError, match="equations of state are of crystals"):
        eos(molecule("H2O"), EMT())
    with pytest.raises(InputError, match="the energies have no minimum near these volumes"):
        eos(copper(4.6), EMT(), strain=0.02)


def test_the_command_writes_a_figure_and_numbers(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(write_model(here, graph=SMALL, head={"elements": (14,)}))
    write("si.cif", bulk("Si"))
    status = main(["eos", "si.cif", "--model", model, "--points", "5", "--output", "run"])
    results = json.loads(Path("run/summary.json").read_text())["results"]
    assert status == (2 if results["doubts"] else 0)
    assert len(results["volumes_A3"]) == 5
    out = capsys.readouterr().out
    assert f"bulk modulus {results['bulk_modulus_GPa']:.2f} GPa" in out
    assert "  5 of 5 structures\n" in out
    assert results["bulk_modulus_GPa"] * GPa > 0
    assert "<svg" in Path("run/eos.svg").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.cif"], "there is no structure file none.cif"),
        (["water.xyz"], "give a file with a cell"),
        (["cu.cif"], "never saw this element"),
        (["si.cif", "--points", "2"], "points 2: must be 5 or more"),
        (["si.cif", "--form", "sj"], f"form 'sj': choose one of {', '.join(FORMS)}"),
    ],
)
def test_a_command_that_cannot_work_exits_1_and_says_why(
    here: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(write_model(here, graph=SMALL, head={"elements": (1, 8, 14)}))
    write("si.cif", bulk("Si"))
    write("cu.cif", bulk("Cu"))
    write("water.xyz", molecule("H2O"))
    assert main(["eos", *args, "--model", model]) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ")
    assert message in error
