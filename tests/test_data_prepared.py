"""Prepared data sets give back the frames they were made from, whatever happened on the way."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from jmp_md.cli.main import main
from jmp_md.errors import InputError
from jmp_md.training.data.frame import Frame, FrameList, make_frame
from jmp_md.training.data.open import open_dataset
from jmp_md.training.data.prepared import PreparedDataset, prepare
from jmp_md.training.summary import summarised

SOURCE = {"somewhere.npz": "abc"}


def mixed_frames(n: int = 11) -> list[Frame]:
    """Frames of which each lacks other things."""
    rng = np.random.default_rng(3)
    frames = []
    for k in range(n):
        size = int(rng.integers(1, 6))
        cell = rng.normal(size=(3, 3)) + 4 * np.eye(3)
        options = {
            "energy": -1e5 - rng.random() if k % 2 else None,
            "forces": rng.normal(size=(size, 3)) if k % 3 else None,
            "tags": rng.integers(0, 3, size) if k % 4 == 1 else None,
            "fixed": np.arange(size) == 0 if k % 4 == 2 else None,
            "cell": cell if k % 5 == 1 else None,
            "pbc": (True, False, True) if k % 5 == 1 else None,
            "stress": rng.normal(size=(3, 3)) if k % 5 == 1 else None,
            "targets": {"gap": rng.random()} if k % 2 else {},
        }
        numbers = rng.integers(1, 100, size)
        frame = make_frame(
            "test", k, numbers=numbers, positions=rng.normal(size=(size, 3)), system=f"s{k // 3}",
            **options,
        )  # fmt: skip
        frames.append(frame)
    return frames


def assert_same(found: Frame, expected: Frame, atol: float = 0.0) -> None:
    for name in Frame.__slots__:
        a, b = getattr(found, name), getattr(expected, name)
        if name == "tags" and b is None and a is not None:
            assert (a == 2).all()  # what tags are where a data set has none
        elif isinstance(b, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=0, atol=atol)
        else:
            assert a == b, name


@pytest.mark.parametrize(("double", "atol"), [(True, 0.0), (False, 1e-6)])
def test_every_field_comes_back(tmp_path: Path, double: bool, atol: float) -> None:
    frames = mixed_frames()
    prepared = prepare(FrameList(frames), tmp_path, source=SOURCE, shard_size=4, double=double)
    assert len(prepared) == len(frames)
    for dataset in (prepared, pickle.loads(pickle.dumps(prepared)), open_dataset(tmp_path)):
        for k in (10, 0, 5, 7, 3):
            assert_same(dataset[k], frames[k], atol)
    assert [prepared.n_atoms(k) for k in range(11)] == [len(f) for f in frames]
    with pytest.raises(IndexError):
        prepared[11]


def test_a_preparation_that_was_stopped_is_continued(tmp_path: Path) -> None:
    frames = mixed_frames()

    class Stopping(FrameList):
        def __getitem__(self, index: int) -> Frame:
            if index == 9:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    with pytest.raises(KeyboardInterrupt):
        prepare(Stopping(frames), tmp_path, source=SOURCE, shard_size=4, double=True)
    with pytest.raises(InputError, match="finish 'jmp-md data prepare'"):
        PreparedDataset(tmp_path)
    first = (tmp_path / "shard-00000.safetensors").stat().st_mtime_ns
    prepared = prepare(FrameList(frames), tmp_path, source=SOURCE, shard_size=4, double=True)
    assert (tmp_path / "shard-00000.safetensors").stat().st_mtime_ns == first
    assert_same(prepared[9], frames[9])
    with pytest.raises(InputError, match="begun from other files"):
        prepare(FrameList(frames), tmp_path, source={"other.npz": "def"}, shard_size=4)


def test_strong_forces_and_truncated_shards_are_told(tmp_path: Path) -> None:
    frames = mixed_frames()
    strongest = [0 if f.forces is None else np.linalg.norm(f.forces, axis=1).max() for f in frames]
    limit = float(np.median(strongest))
    prepared = prepare(FrameList(frames), tmp_path, source=SOURCE, max_force=limit, double=True)
    assert len(prepared) == sum(f <= limit for f in strongest)
    shard = tmp_path / "shard-00000.safetensors"
    os.truncate(shard, shard.stat().st_size - 8)
    with pytest.raises(InputError, match=r"shard-00000.*truncated"):
        PreparedDataset(tmp_path)[0]


def write_npz(path: Path) -> None:
    rng = np.random.default_rng(0)
    n_atoms = np.array([3, 2, 4, 3, 2])
    numbers = rng.choice([1, 6, 8], n_atoms.sum())
    np.savez(
        path,
        n_atoms=n_atoms,
        numbers=numbers,
        positions=rng.normal(size=(len(numbers), 3)),
        forces=rng.normal(size=(len(numbers), 3)),
        energy=rng.normal(size=5),
        system_id=np.arange(5),
    )


def test_commands_prepare_in_several_processes_and_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "mix.npz", tmp_path / "prepared"
    write_npz(source)
    command = ["data", "prepare", str(source), "--output", str(output), "--shard-size", "2"]
    assert main([*command, "--processes", "2"]) == 0
    assert "5 of 5 frames" in capsys.readouterr().out
    dataset = open_dataset(output)
    for k in range(5):
        assert_same(dataset[k], open_dataset(source)[k], 1e-6)
    assert main(["data", "inspect", str(output)]) == 0
    told = capsys.readouterr().out
    assert "frames:           5" in told
    assert f"next:             jmp-md train RECIPE --data {tmp_path}" in told
    assert main(["data", "inspect", str(source), "--format", "npz", "--sample", "2"]) == 0
    told = capsys.readouterr().out
    assert "frames:           2" in told
    assert f"next:             jmp-md data prepare {source} --format npz --output FOLDER" in told
    assert main(["data", "reference", str(source), "--json", str(tmp_path / "r.json")]) == 0
    carbon = summarised(open_dataset(source)).references()[6]
    assert f"C  {carbon:18.6f} eV" in capsys.readouterr().out
    assert '"force_rms"' in (tmp_path / "r.json").read_text()


def test_a_folder_read_in_another_way_is_not_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "mix.npz", tmp_path / "prepared"
    write_npz(source)
    command = ["data", "prepare", str(source), "--output", str(output)]
    assert main(command) == 0
    assert main(command) == 0
    assert main([*command, "--format", "npz"]) == 1
    assert "other settings: choose another folder" in capsys.readouterr().err
