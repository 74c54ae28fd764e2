"""What is computed again in lean memory, when, and what becomes of memory that was freed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ase.build import molecule
from network_oracle import largest_errors, sensitive_potential, structures_of

from jmp_md.graph.policy import GraphPolicy
from jmp_md.memory import free_memory
from jmp_md.nn.config import preset
from jmp_md.nn.footprint import edges_that_fit

POLICY = GraphPolicy.official(5.0, 8)


def test_lean_memory_gives_the_same() -> None:
    potential = sensitive_potential(POLICY, direct=True)
    s = structures_of(molecule("CH3CH2OH"), POLICY.cutoff)
    expected = potential.predict(s)
    potential.memory = "lean"
    assert max(largest_errors(potential.predict(s), expected).values()) < 1e-13


@pytest.mark.parametrize(("free", "lean"), [(10**9, False), (10**6, True)])
def test_auto_is_lean_where_memory_is_short(
    free: int, lean: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jmp_md.nn.footprint.free_memory", lambda device: free)
    monkeypatch.setattr("jmp_md.nn.footprint._FEW", 0)
    potential = sensitive_potential(POLICY)
    potential.memory = "auto"
    potential.predict(structures_of(molecule("CH3CH2OH"), POLICY.cutoff))
    assert potential.backbone.recompute == lean


def test_half_of_the_memory_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """JMP-L: 420 kB for an edge and block in single precision."""
    monkeypatch.setattr("jmp_md.nn.footprint.free_memory", lambda device: 2 * 6 * 420_000 * 1000)
    assert edges_that_fit(preset("jmp-l"), torch.zeros(1)) == pytest.approx(1000, rel=0.03)


@pytest.mark.skipif(sys.platform != "linux", reason="measures with /proc")
def test_freed_memory_goes_back_even_from_between_small_objects() -> None:
    script = """
import torch
from jmp_md.memory import give_back_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

torch.ones(2**22).sum()
before, small = resident(), []
for _ in range(5):
    large = []
    for _ in range(10):
        large.append(torch.ones(2**20))
        small.append(torch.ones(100))
    held = resident()
    del large
give_back_freed_memory()
print(held - before, resident() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    held, left = map(float, done.stdout.split())
    assert held > 35
    assert left < 10


@pytest.mark.skipif(sys.platform != "linux", reason="counts pages as Linux does")
def test_kept_memory_is_not_fetched_anew() -> None:
    script = """
import resource, torch
from jmp_md.memory import _kept_bytes, give_back_freed_memory, keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    before = faults()
    for _ in range(3):
        torch.ones(2**24).exp()
    return faults() - before

step()
fetched = step()
assert keep_freed_memory()
step()
before = _kept_bytes()
large = torch.ones(2**27)
del large
give_back_freed_memory()  # as lean memory asks for: not what was chosen
print(fetched, step(), (_kept_bytes() - before) / 2**20)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    fetched, kept, known = map(float, done.stdout.split())
    assert fetched > 150  # 6 x 64 MiB in pages of 2 MiB; of 4 kiB, 100,000
    assert kept < 0.1 * fetched
    assert known > 200  # most of 512 MiB, part of which was kept before, count as free


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_containers_and_batch_systems_count(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("job/step" if version == 2 else "memory/job/step")
    folder.mkdir(parents=True)
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }
    limit, usage, files = names[version]
    (folder.parent / limit).write_text("90000000\n")  # that of the job holds for its steps
    (folder.parent / usage).write_text("50000000\n")
    (folder.parent / "memory.stat").write_text(f"anon 7\n{files} 20000000\n")
    own = tmp_path / "own"
    own.write_text("0::/job/step\n" if version == 2 else "4:cpu:/\n3:memory:/job/step\n")
    monkeypatch.setattr("jmp_md.memory._CGROUPS", tmp_path)
    monkeypatch.setattr("jmp_md.memory._KEEPS", [])  # commands that ran in this process keep some
    monkeypatch.setattr("jmp_md.memory._OWN_CGROUP", own)
    assert free_memory(torch.device("cpu")) == 60_000_000
