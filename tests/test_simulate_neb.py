"""The band is ASE's, computed in batches; it finds the saddle and continues after a kill."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc100, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read
from ase.mep import NEB
from factories import random_potential

from jmp_md.benchmarking.kept import kept
from jmp_md.calculators.ase import JMPCalculator
from jmp_md.cli.neb import _tested
from jmp_md.errors import InputError
from jmp_md.models.registry import resolve
from jmp_md.runs.neb import run_neb
from jmp_md.simulate import singlepoint as singlepoint_module
from jmp_md.simulate.band import Band


def hop() -> list[Atoms]:
    """An atom in two neighbouring hollow sites of a rigid surface."""
    ends = []
    for offset in (0, 1):
        slab = fcc100("Al", size=(2, 2, 2))
        add_adsorbate(slab, "Au", 1.7, "hollow")
        slab.info.clear()  # what add_adsorbate notes there is nothing extxyz can hold
        slab.positions[-1, 0] += offset * slab.cell[0, 0] / 2
        slab.center(axis=2, vacuum=4.0)
        slab.set_constraint(FixAtoms(range(8)))
        ends.append(slab)
    return ends


@cache
def saddle_energy() -> float:
    """On the bridge, where symmetry puts the saddle, only the height is to be found."""
    slab = hop()[0]
    slab.positions[-1, 0] += slab.cell[0, 0] / 4
    slab.calc = EMT()
    energies = []
    for height in np.linspace(0.0, 1.0, 201):
        atoms = slab.copy()
        atoms.calc = slab.calc
        atoms.positions[-1, 2] += height
        energies.append(atoms.get_potential_energy())
    return min(energies)


def test_the_climbing_image_finds_the_saddle(tmp_path: Path) -> None:
    result = run_neb(hop(), EMT(), tmp_path, n_images=5, fmax=0.01, verify=True)
    assert result.converged
    assert result.barrier == pytest.approx(saddle_energy() - result.energies[0], abs=1e-3)
    assert result.reverse_barrier == pytest.approx(result.barrier, abs=2e-3)
    assert result.frequencies is not None
    assert (result.frequencies < -20).sum() == 1
    assert result.transition_state.get_potential_energy() == result.energies.max()
    path = read(tmp_path / "path.extxyz", index=":")
    assert [image.get_potential_energy() for image in path] == pytest.approx(result.energies)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["results"]["barrier_eV"] == result.barrier
    assert (tmp_path / "transition_state.extxyz").exists()


@pytest.mark.parametrize("climb", [False, True])
def test_a_string_finds_the_same_path(climb: bool, tmp_path: Path) -> None:
    ends = hop()
    result = run_neb(ends, EMT(), tmp_path, n_images=5, fmax=0.02, method="string", climb=climb)
    assert result.converged
    assert result.barrier == pytest.approx(saddle_energy() - result.energies[0], abs=2e-3)
    places = np.array([image.positions[-1] for image in result.images])
    apart = np.linalg.norm(np.diff(places, axis=0), axis=1)
    if not climb:
        assert np.ptp(apart) < 0.01 * apart.mean()


def test_the_path_is_drawn(tmp_path: Path) -> None:
    run_neb(hop(), EMT(), tmp_path, n_images=3, steps=0, relax_ends=False)
    assert "path length" in (tmp_path / "path.svg").read_text()


def bent() -> list[Atoms]:
    """Water whose hydrogen atoms move apart."""
    images = [molecule("H2O") for _ in range(4)]
    for i, image in enumerate(images):
        image.positions[1] += [0.0, 0.1 * i, 0.05 * i]
    return images


def test_forces_on_a_band_in_a_batch_are_those_of_ase(monkeypatch: pytest.MonkeyPatch) -> None:
    potential = random_potential()
    calls = []
    real = singlepoint_module.singlepoint

    def counting(structures: list[Atoms], *args: Any, **options: Any) -> Any:
        calls.append(len(structures))
        return real(structures, *args, **options)

    monkeypatch.setattr("jmp_md.simulate.band.singlepoint", counting)
    band = Band(bent(), JMPCalculator(potential, dtype="float64", device="cpu"), 0.1)
    band.set_climbing(True)
    images = bent()
    for image in images:
        image.calc = JMPCalculator(potential, dtype="float64", device="cpu")
    theirs = NEB(
        images,
        k=0.1,
        climb=True,
        method="improvedtangent",
        remove_rotation_and_translation=True,
    )
    assert band.get_forces() == pytest.approx(theirs.get_forces(), abs=1e-8)
    band.get_forces()
    assert calls == [1, 1, 2]  # each end, then both inner images at once, and not again


def test_a_stopped_run_continues_from_its_last_band(tmp_path: Path) -> None:
    options: dict[str, Any] = {"n_images": 5, "fmax": 0.01}
    steps: list[int] = []

    def stop(step: int, barrier: float, fmax: float) -> None:
        steps.append(step)
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_neb(hop(), EMT(), tmp_path, progress=stop, **options)
    continued: list[int] = []
    result = run_neb(
        hop(), EMT(), tmp_path, restart=True, progress=lambda *a: continued.append(a[0]), **options
    )
    assert steps == list(range(7))
    assert continued[0] == 6
    assert result.converged
    assert result.steps == continued[-1]
    assert result.barrier == pytest.approx(saddle_energy() - result.energies[0], abs=1e-3)
    with pytest.raises(InputError, match="holds a run"):
        run_neb(hop(), EMT(), tmp_path, **options)
    with pytest.raises(InputError, match=r"fmax: 0.01, now 0.02"):
        run_neb(hop(), EMT(), tmp_path, restart=True, n_images=5, fmax=0.02)
    with pytest.raises(InputError, match=r"as another one; different: structures?.*formula"):
        run_neb(bent()[::3], EMT(), tmp_path, restart=True, **options)


def test_a_given_path_is_the_first_guess_and_may_end_unconverged(tmp_path: Path) -> None:
    ends = hop()
    middle = ends[0].copy()
    middle.positions[-1] += [0.3 * middle.cell[0, 0], 0.0, 0.5]
    path = [ends[0], middle, ends[1]]
    result = run_neb(path, EMT(), tmp_path, steps=0, relax_ends=False)
    assert not result.converged
    assert len(result.images) == 3
    assert np.array_equal(result.images[1].positions, middle.positions)


def test_a_free_molecule_is_turned_upon_its_first_image(tmp_path: Path) -> None:
    path = bent()
    path[-1].rotate(70, (1, 2, 3))
    path[-1].translate([5.0, 0.0, 0.0])
    result = run_neb(path, EMT(), tmp_path, steps=1, relax_ends=False)
    moved = result.images[-1].positions - result.images[0].positions
    assert np.linalg.norm(moved, axis=1).max() < 0.5


def changed(images: list[Atoms], **changes: Any) -> list[Atoms]:
    for name, value in changes.items():
        setattr(images[-1], name, value)
    return images


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (hop()[:1], {}, "1 structure: a path needs its two ends"),
        ([*hop()[:1], molecule("H2O")], {}, "structure 1 has other atoms than the first"),
        (changed(hop(), pbc=False), {}, "structure 1 has another cell or pbc"),
        (hop(), {"optimizer": "Newton"}, "optimizer 'Newton': choose one of FIRE"),
        (hop(), {"method": "chain"}, "method 'chain': choose one of neb, string"),
        (hop(), {"interpolation": "cubic"}, "interpolation 'cubic': choose one of idpp"),
        (hop(), {"fmax": 0.0}, r"fmax 0.0 eV/Å: must be positive"),
        (hop(), {"n_images": 2}, "n_images 2: must be 3 or more"),
        ([hop()[0], hop()[0]], {}, "both ends are the same structure"),
    ],
)
def test_what_cannot_be_a_path_is_refused(
    images: list[Atoms], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        run_neb(images, EMT(), tmp_path / "run", **options)


def test_the_command_says_how_good_the_model_was_at_barriers() -> None:
    model = "jmp-xs-organic"
    text = _tested(model, JMPCalculator(model, device="cpu", kernels=False))
    found = kept(resolve(model))["wb97m"]
    [part] = [each for each in found.parts if "methyl" in each.name]
    mean = np.mean([case.reference for case in part.cases])
    assert f"off by {part.mean_error:.0f} of {mean:.0f} meV" in text
    calculator = JMPCalculator(model, device="cpu", kernels=False, references={"H": 1.0})
    assert _tested(model, calculator) == ""  # of what is another potential
    ethanol = "jmp-xs-rmd17-ethanol"
    assert _tested(ethanol, JMPCalculator(ethanol, device="cpu", kernels=False)) == ""
