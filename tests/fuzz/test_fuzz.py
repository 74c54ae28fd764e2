"""What the fuzzer once found stays mended, and for a minute it finds nothing new."""

from __future__ import annotations

import contextlib
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jmp_md.errors import JMPError
from jmp_md.load import load_model
from jmp_md.structure_files import read_structures
from jmp_md.training.recipe import load_recipe
from jmp_md.yaml_text import read_yaml

from .__main__ import fuzz
from .readers import (
    ase_row,
    false_header,
    read_ase_record,
    read_frames,
    read_name,
    read_state,
    readers,
)


def npz(**changed: Any) -> bytes:
    """An sGDML file of one frame of H2."""
    arrays: dict[str, Any] = {"z": np.ones(2, int), "R": np.eye(3)[None, :2]}
    arrays |= {"E": np.ones(1), "F": np.ones((1, 2, 3))}
    out = io.BytesIO()
    np.savez(out, **{**arrays, **changed})
    return out.getvalue()


def row(**changed: Any) -> bytes:
    """A row of an ASE database."""
    return json.dumps({**json.loads(ase_row()), **changed}).encode()


def options(path: Path) -> object:
    return read_yaml(path, "the options")


ALIASES = "a0: &a0 [x, x]\n" + "".join(
    f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 40)
)
FIXED = [{"name": "FixAtoms", "kwargs": {"indices": [2**63]}}]
Read = Callable[[Path], object]
FOUND: dict[str, tuple[str, bytes, Read]] = {
    "name without end": ("n", b"x" * 999, read_name),
    "path without end": ("n", b"./" + b"x" * 999 + b".pt", read_name),
    "name with NUL": ("n", b"a\0b/c.pt", read_name),
    "home of nobody": ("n", b"~nobody-here/m.pt", read_name),
    "name that is not text": ("n", b"\xff\xfe", read_name),
    "recipe that is not text": ("r.yaml", b"model: \xff", load_recipe),
    "recipe of another kind": ("r.yaml", b"task: []\nmodel: {}", load_recipe),
    "impossible date": ("o.yaml", b"a: 2024-13-45", options),
    "nested options": ("o.yaml", b"a: " + b"[" * 3_000, options),
    "options that grow": ("o.yaml", ALIASES.encode(), options),
    "options that hold themselves": ("o.yaml", b"a: &a [*a]", options),
    "options without end": ("o.yaml", b"a: 1\n" * 100_000, options),
    "text for numbers": ("y.npz", npz(R=np.full((1, 2, 3), "x")), read_frames),
    "complex numbers": ("y.npz", npz(F=np.ones((1, 2, 3), complex)), read_frames),
    "array without end": ("y.npz", false_header(random.Random(2), npz()), read_frames),
    "state without end": ("y.npz", false_header(random.Random(2), npz()), read_state),
    "row with a number for atoms": ("r", row(numbers=1.5), read_ase_record),
    "row with a number for labels": ("r", row(key_value_pairs=3), read_ase_record),
    "row with constraints beyond any": ("r", row(constraints=FIXED), read_ase_record),
    "row of deep nesting": ("r", b"[" * 100_000, read_ase_record),
    "atoms without end": ("a.xyz", b"999999999999\n\nH 0 0 0\n", read_structures),
    "number without end": ("a.xyz", b"9" * 5_000 + b"\n\nH 0 0 0\n", read_structures),
    "structure that is not text": ("a.cif", b"\xff\xfe\0", read_structures),
    "model that is a folder": ("m.pt2/x", b"", lambda path: load_model(path.parent)),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_once_found_is_one_error_of_ours(name: str, here: Path) -> None:
    file, content, read = FOUND[name]
    path = here / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(JMPError) as caught:
        read(path)
    assert len(str(caught.value)) < 2_000


@pytest.mark.slow
def test_every_reader_takes_what_the_fuzzer_starts_from(here: Path) -> None:
    for kind, reader in readers(here / "seeds").items():
        accepted = 0
        for name, content in reader.seeds.items():
            (here / "inputs").mkdir(exist_ok=True)
            (here / "inputs" / name).write_bytes(content)
            with contextlib.suppress(JMPError):
                reader.read(here / "inputs" / name)
                accepted += 1
        assert accepted or kind in ("exported model", "name of a model"), kind


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_minute_of_inputs_gives_results_or_errors_of_ours() -> None:
    findings, counts = fuzz(60, seed=0, only=[])
    assert not findings, json.dumps(findings, indent=1)
    assert sum(tried for tried, _ in counts.values()) > 100
