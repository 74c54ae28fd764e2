"""Which frames train, which validate and which test; the splits of the JMP paper among them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from ase.symbols import Symbols

from jmp_md.errors import InputError
from jmp_md.files import atomic_write
from jmp_md.training.data.frame import Dataset, Frame, frames

PARTS = ("train", "val", "test")
RUNS = 5  # of consecutive frames, at least, in each part of a split by stretches
FORMAT = "jmp-md split 1"

# Sizes of the training sets of sGDML (arXiv 2209.14865), of which JMP validates on 5 %.
MD22_TRAIN_SIZES = {
    "Ac-Ala3-NHMe": 6000,
    "DHA": 8000,
    "stachyose": 8000,
    "AT-AT": 3000,
    "AT-AT-CG-CG": 2000,
    "buckyball-catcher": 600,
    "double-walled-nanotube": 800,
}

# Frames (int) or shares of them (float) in train, validation and test; None is the rest.
# Fractions are rounded down.
PAPER_SPLITS: dict[str, tuple[float | None, float | None, float | None]] = {
    "rmd17": (950, 50, None),
    "rmd17-50": (950, 50, None),
    "qm9": (None, 10_000, 10_000),
    "qmof": (10_000, 0.1, None),
    "spice": (None, 0.1, 0.1),
    "pdbbind": (None, 0.1, 0.1),
    **{
        f"md22-{molecule}": (size - size // 20, size // 20, None)
        for molecule, size in MD22_TRAIN_SIZES.items()
    },
}
FEW_SHOT = {"rmd17-50": 50}  # of these splits, only the first training frames are taken

MATBENCH_FOLDS = 5
MATBENCH_SEED = 18012019


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of the frames in each part; no frame is in two.

    Attributes:
        n_frames: Frames in the data set the indices refer to.
        train, val, test: Indices, int64.

    Raises:
        InputError: An index lies outside the data set or occurs twice.
    """

    n_frames: int
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    def __post_init__(self) -> None:
        for part in PARTS:
            object.__setattr__(self, part, np.asarray(getattr(self, part), dtype=np.int64))
        every = np.concatenate([self.train, self.val, self.test])
        if len(every) and not 0 <= every.min() <= every.max() < self.n_frames:
            raise InputError(f"split: frame {every.max()} of a data set of {self.n_frames}")
        if len(np.unique(every)) < len(every):
            raise InputError("split: a frame is in two parts or twice in one")


def paper_split(name: str, n_frames: int, seed: int = 42) -> Split:
    """The JMP paper's split of a downstream data set: shuffled by frame, then cut.

    Args:
        name: One of `PAPER_SPLITS`.
        n_frames: Frames in the data set.
        seed: Of numpy's `RandomState`; the paper's is 42.

    Raises:
        InputError: The name is unknown, or there are too few frames.
    """
    if name not in PAPER_SPLITS:
        raise InputError(f"no paper split {name!r}; known are {', '.join(PAPER_SPLITS)}")
    split = random_split(n_frames, PAPER_SPLITS[name], seed)
    return dataclasses.replace(split, train=split.train[: FEW_SHOT.get(name)])


def random_split(
    n_frames: int, sizes: Sequence[float | None] = (None, 0.1, 0.1), seed: int = 42
) -> Split:
    """Shuffle frames with numpy's `RandomState(seed)` and cut the list in three.

    Only for data whose frames are independent; see `split_by_system`.

    Args:
        n_frames: Frames in the data set.
        sizes: Of train, validation and test, in this order in the shuffled list: numbers of
            frames as integers, shares of them as floats (1.0 is all; rounded down), or None for the
            rest, at most once.
        seed: Of the shuffle.

    Raises:
        InputError: The sizes do not fit the data set.
    """
    counts = [int(size * n_frames) if isinstance(size, float) else size for size in sizes]
    rest = n_frames - sum(count for count in counts if count is not None)
    too_small = any(count is not None and count < 0 for count in counts)
    if rest < 0 or too_small or len(counts) != 3 or counts.count(None) > 1:
        raise InputError(
            f"split {tuple(sizes)} of {n_frames} frames: give train, validation and test sizes "
            "that fit, one of which may be None for the rest"
        )
    ends = np.cumsum([rest if count is None else count for count in counts])
    order = np.random.RandomState(seed).permutation(n_frames)
    train, val, test, _ = np.split(order, ends)
    return Split(n_frames, train, val, test)


def split_by_system(
    dataset: Dataset, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 42
) -> Split:
    """Split so that no system (`Frame.system`, or else the formula) is in two parts.

    Frames of one trajectory or relaxation resemble each other: split by frame, they would be
    tested on what they were trained on. Systems are shuffled and each goes to the part that is
    furthest below its share of frames.

    Args:
        dataset: All of it is read once.
        fractions: Shares of frames in train, validation and test; a share of 0 stays empty, and
            what they leave of 1 is in no part.
        seed: Of numpy's `RandomState`.

    Raises:
        InputError: There are fewer systems than parts, or a share is negative.
    """
    return _dealt([system_of(frame) for frame in frames(dataset)], fractions, seed)


def _dealt(names: Sequence[str], fractions: Sequence[float], seed: int) -> Split:
    """Deal frames to three parts, those of one name together."""
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.shape != (3,) or (shares < 0).any() or shares.sum() == 0:
        raise InputError(f"fractions {tuple(fractions)}: give three shares, none negative")
    systems: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        systems.setdefault(name, []).append(index)
    shares = np.append(shares, max(1.0 - float(shares.sum()), 0.0))  # what is left out
    shares[shares < 1e-9] = 0.0
    wanted = np.flatnonzero(shares)
    if len(systems) < len(wanted):
        raise InputError(
            f"{len(systems)} systems cannot be split in {len(wanted)} parts without frames of one "
            f"system in two of them (all are {', '.join(map(repr, list(systems)[:3]))}); add data, "
            "or split by frame (data.split: frames) if frames are independent"
        )
    members = list(systems.values())
    parts: list[list[int]] = [[], [], [], []]
    for position in np.random.RandomState(seed).permutation(len(members)):
        neediest = min(wanted, key=lambda part: len(parts[part]) / shares[part])
        parts[neediest] += members[position]
    return Split(
        sum(map(len, members)), *(np.array(sorted(part), dtype=np.int64) for part in parts[:3])
    )


def split_by_stretch(
    dataset: Dataset, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 42
) -> Split:
    """Split by runs of consecutive frames, which keeps neighbours of a trajectory together.

    Runs are a fifth of the smallest part, so that each part has frames from several times, and
    never cross from one composition to another.

    Args:
        dataset: All of it is read once.
        fractions: As of :func:`split_by_system`.
        seed: Of numpy's `RandomState`.

    Raises:
        InputError: A share is negative, or there are too few frames.
    """
    smallest = min((share for share in fractions if share > 0), default=1.0)
    length = max(int(smallest * len(dataset)) // RUNS, 1)
    runs = [
        f"{number} {k // length}"
        for number, (_, run) in enumerate(groupby(frames(dataset), system_of))
        for k, _ in enumerate(run)
    ]
    return _dealt(runs, fractions, seed)


def system_of(frame: Frame) -> str:
    """What a frame is kept together with: its system, or its formula where it has none."""
    if frame.system:
        return frame.system
    return Symbols(frame.numbers).get_chemical_formula("hill")


def matbench_fold(targets: np.ndarray, fold: int, stratify: bool = False, seed: int = 42) -> Split:
    """One of MatBench's five fixed folds, with 10 % of its training part for validation.

    The folds are those of scikit-learn's `KFold` (`StratifiedKFold` for classification) with
    `n_splits=5, shuffle=True, random_state=18012019`, as MatBench v0.1 prescribes.

    Args:
        targets: (n,) targets of all rows, in the file's order; only their number matters unless
            they are classes.
        fold: 0 to 4: the fold that is the test set.
        stratify: The targets are classes, such as `is_metal`.
        seed: Of the choice of validation rows, which MatBench leaves open.

    Raises:
        InputError: There is no such fold.
    """
    if fold not in range(MATBENCH_FOLDS):
        raise InputError(f"MatBench fold {fold}: choose 0 to {MATBENCH_FOLDS - 1}")
    numbers = _stratified_folds(targets) if stratify else _folds(len(targets))
    training = np.flatnonzero(numbers != fold)
    shuffled = np.random.RandomState(seed).permutation(training)
    n_val = len(training) // 10
    return Split(len(targets), shuffled[n_val:], shuffled[:n_val], np.flatnonzero(numbers == fold))


def _folds(n: int) -> np.ndarray:
    """Fold of each row: shuffled rows, dealt in consecutive runs, the first ones longer."""
    order = np.random.RandomState(MATBENCH_SEED).permutation(n)
    numbers = np.empty(n, dtype=np.int64)
    for fold, rows in enumerate(np.array_split(order, MATBENCH_FOLDS)):
        numbers[rows] = fold
    return numbers


def _stratified_folds(targets: np.ndarray) -> np.ndarray:
    """Fold of each row so that each fold has its share of every class.

    Classes count in the order in which they first occur. Sorted by class, every fifth row counts
    for the same fold, which gives a class its number of rows per fold; which rows is shuffled.
    """
    targets = np.asarray(targets)
    names, first = np.unique(targets, return_index=True)
    names = names[np.argsort(first)]
    members = [np.flatnonzero(targets == name) for name in names]
    by_class = np.repeat(np.arange(len(names)), [len(rows) for rows in members])
    random = np.random.RandomState(MATBENCH_SEED)
    numbers = np.empty(len(targets), dtype=np.int64)
    for label, rows in enumerate(members):
        counts = [(by_class[fold::MATBENCH_FOLDS] == label).sum() for fold in range(MATBENCH_FOLDS)]
        dealt = np.repeat(np.arange(MATBENCH_FOLDS), counts)
        random.shuffle(dealt)
        numbers[rows] = dealt
    return numbers


def write_split(path: str | Path, split: Split) -> None:
    """Write a split as JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(_content(split)) + "\n", encoding="utf-8")


def same_split(path: str | Path, split: Split) -> bool:
    """Whether a file that `write_split` wrote holds this split."""
    try:
        return bool(json.loads(Path(path).read_text(encoding="utf-8")) == _content(split))
    except (OSError, ValueError):
        return False


def _content(split: Split) -> dict[str, object]:
    parts = {part: getattr(split, part).tolist() for part in PARTS}
    return {"format": FORMAT, "n_frames": split.n_frames, **parts}


def read_split(path: str | Path, dataset: Dataset) -> Split:
    """Read a split written by `write_split`.

    Args:
        path: The file.
        dataset: The data set it is for.

    Raises:
        InputError: The file cannot be read, is no split, or was made for other data.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
        split = Split(int(content["n_frames"]), *(content[part] for part in PARTS))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a readable split file ({error})") from error
    if split.n_frames != len(dataset):
        raise InputError(
            f"{path}: made for {split.n_frames} frames, but the data set has {len(dataset)}; "
            "use the data it was made for, or make another split"
        )
    return split
