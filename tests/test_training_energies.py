"""Energies of trained models are extensive, and references known by data or said not to be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from factories import random_potential
from torch import nn
from training_cases import RECIPE, TINY, fine_tuner, tiny_recipe, tiny_trainer, well, write_npz

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.checkpoints.native import read_header, write_native
from jmp_md.errors import InputError
from jmp_md.training.data.frame import Frame, FrameList
from jmp_md.training.data.references import fit_references, undetermined
from jmp_md.training.optimisation import averaged
from jmp_md.training.recipe import Recipe, from_yaml
from jmp_md.training.session import train

# eV, for frames whose energies are sums over atoms and springs.
ATOMIC = {1: -13.6, 6: -1030.0, 8: -2042.0}
WATER, METHANE, METHANOL = ((8, 1), (1, 2)), ((1, 4), (6, 1)), ((1, 4), (6, 1), (8, 1))


def molecules(*formulas: str, n: int = 6) -> list[Frame]:
    """Frames of several molecules in their wells, with energies of atoms in place of a constant."""
    frames = []
    for formula in formulas:
        for frame in well(n, formula):
            constant = sum(ATOMIC[int(z)] for z in frame.numbers)
            assert frame.energy is not None
            frames.append(dataclasses.replace(frame, energy=frame.energy + 1000.0 + constant))
    return frames


def trained(tmp_path: Path, frames: list[Frame], *options: str) -> Path:
    """The model file of a run of a few steps."""
    write_npz(tmp_path / "train.npz", frames)
    recipe = from_yaml(RECIPE, "test", [*options, "data.n_train=0.7", "data.n_validation=0.3"])
    assert isinstance(recipe, Recipe)
    return train(recipe, tmp_path, tmp_path / "run")


def energy(atoms: Atoms, model: Path) -> float:
    atoms.calc = JMPCalculator(model, dtype="float64")
    return float(atoms.get_potential_energy())


@pytest.mark.parametrize("options", [(), ("loss.energy=1",)])
def test_energies_of_far_molecules_add_up(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Whatever training leaves of the energy belongs to atoms, not to structures."""
    model = trained(tmp_path, molecules("H2O", "CH4", "CH3OH"), *options)
    assert read_header(model).head().energy_mean == 0.0
    water, methane = molecule("H2O"), molecule("CH4")
    methane.positions += [50.0, 0.0, 0.0]
    apart = energy(water + methane, model)
    assert apart == pytest.approx(energy(water, model) + energy(methane, model), abs=1e-8)


def test_forces_alone_leave_energies_right_on_average(tmp_path: Path) -> None:
    """What a network trained on forces misses goes into references, by training frames."""
    frames = molecules("H2O", "CH4", "CH3OH", "H2CO", "C2H6", "CH3CH2OH", n=4)
    model = trained(tmp_path, frames)
    shift = read_header(model).training["reference_shift"]["energy"]
    assert shift["mae_meV_per_atom_after"] <= shift["mae_meV_per_atom_before"]
    for formula in ("H2O", "C2H6"):
        exact = sum(ATOMIC[int(z)] for z in molecule(formula).numbers)
        assert energy(molecule(formula), model) == pytest.approx(exact, abs=6.0)


def test_elements_that_training_lacks_are_refused_by_name(tmp_path: Path) -> None:
    recipe = tiny_recipe("data.split=systems")
    water, methanol = FrameList(well(4)), FrameList(well(4, "CH3OH"))
    with pytest.raises(InputError, match="validation frames hold C, the training frames do not"):
        fine_tuner(recipe, water, methanol, tmp_path)
    write_npz(tmp_path / "train.npz", well(12))
    write_npz(tmp_path / "test.npz", well(4, "CH3OH"))
    recipe = tiny_recipe("data.test=test.npz")
    with pytest.raises(InputError, match="test frames hold C"):
        train(recipe, tmp_path, tmp_path / "run")


def test_references_of_unknown_elements_stay_near_those_of_atoms() -> None:
    """Thomas-Fermi energies are within a few percent of all-electron DFT where data say nothing."""
    (water,) = (sum(n * ATOMIC[z] for z, n in WATER),)
    found = fit_references([WATER], [water])
    assert found[8] + 2 * found[1] == pytest.approx(water)
    assert found[8] == pytest.approx(ATOMIC[8], rel=0.01)
    assert undetermined([WATER]) == (1, 8)
    assert undetermined([WATER, METHANE, METHANOL]) == ()
    assert undetermined([METHANE, METHANOL]) == (1, 6)  # oxygen is their difference


def test_compositions_that_tell_too_little_are_a_warning_and_in_the_header(tmp_path: Path) -> None:
    frames = molecules("CH4", "CH3OH")
    with pytest.warns(UserWarning, match="do not tell the energies of H, C apart"):
        model = trained(tmp_path, frames)
    assert read_header(model).training["undetermined_references"] == ["H", "C"]


def test_an_average_forgets_the_first_weights() -> None:
    """The share of the first weights after n updates is the product of (1 + t) / (10 + t)."""
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
        average = averaged(model, 0.999)
        average.update_parameters(model)
        model.weight.fill_(0.0)
        for _ in range(30):
            average.update_parameters(model)
    expected = np.prod([(1 + t) / (10 + t) for t in range(1, 31)])
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-4)
    assert 1e6 * expected < 0.999**30  # what a constant decay leaves


def base(tmp_path: Path, level: str) -> Path:
    """A model to fine-tune, of random weights, that knows water and methanol."""
    head = {"references": ATOMIC, "elements": (1, 6, 8), "level_of_theory": level}
    potential = random_potential(head=head, **TINY)
    potential.energy_head[0].weight.mul_(2.0)  # not what a new head is drawn as
    path = tmp_path / "base.safetensors"
    write_native(path, potential.header, potential.native_state())
    return path


@pytest.mark.parametrize(("level", "kept"), [("wB97x/6-31G*", True), ("PBE", False)])
def test_the_head_of_the_base_is_kept_where_its_level_is_that_of_the_data(
    tmp_path: Path, level: str, kept: bool
) -> None:
    path = base(tmp_path, level)
    options = (f"model.base={path}", "model.sizes={}", "model.level_of_theory=wB97X/6-31G(d)")
    trainer = tiny_trainer(tmp_path / "run", *options)
    head = trainer.objective.model.potential().head
    assert (head.references == ATOMIC) == kept
    weight = trainer.objective.model.potential().energy_head[0].weight.double()
    drawn = random_potential(**TINY).energy_head[0].weight
    assert torch.allclose(weight, 2.0 * drawn if kept else drawn, atol=1e-6)
    history = trainer.run().history
    assert (history[0]["step"] == 0) == kept  # what the base does untouched


def test_a_head_that_is_not_there_cannot_be_kept(tmp_path: Path) -> None:
    path = base(tmp_path, "PBE")
    with pytest.raises(InputError, match="has the heads test"):
        tiny_trainer(tmp_path, f"model.base={path}", "model.sizes={}", "model.keep_head=other")
