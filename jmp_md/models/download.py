"""Resumable, checked downloads with the standard library, and the hashes of stored files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import IO

from tqdm import tqdm

from jmp_md.errors import CheckpointError, ModelNotFoundError
from jmp_md.files import atomic_write

_CHUNK = 1 << 20
_TIMEOUT = 30.0  # s without a byte
_ATTEMPTS = 4


def offline() -> bool:
    """Whether ``JMP_MD_OFFLINE`` forbids downloads."""
    return os.environ.get("JMP_MD_OFFLINE", "") not in ("", "0")


def download(url: str, path: Path, *, sha256: str = "", by_hand: str) -> None:
    """Download ``url`` to ``path``, resuming what an earlier run left in ``<path>.part``.

    A file appears at ``path`` only when it is complete and its hash is right (see
    :func:`verify_sha256`). A second process that wants the same file waits for the first.

    Args:
        url: Where the file is.
        path: Where it goes; the folder is created.
        sha256: Expected hash in hex; empty where it is not known.
        by_hand: How a user can put the file in place without this function, for messages.

    Raises:
        ModelNotFoundError: Offline, unreachable, refused, not encrypted, or no space left.
        CheckpointError: The file arrived with another hash.
    """
    if offline():
        raise ModelNotFoundError(
            f"{path.name} is not at hand and JMP_MD_OFFLINE forbids downloads: {by_hand}"
        )
    part_path, version_path = beside(path, ".part"), beside(path, ".part.version")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(version_path, "a+", encoding="utf-8") as version:
            _lock(version)
            if path.exists():  # another process finished while this one waited
                return
            with open(part_path, "ab") as part:
                _fetch_with_retries(url, path, part, version, by_hand)
            try:
                verify_sha256(path, sha256, content=part_path)
            except CheckpointError:
                part_path.unlink()  # nothing of a wrong file is worth resuming
                raise
            os.replace(part_path, path)
        version_path.unlink(missing_ok=True)
    except OSError as error:
        remedy = "free some space" if error.errno == errno.ENOSPC else "check the folder"
        raise ModelNotFoundError(
            f"cannot store {path}: {error.strerror}; {remedy} or set JMP_MD_HOME to another "
            "folder, then run again to resume"
        ) from error


def verify_sha256(path: Path, expected: str = "", *, content: Path | None = None) -> None:
    """Compare a file with its hash: ``expected``, else the one recorded beside it.

    Where there is neither, the hash is recorded in ``<path>.sha256`` so that later uses are
    checked.

    Args:
        path: The stored file.
        expected: Hash in hex, where it is known beforehand.
        content: File to hash in place of ``path``, before it is moved there.

    Raises:
        CheckpointError: The hashes differ.
    """
    record = beside(path, ".sha256")
    found = _sha256(content or path)
    text = record.read_text(encoding="utf-8", errors="replace") if record.exists() else ""
    recorded = text.split()
    wanted = expected or (recorded[0] if recorded else "")
    if not wanted:
        # A shared folder may be read-only: then there is nothing to compare with later.
        with contextlib.suppress(OSError), atomic_write(record) as temporary:
            temporary.write_text(f"{found}  {path.name}\n", encoding="utf-8")
    elif found != wanted:
        trust = "" if expected else f" (or only {record.name}, to trust the file as it is now)"
        raise CheckpointError(
            f"{path.name} has sha256 {found}, expected {wanted}: it is damaged or was replaced; "
            f"delete {path}{trust} and run again"
        )


def _fetch_with_retries(
    url: str, path: Path, part: IO[bytes], version: IO[str], by_hand: str
) -> None:
    for attempt in range(_ATTEMPTS):
        last = attempt == _ATTEMPTS - 1
        try:
            _fetch(url, path, part, version)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500 or last:
                raise ModelNotFoundError(
                    f"the server refused {url}: HTTP {error.code} {error.reason}; {by_hand}"
                ) from error
        except ConnectionError as error:
            if last:
                raise ModelNotFoundError(
                    f"cannot download {url}: {error}; {part.tell() / 1e6:.1f} MB are kept: run "
                    f"again to resume, or {by_hand}"
                ) from error
        time.sleep(2**attempt / 4)


def _fetch(url: str, path: Path, part: IO[bytes], version: IO[str]) -> None:
    """Append to ``part`` what is missing of ``url``.

    ``version`` holds the validator (ETag or date) of what ``part`` is half of: only the same
    version may be continued.

    Raises:
        HTTPError: The server answers with an error.
        ConnectionError: Anything else between here and the server, an early end included.
    """
    version.seek(0)
    validator = version.read()
    if not validator:
        part.truncate(0)
    start = part.seek(0, os.SEEK_END)
    _require_safe(url)
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", validator)
    with _open(request, part) as response:
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            start = 0
            part.truncate(0)
        version.truncate(0)
        version.write(response.headers["ETag"] or response.headers["Last-Modified"] or "")
        version.flush()
        total = _total_size(response, start)
        if total is not None:
            _require_space(path, total - start)
        with tqdm(
            desc=path.name, initial=start, total=total, unit="B", unit_scale=True, disable=None
        ) as bar:
            while chunk := _read(response):
                part.write(chunk)
                bar.update(len(chunk))
    size = part.seek(0, os.SEEK_END)
    if total is not None and size != total:
        raise ConnectionError(f"the connection ended after {size} of {total} bytes")


class _Safe(urllib.request.HTTPRedirectHandler):
    """Follows redirects to where :func:`_require_safe` lets it."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The next request.

        Raises:
            ModelNotFoundError: It would not be encrypted.
        """
        _require_safe(newurl, before=req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_safe(url: str, before: str = "") -> None:
    """Refuse what others on the way could replace: all but HTTPS, and HTTP within this machine.

    Raises:
        ModelNotFoundError: The address, or the one redirected to, is not encrypted.
    """
    there, here = urllib.parse.urlsplit(url), urllib.parse.urlsplit(before)
    local = there.scheme == "http" and there.hostname in ("127.0.0.1", "localhost", "::1")
    if there.scheme == "https" or (local and here.scheme != "https"):
        return
    raise ModelNotFoundError(
        f"{before or url} leads to {url}, which is not encrypted, so that anybody on the way could "
        "replace the file: only https is followed; download it yourself from where you trust"
    )


def _open(request: urllib.request.Request, part: IO[bytes]) -> http.client.HTTPResponse:
    try:
        opener = urllib.request.build_opener(_Safe)
        response: http.client.HTTPResponse = opener.open(request, timeout=_TIMEOUT)
        return response
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.truncate(0)
            raise ConnectionError("the part kept from before does not fit the file") from error
        raise
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(str(getattr(error, "reason", error))) from error


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        # Not to be taken for an error of the disk, which is an OSError too.
        raise ConnectionError(str(error)) from error


def _total_size(response: http.client.HTTPResponse, start: int) -> int | None:
    """Size of the whole file, where the server says it."""
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers["Content-Range"] or "")
        if match is None or int(match[1]) != start:
            raise ConnectionError(f"the server sent another part than that from byte {start}")
        return int(match[2])
    length = response.headers["Content-Length"]
    return int(length) if length else None


def _require_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        reason = f"the download needs {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free"
        raise OSError(errno.ENOSPC, reason)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _lock(file: IO[str]) -> None:
    """Wait until no other process downloads to the same file, where the system can tell."""
    with contextlib.suppress(ImportError, OSError):  # Windows; some network file systems
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)


def beside(path: Path, ending: str) -> Path:
    """The path with ``ending`` added to its whole name."""
    return path.with_name(path.name + ending)
