"""Splits are the published ones, keep systems together and survive being written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jmp_md.errors import InputError
from jmp_md.training.data.frame import FrameList, make_frame
from jmp_md.training.data.npz import open_npz
from jmp_md.training.data.splits import (
    MATBENCH_FOLDS,
    Split,
    matbench_fold,
    paper_split,
    random_split,
    read_split,
    split_by_stretch,
    split_by_system,
    system_of,
    write_split,
)


def of_systems(sizes: dict[str, int]) -> FrameList:
    return FrameList(
        [
            make_frame("test", k, numbers=[1], positions=[[0, 0, k]], system=name)
            for name, size in sizes.items()
            for k in range(size)
        ]
    )


def test_paper_split_shuffles_the_whole_file_with_random_state_42() -> None:
    split = paper_split("rmd17", 100_000)
    order = np.arange(100_000)
    np.random.RandomState(42).shuffle(order)
    np.testing.assert_array_equal(split.train, order[:950])
    np.testing.assert_array_equal(split.val, order[950:1000])
    np.testing.assert_array_equal(split.test, order[1000:])
    few = paper_split("rmd17-50", 100_000)  # trains on less, else the same
    np.testing.assert_array_equal(few.train, order[:50])
    np.testing.assert_array_equal(few.val, split.val)
    np.testing.assert_array_equal(few.test, split.test)


@pytest.mark.parametrize(
    ("name", "n_frames", "sizes"),
    [
        ("rmd17", 1000, (950, 50, 0)),
        ("md22-Ac-Ala3-NHMe", 85_109, (5700, 300, 79_109)),
        ("md22-buckyball-catcher", 6102, (570, 30, 5502)),
        ("qm9", 130_831, (110_831, 10_000, 10_000)),
        ("qmof", 20_375, (10_000, 2037, 8338)),
        ("spice", 33_849, (27_081, 3384, 3384)),
        ("pdbbind", 195, (157, 19, 19)),
    ],
)
def test_paper_splits_have_the_published_sizes(name: str, n_frames: int, sizes: tuple) -> None:
    split = paper_split(name, n_frames)
    assert (len(split.train), len(split.val), len(split.test)) == sizes
    parts = np.concatenate([split.train, split.val, split.test])
    np.testing.assert_array_equal(np.sort(parts), np.arange(n_frames))


def test_sizes_that_do_not_fit_are_refused() -> None:
    for sizes in ((950, 50, None), (None, None, 1), (-1, None, 1), (5, 1)):
        with pytest.raises(InputError, match="of 10 frames: give train, validation and test sizes"):
            random_split(10, sizes)
    with pytest.raises(InputError, match="no paper split 'md17'; known are rmd17"):
        paper_split("md17", 1000)


def test_no_system_is_in_two_parts() -> None:
    dataset = of_systems({f"molecule {k}": 1 + 7 * k % 13 for k in range(40)})
    split = split_by_system(dataset, (0.7, 0.2, 0.1), seed=3)
    parts = [{dataset[i].system for i in part} for part in (split.train, split.val, split.test)]
    assert sum(map(len, parts)) == 40 == len(set.union(*parts))
    shares = np.array([len(split.train), len(split.val), len(split.test)]) / len(dataset)
    np.testing.assert_allclose(shares, [0.7, 0.2, 0.1], atol=0.05)
    other = split_by_system(dataset, (0.7, 0.2, 0.1), seed=4)
    assert set(other.test) != set(split.test)
    no_test = split_by_system(dataset, (0.9, 0.1, 0.0))
    assert len(no_test.test) == 0 < len(no_test.val)


def test_every_part_gets_a_system_or_none_is_split() -> None:
    split = split_by_system(of_systems({"big": 1000, "a": 1, "b": 1}))
    assert min(len(split.train), len(split.val), len(split.test)) >= 1
    with pytest.raises(InputError, match="2 systems cannot be split in 3 parts"):
        split_by_system(of_systems({"a": 100, "b": 100}))
    with pytest.raises(InputError, match="give three shares, none negative"):
        split_by_system(of_systems({"a": 1, "b": 1}), (1.5, -0.5, 0.0))


def test_frames_without_a_system_are_kept_together_by_formula() -> None:
    water = make_frame("x", 0, numbers=[1, 8, 1], positions=np.eye(3))
    same = make_frame("y", 1, numbers=[8, 1, 1], positions=np.eye(3))
    assert system_of(water) == system_of(same) == "H2O"


def test_genuine_relaxations_are_split_by_system(shared: Path) -> None:
    dataset = open_npz(shared / "data/pretrain/qm7x.npz")
    split = split_by_system(dataset)
    systems = np.array([system_of(dataset[i]) for i in range(len(dataset))])
    parts = [set(systems[part]) for part in (split.train, split.val, split.test)]
    assert len(set.union(*parts)) == 75 == sum(map(len, parts))


def test_matbench_folds_are_the_published_ones() -> None:
    """First test rows of matbench_steels (312 rows) in MatBench v0.1, counted from 0."""
    published = [
        [2, 4, 19, 25, 26, 31, 34, 40],
        [3, 8, 9, 11, 23, 29, 39, 46],
        [16, 18, 20, 22, 32, 47, 52, 53],
        [1, 6, 13, 21, 30, 33, 41, 42],
        [0, 5, 7, 10, 12, 14, 15, 17],
    ]
    tested = []
    for fold in range(MATBENCH_FOLDS):
        split = matbench_fold(np.zeros(312), fold)
        np.testing.assert_array_equal(split.test[:8], published[fold])
        assert len(split.val) == (312 - len(split.test)) // 10
        tested.append(split.test)
    np.testing.assert_array_equal(np.sort(np.concatenate(tested)), np.arange(312))


def test_folds_of_classes_are_those_of_scikit_learn() -> None:
    """Reference: StratifiedKFold(5, shuffle=True, random_state=18012019) of scikit-learn."""
    classes = [1, 1, 0, 0, 1, 1, 1, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 0]
    expected = [
        [1, 5, 10, 14, 19],
        [6, 11, 13, 20, 22],
        [0, 15, 16, 18, 21],
        [3, 4, 9, 17],
        [2, 7, 8, 12],
    ]
    for fold, rows in enumerate(expected):
        split = matbench_fold(np.array(classes, dtype=bool), fold, stratify=True)
        np.testing.assert_array_equal(split.test, rows)
    with pytest.raises(InputError, match="MatBench fold 5: choose 0 to 4"):
        matbench_fold(np.zeros(10), 5)


def test_splits_survive_being_written(tmp_path: Path) -> None:
    dataset = of_systems({str(k): 2 for k in range(10)})
    split = split_by_system(dataset)
    path = tmp_path / "split.json"
    write_split(path, split)
    again = read_split(path, dataset)
    for part in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(again, part), getattr(split, part))
    assert [file.name for file in tmp_path.iterdir()] == ["split.json"]
    with pytest.raises(
        InputError, match=r"split\.json: made for 20 frames, but the data set has 4"
    ):
        read_split(path, of_systems({"a": 4}))


def test_wrong_split_files_are_refused_by_name(tmp_path: Path) -> None:
    dataset = of_systems({"a": 4})
    good = {"format": "jmp-md split 1", "n_frames": 4, "train": [0, 1], "val": [2], "test": [3]}
    for change, message in (
        ({"format": "csv"}, "format 'csv'"),
        ({"val": [9]}, "frame 9 of a data set of 4"),
        ({"val": [1]}, "a frame is in two parts"),
        ({"val": ["x"]}, "not a readable split file"),
    ):
        (tmp_path / "split.json").write_text(json.dumps({**good, **change}))
        with pytest.raises(InputError, match=rf"split\.json: .*{message}"):
            read_split(tmp_path / "split.json", dataset)
    (tmp_path / "split.json").write_text(json.dumps(good)[:-9])
    with pytest.raises(InputError, match=r"split\.json: not a readable split file"):
        read_split(tmp_path / "split.json", dataset)
    with pytest.raises(InputError, match="frame 7 of a data set of 4"):
        Split(4, np.array([7]), np.array([]), np.array([]))


def test_a_number_with_a_point_is_a_share() -> None:
    for sizes, counts in (((1.0, None, 0), [10, 0, 0]), ((1, None, 0.2), [1, 7, 2])):
        split = random_split(10, sizes)
        assert [len(split.train), len(split.val), len(split.test)] == counts


def test_systems_beyond_the_shares_are_left_out() -> None:
    dataset = of_systems({f"s{k}": 5 for k in range(40)})
    split = split_by_system(dataset, (0.4, 0.1, 0.0))
    assert [len(split.train), len(split.val), len(split.test)] == [80, 20, 0]


def test_stretches_keep_neighbours_of_a_trajectory_in_one_part() -> None:
    split = split_by_stretch(of_systems({"a": 200}), (0.9, 0.1, 0.0), seed=1)
    part = np.empty(200, dtype=int)
    part[split.train], part[split.val] = 0, 1
    assert (len(split.train), len(split.val), len(split.test)) == (180, 20, 0)
    changes = np.count_nonzero(np.diff(part))
    assert changes <= 2 * 5  # five runs of four frames, where a shuffle gives some 36 changes
    assert np.ptp(split.val) > 20  # and not one run alone
