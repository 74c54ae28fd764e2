"""The C++ code, compiled at its first use and kept for later processes."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from jmp_md.files import require_own

# See network.cpp for what it takes.
Function = Callable[..., int]

_SOURCES = Path(__file__).parent
_TYPES = {torch.float32: "float", torch.float64: "double"}
_X86 = ("-march=native", "-mprefer-vector-width=512")
_NATIVE = _X86 if platform.machine() in ("x86_64", "AMD64") else ("-mcpu=native",)
_FLAGS = ("-std=c++17", "-O3", *_NATIVE, "-fPIC", "-w")
_LOADED: dict[tuple[Path, torch.dtype, int], Function | str] = {}
_LOCK = threading.Lock()


def load(folder: Path, dtype: torch.dtype, spherical: int) -> Function | str:
    """The function of the C++ code, or why there is none.

    Args:
        folder: Where compiled code is kept.
        dtype: Of weights and arithmetic.
        spherical: Angular functions of the network.
    """
    if dtype not in _TYPES:
        return f"there are no kernels for {dtype}"
    key = folder, dtype, spherical
    with _LOCK:
        if key not in _LOADED:
            try:
                _LOADED[key] = _load_or_compile(*key)
            except (OSError, subprocess.SubprocessError, AttributeError) as error:
                why = _LOADED[key] = str(error) or type(error).__name__
                logging.getLogger("jmp_md").warning("computing without kernels, slower: %s", why)
        return _LOADED[key]


def _load_or_compile(folder: Path, dtype: torch.dtype, spherical: int) -> Function:
    if not (_SOURCES / "network.cpp").exists():
        raise OSError("the sources of the kernels are not installed")
    compiler = _compiler()
    options = (*_FLAGS, f"-DREAL={_TYPES[dtype]}", f"-DSPHERICAL={spherical}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    require_own(folder)
    key = _key(compiler, options)
    path = _kept(folder, key) or _compile(compiler, options, folder, key)
    require_own(path)
    function = ctypes.CDLL(str(path)).jmp_network
    function.restype = ctypes.c_int
    return function


def _kept(folder: Path, key: str) -> Path | None:
    """Code compiled before, as it was written: to run what a failing disk has left would crash."""
    for path in folder.glob(f"{key}-*.so"):
        if path.stem == f"{key}-{_digest(path)}":
            return path
    return None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def _compiler() -> str:
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        if name and (found := shutil.which(name)):
            return found
    raise OSError("there is no C++ compiler")


def _compile(compiler: str, options: tuple[str, ...], folder: Path, key: str) -> Path:
    """Compile to a file that is there whole or not at all, whoever else does so meanwhile."""
    began = time.perf_counter()
    logger = logging.getLogger("jmp_md")
    logger.warning("compiling kernels for this processor, which takes some seconds, once")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as scratch:
        unlinked, linked = Path(scratch) / "network.o", Path(scratch) / "network.so"
        source = str(_SOURCES / "network.cpp")
        _run([compiler, *options, "-fopenmp", "-c", source, "-o", str(unlinked)])
        # Without a runtime of its own: two of OpenMP in a process would fight for its cores,
        # so that PyTorch's is used.
        _run([compiler, "-shared", str(unlinked), "-o", str(linked)])
        linked.chmod(0o700)
        path = folder / f"{key}-{_digest(linked)}.so"
        os.replace(linked, path)
    logger.warning("compiled in %.1f s: %s", time.perf_counter() - began, path)
    return path


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, timeout=300, text=True, errors="replace")
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if "error" in line] or [""]
        raise OSError(f"{command[0]} fails with {result.returncode}: {lines[0]}")


def _key(compiler: str, options: tuple[str, ...]) -> str:
    """Name of compiled code: a hash of all it depends on."""
    about = [compiler, str(Path(compiler).resolve()), *options, torch.__version__, _processor()]
    digest = hashlib.sha256("\n".join(about).encode())
    for source in sorted(_SOURCES.glob("*.[ch]*")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:32]


def _processor() -> str:
    """What a compiler may make use of."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    flags = [line for line in lines if line.startswith(("flags", "Features", "model name"))]
    return platform.platform() + "".join(sorted(set(flags)))
