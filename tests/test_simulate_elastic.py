"""Elastic constants are second derivatives of the energy; averages are those of the textbook."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import write
from ase.units import GPa
from factories import random_potential, write_model
from matscipy.elasticity import fit_elastic_constants, rotate_elastic_constants

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.graph.policy import GraphPolicy
from jmp_md.simulate.elastic import elastic, reuss, voigt
from jmp_md.simulate.eos import eos
from jmp_md.simulate.relax import relax

SMALL = GraphPolicy.smooth(3.0, 3.0, 2.0, 3.0)


def copper(cubic: bool = True) -> Atoms:
    return bulk("Cu", a=3.58983, cubic=cubic)  # EMT's


def test_copper_has_the_constants_of_matscipy_and_the_modulus_of_its_equation_of_state() -> None:
    result = elastic(copper(), EMT())
    atoms = copper()
    atoms.calc = EMT()
    expected, _ = fit_elastic_constants(atoms, symmetry="cubic", verbose=False, delta=1e-3)
    assert result.stiffness / GPa == pytest.approx(expected / GPa, abs=0.1)
    assert result.voigt.bulk == pytest.approx(eos(atoms, EMT(), strain=0.02).bulk_modulus, rel=5e-3)
    assert result.stable
    assert abs(result.pressure) < 1e-4
    assert result.reuss.shear < result.hill.shear < result.voigt.shear


def test_constants_are_second_derivatives_of_the_energy() -> None:
    result = elastic(copper(), EMT(), clamped=True)
    atoms = copper()
    atoms.calc = EMT()
    size, volume = 2e-3, atoms.cell.volume
    start = atoms.cell.array.copy()
    for strain, expected in (
        (np.diag([1.0, 0, 0]), result.stiffness[0, 0]),
        (np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]]), result.stiffness[5, 5]),
    ):
        energies = []
        for step in (-size, 0.0, size):
            atoms.set_cell(start @ (np.eye(3) + step * strain), scale_atoms=True)
            energies.append(atoms.get_potential_energy())
        curvature = (energies[0] - 2 * energies[1] + energies[2]) / size**2 / volume
        assert expected == pytest.approx(curvature, rel=5e-3)


def test_constants_turn_with_the_crystal() -> None:
    atoms = copper(cubic=False)
    straight = elastic(atoms, EMT()).stiffness
    atoms.rotate(30, (1, 2, 3), rotate_cell=True)
    turned = elastic(atoms, EMT()).stiffness
    rotation = np.linalg.solve(copper(cubic=False).cell.array, atoms.cell.array).T
    expected = rotate_elastic_constants(straight, rotation)
    assert turned / GPa == pytest.approx(expected / GPa, abs=0.5)
    assert voigt(turned).shear == pytest.approx(voigt(straight).shear, rel=5e-3)


def test_relaxed_ions_make_a_crystal_softer() -> None:
    atoms = bulk("Cu", "hcp", a=2.54, c=4.14)  # sites without inversion: ions move under shear
    atoms.calc = EMT()
    atoms = relax(atoms, relax_cell=True, fmax=1e-4).atoms
    free = elastic(atoms, EMT(), points=3, fmax=1e-4).stiffness / GPa
    clamped = elastic(atoms, EMT(), points=3, clamped=True).stiffness / GPa
    assert np.linalg.eigvalsh(clamped - free).min() > -0.1
    assert free[5, 5] < clamped[5, 5] - 10
    assert free[5, 5] == pytest.approx((free[0, 0] - free[0, 1]) / 2, rel=0.01)  # hexagonal


def test_averages_of_an_isotropic_body_are_its_own() -> None:
    bulk_modulus, shear = 100.0, 40.0
    stiffness = np.diag([2 * shear] * 3 + [shear] * 3)
    stiffness[:3, :3] += bulk_modulus - 2 * shear / 3
    for average in (voigt(stiffness), reuss(stiffness)):
        assert (average.bulk, average.shear) == pytest.approx((bulk_modulus, shear))
        assert average.young == pytest.approx(9 * 100 * 40 / (300 + 40))
        assert average.poisson == pytest.approx(0.5 * (1 - average.young / (3 * average.bulk)))
    stiffness[5, 5] = -1.0
    assert np.isnan(reuss(stiffness).bulk)


def test_a_model_computes_all_strains_in_batches() -> None:
    calculator = JMPCalculator(random_potential(graph=SMALL), dtype="float64", device="cpu")
    atoms = bulk("Si", a=5.3083)
    batched = elastic(atoms, calculator, clamped=True, points=3)
    atoms.calc = calculator
    expected, _ = fit_elastic_constants(
        atoms, symmetry="triclinic", N_steps=3, delta=0.005, verbose=False
    )
    assert batched.stiffness / GPa == pytest.approx(expected / GPa, abs=1e-4)


def test_what_cannot_be_strained_is_refused() -> None:
    with pytest.raises(InputError, match="elastic constants are of crystals"):
        elastic(molecule("H2O"), EMT())
    with pytest.raises(InputError, match=r"strain 1e-320: must be 1e-06 or more"):
        elastic(bulk("Cu"), EMT(), strain=1e-320)
    with pytest.raises(InputError, match=r"strain 0.5: must be below 0.1"):
        elastic(copper(), EMT(), strain=0.5)
    direct = JMPCalculator(
        random_potential(graph=SMALL, direct=True), forces="direct", dtype="float64", device="cpu"
    )
    with pytest.raises(InputError, match="need stress, which JMPCalculator does not give"):
        elastic(bulk("Si"), direct, clamped=True)


def test_the_command_writes_the_constants(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(write_model(here, graph=SMALL, head={"elements": (14,)}))
    write("si.cif", bulk("Si"))
    status = main(["elastic", "si.cif", "--model", model, "--points", "3", "--clamped"])
    out = capsys.readouterr().out
    summary = json.loads(Path("si-elastic/summary.json").read_text())
    stiffness = np.array(summary["results"]["stiffness_GPa"])
    assert stiffness.shape == (6, 6)
    assert stiffness == pytest.approx(stiffness.T)
    assert summary["settings"]["clamped"] is True
    assert status == (2 if summary["results"]["doubts"] else 0)
    assert ("the crystal is unstable" in out) == (not summary["results"]["stable"])
    assert f"Voigt  bulk {summary['results']['voigt']['bulk_GPa']:9.2f} GPa" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.cif"], "there is no structure file none.cif"),
        (["water.xyz"], "give a file with a cell"),
        (["cu.cif"], "never saw this element"),
        (["si.cif", "--strain", "2"], "strain 2.0"),
    ],
)
def test_a_command_that_cannot_work_exits_1_and_says_why(
    here: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(write_model(here, graph=SMALL, head={"elements": (1, 8, 14)}))
    write("si.cif", bulk("Si"))
    write("cu.cif", bulk("Cu"))
    write("water.xyz", molecule("H2O"))
    assert main(["elastic", *args, "--model", model]) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ")
    assert message in error
