"""Model files give back what was written, and say clearly when they cannot."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import write_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from jmp_md.checkpoints.native import read_header, read_native, write_native
from jmp_md.errors import CheckpointError
from jmp_md.files import atomic_write
from jmp_md.graph.policy import GraphPolicy
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.nn.config import preset


@pytest.fixture
def header() -> ModelHeader:
    head = HeadInfo(
        "ethanol",
        GraphPolicy.smooth(),
        energy_scale=0.7,
        references={1: -13.6, 6: -1029.0},
        elements=(1, 6, 8),
        level_of_theory="PBE/def2-SVP",
    )
    return ModelHeader("tiny", preset("jmp-xs"), (head,), licence="MIT", metrics={"test": "Å"})


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "a.weight": torch.randn(5, 3, generator=generator),
        "b": torch.randn(2, 3, generator=generator, dtype=torch.float64),
        "count": torch.tensor(7),
    }


@pytest.fixture
def model_file(tmp_path: Path, header: ModelHeader, state: dict[str, torch.Tensor]) -> Path:
    path = tmp_path / "tiny.safetensors"
    write_native(path, header, state)
    return path


def test_reading_gives_back_header_and_tensors(
    model_file: Path, header: ModelHeader, state: dict[str, torch.Tensor]
) -> None:
    got_header, got_state = read_native(model_file)
    assert got_header == header == read_header(model_file)
    assert got_state.keys() == state.keys()
    for name, value in state.items():
        assert got_state[name].dtype == value.dtype
        assert torch.equal(got_state[name], value)


def test_shared_and_transposed_tensors_are_written_as_they_look(
    tmp_path: Path, header: ModelHeader
) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    state = {"layers": base, "seq": base, "transposed": base.T}
    write_native(tmp_path / "m.safetensors", header, state)
    _, got = read_native(tmp_path / "m.safetensors")
    assert all(torch.equal(got[name], value) for name, value in state.items())


def test_same_model_gives_the_same_bytes(
    tmp_path: Path, model_file: Path, header: ModelHeader, state: dict[str, torch.Tensor]
) -> None:
    again = tmp_path / "again.safetensors"
    write_native(again, header, dict(reversed(state.items())))
    assert again.read_bytes() == model_file.read_bytes()


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_file_is_refused_by_name(model_file: Path, keep: int) -> None:
    model_file.write_bytes(model_file.read_bytes()[:keep])
    for read in (read_native, read_header):
        with pytest.raises(CheckpointError, match=r"tiny\.safetensors is truncated.*again"):
            read(model_file)


def test_other_files_are_refused(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, tmp_path / "pickle.pt")
    with pytest.raises(CheckpointError, match=r"pickle\.pt.*not a safetensors.*convert"):
        read_native(tmp_path / "pickle.pt")
    save_file(state, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match=r"foreign\.safetensors.*without a jmp-md header"):
        read_native(tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="no such file"):
        read_native(tmp_path / "missing.safetensors")
    with pytest.raises(CheckpointError, match="no such file"):
        read_header(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: "{",
        lambda raw: "[]",
        lambda raw: json.dumps({**raw, "format_version": 99}),
        lambda raw: json.dumps({**raw, "heads": [{"name": "x"}]}),
        lambda raw: json.dumps({**raw, "heads": 3}),
        lambda raw: json.dumps({**raw, "architecture": {"num_blocks": -1}}),
        lambda raw: json.dumps({**raw, "surprise": 1}),
        lambda raw: json.dumps({**raw, "heads": []}),
        lambda raw: json.dumps({**raw, "training": None}),
        lambda raw: json.dumps({**raw, "licence": 3}),
        lambda raw: json.dumps({**raw, "architecture": {"num_blocks": 1.5}}),
        lambda raw: json.dumps({**raw, "heads": [{**raw["heads"][0], "references": []}]}),
        lambda raw: json.dumps({**raw, "heads": [{**raw["heads"][0], "references": {"1": "NaN"}}]}),
        lambda raw: json.dumps({**raw, "heads": [{**raw["heads"][0], "energy_scale": "x"}]}),
        lambda raw: json.dumps({**raw, "heads": [{**raw["heads"][0], "energy_mean": math.inf}]}),
        lambda raw: json.dumps({**raw, "heads": [{**raw["heads"][0], "elements": ["C"]}]}),
        lambda raw: json.dumps({**raw, "heads": [{**raw["heads"][0], "elements": [119]}]}),
    ],
)
def test_damaged_header_is_refused_by_name(model_file: Path, damage) -> None:  # type: ignore[no-untyped-def]
    raw = json.loads(read_header(model_file).to_json())
    save_file(load_file(model_file), model_file, metadata={"jmp_md": damage(raw)})
    with pytest.raises(CheckpointError, match=r"cannot use .*tiny\.safetensors.*again"):
        read_header(model_file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_written_nor_read(
    model_file: Path, header: ModelHeader, state: dict[str, torch.Tensor], value: float
) -> None:
    before = model_file.read_bytes()
    state["a.weight"][1, 2] = value
    with pytest.raises(CheckpointError, match=r"cannot write .*a\.weight.*diverged"):
        write_native(model_file, header, state)
    assert model_file.read_bytes() == before
    save_file(state, model_file, metadata={"jmp_md": header.to_json()})
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors.*a\.weight.*again"):
        read_native(model_file)


def test_model_file_may_be_read_by_whom_the_system_lets(model_file: Path) -> None:
    other = model_file.with_name("other")
    other.touch()
    assert model_file.stat().st_mode == other.stat().st_mode


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def half_write() -> None:
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half_write()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_write_into_a_missing_folder_is_one_clear_error(
    tmp_path: Path, header: ModelHeader, state: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(CheckpointError, match=r"cannot write .*nowhere.*check the folder"):
        write_native(tmp_path / "nowhere" / "m.safetensors", header, state)


def test_header_is_read_without_importing_torch(model_file: Path) -> None:
    code = (
        "import sys; from jmp_md.checkpoints.native import read_header;"
        "print(read_header(sys.argv[1]).name, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model_file)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.split() == ["tiny", "False"]


def described(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A model file whose header was changed by hand."""
    path = write_model(folder)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["jmp_md"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header)
    save_file(tensors, path, metadata={"jmp_md": json.dumps(header)})
    return path


ABSURD: dict[str, Callable[[dict[str, Any]], object]] = {
    "blocks": lambda h: h["architecture"].update(num_blocks=10**9),
    "width": lambda h: h["architecture"].update(emb_size_edge=10**9),
    "size of another type": lambda h: h["architecture"].update(emb_size_atom=True),
    "cutoff": lambda h: h["heads"][0]["graph"].update(cutoffs=[1e9, 5, 2, 6]),
    "count": lambda h: h["heads"][0]["graph"].update(counts=[10**12] * 4),
    "no graph": lambda h: h["heads"][0].update(graph=[]),
    "scale": lambda h: h["heads"][0].update(energy_scale=10**400),
    "not a number": lambda h: h["heads"][0].update(energy_scale=float("nan")),
    "element": lambda h: h["heads"][0].update(elements=[10**9]),
    "reference": lambda h: h["heads"][0].update(references={"119": 1.0}),
    "heads": lambda h: h.update(heads=h["heads"] * 1000),
    "heads of another type": lambda h: h.update(heads={"a": 1}),
}


@pytest.mark.parametrize("name", ABSURD)
def test_a_header_that_cannot_be_meant_is_refused_before_anything_is_built(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"random\.safetensors") as caught:
        read_native(described(tmp_path, ABSURD[name]))
    assert len(str(caught.value)) < 1_000


def test_the_list_of_tensors_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for size in (40 * 2**20, 2**63, 10**6):
        path.write_bytes(struct.pack("<Q", size) + b"{")
        with pytest.raises(CheckpointError, match=r"claims|truncated"):
            read_header(path)
    text = b'{"__metadata__": ' + b'{"a":' * 100_000
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(CheckpointError):
        read_header(path)
    save_file({}, path, metadata={"jmp_md": "[" * 100_000})
    with pytest.raises(CheckpointError, match="not readable"):
        read_header(path)
