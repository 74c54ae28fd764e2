"""Paths have the saddles of analysis and literature, or the result says why it has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import landscapes
import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc100, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixCartesian
from ase.io import write
from landscapes import Landscape, atom, mueller_brown, tilted, waves

from jmp_md.cli import job
from jmp_md.cli import neb as command
from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.runs.neb import run_neb
from jmp_md.simulate.neb import NEBResult

PLANE: dict[str, Any] = {"fmax": 0.005, "spring": 1.0, "interpolation": "linear", "report": False}


def plane_path(start: tuple, end: tuple, folder: Path, **options: Any) -> NEBResult:
    ends = [atom(*start), atom(*end)]
    return run_neb(ends, Landscape(mueller_brown), folder, **(PLANE | options))


@pytest.mark.parametrize("method", ["neb", pytest.param("string", marks=pytest.mark.slow)])
def test_the_plane_of_mueller_and_brown_has_its_published_saddle(
    method: str, tmp_path: Path
) -> None:
    result = plane_path(landscapes.DEEP, landscapes.SHALLOW, tmp_path, n_images=11, method=method)
    assert result.converged
    assert not result.doubts
    assert result.transition_state is not None
    assert result.energies.max() == pytest.approx(landscapes.HIGH_ENERGY, abs=1e-5)
    assert result.transition_state.positions[0, :2] == pytest.approx(
        landscapes.HIGH_SADDLE, abs=2e-3
    )
    assert result.barrier == pytest.approx(
        landscapes.HIGH_ENERGY - landscapes.DEEP_ENERGY, abs=2e-5
    )
    assert result.reverse_barrier == pytest.approx(
        landscapes.HIGH_ENERGY - landscapes.SHALLOW_ENERGY, abs=2e-5
    )
    assert any("a minimum lies on the way" in note for note in result.notes)


@pytest.mark.slow
def test_the_second_saddle_is_on_the_second_half(tmp_path: Path) -> None:
    result = plane_path(landscapes.MIDDLE, landscapes.SHALLOW, tmp_path, n_images=7)
    assert not result.doubts
    assert result.energies.max() == pytest.approx(landscapes.LOW_ENERGY, abs=1e-5)
    assert result.energies[0] == pytest.approx(landscapes.MIDDLE_ENERGY, abs=2e-5)


@pytest.mark.parametrize("end", [(-0.78, 1.0), (-0.6, 1.3), (0.35, 0.15)])
def test_a_path_without_a_saddle_does_not_climb_to_one_beyond_it(
    end: tuple[float, float], tmp_path: Path
) -> None:
    start = landscapes.DEEP if end[1] > 0.5 else landscapes.SHALLOW
    result = plane_path(start, end, tmp_path, n_images=7, relax_ends=False)
    assert result.transition_state is None
    assert any("NO saddle" in doubt for doubt in result.doubts)
    assert any("the last end is at no minimum" in doubt for doubt in result.doubts)
    assert result.energies.max() == result.energies[-1] < landscapes.LOW_ENERGY
    places = np.array([image.positions[0, :2] for image in result.images])
    reach = np.linalg.norm(places - start, axis=1)
    assert reach.argmax() == len(places) - 1
    assert not (tmp_path / "transition_state.extxyz").exists()


@pytest.mark.parametrize(
    ("tilt", "climb"),
    [
        (0.0, True),
        pytest.param(0.9, True, marks=pytest.mark.slow),
        pytest.param(1.2, True, marks=pytest.mark.slow),
        pytest.param(1.4, True, marks=pytest.mark.slow),
        (1.5, True),
        (1.53, True),
        (0.3, False),
    ],
)
def test_no_tilt_of_a_double_well_gives_a_wrong_barrier_without_a_doubt(
    tilt: float, climb: bool, tmp_path: Path
) -> None:
    low, saddle, high = np.sort(np.roots([4, 0, -4, tilt]).real)
    energies = [tilted(tilt)(np.array([x, 0, 0]))[0] for x in (low, saddle, high)]
    result = run_neb(
        [atom(high + 0.005), atom(low)],
        Landscape(tilted(tilt)),
        tmp_path,
        fmax=1e-3,
        n_images=9,
        climb=climb,
        report=False,
    )
    if result.doubts:
        assert tilt > 1.2
        assert result.transition_state is None
        return
    exact = 1e-5 if climb else 0.05
    assert result.barrier == pytest.approx(energies[1] - energies[2], abs=exact)
    assert result.reverse_barrier == pytest.approx(energies[1] - energies[0], abs=exact)


@pytest.mark.parametrize(("method", "climb"), [("neb", True), ("string", True), ("string", False)])
@pytest.mark.parametrize(("start", "end"), [(9.0, 0.0), (9.0, 12.0), (-3.0, 0.0), (21.0, 24.0)])
def test_a_hop_across_the_boundary_has_the_barrier_of_any_other(
    method: str, climb: bool, start: float, end: float, tmp_path: Path
) -> None:
    ends = [atom(x, 5.0, 5.0, cell=12.0) for x in (start, end)]
    options: dict[str, Any] = {"n_images": 7, "report": False, "climb": climb}
    result = run_neb(ends, Landscape(waves(0.4, 3.0)), tmp_path, method=method, **options)
    assert not result.doubts
    assert result.barrier == pytest.approx(0.4, abs=1e-4)
    path = np.array([image.positions[0, 0] for image in result.images])
    assert np.diff(path) == pytest.approx(0.5, abs=0.1)
    crossed = "H 0 take the shorter way across the boundary"
    assert any(crossed in note for note in result.notes) == (end - start != 3.0)


def hop() -> list[Atoms]:
    """A gold atom in neighbouring hollows of aluminium, its lower layer held."""
    ends = []
    for offset in (0, 1):
        slab = fcc100("Al", size=(2, 2, 2))
        add_adsorbate(slab, "Au", 1.7, "hollow")
        slab.info.clear()
        slab.positions[-1, 0] += offset * slab.cell[0, 0] / 2
        slab.center(axis=2, vacuum=4.0)
        slab.set_constraint(FixAtoms(range(4)))
        ends.append(slab)
    return ends


QUICK: dict[str, Any] = {"n_images": 3, "fmax": 0.03, "report": False}


def test_wrapped_shifted_and_reordered_ends_have_one_barrier(tmp_path: Path) -> None:
    plain = run_neb(hop(), EMT(), tmp_path / "plain", **QUICK)
    assert not plain.doubts
    wrapped = hop()
    wrapped[1].positions[[5, 8]] += wrapped[1].cell[0] - wrapped[1].cell[1]
    swapped = hop()
    swapped[1].positions[[4, 6]] = swapped[1].positions[[6, 4]]
    for ends, options in ((wrapped, {}), (swapped, {"atom_order": "nearest"})):
        found = run_neb(ends, EMT(), tmp_path / f"run-{len(options)}", **QUICK, **options)
        assert found.barrier == pytest.approx(plain.barrier, abs=1e-6)
        assert found.notes
    with pytest.raises(InputError, match="structure 1: identical atoms Al 4, Al 6 change places"):
        run_neb(swapped, EMT(), tmp_path / "refused", **QUICK)
    kept = run_neb(swapped, EMT(), tmp_path / "kept", **QUICK, steps=1, atom_order="given")
    assert "Al 4, Al 6 change places on the path, as given" in kept.notes[0]
    assert kept.barrier > 2 * plain.barrier


def test_exchanged_hydrogens_of_a_molecule_are_named_and_put_back(tmp_path: Path) -> None:
    ends = [molecule("CH3CH2OH"), molecule("CH3CH2OH")]
    ends[1].set_dihedral(0, 1, 2, 3, 60, indices=[3])
    hydrogens = [6, 7, 8]
    assert set(ends[1].numbers[hydrogens]) == {1}
    ends[1].positions[hydrogens] = ends[1].positions[np.roll(hydrogens, 1)]
    ends[1].rotate(50, (1, 2, 3))
    options: dict[str, Any] = QUICK | {"relax_ends": False, "steps": 0}
    with pytest.raises(InputError, match="H 6, H 7, H 8 change places"):
        run_neb(ends, EMT(), tmp_path, **options)
    result = run_neb(ends, EMT(), tmp_path, atom_order="nearest", **options)
    bonds = [image.get_distances(0, hydrogens) for image in result.images]
    assert np.ptp(bonds, axis=0).max() < 0.1


def held(constraint: Any, **changes: Any) -> list[Atoms]:
    ends = hop()
    ends[1].set_constraint(constraint)
    for name, value in changes.items():
        getattr(ends[1], f"set_{name}")(value)
    return ends


def lifted(atoms: list[int], by: float) -> list[Atoms]:
    ends = hop()
    ends[1].positions[atoms, 2] += by
    return ends


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        (held(None), r"other constraints than the first \(none and FixAtoms, at Al 0, Al 1"),
        (held(FixAtoms([0, 1, 2])), r"\(FixAtoms and FixAtoms, at Al 3\)"),
        (held(FixCartesian([0, 1, 2, 3])), "FixCartesian and FixAtoms"),
        (
            lifted([2], 0.3),
            "atoms by constraints elsewhere than the first, Al 2, up to 0.300",
        ),
        (
            held(FixAtoms(range(4)), masses=[27.0] * 8 + [198.0]),
            "other masses than the first, at",
        ),
    ],
)
def test_ends_that_are_held_differently_are_refused_by_name(
    ends: list[Atoms], message: str, tmp_path: Path
) -> None:
    for order in (1, -1):
        if order == -1 and "none" in message:
            message = r"\(FixAtoms and none"
        elif order == -1 and "Cartesian" in message:
            message = "FixAtoms and FixCartesian"
        with pytest.raises(InputError, match=message):
            run_neb(ends[::order], EMT(), tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_the_same_atoms_held_in_several_constraints_are_the_same(tmp_path: Path) -> None:
    ends = held([FixAtoms([3, 2]), FixAtoms([0, 1])])
    assert run_neb(ends, EMT(), tmp_path, **QUICK, steps=0).barrier > 0


def test_ends_that_are_no_minima_put_the_barrier_in_doubt(tmp_path: Path) -> None:
    ends = hop()
    ends[0].positions[-1, 2] += 0.4
    result = run_neb(ends, EMT(), tmp_path, **QUICK, relax_ends=False)
    assert any("the first end is at no minimum" in doubt for doubt in result.doubts)


def test_an_end_that_relaxes_far_away_is_told_of(tmp_path: Path) -> None:
    ends = [atom(0.3), atom(-0.95)]
    result = run_neb(ends, Landscape(tilted(0.3)), tmp_path, steps=0, report=False)
    assert any("the first end moved by up to 0.6" in note for note in result.notes)


def test_a_path_whose_images_meet_is_drawn_and_judged(tmp_path: Path) -> None:
    ends = hop()
    path = [ends[0], ends[0].copy(), ends[0].copy(), ends[1]]
    result = run_neb(path, EMT(), tmp_path, **(QUICK | {"steps": 0}), relax_ends=False)
    assert result.transition_state is None
    assert "path length" in (tmp_path / "path.svg").read_text()


def test_the_command_says_that_there_is_no_saddle_and_exits_2(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calculator = Landscape(mueller_brown)
    monkeypatch.setattr(job, "calculators_for", lambda *_, **__: [("plane", calculator)] * 2)
    write("a.traj", atom(*landscapes.SHALLOW))
    write("b.traj", atom(0.35, 0.15))
    options = ["--no-relax-ends", "--n-images", "5", "--interpolation", "linear", "--no-report"]
    assert main(["neb", "a.traj", "b.traj", "--output", "run", "--verify", *options]) == 1
    assert "vibrations know constraints of the kind FixAtoms only" in capsys.readouterr().err
    assert not Path("run").exists()  # said before any work
    assert main(["neb", "a.traj", "b.traj", "--output", "run", *options]) == 2
    out = capsys.readouterr().out
    assert "in doubt: NO saddle" in out
    results = json.loads(Path("run/summary.json").read_text())["results"]
    assert results["saddle"] is False
    assert len(results["doubts"]) == 2


def test_several_files_give_the_last_structure_of_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "a.traj", tmp_path / "b.traj"]
    for file, end in zip(files, hop(), strict=True):
        frames = [end.copy() for _ in range(4)]
        for i, frame in enumerate(frames):
            frame.positions[-1, 2] += 0.1 * (3 - i)
        write(file, frames)
    images = command._images(files, all_frames=False)
    assert [image.positions[-1] for image in images] == [
        pytest.approx(end.positions[-1]) for end in hop()
    ]
    assert "a.traj: the last of 4 structures" in capsys.readouterr().out
    assert len(command._images(files, all_frames=True)) == 8
    assert len(command._images(files[:1], all_frames=False)) == 4
