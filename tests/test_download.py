"""Downloads resume, are checked, and fail with one clear error."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jmp_md.errors import CheckpointError, ModelNotFoundError
from jmp_md.models.download import _Safe, download, verify_sha256

BY_HAND = "put it there by hand"


class _Server(ThreadingHTTPServer):
    """Serves one file with ranges; can cut connections, change the file and refuse."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = bytes(range(256)) * 40_000  # 10 MB, several chunks
        self.cuts: list[int] = []  # bytes to send before the next connections are cut
        self.statuses: list[int] = []  # errors to answer with first
        self.ranges: list[str | None] = []  # what was asked for
        self.sends_version = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/model.pt"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        server, content = self.server, self.server.content
        asked = self.headers["Range"]
        server.ranges.append(asked)
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        version = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        if asked and self.headers["If-Range"] == version:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])  # type: ignore[index]
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if server.sends_version:
            self.send_header("ETag", version)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("JMP_MD_OFFLINE", raising=False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "model.pt"


def _names(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir())


def test_whole_file_arrives_with_its_hash_recorded(server: _Server, path: Path) -> None:
    download(server.url, path, by_hand=BY_HAND)
    assert path.read_bytes() == server.content
    assert _names(path) == ["model.pt", "model.pt.sha256"]
    recorded = (path.parent / "model.pt.sha256").read_text().split()[0]
    assert recorded == hashlib.sha256(server.content).hexdigest()


def test_cut_connection_resumes_where_it_ended(server: _Server, path: Path) -> None:
    server.cuts = [3_000_000, 1_000_000]
    download(server.url, path, by_hand=BY_HAND)
    assert path.read_bytes() == server.content
    assert server.ranges == [None, "bytes=3000000-", "bytes=4000000-"]


def test_next_run_resumes_after_giving_up(server: _Server, path: Path) -> None:
    server.cuts = [1_000_000] * 4
    with pytest.raises(ModelNotFoundError, match=r"4\.0 MB are kept: run again.*by hand"):
        download(server.url, path, by_hand=BY_HAND)
    assert not path.exists()
    download(server.url, path, by_hand=BY_HAND)
    assert server.ranges[-1] == "bytes=4000000-"
    assert path.read_bytes() == server.content


def test_file_changed_on_the_server_is_not_continued(server: _Server, path: Path) -> None:
    server.cuts = [1_000_000] * 4
    with pytest.raises(ModelNotFoundError):
        download(server.url, path, by_hand=BY_HAND)
    server.content = server.content[::-1]
    download(server.url, path, by_hand=BY_HAND)
    assert path.read_bytes() == server.content


def test_server_without_versions_is_started_over(server: _Server, path: Path) -> None:
    server.sends_version = False
    server.cuts = [1_000_000]
    download(server.url, path, by_hand=BY_HAND)
    assert server.ranges == [None, None]
    assert path.read_bytes() == server.content


def test_part_longer_than_the_file_is_dropped(server: _Server, path: Path) -> None:
    path.parent.mkdir()
    (path.parent / "model.pt.part").write_bytes(server.content + b"more")
    version = f'"{hashlib.md5(server.content).hexdigest()}"'
    (path.parent / "model.pt.part.version").write_text(version)
    download(server.url, path, by_hand=BY_HAND)
    assert path.read_bytes() == server.content


def test_pinned_hash_is_required(server: _Server, path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.pt has sha256 .*expected 00ff"):
        download(server.url, path, sha256="00ff", by_hand=BY_HAND)
    assert not path.exists()
    assert not (path.parent / "model.pt.part").exists()
    digest = hashlib.sha256(server.content).hexdigest()
    download(server.url, path, sha256=digest, by_hand=BY_HAND)
    assert path.read_bytes() == server.content


def test_second_download_must_match_the_recorded_hash(server: _Server, path: Path) -> None:
    download(server.url, path, by_hand=BY_HAND)
    path.unlink()
    server.content += b"!"
    with pytest.raises(CheckpointError, match=r"model\.pt\.sha256, to trust"):
        download(server.url, path, by_hand=BY_HAND)
    assert not path.exists()


def test_damage_after_the_first_use_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    verify_sha256(path)
    verify_sha256(path)
    path.write_bytes(b"weightz")
    with pytest.raises(CheckpointError, match=r"model\.pt has sha256 .*delete"):
        verify_sha256(path)


def test_offline_forbids_and_says_what_to_do(
    server: _Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JMP_MD_OFFLINE", "1")
    with pytest.raises(ModelNotFoundError, match=r"JMP_MD_OFFLINE.*by hand"):
        download(server.url, path, by_hand=BY_HAND)
    assert server.ranges == []
    monkeypatch.setenv("JMP_MD_OFFLINE", "0")
    download(server.url, path, by_hand=BY_HAND)
    assert path.exists()


def test_refusal_is_final_and_a_failing_server_is_tried_again(server: _Server, path: Path) -> None:
    server.statuses = [404]
    with pytest.raises(ModelNotFoundError, match=r"refused http.*404.*by hand"):
        download(server.url, path, by_hand=BY_HAND)
    assert len(server.ranges) == 1
    server.statuses = [503, 500]
    download(server.url, path, by_hand=BY_HAND)
    assert path.read_bytes() == server.content


def test_unreachable_server_is_one_clear_error(server: _Server, path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/model.pt"
        with pytest.raises(ModelNotFoundError, match=r"cannot download .*refused.*by hand"):
            download(url, path, by_hand=BY_HAND)


def test_silent_server_times_out(
    server: _Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jmp_md.models.download._TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/model.pt"
        with pytest.raises(ModelNotFoundError, match=r"cannot download .*timed out"):
            download(url, path, by_hand=BY_HAND)


def test_full_disk_is_reported_before_the_download(
    server: _Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(Path.cwd())._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ModelNotFoundError, match=r"needs 10 MB and 1 MB are free; free some"):
        download(server.url, path, by_hand=BY_HAND)
    assert not path.exists()


def test_folder_that_cannot_be_made_is_one_clear_error(server: _Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelNotFoundError, match=r"cannot store .*JMP_MD_HOME"):
        download(server.url, tmp_path / "file" / "model.pt", by_hand=BY_HAND)


def test_two_downloads_at_once_give_one_whole_file(server: _Server, path: Path) -> None:
    threads = [
        threading.Thread(target=download, args=(server.url, path), kwargs={"by_hand": BY_HAND})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == server.content
    assert len(server.ranges) == 1


@pytest.mark.parametrize(
    "url", ["http://example.org/m.pt", "ftp://example.org/m.pt", "file:///etc/hostname", "m.pt"]
)
def test_what_is_not_encrypted_is_not_downloaded(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JMP_MD_OFFLINE", raising=False)
    with pytest.raises(ModelNotFoundError, match="not encrypted"):
        download(url, tmp_path / "m.pt", by_hand="")
    assert not (tmp_path / "m.pt").exists()


def test_a_redirect_leads_to_nothing_less_safe() -> None:
    handler = _Safe()
    for start, end, follows in (
        ("https://a.org/m", "https://b.org/m", True),
        ("https://a.org/m", "http://a.org/m", False),
        ("https://a.org/m", "http://127.0.0.1/m", False),
        ("http://127.0.0.1/m", "http://127.0.0.1/n", True),
        ("http://127.0.0.1/m", "file:///etc/hostname", False),
    ):
        request = urllib.request.Request(start)
        arguments = (request, io.BytesIO(), 302, "Found", HTTPMessage(), end)
        if follows:
            following = handler.redirect_request(*arguments)
            assert following is not None
            assert following.full_url == end
        else:
            with pytest.raises(ModelNotFoundError, match="not encrypted"):
                handler.redirect_request(*arguments)
