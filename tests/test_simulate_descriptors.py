"""Descriptors are of structures: nothing changes with rotation, order of atoms, cell or batch."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell, molecule
from ase.calculators.emt import EMT
from ase.io import write
from factories import random_potential, write_model
from scipy.spatial import cKDTree

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.checkpoints.exported import ScriptedPotential
from jmp_md.cli.main import main
from jmp_md.embeddings import embed
from jmp_md.errors import InputError
from jmp_md.graph.policy import GraphPolicy
from jmp_md.simulate.descriptors import Descriptors, descriptors, nearest, plane, plane_share

SMALL = GraphPolicy.smooth(3.0, 3.0, 2.0, 3.0)


def calculator(**options: Any) -> JMPCalculator:
    return JMPCalculator(random_potential(**options), dtype="float64", device="cpu")


def assert_same(one: Descriptors, other: Descriptors) -> None:
    assert one.nodes == pytest.approx(other.nodes, abs=1e-10)
    assert one.edges == pytest.approx(other.edges, abs=1e-10)


@pytest.mark.parametrize("options", [{}, {"smooth": False}, {"direct": True}])
def test_rotation_shift_and_order_of_atoms_change_nothing(options: dict[str, Any]) -> None:
    model = calculator(**options)
    atoms = molecule("CH3OH")
    turned = atoms.copy()
    turned.rotate(70, (1, 2, 3))
    turned.translate((5, -3, 1))
    shuffled = atoms[np.random.default_rng(0).permutation(len(atoms))]
    here = descriptors([atoms], model)
    assert here.nodes.shape == (1, 16)
    assert here.edges.shape == (1, 20)
    assert_same(here, descriptors([turned], model))
    assert_same(here, descriptors([shuffled], model))


def test_structures_differ_and_a_batch_is_the_sum_of_its_parts() -> None:
    model = calculator()
    structures = [molecule(name) for name in ("H2O", "CH4", "C6H6")]
    together = descriptors(structures, model)
    for i, atoms in enumerate(structures):
        alone = descriptors([atoms], model)
        assert together.nodes[i] == pytest.approx(alone.nodes[0], abs=1e-10)
        assert together.edges[i] == pytest.approx(alone.edges[0], abs=1e-10)
    distances = np.linalg.norm(together.nodes[:, None] - together.nodes, axis=-1)
    assert distances[np.triu_indices(3, 1)].min() > 1e-3


def test_the_cell_that_describes_a_crystal_does_not_matter() -> None:
    model = calculator(graph=SMALL)
    atoms = bulk("NaCl", "rocksalt", a=5.4)
    larger = make_supercell(atoms, [[1, 1, -1], [1, -1, 1], [-1, 1, 1]])
    assert_same(descriptors([atoms], model), descriptors([larger], model))


def test_an_atom_that_leaves_does_so_without_a_jump() -> None:
    # At the cutoff of a smooth graph the mean of the edges must not notice.
    model = calculator(graph=SMALL)
    pairs = [Atoms("OOO", [[0, 0, 0], [1.5, 0, 0], [0, 3.0 + d, 0]]) for d in (-1e-4, 1e-4)]
    found = descriptors(pairs, model)
    assert found.edges[0] == pytest.approx(found.edges[1], abs=1e-6)


def test_a_lonely_atom_has_no_edges() -> None:
    found = descriptors([Atoms("O")], calculator())
    assert np.array_equal(found.edges, np.zeros((1, 20)))
    assert np.isfinite(found.nodes).all()


def test_what_has_no_embeddings_is_refused() -> None:
    with pytest.raises(InputError, match="descriptors need a JMPCalculator, not EMT"):
        descriptors([molecule("H2O")], EMT())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no structures"):
        descriptors([], calculator())
    model = calculator(head={"elements": (1, 8)})
    with pytest.raises(InputError, match=r"structure 1: atom 0 \(N\)"):
        descriptors([molecule("H2O"), molecule("N2")], model)


def test_an_exported_model_says_that_it_shows_no_embeddings() -> None:
    exported = ScriptedPotential.__new__(ScriptedPotential)
    torch.nn.Module.__init__(exported)
    exported.header = random_potential().header
    with pytest.raises(InputError, match="exported file of model 'random' keeps its embeddings"):
        embed(exported, None)  # type: ignore[arg-type]


def test_principal_components_keep_distances_in_a_plane() -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(10, 2)) @ np.linalg.qr(rng.normal(size=(6, 6)))[0][:2]
    found = plane(flat + 7.0, "pca")
    assert np.linalg.norm(found[0] - found[5]) == pytest.approx(np.linalg.norm(flat[0] - flat[5]))
    with pytest.raises(InputError, match="a map needs 5 structures or more, not 4"):
        plane(flat[:4], "pca")
    with pytest.raises(InputError, match="method 'umap'"):
        plane(flat, "umap")


def test_the_share_of_a_map_is_that_of_its_variance() -> None:
    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    axes = np.diag([3.0, 2.0, 1.0, 1.0])
    rows = np.concatenate([axes, -axes]) @ turned
    assert plane_share(rows) == pytest.approx((9 + 4) / (9 + 4 + 1 + 1))
    assert plane_share(np.ones((5, 3))) == 1.0


def test_the_nearest_rows_are_those_of_a_tree() -> None:
    rows = np.random.default_rng(0).normal(size=(600, 8)) + 1000.0
    rows[17] = rows[580]
    distances, others = nearest(rows)
    expected, which = cKDTree(rows).query(rows, 2)
    np.testing.assert_allclose(distances, expected[:, 1], atol=1e-9)
    apart = expected[:, 1] > 0
    assert np.array_equal(rows[others[apart]], rows[which[apart, 1]])
    assert (others[17], others[580], distances[17]) == (580, 17, 0.0)
    assert len(nearest(rows[:1])[0]) == 0


def test_neighbours_stay_neighbours_on_a_map() -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(15, 8)), rng.normal(size=(15, 8)) + 30])
    found = plane(rows)
    centres = found[:15].mean(axis=0), found[15:].mean(axis=0)
    nearer = [np.linalg.norm(found - centre, axis=1) for centre in centres]
    assert (nearer[0][:15] < nearer[1][:15]).all()
    assert np.array_equal(found, plane(rows))


@pytest.fixture
def model(here: Path) -> str:
    return str(write_model(here, head={"elements": (1, 6, 8)}))


def test_the_command_writes_vectors_and_a_map(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("a.xyz", [molecule("H2O"), molecule("CH4"), molecule("CO2")])
    write("b.xyz", [molecule("CH3OH"), molecule("C6H6")])
    command = ["descriptors", "a.xyz", "b.xyz", "--model", model, "--dtype", "float64"]
    assert main([*command, "--map", "pca", "--colour", "file"]) == 0
    files = "descriptors.npz, jmp-md.log, map.svg, report.html, summary.json"
    assert f"wrote a-descriptors: {files}" in capsys.readouterr().out
    with np.load("a-descriptors/descriptors.npz", allow_pickle=False) as found:
        assert found["nodes"].shape == (5, 16)
        assert found["edges"].shape == (5, 20)
        assert found["formulas"].tolist() == ["H2O", "CH4", "CO2", "CH4O", "C6H6"]
        assert found["files"].tolist() == ["a.xyz"] * 3 + ["b.xyz"] * 2
        assert found["n_atoms"].tolist() == [3, 5, 3, 6, 12]
        expected = descriptors([molecule("CH4")], JMPCalculator(model, dtype="float64"))
        assert found["nodes"][1] == pytest.approx(expected.nodes[0], abs=1e-8)
    page = Path("a-descriptors/report.html").read_text()
    assert page.count("coloured by file") == page.count("coloured by formula") == 2 * 2  # and alt
    with np.load("a-descriptors/descriptors.npz") as found:
        apart = np.linalg.norm(found["nodes"][:, None] - found["nodes"], axis=2)
    least = apart[np.triu_indices(5, 1)].min()
    assert f"<dt>least distance</dt><dd>{least:.4g}</dd>" in page
    first = page.split("<tbody>")[1].split("</tr>")[0]
    assert f'<td class="number">{least:.6g}</td>' in first
    drawing = Path("a-descriptors/map.svg").read_text()
    assert "<svg" in drawing
    assert json.loads(Path("a-descriptors/summary.json").read_text())["results"] == {
        "n_structures": 5,
        "node_features": 16,
        "edge_features": 20,
    }


def test_a_command_that_cannot_work_exits_1_and_says_why(
    here: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("a.xyz", [molecule("H2O"), molecule("N2")])
    real = builtins.__import__

    def without(name: str, *args: Any, **rest: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **rest)

    monkeypatch.setattr(builtins, "__import__", without)
    for args, message in (
        (["none.xyz"], "there is no structure file none.xyz"),
        (["a.xyz"], "structure 1: atom 0 (N): head 'test'"),
        (["a.xyz", "--map", "tsne"], "t-SNE needs scikit-learn, which is not installed"),
    ):
        assert main(["descriptors", *args, "--model", model]) == 1
        error = capsys.readouterr().err
        assert error.splitlines()[-1].startswith("error: ")
        assert message in error.splitlines()[-1]
