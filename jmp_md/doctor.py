"""Find out which engines work here, by using each, and what to install for the others."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from jmp_md._version import __version__

MODEL = "jmp-xs-rmd17-ethanol"  # in the package
_TORCHFORCE = "pip install '.[torchforce]' in a checkout, in an environment of its own (torch 2.9)"
_TOLERANCE = 1e-4  # relative, single precision

OK, MISSING, BROKEN = "ok", "missing", "broken"


@dataclass(frozen=True)
class Check:
    """What was found of one engine.

    Attributes:
        name: What was looked at.
        status: ``"ok"``, ``"missing"`` or ``"broken"``.
        detail: Version and what it can do, or the reason it cannot.
        remedy: What to do about it; empty where nothing is to be done.
    """

    name: str
    status: str
    detail: str
    remedy: str = ""


def run_checks() -> list[Check]:
    """Look at everything; nothing is changed."""
    checks = (
        ("torch", _torch, "pip install torch"),
        ("device", _device, ""),
        ("kernels", _kernels, ""),
        ("ASE", _ase, "pip install -U ase matscipy, and install jmp-md again"),
        ("OpenMM", _openmm, "pip install openmm openmmml"),
        ("PythonForce", _python_force, "pip install 'openmm>=8.6'"),
        ("TorchForce", _torch_force, ""),
        ("openmm-ml", _openmm_ml, "pip install openmmml"),
        ("phonopy", _phonopy, "pip install phonopy spglib"),
    )
    return [_check(*each) for each in checks]


def environment() -> str:
    """Versions every report should hold, in one line."""
    return f"jmp-md {__version__}, Python {platform.python_version()}, {platform.platform()}"


def report(checks: list[Check]) -> str:
    """The checks as text, one per line, with remedies below."""
    lines = [environment()]
    for check in checks:
        lines.append(f"{check.status:8}{check.name:13}{check.detail}")
        if check.remedy:
            lines.append(f"{'':21}-> {check.remedy}")
    return "\n".join(lines)


def _check(name: str, look: Callable[[], str | Check], remedy: str) -> Check:
    """Run one check, which gives the detail, or the whole check, or raises what is wrong."""
    try:
        found = look()
    except ModuleNotFoundError as error:
        return Check(name, MISSING, f"{error.name or error} is not installed", remedy)
    except Exception as error:  # the point is to tell whatever it is
        message = str(error).strip().splitlines() or [""]
        return Check(name, BROKEN, f"{type(error).__name__}: {message[0]}", remedy)
    return found if isinstance(found, Check) else Check(name, OK, found)


def _torch() -> str:
    import torch

    threads = torch.get_num_threads()
    x = torch.ones(3, requires_grad=True)
    (gradient,) = torch.autograd.grad((x**2).sum(), x)
    if not torch.equal(gradient, 2 * x.detach()):
        raise RuntimeError("gradients are wrong")
    return f"{torch.__version__}, {threads} threads"


def _device() -> str:
    import torch

    if not torch.cuda.is_available():
        return "CPU only: torch sees no CUDA device"
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    return f"{name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"


def _kernels() -> str | Check:
    import torch

    from jmp_md.load import kernel_folder, load_model
    from jmp_md.nn.kernels.run import Kernels

    if (folder := kernel_folder()) is None:
        return "off, as JMP_MD_KERNELS says: PyTorch's operations compute steps"
    potential = load_model(MODEL, dtype=torch.float32, device="cpu", kernels=False)
    if problem := Kernels(potential.fold(), folder).problem:
        remedy = "apt install g++, or conda install cxx-compiler: steps are several times as fast"
        return Check("kernels", MISSING, f"{problem}; PyTorch's operations do the same", remedy)
    return f"compiled for this processor, in {folder}"


def _ase() -> str:
    import ase

    atoms = _ethanol()
    start = time.perf_counter()
    energy = atoms.get_potential_energy()
    took = 1e3 * (time.perf_counter() - start)
    return f"{ase.__version__}; ethanol with {MODEL}: {energy:.4f} eV, first call {took:.0f} ms"


def _openmm() -> Check:
    import torch  # before openmm

    # isort: split
    import openmm

    names = [
        openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())
    ]
    detail, remedy = f"{openmm.__version__}; platforms {', '.join(names)}", ""
    if torch.cuda.is_available() and "CUDA" not in names:
        detail += "; its CUDA platform is missing, torch sees a GPU"
        remedy = "pip install 'openmm[cuda12]', and 'openmmtorch[cuda12]' where TorchForce is used"
    return Check("OpenMM", OK, detail, remedy)


def _python_force() -> str:
    return _compare("python")


def _torch_force() -> str | Check:
    """Looked at in a process of its own: a plugin of another version may take it down."""
    try:
        version = metadata.version("openmmtorch")
    except metadata.PackageNotFoundError:
        return Check(
            "TorchForce",
            MISSING,
            "openmmtorch is not installed; PythonForce does without",
            _TORCHFORCE,
        )
    code = "from jmp_md.doctor import compare_torch_force; compare_torch_force()"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    lines = [line for line in result.stdout.splitlines() if line.startswith(("ok ", "no "))]
    if result.returncode or not lines:
        died = (result.stderr.strip().splitlines() or [f"it ended with {result.returncode}"])[-1]
        return Check("TorchForce", BROKEN, f"openmmtorch {version}: {died}", _TORCHFORCE)
    word, detail = lines[-1].split(" ", 1)
    if word == "ok":
        return f"openmmtorch {version}; {detail}"
    return Check("TorchForce", BROKEN, f"openmmtorch {version}: {detail}", _TORCHFORCE)


def compare_torch_force() -> None:
    """Print ``ok`` and what was computed, or ``no`` and why nothing was."""
    import torch  # noqa: F401 - before openmm

    # isort: split
    from jmp_md.calculators.openmm_torch import plugin_problem

    problem = plugin_problem()
    print(f"no {problem}" if problem else f"ok {_compare('torch')}")


def _openmm_ml() -> str:
    openmmml: Any = importlib.import_module("openmmml")
    version = metadata.version("openmmml")
    if MODEL not in openmmml.MLPotential._implFactories:
        raise RuntimeError(f"openmmml {version} does not know {MODEL!r}: install jmp-md again")
    return f"{version}; MLPotential({MODEL!r})"


def _phonopy() -> str:
    importlib.import_module("phonopy")
    return metadata.version("phonopy")


def _compare(backend: str) -> str:
    """Forces of ethanol in OpenMM, compared with ASE's."""
    import torch  # noqa: F401 - before openmm

    # isort: split
    import openmm

    from jmp_md.calculators.openmm import jmp_force
    from jmp_md.units import EV_PER_ANGSTROM_IN_KJ_PER_MOL_PER_NM, NM_IN_ANGSTROM

    atoms = _ethanol()
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    system.addForce(jmp_force(MODEL, atoms.numbers.tolist(), backend=backend, periodic=False))
    reference = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), reference)
    context.setPositions(atoms.positions / NM_IN_ANGSTROM)
    forces = context.getState(forces=True).getForces(asNumpy=True)._value
    expected = atoms.get_forces() * EV_PER_ANGSTROM_IN_KJ_PER_MOL_PER_NM
    error = abs(forces - expected).max() / abs(expected).max()
    if not error <= _TOLERANCE:
        raise RuntimeError(f"forces on ethanol differ from those in ASE by {error:.0e}, relatively")
    return f"forces on ethanol as in ASE, to {error:.0e}"


def _ethanol() -> Any:
    """Ethanol in ASE, with the model as its calculator."""
    from ase.build import molecule

    from jmp_md.calculators.ase import JMPCalculator

    atoms = molecule("CH3CH2OH")
    atoms.calc = JMPCalculator(MODEL)
    return atoms
