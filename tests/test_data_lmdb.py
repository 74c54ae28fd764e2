"""OCP-style LMDBs of pickled graphs and ASE-LMDBs, written here to the published layouts."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import zlib
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db.row import atoms2dict
from ase.io.jsonio import encode
from processes import run_alone
from torch_geometric.data import Data

from jmp_md.errors import InputError, JMPError
from jmp_md.training.data.frame import frames
from jmp_md.training.data.lmdb import open_lmdb
from jmp_md.training.data.splits import split_by_system


def write(path: Path, records: dict[str, bytes]) -> None:
    environment = lmdb.open(str(path), subdir=False, map_size=2**24, lock=False)
    with environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key.encode(), value)
    environment.close()


def write_oc20(path: Path, energies: list[float], first_sid: int = 0) -> None:
    """CO on two copper atoms as OC20's S2EF releases have it."""
    records = {"length": pickle.dumps(len(energies))}
    for k, energy in enumerate(energies):
        data = Data(
            pos=torch.tensor([[0, 0, 0], [0, 0, 2], [0, 0, 4], [0, 0, 5.2]], dtype=torch.float32),
            atomic_numbers=torch.tensor([29, 29, 6, 8], dtype=torch.float32),
            cell=torch.diag(torch.tensor([3.0, 3.0, 20.0]))[None],
            natoms=4,
            tags=torch.tensor([0, 1, 2, 2]),
            fixed=torch.tensor([1.0, 0, 0, 0]),
            y=energy,
            force=torch.full((4, 3), 0.25),
            sid=first_sid + k,
            fid=17,
        )
        records[str(k)] = pickle.dumps(data, protocol=-1)
    write(path, records)


def write_ase_lmdb(path: Path, rows: list[Atoms], deleted: list[int], encoder: object) -> None:
    records = {"nextid": len(rows) + 1, "deleted_ids": deleted, "metadata": {}}
    for k, atoms in enumerate(rows):
        if k + 1 not in deleted:
            row = {**atoms2dict(atoms), "key_value_pairs": {"sid": f"ads{k}"}, "data": {}}
            records[str(k + 1)] = row
    write(path, {key: zlib.compress(encoder(value).encode()) for key, value in records.items()})


def plain_json(value: object) -> str:
    """As orjson writes numpy: arrays become lists."""
    return json.dumps(value, default=lambda item: item.tolist())


def slab(energy: float) -> Atoms:
    atoms = Atoms("Cu2H", [[0, 0, 0], [0, 0, 2], [0, 0, 3.5]], cell=[3, 3, 15], pbc=True)
    atoms.set_tags([0, 1, 2])
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = SinglePointCalculator(
        atoms, energy=energy, forces=np.full((3, 3), 0.5), stress=np.arange(6.0)
    )
    return atoms


def test_a_folder_of_oc20_files_is_one_data_set(tmp_path: Path) -> None:
    write_oc20(tmp_path / "data.0000.lmdb", [-1.5, -2.5])
    write_oc20(tmp_path / "data.0001.lmdb", [-3.5], first_sid=2)
    (tmp_path / "data_log.0000.txt").write_text("not data")
    dataset = open_lmdb(tmp_path)
    assert [frame.energy for frame in frames(dataset)] == [-1.5, -2.5, -3.5]
    assert [frame.system for frame in frames(dataset)] == ["0", "1", "2"]
    frame = dataset[2]
    np.testing.assert_array_equal(frame.numbers, [29, 29, 6, 8])
    np.testing.assert_array_equal(frame.tags, [0, 1, 2, 2])
    np.testing.assert_array_equal(frame.fixed, [True, False, False, False])
    np.testing.assert_array_equal(frame.cell, np.diag([3.0, 3.0, 20.0]))
    np.testing.assert_array_equal(frame.forces, np.full((4, 3), 0.25))
    assert frame.pbc == (True, True, True)


def test_reference_energies_make_total_energies(tmp_path: Path) -> None:
    write_oc20(tmp_path / "train.lmdb", [-1.5, -2.5])
    (tmp_path / "oc20_ref.pkl").write_bytes(pickle.dumps({"random0": -300.0, "random7": 1.0}))
    dataset = open_lmdb(tmp_path / "train.lmdb", references=tmp_path / "oc20_ref.pkl")
    assert dataset[0].energy == -301.5
    with pytest.raises(InputError, match=r"train\.lmdb, record 1, .* no reference for 'random1'"):
        dataset[1]


def test_genuine_ocp_style_file(shared: Path) -> None:
    dataset = open_lmdb(shared / "data/formats/transition1x_ocp_style.lmdb")
    assert len(dataset) == 100
    frame = dataset[7]
    np.testing.assert_array_equal(frame.numbers, [8, 7, 6, 6, 6, 6, 8] + [1] * 7)
    assert frame.energy == pytest.approx(-9840.2158)
    assert frame.pbc == (False, False, False)
    forces = np.concatenate([frame.forces for frame in frames(dataset)])
    assert np.sqrt(np.mean(forces**2)) == pytest.approx(0.38, abs=0.01)  # eV/Å, as published


@pytest.mark.parametrize("encoder", [plain_json, encode], ids=["lists", "__ndarray__"])
def test_ase_lmdb_rows(tmp_path: Path, encoder: object) -> None:
    path = tmp_path / "data0000.aselmdb"
    write_ase_lmdb(path, [slab(-1.0), slab(-2.0), slab(-3.0)], [2], encoder)
    dataset = open_lmdb(path)
    assert [frame.energy for frame in frames(dataset)] == [-1.0, -3.0]
    frame = dataset[1]
    np.testing.assert_array_equal(frame.numbers, [29, 29, 1])
    np.testing.assert_array_equal(frame.forces, np.full((3, 3), 0.5))  # of the fixed atom too
    np.testing.assert_array_equal(frame.fixed, [True, False, False])
    np.testing.assert_array_equal(frame.tags, [0, 1, 2])
    np.testing.assert_array_equal(frame.stress, [[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    assert (frame.system, frame.pbc) == ("ads2", (True, True, True))


def sum_in_worker(datasets: list, queue: multiprocessing.Queue) -> None:
    queue.put(sum(frame.energy for dataset in datasets for frame in frames(dataset)))


def read_here_and_in_a_fork(path: Path) -> None:
    datasets = [open_lmdb(path), open_lmdb(path)]
    assert datasets[0][0].energy == -1.0  # the file is open before the fork
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=sum_in_worker, args=(datasets, queue))
    worker.start()
    assert queue.get(timeout=60) == -6.0
    worker.join()
    assert pickle.loads(pickle.dumps(datasets[0]))[1].energy == datasets[1][1].energy == -2.0


def test_two_data_sets_on_one_file_work_here_and_in_a_fork(tmp_path: Path) -> None:
    write_oc20(tmp_path / "a.lmdb", [-1.0, -2.0])
    run_alone(read_here_and_in_a_fork, tmp_path / "a.lmdb")


class RunsOnLoad:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("jmp_md_was_here"),))


def test_pickles_are_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "evil.lmdb", {"length": pickle.dumps(1), "0": pickle.dumps(RunsOnLoad())})
    with pytest.raises(JMPError, match=r"evil\.lmdb, record 0"):
        open_lmdb(tmp_path / "evil.lmdb")[0]
    assert not (tmp_path / "jmp_md_was_here").exists()


def test_broken_lmdb_files_are_refused_by_name(tmp_path: Path) -> None:
    write_oc20(tmp_path / "whole.lmdb", [-1.0] * 20)
    content = (tmp_path / "whole.lmdb").read_bytes()
    (tmp_path / "truncated.lmdb").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.lmdb").write_text("not a database")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("truncated.lmdb", "truncated"),
        ("text.lmdb", "not a readable LMDB"),
        ("missing.lmdb", "not a readable LMDB"),
        ("empty", r"no \.lmdb or \.aselmdb file in this folder"),
    ):
        with pytest.raises(InputError, match=f"{name}: {message}"):
            open_lmdb(tmp_path / name)
    assert not (tmp_path / "missing.lmdb").exists()


def test_a_wrong_record_is_named(tmp_path: Path) -> None:
    write(
        tmp_path / "odd.lmdb",
        {
            "length": pickle.dumps(4),
            "0": pickle.dumps([1, 2]),
            "1": pickle.dumps(Data(pos=torch.zeros(1, 3))),
            "2": pickle.dumps(Data(pos=torch.zeros(1, 3), z=torch.tensor([1, 1]))),
        },
    )
    dataset = open_lmdb(tmp_path / "odd.lmdb")
    for index, message in (
        (0, "record 0: holds a list, not a graph"),
        (1, r"record 1, field numbers: missing; it has \['pos'\]"),
        (2, r"record 2, field positions: shape \(1, 3\) instead of \(2, 3\)"),
        (3, "record 3: missing; the file is incomplete"),
    ):
        with pytest.raises(InputError, match=rf"odd\.lmdb, {message}"):
            dataset[index]
    write(tmp_path / "plain.aselmdb", {"nextid": zlib.compress(b"2"), "1": b"{}"})
    with pytest.raises(InputError, match=r"plain\.aselmdb, record 1: not zlib-compressed JSON"):
        open_lmdb(tmp_path / "plain.aselmdb")[0]


def test_the_reactions_of_transition1x_are_told_apart_by_formula(tmp_path: Path) -> None:
    """Its release as LMDB says the same `rxn` for every frame."""
    formulas = {"a": [1, 6, 7], "b": [1, 6, 8], "c": [8, 8, 1]}
    for name, numbers in formulas.items():
        graphs = [
            Data(
                pos=torch.eye(3) + k,
                z=torch.tensor(numbers),
                y=-1.0 * k,
                force=torch.zeros(3, 3),
                rxn="rxn",
            )
            for k in range(4)
        ]
        records = {str(k): pickle.dumps(graph) for k, graph in enumerate(graphs)}
        write(tmp_path / f"{name}.lmdb", {"length": pickle.dumps(4), **records})
    split = split_by_system(open_lmdb(tmp_path), (0.4, 0.3, 0.3))
    parts = [{int(k) // 4 for k in part} for part in (split.train, split.val, split.test)]
    assert sorted(map(tuple, parts)) == [(0,), (1,), (2,)]
    with pytest.raises(InputError, match=r"1 systems cannot be split .*all are 'CHN'"):
        split_by_system(open_lmdb(tmp_path / "a.lmdb"), (0.8, 0.2, 0.0))
