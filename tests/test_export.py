"""Exported files compute what the model does, wherever and however they are loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from factories import random_potential, write_model

from jmp_md import CheckpointError, InputError, JMPCalculator
from jmp_md.checkpoints.exported import DTYPES, EXTRA_FILE, ExportInfo
from jmp_md.cli.main import main
from jmp_md.export import export
from jmp_md.export.neighbours import neighbours
from jmp_md.export.verify import verify
from jmp_md.graph.neighbours import NeighbourCache
from jmp_md.graph.pairs import find_pairs
from jmp_md.load import load_model
from jmp_md.potential import Potential
from jmp_md.step import FoldedStep
from jmp_md.structures import single_structure
from jmp_md.units import EV_IN_KJ_PER_MOL

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

TRICLINIC = [[4.0, 0.3, -0.8], [1.2, 3.8, 0.2], [-0.9, 1.1, 4.4]]


def small_potential(**options: Any) -> Potential:
    potential = random_potential(num_blocks=1, **options)
    potential.step = FoldedStep(potential)  # as exported: single precision rounds in its own way
    return potential


def triclinic() -> Atoms:
    scaled = [[0.1, 0.0, 0.05], [0.45, 0.5, 0.4], [0.7, 0.2, 0.8]]
    return Atoms("SiOC", cell=TRICLINIC, scaled_positions=scaled, pbc=True)


def structures() -> list[Atoms]:
    slab = triclinic()
    slab.pbc = [True, True, False]
    silicon = bulk("Si", cubic=True)
    silicon.rattle(0.05, seed=0)
    return [molecule("CH3CH2OH"), silicon, triclinic(), slab]


Scripted = Callable[..., torch.jit.ScriptModule]


@pytest.fixture(autouse=True)
def _unoptimised() -> Iterator[None]:
    """Without this, TorchScript spends the first calls of each module on optimising it."""
    with torch.jit.optimized_execution(False):
        yield


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Scripted:
    """Export a random model, with the options of ``export``, and load the file with torch alone."""
    folder = tmp_path_factory.mktemp("exported")

    def make(*, smooth: bool = True, direct: bool = False, **options: Any) -> torch.nn.Module:
        name = "-".join(str(o) for o in (smooth, direct, *options.values())).replace(" ", "")
        path = folder / f"{name}.pt"
        if not path.exists():
            export(small_potential(smooth=smooth, direct=direct), path, **options)
        return torch.jit.load(path)

    return make


def batch_of(atoms: list[Atoms]) -> list[torch.Tensor]:
    sizes = torch.tensor([len(a) for a in atoms])
    return [
        torch.from_numpy(np.concatenate([a.positions for a in atoms])),
        torch.from_numpy(np.concatenate([a.numbers for a in atoms])),
        torch.from_numpy(np.stack([a.cell.array for a in atoms])),
        torch.from_numpy(np.stack([a.pbc for a in atoms])),
        torch.repeat_interleave(torch.arange(len(atoms)), sizes),
    ]


def relative(got: object, expected: object) -> float:
    a, b = np.asarray(got, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.mark.parametrize(
    ("n_atoms", "cell", "pbc", "cutoff"),
    [
        (9, np.zeros((3, 3)), [False, False, False], 5.0),
        (1, 2.0 * np.eye(3), [True, True, True], 6.0),
        (2, TRICLINIC, [True, True, True], 12.0),
        (7, [[3, 0, 0], [1.2, 2.8, 0], [-0.7, 0.9, 20]], [True, True, False], 6.0),
        (7, [[9, 1, 0], [0, 0, 0], [0, 0, 0]], [True, False, False], 6.0),
        (1200, 24.0 * np.eye(3), [True, True, True], 5.0),  # by bins, as those that follow
        (1500, 40.0 * np.eye(3), [False, False, False], 5.0),
        (500, [[12, 0, 0], [4, 11, 0], [-5, 3, 14]], [True, False, True], 9.0),
    ],
)
def test_the_scripted_search_finds_the_same_pairs_in_the_same_order(
    n_atoms: int, cell: object, pbc: list[bool], cutoff: float
) -> None:
    cell = np.array(cell, dtype=np.float64)
    box = np.where(np.linalg.norm(cell, axis=1, keepdims=True) > 0, cell, 10 * np.eye(3))
    positions = (1.4 * np.random.default_rng(1).random((n_atoms, 3)) - 0.2) @ box
    given = torch.from_numpy(positions), torch.zeros(n_atoms, dtype=torch.long)
    cells, periodic = torch.from_numpy(cell).unsqueeze(0), torch.tensor([pbc])
    found, placed = torch.jit.script(neighbours)(*given, cells, periodic, cutoff)
    expected = find_pairs(placed.numpy(), cell, np.array(pbc), cutoff)
    assert n_atoms < 2 or len(expected.source) > 0
    for got, wanted in zip(found, expected, strict=True):
        assert torch.equal(got, wanted)


# Kernels and exported files round differently in float32.
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("smooth", [True, False])
def test_the_general_form_is_the_model(
    scripted: Scripted, dtype: str, tolerance: float, smooth: bool
) -> None:
    module = scripted(smooth=smooth, dtype=dtype)
    calculator = JMPCalculator(small_potential(smooth=smooth), dtype=dtype, device="cpu", skin=0)
    for atoms in structures():
        energy, forces, stress = module(*batch_of([atoms]))
        atoms.calc = calculator
        assert relative(energy, atoms.get_potential_energy()) < tolerance
        assert relative(forces, atoms.get_forces()) < tolerance
        if atoms.pbc.all():
            assert relative(stress[0], atoms.get_stress(voigt=False)) < 10 * tolerance
        else:
            assert bool(stress.isnan().all())


def test_structures_of_a_batch_do_not_see_each_other(scripted: Scripted) -> None:
    module = scripted(dtype="float64")
    alone = [module(*batch_of([atoms])) for atoms in structures()]
    energy, forces, stress = module(*batch_of(structures()))
    assert relative(energy, torch.cat([one[0] for one in alone])) < 1e-12
    assert relative(forces, torch.cat([one[1] for one in alone])) < 1e-12
    assert relative(stress[1:3], torch.cat([one[2] for one in alone[1:3]])) < 1e-12


# Kernels and exported files round differently in float32.
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("smooth", [True, False])
def test_openmm_gets_right_forces_from_the_gradient_of_the_energy(
    scripted: Scripted, dtype: str, tolerance: float, smooth: bool
) -> None:
    potential = small_potential(smooth=smooth).to(DTYPES[dtype])
    for atoms in structures()[:3]:
        cell, periodic = atoms.cell.array, bool(atoms.pbc.all())
        numbers = atoms.numbers.tolist()
        module = scripted(smooth=smooth, dtype=dtype, numbers=numbers, periodic=periodic)
        x = torch.from_numpy(atoms.positions / 10).requires_grad_()
        energy = module(x, *([torch.from_numpy(cell / 10)] if periodic else []))
        energy.backward()
        pairs, placed = NeighbourCache(potential.policy.cutoff, 1.0).update(
            atoms.positions, atoms.numbers, cell, atoms.pbc
        )
        eager = potential.predict(single_structure(placed, atoms.numbers, cell, pairs))
        assert energy.shape == ()
        assert x.grad is not None
        assert relative(energy.item(), eager.energy[0] * EV_IN_KJ_PER_MOL) < tolerance
        assert relative(-x.grad, eager.forces.double() * EV_IN_KJ_PER_MOL * 10) < tolerance


def test_the_atoms_of_a_file_are_tensors_that_can_be_replaced(scripted: Scripted) -> None:
    water = molecule("H2O")
    module = scripted(dtype="float64", numbers=[6, 6], forces="conservative")
    module.numbers, module.atoms = torch.tensor([8, 1, 1]), torch.tensor([3, 0, 2])
    x = np.random.default_rng(0).normal(size=(5, 3))
    x[[3, 0, 2]] = water.positions
    given = torch.from_numpy(x / 10).requires_grad_()
    module(given).backward()
    water.calc = JMPCalculator(small_potential(), dtype="float64", device="cpu")
    assert given.grad is not None
    expected = water.get_forces() * EV_IN_KJ_PER_MOL * 10
    assert relative(-given.grad[[3, 0, 2]], expected) < 1e-12
    assert not given.grad[[1, 4]].any()


def test_the_module_survives_freezing_and_optimisation_as_by_openmm(scripted: Scripted) -> None:
    atoms = molecule("H2O")
    module = scripted(dtype="float64", numbers=[8, 1, 1])
    with torch.jit.optimized_execution(True):
        frozen = torch.jit.freeze(scripted(dtype="float64", numbers=[8, 1, 1]))
        for step in range(4):  # optimised by the third
            x = torch.from_numpy(atoms.positions / 10 + 0.001 * step)
            results = []
            for each in (frozen, module):
                given = x.clone().requires_grad_()
                each(given).backward()
                results.append(given.grad)
            assert relative(results[0], results[1]) < 1e-11


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_positions_that_are_not_finite_never_get_an_energy(scripted: Scripted, bad: float) -> None:
    for atoms in (molecule("CH3CH2OH"), triclinic()):
        periodic = bool(atoms.pbc.all())
        options = {"numbers": atoms.numbers.tolist(), "periodic": periodic}
        module, general = scripted(dtype="float64", **options), scripted(dtype="float64")
        box = [torch.from_numpy(atoms.cell.array / 10)] if periodic else []
        x = torch.from_numpy(atoms.positions / 10)
        expected = float(module(x, *box))
        lost = x.clone()
        lost[1, 2] = bad
        assert bool(module(lost, *box).isnan())  # as OpenMM looks for
        assert float(module(x, *box)) == expected
        atoms.positions[1, 2] = bad
        with pytest.raises(torch.jit.Error, match="positions are not finite"):
            general(*batch_of([atoms]))


def test_direct_forces_come_with_the_energy(scripted: Scripted) -> None:
    atoms = molecule("CH3CH2OH")
    module = scripted(direct=True, dtype="float64", numbers=atoms.numbers.tolist())
    energy, forces = module(torch.from_numpy(atoms.positions / 10))
    atoms.calc = JMPCalculator(small_potential(direct=True), forces="direct", dtype="float64")
    assert float(energy) == pytest.approx(atoms.get_potential_energy() * EV_IN_KJ_PER_MOL)
    assert relative(forces, atoms.get_forces() * EV_IN_KJ_PER_MOL * 10) < 1e-12
    general = scripted(direct=True, dtype="float64")
    assert relative(general(*batch_of([atoms]))[1], atoms.get_forces()) < 1e-12
    conservative = scripted(direct=True, forces="conservative", numbers=atoms.numbers.tolist())
    assert conservative(torch.from_numpy(atoms.positions / 10).requires_grad_()).requires_grad


def test_threads_that_share_a_module_get_their_own_forces(scripted: Scripted) -> None:
    atoms = molecule("CH3OH")
    module = scripted(dtype="float64", numbers=atoms.numbers.tolist())
    places = [torch.from_numpy(scale * atoms.positions / 10) for scale in (1.0, 1.9)]

    def gradient(k: int) -> torch.Tensor:
        x = places[k].clone().requires_grad_()
        return torch.autograd.grad(module(x), x)[0]

    def worst(k: int) -> float:
        with torch.jit.optimized_execution(False):  # a setting of each thread
            return max(float((gradient(k) - expected[k]).abs().max()) for _ in range(100))

    expected = [gradient(k) for k in range(2)]
    with ThreadPoolExecutor(2) as threads:
        assert max(threads.map(worst, range(2))) < 1e-9


@pytest.mark.parametrize("form", ["general", "openmm"])
def test_an_exported_file_drives_ase_like_its_model(tmp_path: Path, form: str) -> None:
    atoms = triclinic()
    numbers = atoms.numbers.tolist() if form == "openmm" else None
    model = write_model(tmp_path, num_blocks=1, direct=True)
    export(model, tmp_path / "m.pt", numbers=numbers, periodic=True, forces="conservative")
    for forces in ("conservative", "direct"):
        ours = JMPCalculator(tmp_path / "m.pt", forces=forces, device="cpu", trust=True)
        theirs = JMPCalculator(model, forces=forces, device="cpu")
        assert isinstance(ours.neighbours, NeighbourCache)
        for name in ("energy", "energies", "forces", "stress")[: 4 if forces != "direct" else 3]:
            expected = theirs.get_property(name, atoms)
            assert relative(ours.get_property(name, atoms), expected) < 1e-5


def test_an_exported_file_runs_where_this_package_is_not(tmp_path: Path) -> None:
    atoms = molecule("H2O")
    export(small_potential(), tmp_path / "m.pt", numbers=atoms.numbers.tolist())
    script = (
        "import sys, torch\n"
        "m = torch.jit.load('m.pt')\n"
        "x = torch.tensor(eval(sys.argv[1]), requires_grad=True)\n"
        "m(x).backward()\n"
        "assert 'jmp_md' not in sys.modules\n"
        "print(x.grad.abs().max().item())"
    )
    command = [sys.executable, "-I", "-c", script, str((atoms.positions / 10).tolist())]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert float(result.stdout) > 1


def test_the_file_describes_itself(tmp_path: Path) -> None:
    written = export(small_potential(), tmp_path / "m.pt", numbers=[8, 1, 1], periodic=True)
    extra = {EXTRA_FILE: ""}
    torch.jit.load(tmp_path / "m.pt", _extra_files=extra)
    assert ExportInfo.from_json(extra[EXTRA_FILE]) == written
    raw = json.loads(extra[EXTRA_FILE])
    assert raw["numbers"] == [8, 1, 1]
    assert raw["header"]["licence"] == "MIT"


def test_a_file_that_does_not_compute_the_model_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = export(small_potential(), tmp_path / "m.pt")
    before = (tmp_path / "m.pt").read_bytes()
    other = small_potential(head={"energy_scale": 1.6})
    with pytest.raises(InputError, match="nothing was written"):
        verify(tmp_path / "m.pt", other.float(), info)
    monkeypatch.setattr("jmp_md.export.write.load_model", lambda *_, **__: other.float())
    monkeypatch.setattr(
        "jmp_md.export.write.general_module", lambda *_: torch.jit.load(tmp_path / "m.pt")
    )
    with pytest.raises(InputError, match="nothing was written"):
        export(other, tmp_path / "m.pt")
    assert (tmp_path / "m.pt").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "m.safetensors"}, r"ends in \.pt"),
        ({"format": "onnx"}, "'onnx': choose 'torchscript'"),
        ({"dtype": "half"}, "'half': choose 'float32' or 'float64'"),
        ({"forces": "direct"}, "no direct forces"),
        ({"forces": "both"}, "choose 'conservative' or 'direct'"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    path = tmp_path / str(options.pop("path", "m.pt"))
    with pytest.raises(InputError, match=message):
        export(small_potential(), path, **options)
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_used_are_refused_with_the_reason(tmp_path: Path) -> None:
    export(small_potential(), tmp_path / "m.pt")
    with pytest.raises(InputError, match="computes in float32"):
        load_model(tmp_path / "m.pt", trust=True, dtype=torch.float64)
    with pytest.raises(InputError, match="precision built in"):
        load_model(tmp_path / "m.pt", trust=True, references={"H": 1.0})
    with pytest.raises(CheckpointError, match="no head 'other'"):
        load_model(tmp_path / "m.pt", trust=True, head="other")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match="not of jmp-md"):
        load_model(tmp_path / "foreign.pt", trust=True)


def test_the_command_exports_for_the_atoms_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path, num_blocks=1)
    molecule("H2O").write(tmp_path / "water.xyz")
    output = tmp_path / "water.pt"
    arguments = ["--model", str(model), "--output", str(output)]
    assert main(["export", *arguments, "--structure", str(tmp_path / "water.xyz")]) == 0
    assert "3 atoms" in capsys.readouterr().out
    assert torch.jit.load(output).numbers.tolist() == [8, 1, 1]
    assert main(["export", *arguments, "--structure", str(tmp_path / "none.xyz")]) == 1
    assert "none.xyz" in capsys.readouterr().err


def test_elements_the_model_cannot_know_are_refused(tmp_path: Path) -> None:
    model = "jmp-xs-rmd17-ethanol"
    for numbers in ([79] * 4, [0, 1], [150]):
        with pytest.raises(InputError, match=r"Au|atomic number|element"):
            export(model, tmp_path / "m.pt", numbers=numbers)
    with pytest.warns(UserWarning, match="was trained on one molecule only"):
        export(model, tmp_path / "m.pt", numbers=[8, 1, 1])
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt"]


def test_wishes_that_a_file_cannot_fulfil_are_refused(tmp_path: Path) -> None:
    export(small_potential(), tmp_path / "m.pt")
    for option in ({"precision": "bf16"}, {"weights": "raw"}):
        with pytest.raises(InputError, match="built in"):
            load_model(tmp_path / "m.pt", trust=True, dtype=torch.float32, **option)
