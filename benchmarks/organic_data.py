"""The data of the recipe `organic`: two levels of theory, test molecules apart by name.

    python benchmarks/organic_data.py PRETRAIN --output data
    jmp-md train organic --data data

PRETRAIN holds aimnet2.npz, ani1x.npz and transition1x.npz, files of concatenated frames (see
docs/training.md); `--extra` takes what organic_labels.py wrote. Frames on whose forces the four
networks that labelled them disagree are left out, and of molecules with many thermal frames the
coldest.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from ase.units import Hartree

MAX_SPREAD = 0.5  # eV/Å, of the labels' ensemble, on any atom
TEST_SHARE = 0.03
# Of the training frames, by source: what is rare in thermal frames of molecules counts more.
SHARES = {"noise": 0.2, "dimer": 0.2, "templ": 0.3, "moses": 0.17, "qm9": 0.13}
COLD = 100  # K
SMALL = 5  # atoms; few frames, in which much of the chemistry of energies is
KEYS = ("n_atoms", "energy", "system_id")
ATOM_KEYS = ("numbers", "positions", "forces")


def read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file."""
    with np.load(path, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored}


def take(data: dict[str, np.ndarray], chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Some frames, by index; an index may come several times."""
    ends = np.cumsum(data["n_atoms"])
    atoms = np.concatenate([np.arange(ends[k] - data["n_atoms"][k], ends[k]) for k in chosen])
    return {k: data[k][chosen] for k in KEYS} | {k: data[k][atoms] for k in ATOM_KEYS}


def join(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Frames of several files."""
    return {key: np.concatenate([part[key] for part in parts]) for key in (*KEYS, *ATOM_KEYS)}


def is_test(systems: np.ndarray) -> np.ndarray:
    """Whether a frame is for testing, by a hash of each molecule in its name.

    Pairs of molecules are for testing where one of the two is.
    """

    def held_out(name: str) -> bool:
        digest = hashlib.sha256(name.encode()).digest()
        return int.from_bytes(digest[:4], "big") < TEST_SHARE * 2**32

    known = {str(s): any(held_out(part) for part in str(s).split("|")) for s in np.unique(systems)}
    return np.array([known[str(system)] for system in systems])


def comp6(path: Path) -> dict[str, np.ndarray]:
    """Frames of a file of COMP6, e.g. S66x8: hartree, and gradients under the name of forces."""
    import h5py  # type: ignore[import-untyped]

    parts = []
    with h5py.File(path) as stored:
        (molecules,) = stored.values()
        for name, group in molecules.items():
            numbers = [atomic_numbers[s.decode()] for s in group["species"]]
            frames = len(group["energies"])
            parts.append(
                {
                    "n_atoms": np.full(frames, len(numbers)),
                    "energy": group["energies"][:] * Hartree,
                    "system_id": np.full(frames, name),
                    "numbers": np.tile(numbers, frames),
                    "positions": group["coordinates"][:].reshape(-1, 3),
                    "forces": -group["forces"][:].reshape(-1, 3) * Hartree,
                }
            )
    return join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("pretrain", type=Path)
    parser.add_argument("--output", type=Path, default=Path("data"))
    parser.add_argument(
        "--extra", nargs="+", default=[], metavar="FILE[:N]", help="more frames, all or N of a file"
    )
    parser.add_argument("--frames", type=int, default=23_000, help="training frames of aimnet2.npz")
    parser.add_argument(
        "--repeat-small", type=int, default=0, help="times that small molecules come once more"
    )
    parser.add_argument("--comp6", type=Path, help="a file of COMP6, which becomes comp6-test.npz")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of training frames")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)

    pool = read(args.pretrain / "aimnet2.npz")
    agreed = pool["force_std_max"] <= MAX_SPREAD
    redundant = (pool["temperature"] == COLD) & np.isin(pool["source"], ("moses", "qm9"))
    test = is_test(pool["system_id"])
    chosen = []
    rng = np.random.default_rng(args.seed)
    for source, share in SHARES.items():
        candidates = np.flatnonzero(agreed & ~redundant & ~test & (pool["source"] == source))
        chosen.append(rng.permutation(candidates)[: round(share * args.frames)])
    small = (pool["source"] == "noise") & (pool["n_atoms"] <= SMALL) & agreed & ~test
    chosen += [np.flatnonzero(small)] * args.repeat_small
    training = [take(pool, np.concatenate(chosen))]
    for named in args.extra:
        file, _, number = named.rpartition(":") if named[-1].isdigit() else (named, "", "")
        extra = read(Path(file))
        usable = (extra["force_std_max"] <= MAX_SPREAD) & ~is_test(extra["system_id"])
        small = np.flatnonzero(usable & (extra["n_atoms"] <= SMALL))
        some = rng.permutation(np.flatnonzero(usable))[: int(number) if number else None]
        training.append(take(extra, np.concatenate([some, *[small] * args.repeat_small])))
    parts = [read(args.pretrain / f"{name}.npz") for name in ("ani1x", "transition1x")]
    second = join(parts)
    second_test = is_test(second["system_id"])
    if args.comp6:
        np.savez(args.output / "comp6-test.npz", **comp6(args.comp6))
    for name, data in (
        ("wb97m-train", join(training)),
        ("wb97m-test", take(pool, np.flatnonzero(agreed & test))),
        ("wb97x-train", take(second, np.flatnonzero(~second_test))),
        ("wb97x-test", take(second, np.flatnonzero(second_test))),
    ):
        np.savez(args.output / f"{name}.npz", **data)
        print(f"{name}: {len(data['n_atoms'])} frames, {len(np.unique(data['system_id']))} systems")


if __name__ == "__main__":
    main()
