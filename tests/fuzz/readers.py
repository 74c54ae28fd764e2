"""Every reader, each with valid inputs to change and a way to read what came out."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from factories import random_potential, write_model
from test_data_hdf5 import write_ani1x, write_spice, write_transition1x
from test_data_lmdb import plain_json, slab, write_ase_lmdb, write_oc20
from test_data_lmdb import write as write_lmdb
from test_data_npz import write_molecule
from test_official import checkpoint

from jmp_md.calculators.ase import JMPCalculator
from jmp_md.checkpoints.exported import EXTRA_FILE, ExportInfo
from jmp_md.checkpoints.official import read_official, to_native
from jmp_md.checkpoints.packaged import read_package_info
from jmp_md.checkpoints.restricted import load_pickle
from jmp_md.cli.config import expand_config
from jmp_md.export import export
from jmp_md.load import load_model
from jmp_md.models.registry import add_model, resolve
from jmp_md.simulate.state import load_state, save_state
from jmp_md.simulate.trajectory.h5md import read_h5md, write_h5md
from jmp_md.structure_files import read_structures
from jmp_md.training.data.open import open_dataset
from jmp_md.training.recipe import load_recipe

from . import mutate

Mutation = Callable[[random.Random, bytes], bytes]


class Reader(NamedTuple):
    """What is read.

    Attributes:
        seeds: Valid inputs: names of files and what is in them.
        change: Makes another content of one.
        read: Reads a file.
    """

    seeds: dict[str, bytes]
    change: Mutation
    read: Callable[[Path], object]


def _as_text(rng: random.Random, original: bytes) -> bytes:
    changed = mutate.text(rng, original.decode(errors="surrogateescape"))
    return (
        changed.encode(errors="surrogatepass")
        if rng.random() < 0.1
        else changed.encode(errors="replace")
    )


def _mixed(*mutations: Mutation) -> Mutation:
    return lambda rng, original: rng.choice(mutations)(rng, original)


def _native(rng: random.Random, original: bytes) -> bytes:
    """A model file whose header is changed, as JSON or as what it lies in."""
    (size,) = struct.unpack("<Q", original[:8])
    head = json.loads(original[8 : 8 + size])
    if rng.random() < 0.7:
        header = json.loads(head["__metadata__"]["jmp_md"])
        for _ in range(rng.choice((1, 1, 2))):
            header = mutate.tree(rng, header)
        head["__metadata__"]["jmp_md"] = json.dumps(header)
    else:
        head = mutate.tree(rng, head)
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + original[8 + size :]


def _package(info: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("m/data/metadata.json", json.dumps({EXTRA_FILE: json.dumps(info)}))
    return out.getvalue()


def _package_info(rng: random.Random, original: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(original)) as archive:
        info = json.loads(json.loads(archive.read("m/data/metadata.json"))[EXTRA_FILE])
    return _package(mutate.tree(rng, info))


def _as_json(rng: random.Random, original: bytes) -> bytes:
    return json.dumps(mutate.tree(rng, json.loads(original))).encode()


def _arrays(rng: random.Random, original: bytes) -> bytes:
    """An npz file whose arrays have other values, shapes or types, or another header."""
    with np.load(io.BytesIO(original)) as stored:
        arrays: dict[str, Any] = dict(stored)
    key = rng.choice(list(arrays))
    array = arrays[key]
    match rng.randrange(8):
        case 0:
            del arrays[key]
        case 1:
            arrays[key] = array.reshape(-1)
        case 2:
            arrays[key] = array[:-1] if array.ndim else array[None]
        case 3:
            arrays[key] = np.full(array.shape, rng.choice((np.nan, np.inf, -1, 0, 1e30, 300)))
        case 4:
            kind = rng.choice(("U4", "c16", "i1", "f2", "S3"))
            arrays[key] = array.astype(kind if array.dtype.kind != "U" else "U3")
        case 5:
            arrays[key] = np.array(rng.choice((0, "x", 1.5, b"x", True)))
        case 6:
            arrays[key] = np.zeros(rng.choice(((0,), (0, 3), (1, 1, 1, 1), ())))
        case 7:
            return false_header(rng, original)
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def false_header(rng: random.Random, original: bytes) -> bytes:
    """One array claims another shape or type."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(original)) as old, zipfile.ZipFile(out, "w") as new:
        victim = rng.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            if name == victim:
                claims = rng.choice(
                    (b"'shape': (9999999999999,", b"'shape': (-1,", b"'shape': (1e9,")
                )
                content = content.replace(b"'shape': (", claims, 1)
            new.writestr(name, content)
    return out.getvalue()


def _cut(rng: random.Random, original: bytes) -> bytes:
    """Cut short, or another file from its first byte on."""
    if rng.random() < 0.2:
        return mutate.data(rng, b"x" + original[: rng.randrange(100)])
    return original[: rng.randrange(len(original))]


def _record(rng: random.Random, original: bytes) -> bytes:
    return rng.choice((mutate.data, mutate.pickled))(rng, original)


def _read_record(path: Path) -> object:
    return load_pickle(path.read_bytes(), str(path))


def _read_model(path: Path) -> object:
    return JMPCalculator(path, device="cpu").get_potential_energy(molecule("H2O"))


def _read_checkpoint(path: Path) -> object:
    return to_native(read_official(path), "fuzzed")


def read_frames(path: Path) -> object:
    dataset = open_dataset(path)
    return [dataset[i] for i in range(min(len(dataset), 4))]


def _read_oc20_record(path: Path) -> object:
    place = path.with_suffix(".lmdb")
    place.unlink(missing_ok=True)
    write_lmdb(place, {"length": pickle.dumps(1), "0": path.read_bytes()})
    return read_frames(place)


def read_ase_record(path: Path) -> object:
    place = path.with_suffix(".aselmdb")
    place.unlink(missing_ok=True)
    about: dict[str, Any] = {"nextid": 2, "deleted_ids": [], "metadata": {}}
    records = {key: zlib.compress(json.dumps(value).encode()) for key, value in about.items()}
    write_lmdb(place, {**records, "1": zlib.compress(path.read_bytes())})
    return read_frames(place)


def read_name(path: Path) -> object:
    name = path.read_bytes().decode(errors="surrogateescape")
    return load_model(name), resolve(name)


def _add_model(path: Path) -> object:
    return add_model("fuzzed", path, force=True)


def read_state(path: Path) -> object:
    """The state of a run, which has a name of its own."""
    place = path.with_name("state.npz")
    place.write_bytes(path.read_bytes())
    return load_state(path.parent)


def _made(folder: Path, name: str, make: Callable[[Path], object]) -> dict[str, bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make(folder / name)
    return {name: (folder / name).read_bytes()}


def _saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    torch.save(checkpoint(kind), buffer)
    return buffer.getvalue()


def _structures(folder: Path) -> dict[str, bytes]:
    crystal = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    water = molecule("H2O")
    for atoms in (crystal, water):
        zeros = np.zeros((len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=-1.5, forces=zeros)
    seeds: dict[str, bytes] = {}
    for name in (
        "a.extxyz",
        "a.cif",
        "POSCAR",
        "a.pdb",
        "a.json",
        "a.traj",
        "a.xsf",
        "a.gen",
        "a.db",
    ):
        seeds |= _made(folder, name, lambda path: write(path, crystal))
    for name in ("a.xyz", "b.extxyz", "a.sdf"):
        seeds |= _made(folder, name, lambda path: write(path, water))
    return seeds


def _arrays_of_a_run(folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    save_state(folder, {"positions": np.ones((3, 3)), "step": np.array(3)}, {"steps": 3, "a": "b"})
    return {"x.npz": (folder / "state.npz").read_bytes()}


def _trajectory(path: Path) -> None:
    atoms = molecule("H2O")
    atoms.info.update(step=0, time_fs=0.0)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.5, forces=np.zeros((3, 3)))
    write_h5md(path, [atoms, atoms])


def ase_row() -> bytes:
    from ase.db.row import atoms2dict

    row = {**atoms2dict(slab(-1.0)), "key_value_pairs": {"sid": "a"}, "data": {}}
    return plain_json(row).encode()


def _oc20_record() -> bytes:
    from torch_geometric.data import Data

    zeros = torch.zeros(2, 3)
    data = Data(
        pos=zeros + torch.tensor([[0.0], [2.0]]),
        atomic_numbers=torch.tensor([29, 8]),
        cell=torch.eye(3)[None] * 9,
        natoms=2,
        tags=torch.tensor([0, 2]),
        fixed=torch.tensor([1.0, 0.0]),
        y=-1.5,
        force=zeros,
        sid=3,
        fid=1,
    )
    return pickle.dumps(data, protocol=2)


def readers(folder: Path) -> dict[str, Reader]:
    """All of them, with valid inputs made in a folder."""
    folder.mkdir()
    potential = random_potential(num_blocks=1)
    native = {"random.safetensors": write_model(folder, num_blocks=1).read_bytes()}
    scripted = _made(folder, "m.pt", lambda path: export(potential, path))
    info: ExportInfo = export(potential, folder / "n.pt")
    recipes = {
        path.name: path.read_bytes()
        for path in (resources.files("jmp_md.training") / "recipes").iterdir()
        if path.name.endswith(".yaml")
    }
    arrays = [("nuclear_charges", "coords", "energies", "forces"), ("z", "R", "E", "F")]
    npz = {
        name: _made(folder, name, lambda path, k=k: write_molecule(path, arrays[k]))[name]
        for k, name in enumerate(("rmd17_x.npz", "y.npz"))
    }
    hdf5 = _made(folder, "ani1x.h5", write_ani1x) | _made(folder, "t1x.h5", write_transition1x)
    hdf5 |= _made(folder, "spice.hdf5", lambda path: write_spice(path, "attribute"))
    lmdb = _made(folder, "oc20.lmdb", lambda path: write_oc20(path, [-1.0, -2.0]))
    lmdb |= _made(
        folder, "rows.aselmdb", lambda path: write_ase_lmdb(path, [slab(-1.0)], [], plain_json)
    )
    words = {"oc20": b"jmp-xs", "path": b"./random.safetensors", "home": b"~/m.pt"}
    record = {"a": [1.5, "x", None], "t": torch.ones(2, 3), "n": np.arange(4.0), "i": 7}
    pickles = {f"p{k}": pickle.dumps(record, protocol=k) for k in (2, 3, 4, 5)}
    return {
        "official checkpoint": Reader(
            {"pre.pt": _saved("pretrain"), "fine.pt": _saved("finetune")},
            _mixed(mutate.zipped, mutate.zipped, mutate.data),
            _read_checkpoint,
        ),
        "pickled record": Reader(pickles, _record, _read_record),
        "native model": Reader(native, _mixed(_native, _native, mutate.data), _read_model),
        "added model": Reader(native, _mixed(_native, mutate.data), _add_model),
        "exported model": Reader(
            scripted, _mixed(mutate.data, mutate.zipped), lambda p: load_model(p, device="cpu")
        ),
        "package": Reader(
            {"m.pt2": _package(json.loads(info.to_json()))},
            _mixed(_package_info, _package_info, mutate.data),
            read_package_info,
        ),
        "name of a model": Reader(words, _as_text, read_name),
        "recipe": Reader(recipes, _mixed(_as_text, _as_text, mutate.data), load_recipe),
        "options": Reader(
            {"o.yaml": b"timestep: 0.5\nsteps: 10\ncompile: false\ntemperature: [1, 2]\n"},
            _mixed(_as_text, mutate.data),
            lambda path: expand_config(["md", "a.xyz", "--config", str(path)]),
        ),
        "structures": Reader(
            _structures(folder / "structures"), _mixed(_as_text, mutate.data), read_structures
        ),
        "data in xyz": Reader(
            _structures(folder / "structures"), _mixed(_as_text, mutate.data), read_frames
        ),
        "npz data": Reader(npz, _mixed(_arrays, _arrays, mutate.data), read_frames),
        "hdf5 data": Reader(hdf5, mutate.data, read_frames),
        # Not its pages: the library maps them into memory, and damaged ones end the process.
        "lmdb data": Reader(lmdb, _cut, read_frames),
        "lmdb record": Reader({"r": _oc20_record()}, _record, _read_oc20_record),
        "ase-lmdb record": Reader({"r": ase_row()}, _mixed(_as_json, mutate.data), read_ase_record),
        "state of a run": Reader(
            _arrays_of_a_run(folder / "state"), _mixed(_arrays, mutate.data), read_state
        ),
        "h5md trajectory": Reader(_made(folder, "t.h5", _trajectory), mutate.data, read_h5md),
    }
