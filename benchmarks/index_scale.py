"""The data path of pre-training at the paper's size: 120 million structures in four data sets.

    python benchmarks/index_scale.py --data PRETRAIN --folder FOLDER

Real records of the demonstration mix fill one shard of 100,000 structures for each data set; hard
links to it make up the sizes of the paper. To the index, the sampler and the reader these are
different structures in 1,200 files; only the disk, which holds four, is not measured. Measured in a
fresh process: memory and time to open everything and to the first batch, starting again in the
middle of an epoch, that no structure of the largest set comes twice in an epoch, and that ranks
never share a structure.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from jmp_md.training.batches import PairedFrames, TaskFrames
from jmp_md.training.data.frame import Dataset, Frame
from jmp_md.training.data.open import open_dataset
from jmp_md.training.data.prepared import INDEX_FILE, SHARD_SIZE, PreparedDataset, prepare
from jmp_md.training.distributed import share
from jmp_md.training.sampling import MixSampler

# Millions of structures of the paper's sets, the file whose records stand in, and the cutoff in Å.
SETS = {
    "oc20": (100, "oc20.npz", 12.0),
    "oc22": (8, "mptrj.npz", 12.0),
    "ani1x": (2, "ani1x.npz", 8.0),
    "transition1x": (10, "transition1x.npz", 8.0),
}
BATCH = 1024
TEMPERATURE = 2.0


class Repeated:
    """A data set over and over, up to a length."""

    def __init__(self, dataset: Dataset, length: int) -> None:
        self.dataset, self.length = dataset, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Frame:
        return self.dataset[index % len(self.dataset)]


def build(data: Path, folder: Path) -> None:
    """Write one shard for each set and link the others to it."""
    for name, (millions, file, _) in SETS.items():
        target = folder / name
        if len(list(target.glob("shard-*"))) == millions * 1_000_000 // SHARD_SIZE:
            continue
        frames = Repeated(open_dataset(data / file), SHARD_SIZE)
        prepare(frames, target, source={file: "records repeated"})
        index = json.loads((target / INDEX_FILE).read_text())
        index["shards"] *= millions * 1_000_000 // SHARD_SIZE
        (target / INDEX_FILE).write_text(json.dumps(index))
        for k in range(1, len(index["shards"])):
            os.link(target / "shard-00000.safetensors", target / f"shard-{k:05d}.safetensors")


def resident() -> float:
    """MiB of memory of this process alone, without pages of files that are mapped."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


def measure(folder: Path) -> None:
    """Print the table."""
    rows: list[tuple[str, str]] = []
    before, began = resident(), time.perf_counter()
    sets = {name: PreparedDataset(folder / name) for name in SETS}
    rows.append(("time to open", f"{time.perf_counter() - began:.3f} s"))
    rows.append(("memory of the index", f"{resident() - before:.1f} MiB"))
    rows.append(("structures", f"{sum(map(len, sets.values())):,}"))
    shards = [(folder / name / "shard-00000.safetensors").stat().st_size for name in SETS]
    size = sum(one * len(sets[k]) / SHARD_SIZE for one, k in zip(shards, SETS, strict=True))
    rows.append(("on disk, were they all different", f"{size / 1e9:.0f} GB"))
    rows.append(("sent to each worker", f"{len(pickle.dumps(sets)) / 1024:.1f} KiB"))
    before, began = resident(), time.perf_counter()
    sampler = MixSampler({k: len(v) for k, v in sets.items()}, TEMPERATURE, BATCH, seed=0)
    keys = sampler.batch(0)
    rows.append(("sampler and first keys", f"{1000 * (time.perf_counter() - began):.1f} ms"))
    rows.append(("memory of the sampler", f"{resident() - before:.1f} MiB"))
    rows.append(("steps of an epoch (T = 2)", f"{sampler.steps_per_epoch:,} of {BATCH}"))
    began = time.perf_counter()
    frames = [sets[task][index] for task, index in keys]
    atoms = sum(map(len, frames))
    rows.append((f"first {BATCH} structures read", f"{time.perf_counter() - began:.2f} s"))
    mixed = TaskFrames({k: PairedFrames(v, SETS[k][2], cache=0) for k, v in sets.items()})
    began = time.process_time()
    mixed.collate([mixed[key] for key in keys])
    seconds = time.process_time() - began
    rows.append(("the same with pairs, as a batch", f"{seconds:.2f} CPU s, {atoms:,} atoms"))
    rows.append(("structures per CPU s of a worker", f"{BATCH / seconds:.0f}"))

    middle = sampler.steps_per_epoch // 2
    began = time.perf_counter()
    again = MixSampler({k: len(v) for k, v in sets.items()}, TEMPERATURE, BATCH, seed=0)
    found = again.batch(middle)
    rows.append(("start in the middle", f"{1000 * (time.perf_counter() - began):.1f} ms"))
    assert found == sampler.batch(middle)

    steps = np.random.default_rng(0).choice(sampler.steps_per_epoch, 2000, replace=False)
    seen = [index for step in steps for task, index in sampler.batch(int(step)) if task == "oc20"]
    assert len(set(seen)) == len(seen)
    rows.append(("oc20 structures of 2,000 steps", f"{len(seen):,}, none twice"))
    for ranks in (2, 64):
        for step in steps[:20]:
            keys = sampler.batch(int(step))
            parts = share([mixed.n_atoms(key) for key in keys], ranks)
            everything = [k for part in parts for k in part]
            assert sorted(everything) == list(range(BATCH))
            sizes = [sum(mixed.n_atoms(keys[k]) for k in part) for part in parts]
        rows.append(
            (f"{ranks} ranks", f"no structure shared, atoms {min(sizes):,} to {max(sizes):,}")
        )
    began = time.perf_counter()
    for key in keys:
        mixed.n_atoms(key)
    rows.append(("sizes of a batch, to share it", f"{time.perf_counter() - began:.3f} s"))
    rows.append(("memory of the process at the end", f"{resident():.0f} MiB"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append(("peak, with mapped pages", f"{peak:.0f} MiB"))
    print("| | |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the demonstration mix")
    parser.add_argument("--folder", type=Path, required=True, help="where to build, 600 MB")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        measure(args.folder)
        return
    build(args.data, args.folder)
    command = [sys.executable, __file__, "--worker", "--data", str(args.data)]
    subprocess.run([*command, "--folder", str(args.folder)], check=True)


if __name__ == "__main__":
    main()
