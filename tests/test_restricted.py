"""Nothing that a checkpoint or a pickled record names is ever executed or imported."""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import pickle
import resource
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jmp_md.checkpoints import machine
from jmp_md.checkpoints.official import read_official
from jmp_md.checkpoints.restricted import Ignored, load_pickle, load_torch_file
from jmp_md.errors import CheckpointError

FLOATS = struct.pack("<4f", 1, 2, 3, 4)
CANARY = "canary"
SHELL = f"touch {CANARY}"


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.reduced


def opcodes(value: object) -> bytes:
    """Opcodes that push a value, pickled by Python itself."""
    return pickle.dumps(value, protocol=2)[2:-1]


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor(
    size: Any, stride: Any, offset: Any = 0, numel: Any = 4, key: Any = "0", kind: str = "storage"
) -> bytes:
    """Opcodes of a tensor over a stored array of floats."""
    reference = opcodes(kind) + b"ctorch\nFloatStorage\n" + opcodes(key) + text("cpu")
    shape = opcodes(offset) + (size if type(size) is bytes else opcodes(size)) + opcodes(stride)
    storage = b"(" + reference + opcodes(numel) + b"tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + shape + b"\x89NtR"


def write_checkpoint(path: Path, code: bytes) -> Path:
    """A file as torch.save writes them, around hand-written opcodes and one storage."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02" + code + b".")
        file.writestr("archive/data/0", FLOATS)
    return path


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """File that exists once any of the hostile calls below has run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / CANARY


GETATTR = b"c__builtin__\ngetattr\n(cos\npath\n" + text("os") + b"tR"
EXECUTING = {
    "posix.system": opcodes(Call(os.system, SHELL)),
    "__builtin__.eval": opcodes(Call(eval, f"open('{CANARY}', 'w')")),
    "__builtin__.exec": opcodes(Call(exec, f"open('{CANARY}', 'w')")),
    "io.open": opcodes(Call(open, CANARY, "w")),
    "torch.serialization.load": opcodes(Call(torch.load, CANARY)),
    "__builtin__.getattr": GETATTR + b"0" + opcodes(Call(os.system, SHELL)),
    "torch.serialization.os.system": (
        text("torch") + text("serialization.os.system") + b"\x93(" + text(SHELL) + b"tR"
    ),
    "collections.OrderedDict.fromkeys": (
        text("collections") + text("OrderedDict.fromkeys") + b"\x93(" + opcodes([1]) + b"tR"
    ),
    "os.system": b"cos\nsystem\n(" + text(SHELL) + b"t\x81",  # as a class
}


@pytest.mark.parametrize("name", EXECUTING)
def test_a_call_of_anything_else_is_refused_by_name_and_not_made(
    name: str, tmp_path: Path, canary: Path
) -> None:
    path = write_checkpoint(tmp_path / "hostile.pt", EXECUTING[name])
    with pytest.raises(CheckpointError, match=f"hostile.pt refers to .*{name}.*nothing was exec"):
        load_torch_file(path)
    with pytest.raises(CheckpointError, match=f"record 7 refers to .*{name}"):
        load_pickle(b"\x80\x04" + EXECUTING[name] + b".", "record 7")
    assert not canary.exists()


def test_the_canary_would_notice(canary: Path) -> None:
    pickle.loads(b"\x80\x02" + EXECUTING["posix.system"] + b".")
    assert canary.exists()


def test_all_refused_names_are_told_at_once_with_the_way_to_ignore_them(tmp_path: Path) -> None:
    config = b"cjmp.tasks\nConfig\n)\x81}" + text("rate") + b"K\x01sb"
    code = b"}(" + text("a") + config + text("b") + b"cjmp.data\nKind\n(K\x01tR"
    code += text("w") + tensor((2, 2), (2, 1)) + b"u"
    path = write_checkpoint(tmp_path / "c.pt", code)
    with pytest.raises(CheckpointError) as caught:
        load_torch_file(path)
    assert "--ignore-global jmp.tasks.Config --ignore-global jmp.data.Kind" in str(caught.value)

    content = load_torch_file(path, ignore=["jmp.tasks.Config", "jmp.data.Kind"])
    assert isinstance(content["a"], Ignored)
    assert content["a"].name == "jmp.tasks.Config"
    assert content["w"].tolist() == [[1, 2], [3, 4]]
    assert "jmp" not in sys.modules


def test_ignoring_a_name_does_not_execute_it(tmp_path: Path, canary: Path) -> None:
    path = write_checkpoint(tmp_path / "c.pt", EXECUTING["posix.system"])
    assert repr(load_torch_file(path, ignore=["posix.system"])) == "<ignored posix.system>"
    assert not canary.exists()


ABUSED = {
    # Reads of memory that is not the file's.
    "size": (tensor((5,), (1,)), "lies outside its storage of 4"),
    "stride": (tensor((2, 2), (3, 1)), "lies outside its storage"),
    "offset": (tensor((2,), (1,), offset=3), "lies outside its storage"),
    "negative offset": (tensor((2,), (1,), offset=-1), "negative"),
    "negative stride": (tensor((2,), (-1,), offset=3), "negative"),
    "size of another kind": (tensor((2.0,), (1,)), "size"),
    "storage": (tensor((9,), (1,), numel=9), "a storage of 9 torch.float32 in 16 bytes"),
    "huge storage": (tensor((2,), (1,), numel=2**62), "beyond any file"),
    "negative storage": (tensor((2,), (1,), numel=-4), "negative"),
    # Small files that claim to be large.
    "expanded": (tensor((10**12,), (0,)), "lies outside its storage"),
    "array shape": (
        opcodes(np.arange(3.0)).replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"),
        "shape",
    ),
    # Files that are not the checkpoint's.
    "path": (tensor((4,), (1,), key="../../../etc/passwd"), "no entry 'data/../../../etc/passwd'"),
    "absolute path": (tensor((4,), (1,), key="/etc/passwd"), "no entry"),
    "kind of reference": (tensor((4,), (1,), kind="file"), "unknown reference"),
    # Changes to what was built, or to what the reader itself is made of.
    "state of a tensor": (tensor((4,), (1,)) + b"(K\x00K\x00))tb", "a state for a Tensor"),
    "item of a tensor": (tensor((4,), (1,)) + b"K\x00K\x07s", "not a dict"),
    "append to a tensor": (tensor((4,), (1,)) + b"K\x00a", "not a list"),
    "state of a constructor": (
        b"ctorch._utils\n_rebuild_tensor_v2\n}" + text("build") + b"Nsb",
        "a state for a Constructor",
    ),
    "call of a tensor": (tensor((4,), (1,)) + b")R", "a call of a Tensor"),
    "tensor without storage": (
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00K\x01\x85K\x01\x85\x89NtR",
        "not a plain view",
    ),
    # Objects inside arrays, and opcodes of other protocols.
    "objects": (opcodes(np.array([None, 1], dtype=object)), "only numbers are read"),
    "old opcodes": (b"(icollections\nOrderedDict\n", "operation INST"),
    "extension registry": (b"\x82\x01", "operation EXT1"),
    # What would exhaust time, memory or the stack of whoever walks the result.
    "nested": (b"]" * 100_000 + b"a" * 99_999, "nested more than"),
    "contains itself": (b"]q\x00h\x00a", "within itself"),
    "slow to hash": (b")" + b"q\x00h\x00\x86" * 60 + b"q\x01}h\x01K\x00s", "as a dict key"),
    "repeats itself": (
        b"c_codecs\nencode\nq\x00" + text("x" * 999) + b"q\x01" + text("latin1") + b"q\x02"
        b"]" + b"h\x00h\x01h\x02\x86Ra" * 99,
        "again and again",
    ),
    # Broken pickles.
    "empty stack": (b"R", "damaged"),
    "two results": (b"NN", "damaged"),
    "memo": (b"h\x07", "damaged"),
    "cut short": (b"X\xff\xff\xff\x00abc", "damaged"),
}


@pytest.mark.parametrize("name", ABUSED)
def test_allowed_names_cannot_be_abused(name: str, tmp_path: Path) -> None:
    code, message = ABUSED[name]
    path = write_checkpoint(tmp_path / "hostile.pt", code)
    with pytest.raises(CheckpointError, match=r"hostile\.pt is (refused|damaged)") as caught:
        load_torch_file(path)
    assert message in str(caught.value)


def long_integer(value: int) -> bytes:
    return b"\x8a\x0b" + value.to_bytes(11, "little", signed=True)


DOUBLED = b")" + b"q\x00h\x00\x86" * 40  # a tuple of 2^40 empty tuples, in 160 bytes
LARGE = text("x" * 99_999) + b"q\x01"  # kept, to be used again and again
PAIRS = b"](" + (text("k") + b"K\x01\x86") * 3_000 + b"eq\x01"
EMPTY_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n)R"
BYTES = b"c_codecs\nencode\n" + text("x" * 80_000) + text("latin1") + b"\x86Rq\x01"
DOUBLES = b"cnumpy\ndtype\n" + text("f8") + b"\x85Rq\x02"
STATE = b"(K\x01J\x10\x27\x00\x00\x85h\x02\x89h\x01tb"
EXHAUSTING = {
    "size of a tensor": (tensor(DOUBLED, (1,)), "a tuple in the size of a tensor"),
    "shape": (
        b"](" + BYTES + DOUBLES + EMPTY_ARRAY + b"(K\x01" + DOUBLED + b"h\x02\x89h\x01tbe",
        "a tuple in the size of a numpy array",
    ),
    "type of an array": (b"cnumpy\ndtype\n" + DOUBLED + b"\x85R", "only numbers are read"),
    "encoding": (b"c_codecs\nencode\n" + text("x") + DOUBLED + b"\x86R", "another encoding"),
    "reference": (DOUBLED + b"Q", "an unknown reference"),
    "name": (DOUBLED + text("x") + b"\x93", "a name that is not text"),
    "key": (
        b"ccollections\nOrderedDict\n](" + DOUBLED + b"K\x01\x86e\x85R",
        "a tuple as a dict key",
    ),
    "value": (b"}" + text("hyper_parameters") + DOUBLED + b"s", "same data are used again"),
    "keys with one hash": (
        b"}(" + b"".join(long_integer(k * (2**61 - 1)) + b"K\x00" for k in range(20_000)) + b"u",
        "60 bits as a dict key",
    ),
    "path": (
        b"](" + LARGE + b"cpathlib\nPosixPath\nh\x01\x85R" * 9_000 + b"e",
        "same bytes are used again",
    ),
    "bytes": (
        b"](" + BYTES + DOUBLES + (EMPTY_ARRAY + STATE) * 9_000 + b"e",
        "same bytes are used again",
    ),
    "pairs": (
        b"](" + PAIRS + b"ccollections\nOrderedDict\nh\x01\x85R" * 9_000 + b"e",
        "same bytes are used again",
    ),
    "names": (b"".join(b"cm\nn%d\n" % k for k in range(50_000)), "more than 200 names"),
    "name without end": (b"c" + b"m" * 10**6 + b"\nn\n", "no name of anything"),
    "terminal control": (b"cm\x1b[2J\nn\n", "no name of anything"),
    "number without end": (tensor((10**200_000,), (1,)), "beyond any file"),
}


@pytest.mark.parametrize("name", EXHAUSTING)
def test_small_files_cannot_take_much_time_or_memory(name: str, tmp_path: Path) -> None:
    code, message = EXHAUSTING[name]
    path = write_checkpoint(tmp_path / "hostile.pt", code)
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError) as caught:
        read_official(path)
    assert time.process_time() - began < 5.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1_000
    assert str(caught.value).isprintable()


def test_operations_and_objects_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = b"\x80\x02](" + b"N" * 50 + b"e."
    assert load_pickle(numbers, "record", 55) == [None] * 50
    with pytest.raises(CheckpointError, match="more than 54 pickle operations"):
        load_pickle(numbers, "record", 54)
    monkeypatch.setattr(machine, "MAX_CALLS", 50)
    record = b"\x80\x02](ccollections\nOrderedDict\nq\x01)R" + b"h\x01)R" * 49
    assert len(load_pickle(record + b"e.", "record")) == 50
    with pytest.raises(CheckpointError, match="more than 50 objects"):
        load_pickle(record + b"h\x01)Re.", "record")


def test_python_2_wrote_ordered_dicts_as_pairs() -> None:
    code = b"\x80\x02ccollections\nOrderedDict\n](" + text("a") + b"K\x01\x86e\x85R."
    assert load_pickle(code, "record") == pickle.loads(code) == {"a": 1}


def _without_last_bytes(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def _with_a_flipped_weight(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(FLOATS, FLOATS[:-1] + b"\x41"))


def _compressed(path: Path) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data/1", bytes(10**6))


def _with_a_second_pickle(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("archive/data.pkl", b"\x80\x02N.")


def _big_endian(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/byteorder", b"big")


def _of_two_archives(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("other/data.pkl", b"\x80\x02N.")


def _encrypted(path: Path) -> None:
    # The flags in both headers of an entry: local, and in the central directory.
    data = path.read_bytes().replace(b"PK\x03\x04\x14\x00\x00", b"PK\x03\x04\x14\x00\x01")
    path.write_bytes(data.replace(b"\x14\x03\x14\x00\x00", b"\x14\x03\x14\x00\x01"))


def _with_a_name_that_is_not_text(path: Path) -> None:
    data = path.read_bytes().replace(b"PK\x03\x04\x14\x00\x00\x00", b"PK\x03\x04\x14\x00\x00\x08")
    data = data.replace(b"\x14\x03\x14\x00\x00\x00", b"\x14\x03\x14\x00\x00\x08")
    path.write_bytes(data.replace(b"archive/data/0", b"archive/data/\xff"))


def _legacy(path: Path) -> None:
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (_without_last_bytes, "truncated or not a checkpoint"),
    "flipped bit": (_with_a_flipped_weight, "Bad CRC-32"),
    "compressed": (_compressed, "compressed, repeated or overlapping"),
    "repeated": (_with_a_second_pickle, "compressed, repeated or overlapping"),
    "big-endian": (_big_endian, "big-endian"),
    "two archives": (_of_two_archives, "not one of torch.save"),
    "encrypted": (_encrypted, "encrypted"),
    "undecodable name": (_with_a_name_that_is_not_text, "codec can't decode"),
    "legacy": (_legacy, "re-save a file of before torch 1.6"),
    "text": (lambda path: path.write_text("<html>Access denied</html>"), "download it again"),
    "empty": (lambda path: path.write_bytes(b""), "download it again"),
    "missing": (lambda path: path.unlink(), "check the path"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_gives_one_clear_error(name: str, tmp_path: Path) -> None:
    damage, message = DAMAGES[name]
    path = write_checkpoint(tmp_path / "model.pt", tensor((4,), (1,)))
    damage(path)
    with pytest.raises(CheckpointError, match=r"model\.pt") as caught:
        load_torch_file(path)
    assert message in str(caught.value)


def test_what_torch_saves_is_read_as_it_was(tmp_path: Path) -> None:
    kinds = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int8", "bool")
    base = torch.arange(12)
    saved = {kind: base.to(getattr(torch, kind)).view(3, 4) for kind in kinds}
    saved |= {"transposed": base.view(3, 4).t()[1:], "empty": torch.ones(0, 3)}
    saved["scalar"] = torch.tensor(2.5)
    parameter = torch.nn.Parameter(torch.ones(2))
    module = torch.nn.Linear(2, 2)
    others = {"x": (1, 2.5, None, True, "Å", [b"ab", -(10**30)]), "path": pathlib.PosixPath("/a/b")}
    others |= {"namespace": argparse.Namespace(rate=0.1), "number": np.float64(1.5)}
    path = tmp_path / "saved.pt"
    torch.save({"t": saved, "p": parameter, "m": module.state_dict(), **others}, path)

    read = load_torch_file(path)
    for name, value in saved.items():
        assert read["t"][name].dtype == value.dtype
        assert torch.equal(read["t"][name], value), name
    assert torch.equal(read["p"], parameter.detach())
    assert torch.equal(read["m"]["weight"], module.weight.detach())
    assert list(read["m"]) == ["weight", "bias"]
    assert read["x"] == others["x"]
    assert (read["path"], read["namespace"], read["number"]) == ("/a/b", {"rate": 0.1}, 1.5)


def test_tensors_that_shared_memory_still_do(tmp_path: Path) -> None:
    base = torch.zeros(4)
    torch.save([base, base[2:]], tmp_path / "shared.pt")
    first, second = load_torch_file(tmp_path / "shared.pt")
    second += 1
    assert first.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_records_of_tensors_and_arrays_are_read_as_they_were(protocol: int) -> None:
    arrays = [np.arange(6.0).reshape(2, 3), np.arange(6).reshape(3, 2).T, np.zeros((0, 3))]
    arrays += [np.float32(0.1), np.bool_(True), np.array([True, False]), np.arange(500.0)]
    tensors = [torch.arange(6.0).view(2, 3).t(), torch.tensor(3), torch.zeros(0, 3)]
    record = {"arrays": arrays, "tensors": tensors, "order": collections.OrderedDict(a=1)}
    read = load_pickle(pickle.dumps(record, protocol=protocol), "record")
    for value, expected in zip(read["arrays"], arrays, strict=True):
        assert value.dtype == expected.dtype
        np.testing.assert_array_equal(value, expected)
    assert all(torch.equal(a, b) for a, b in zip(read["tensors"], tensors, strict=True))
    assert read["order"] == {"a": 1}


class Data:
    """Stands in for PyG 1's ``Data``, which kept its attributes in ``__dict__``."""


def test_a_graph_of_pyg_1_becomes_a_dict_of_its_attributes() -> None:
    data = Data()
    data.__dict__.update({"pos": torch.ones(2, 3), "edge_attr": None, "__num_nodes__": 2})
    written = pickle.dumps(data, protocol=2)
    name = f"c{__name__}\nData\n".encode()
    assert name in written
    read = load_pickle(written.replace(name, b"ctorch_geometric.data.data\nData\n"), "record")
    assert read.keys() == {"pos"}
    assert torch.equal(read["pos"], torch.ones(2, 3))


def test_a_graph_of_pyg_2_becomes_a_dict_of_its_attributes() -> None:
    data = pytest.importorskip("torch_geometric.data").Data(pos=torch.rand(3, 3), y=1.5, sid=7)
    for protocol in (2, 5):
        read = load_pickle(pickle.dumps(data, protocol=protocol), "record")
        assert torch.equal(read.pop("pos"), data.pos)
        assert read == {"y": 1.5, "sid": 7}


def test_a_storage_inside_a_record_keeps_to_its_bytes() -> None:
    written = pickle.dumps(torch.arange(300.0), protocol=4)
    longer = written.replace(b"M,\x01Nt", b"M,\x02Nt")  # 300 -> 556 elements
    assert longer != written
    with pytest.raises(CheckpointError, match="556 elements of which 300 were written"):
        load_pickle(longer, "record")
    hostile = written.replace(b"ctorch\nFloatStorage\n", b"cposix\nsystem\nFloatSt\n")
    with pytest.raises(CheckpointError):
        load_pickle(hostile, "record")


def test_every_record_of_a_published_lmdb_is_read(shared: Path, tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    file = shared / "data" / "formats" / "transition1x_ocp_style.lmdb"
    with lmdb.open(str(file), subdir=False, readonly=True, lock=False) as env, env.begin() as txn:
        count = load_pickle(txn.get(b"length"), "length")
        records = [load_pickle(txn.get(str(i).encode()), f"record {i}") for i in range(count)]
    assert count == 100
    for record in records:
        n_atoms = int(record["natoms"])
        assert record["pos"].shape == record["forces"].shape == (n_atoms, 3)
        assert record["charges"].shape == (n_atoms,)
        assert bool(record["energy"].isfinite().all())
