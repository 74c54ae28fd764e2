"""Where models are: shipped with the package, in the user's cache, or on a server.

Cached models are files named after the model in ``<cache>/models``, each with its hash in
``<file>.sha256``. The cache is ``JMP_MD_HOME``, else the user's cache directory.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jmp_md.checkpoints.native import SUFFIX, read_header, read_native
from jmp_md.errors import CheckpointError, InputError, ModelNotFoundError, shown
from jmp_md.files import atomic_write, is_file, user_path
from jmp_md.header import OFFICIAL_LICENCE, ModelHeader
from jmp_md.models.catalogue import KNOWN, how_to_get, notify_licence
from jmp_md.models.download import beside, download, verify_sha256

_OFFICIAL_SUFFIXES = (".pt", ".ckpt")
SUFFIXES = (SUFFIX, *_OFFICIAL_SUFFIXES)
PACKAGE_SUFFIX = ".pt2"


@dataclass(frozen=True)
class ModelEntry:
    """A name of the registry and what is known of its model.

    Attributes:
        name: Registry name.
        where: ``"shipped"``, ``"cached"``, ``"to download"`` or ``"to train"``.
        path: The file; None where it is not at hand.
        size: Bytes; None where not known.
        licence: Licence of the weights.
        header: Header of a native file that is at hand.
        problem: Why the file at hand cannot be used; empty where it can.
    """

    name: str
    where: str
    path: Path | None = None
    size: int | None = None
    licence: str = "unknown"
    header: ModelHeader | None = None
    problem: str = ""

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that some head was trained on; empty where not known."""
        heads = self.header.heads if self.header else ()
        return tuple(sorted({z for head in heads for z in head.elements}))

    @property
    def domain(self) -> str:
        """Hill formula of the only molecule the model is for; empty for a general model."""
        domain = self.header.training.get("domain") if self.header else None
        return str(domain.get("formula", "")) if isinstance(domain, dict) else ""


def cache_dir() -> Path:
    """Folder of everything jmp-md keeps: ``JMP_MD_HOME``, else in the user's cache directory."""
    if home := os.environ.get("JMP_MD_HOME"):
        return user_path(home)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return user_path(base) / "jmp-md"


def resolve(name_or_path: str | Path) -> Path:
    """The file of a model, downloaded if need be.

    Args:
        name_or_path: A path, as :func:`model_file` takes them, or a name: shipped, cached and
            official models are looked through in this order.

    Raises:
        ModelNotFoundError: No such file or name, or a known name that is not at hand; the
            message says how to get it.
        CheckpointError: The file was damaged since it was stored, or is no model file.
    """
    path = model_file(name_or_path) or _find(str(name_or_path))
    if path.suffix == SUFFIX:
        notify_licence(read_header(path).licence)
    elif path.suffix in _OFFICIAL_SUFFIXES:
        notify_licence(OFFICIAL_LICENCE)
    return path


def model_file(name_or_path: str | Path) -> Path | None:
    """The existing file that is meant; None for a name, whatever files there are.

    Args:
        name_or_path: A path is a ``Path``, or text with a separator or with the suffix of a model
            file or package.

    Raises:
        ModelNotFoundError: There is no such file.
        InputError: No file can have that name.
    """
    text = str(name_or_path)
    separators = [s for s in (os.sep, os.altsep) if s]
    is_path = isinstance(name_or_path, Path) or any(s in text for s in separators)
    if not is_path and Path(text).suffix not in (*SUFFIXES, PACKAGE_SUFFIX):
        return None
    path = user_path(name_or_path)
    if not is_file(path):
        raise ModelNotFoundError(
            f"there is no model file {path}: check the path, or give a name that "
            "'jmp-md models' lists"
        )
    return path


def add_model(name: str, file: str | Path, *, force: bool = False) -> Path:
    """Copy a model file into the cache under a name, which works from then on.

    Args:
        name: Lower-case name; any but that of a shipped model.
        file: A native ``.safetensors`` file or an official ``.pt`` or ``.ckpt`` checkpoint.
        force: Replace the cached model of that name, if there is one.

    Returns:
        The copy.

    Raises:
        InputError: The name is malformed or taken, or the file is of another type.
        CheckpointError: The file cannot be used or copied.
    """
    file = user_path(file)
    require_free(name, force)
    if not is_file(file):
        raise InputError(f"there is no model file {file}: check the path")
    if file.suffix not in SUFFIXES:
        raise InputError(f"{file} is not a model file: its name must end in {', '.join(SUFFIXES)}")
    _require_usable(file)
    target = models_dir() / f"{name}{file.suffix}"
    stale = [old for old in _cached_files(name) if old != target]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as temporary:
            shutil.copyfile(file, temporary)
            beside(target, ".sha256").unlink(missing_ok=True)
        for old in stale:
            old.unlink()
            beside(old, ".sha256").unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"cannot copy {file} to {target}: {error}; check the space and permissions "
            "there, or set JMP_MD_HOME to another folder"
        ) from error
    verify_sha256(target)
    return target


def remove_model(name: str) -> list[Path]:
    """Remove a cached model, with what lies beside its file; the files that are gone are returned.

    Raises:
        InputError: The model is shipped, or there is none of that name in the cache.
    """
    cached = _cached_files(name) if name else []
    if not cached:
        shipped = (_shipped_dir() / f"{name}{SUFFIX}").is_file()
        why = "is shipped with jmp-md, and stays" if shipped else f"is not in {models_dir()}"
        raise InputError(
            f"model {name!r} {why}: 'jmp-md models' lists what can be removed, as a path"
        )
    gone = []
    for path in cached:
        for file in (beside(path, ".sha256"), path.with_name(f"{name}.benchmark.json"), path):
            if file.exists():
                file.unlink()
                gone.append(file)
    return gone


def list_models() -> list[ModelEntry]:
    """Every name: shipped models, cached ones, then known ones that are not at hand."""
    entries = {entry.name: entry for entry in shipped_models()}
    for path in _cached_files():
        if path.stem not in entries:
            entries[path.stem] = _entry(path, "cached")
    for name, known in KNOWN.items():
        if name not in entries:
            where = "to download" if known.url else "to train"
            licence = known.licence or "unknown"
            entries[name] = ModelEntry(name, where, size=known.size, licence=licence)
    return list(entries.values())


def shipped_models() -> list[ModelEntry]:
    """Models inside the package, by name."""
    return [_entry(path, "shipped") for path in sorted(_shipped_dir().glob(f"*{SUFFIX}"))]


def _find(name: str) -> Path:
    """The file of a name: shipped, cached or downloaded."""
    shipped = _shipped_dir() / f"{name}{SUFFIX}"
    if is_file(shipped):
        return shipped
    known = KNOWN.get(name)
    for path in _cached_files(name):
        # A user may have put another file under an official name, so no hash is pinned here.
        verify_sha256(path)
        return path
    if known is None:
        raise ModelNotFoundError(_unknown(name))
    if not known.url:
        raise ModelNotFoundError(f"model {name!r} is known but not at hand: {how_to_get(known)}")
    path = models_dir() / Path(known.url).name
    download(known.url, path, sha256=known.sha256, by_hand=how_to_get(known))
    return path


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), [e.name for e in list_models()])
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif is_file(Path(name)):
        hint = f"for the file, write ./{name}"
    else:
        hint = "give the path of a model file, or"
    return f"unknown model {shown(name)}: {hint} 'jmp-md models' lists the names"


def require_free(
    name: str, force: bool = False, remedy: str = "replace it with --force (force=True)"
) -> None:
    """Refuse a name that no model can have, or that is taken.

    Args:
        name: What a model is to be called.
        force: Whether a cached model of that name may be replaced.
        remedy: What to do where there is one.

    Raises:
        InputError: It is malformed, that of a shipped model, or taken.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._+-]*", name) or Path(name).suffix in SUFFIXES:
        raise InputError(
            f"{name!r} cannot be a model name: use lower-case letters, digits, '-', '_', '+' and "
            f"'.', without a path and without {', '.join(SUFFIXES)} at the end"
        )
    if (_shipped_dir() / f"{name}{SUFFIX}").is_file():
        raise InputError(f"model {name!r} is shipped with jmp-md: choose another name")
    taken = _cached_files(name)
    if taken and not force:
        raise InputError(
            f"model {name!r} is there already ({taken[0]}): choose another name, or {remedy}"
        )


def _require_usable(file: Path) -> None:
    if file.suffix == SUFFIX:
        notify_licence(read_native(file)[0].licence)
        return
    # Imports torch, which no other command of the registry needs.
    from jmp_md.checkpoints.official import read_official

    read_official(file)
    notify_licence(OFFICIAL_LICENCE)


def _entry(path: Path, where: str) -> ModelEntry:
    size = path.stat().st_size
    if path.suffix != SUFFIX:
        return ModelEntry(path.stem, where, path, size, OFFICIAL_LICENCE)
    try:
        header = read_header(path)
    except CheckpointError as error:
        return ModelEntry(path.stem, where, path, size, problem=str(error))
    return ModelEntry(path.stem, where, path, size, header.licence, header)


def _shipped_dir() -> Path:
    return Path(str(resources.files("jmp_md.models")))


def models_dir() -> Path:
    """Folder of cached models."""
    return cache_dir() / "models"


def _cached_files(name: str = "") -> list[Path]:
    """Model files in the cache, native ones first: those of a name, else all."""
    files = [path for suffix in SUFFIXES for path in sorted(models_dir().glob(f"*{suffix}"))]
    return [path for path in files if name in ("", path.stem)]
