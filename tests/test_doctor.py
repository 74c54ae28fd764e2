"""``jmp-md doctor`` finds what works, what is missing and what is broken, and says what to do."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from jmp_md import doctor
from jmp_md.cli.main import main
from jmp_md.doctor import BROKEN, MISSING, OK, Check, report, run_checks


@pytest.fixture(scope="module")
def checks() -> dict[str, Check]:
    return {check.name: check for check in run_checks()}


def test_engines_the_tests_run_with_are_found_to_work(checks: dict[str, Check]) -> None:
    assert [checks[name].status for name in ("torch", "device", "ASE")] == [OK, OK, OK]


@pytest.mark.parametrize(
    ("name", "package"), [("OpenMM", "openmm"), ("PythonForce", "openmm"), ("phonopy", "phonopy")]
)
def test_what_is_not_installed_is_missing_and_comes_with_a_remedy(
    checks: dict[str, Check], name: str, package: str
) -> None:
    if importlib.util.find_spec(package) is not None:
        assert checks[name].status == OK, checks[name].detail
    else:
        assert checks[name].status == MISSING
        assert "pip install" in checks[name].remedy
        assert f"missing {name}" in report(list(checks.values()))


def test_kernels_need_a_compiler_and_are_not_needed(
    checks: dict[str, Check], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = shutil.which("g++") is not None
    assert checks["kernels"].status == (OK if there else MISSING), checks["kernels"].detail
    monkeypatch.setenv("JMP_MD_KERNELS", "off")
    assert "off, as JMP_MD_KERNELS says" in doctor._kernels()
    monkeypatch.setenv("JMP_MD_KERNELS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    check = doctor._kernels()
    assert isinstance(check, Check)
    assert check.status == MISSING
    assert "there is no C++ compiler; PyTorch's operations do the same" in check.detail
    assert "g++" in check.remedy


def test_an_openmm_that_leaves_the_gpu_idle_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    openmm = pytest.importorskip("openmm")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(openmm.Platform, "getNumPlatforms", lambda: 1)
    check = doctor._openmm()
    assert check.status == OK
    assert "platforms Reference; its CUDA platform is missing" in check.detail
    assert "openmm[cuda12]" in check.remedy


def test_a_plugin_that_takes_the_process_down_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, -11, stdout="", stderr="")

    monkeypatch.setattr(doctor.metadata, "version", lambda _: "1.5")
    monkeypatch.setattr(doctor.subprocess, "run", run)
    check = doctor._torch_force()
    assert isinstance(check, Check)
    assert check.status == BROKEN
    assert "it ended with -11" in check.detail


@pytest.mark.parametrize(
    ("printed", "status", "detail"),
    [
        ("no openmmtorch cannot be imported: undefined symbol", BROKEN, "undefined symbol"),
        ("a warning\nok forces on ethanol as in ASE", OK, "as in ASE"),
    ],
)
def test_the_reason_a_plugin_does_not_load_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, printed: str, status: str, detail: str
) -> None:
    real = subprocess.run

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return real([sys.executable, "-c", f"print({printed!r})"], **options)

    monkeypatch.setattr(doctor.metadata, "version", lambda _: "1.5")
    monkeypatch.setattr(doctor.subprocess, "run", run)
    check = doctor._check("TorchForce", doctor._torch_force, "")
    assert check.status == status
    assert detail in check.detail


def test_only_what_is_broken_makes_the_command_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = [Check("torch", OK, "2.13"), Check("OpenMM", MISSING, "not installed", "pip install it")]
    monkeypatch.setattr(doctor, "run_checks", lambda: fine)
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "ok      torch" in printed
    assert "-> pip install it" in printed
    broken = doctor._check("ASE", lambda: 1 / 0, "install it again")  # type: ignore[arg-type, return-value]
    assert broken == Check("ASE", BROKEN, "ZeroDivisionError: division by zero", "install it again")
    monkeypatch.setattr(doctor, "run_checks", lambda: [*fine, broken])
    assert main(["doctor"]) == 1
