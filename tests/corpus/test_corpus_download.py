"""Downloads from a server of our own that misbehaves on demand."""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from asr_distill.corpus.download import download
from asr_distill.errors import UserError

BODY = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
MD5 = hashlib.md5(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves BODY at every path; how, the test sets."""

    ranges = True
    cut_after: list[int]  # bytes after which the next connections are cut
    statuses: list[int]  # answered first, one a request
    missing: tuple[str, ...] = ()
    requests: list[str]  # the Range header of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/12/file.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range", "")
        server.requests.append(wanted)
        if server.statuses or self.path in server.missing:
            self.send_error(server.statuses.pop(0) if server.statuses else 404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        if start >= len(BODY):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        body = BODY[start:]
        self.wfile.write(body[:server.cut_after.pop(0)] if server.cut_after else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.cut_after, running.statuses, running.requests = [], [], []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def fetch(server: Server, dest: Path, **options: object) -> Path:
    return download(server.url, dest, **({"backoff": 0.0, "size": len(BODY), "md5": MD5} | options))  # type: ignore[arg-type]


def test_plain(server: Server, tmp_path: Path) -> None:
    dest = tmp_path / "new" / "file.bin"
    assert fetch(server, dest) == dest
    assert dest.read_bytes() == BODY
    assert [path.name for path in dest.parent.iterdir()] == ["file.bin"]
    fetch(server, dest)
    assert len(server.requests) == 1  # what is there and right is not fetched again


def test_without_size_and_digest(server: Server, tmp_path: Path) -> None:
    server.cut_after = [1000]
    assert download(server.url, tmp_path / "f", backoff=0.0).read_bytes() == BODY


def test_resumes_where_the_connection_broke(server: Server, tmp_path: Path) -> None:
    server.cut_after = [1_200_000, 700_000]
    assert fetch(server, tmp_path / "f").read_bytes() == BODY
    assert server.requests == ["", "bytes=1200000-", "bytes=1900000-"]


def test_resumes_in_a_later_call(server: Server, tmp_path: Path) -> None:
    server.cut_after = [2_000_000]
    with pytest.raises(UserError, match=r"go on from the 2,000,000 bytes in .*f\.part"):
        fetch(server, tmp_path / "f", attempts=1)
    assert not (tmp_path / "f").exists()
    assert fetch(server, tmp_path / "f").read_bytes() == BODY
    assert server.requests == ["", "bytes=2000000-"]


def test_server_that_ignores_range(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.cut_after = [1_200_000]
    assert fetch(server, tmp_path / "f").read_bytes() == BODY
    assert server.requests == ["", "bytes=1200000-"]


def test_server_that_never_gets_further_is_given_up(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.cut_after = [1_200_000] * 99
    with pytest.raises(UserError, match="3 times in a row without progress"):
        fetch(server, tmp_path / "f", attempts=3)
    assert len(server.requests) == 3


def test_transient_answers_are_tried_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    assert fetch(server, tmp_path / "f", attempts=3).read_bytes() == BODY
    server.statuses = [500, 500]
    with pytest.raises(UserError, match=r"answers 500 .* 2 times in a row"):
        fetch(server, tmp_path / "g", attempts=2)


def test_part_of_another_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(bytes(len(BODY) + 5))
    assert fetch(server, tmp_path / "f").read_bytes() == BODY
    (tmp_path / "g.part").write_bytes(bytes(1000))
    with pytest.raises(UserError, match=f"MD5 [0-9a-f]+, expected {MD5}; it was removed"):
        fetch(server, tmp_path / "g")
    assert fetch(server, tmp_path / "g").read_bytes() == BODY


def test_wrong_digest_removes_the_part(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"MD5 {MD5}, expected {'0' * 32}; it was removed"):
        fetch(server, tmp_path / "f", md5="0" * 32)
    assert not list(tmp_path.iterdir())


def test_wrong_size_is_refused_before_the_transfer(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the server offers 3,000,000 bytes, expected 3,000,001"):
        fetch(server, tmp_path / "f", size=len(BODY) + 1)
    assert not list(tmp_path.iterdir())


def test_a_wrong_file_that_is_there_is_not_touched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"4 bytes, expected 3,000,000; delete it"):
        fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"mine"


def test_not_found(server: Server, tmp_path: Path) -> None:
    server.missing = ("/12/file.bin",)
    with pytest.raises(UserError, match=r"the server answers 404 .*check the address or give another mirror"):
        fetch(server, tmp_path / "f")
    assert len(server.requests) == 1


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/f"
    with pytest.raises(UserError, match=r"no connection \(.*refused.*\); check the network"):
        download(url, tmp_path / "f")


def test_silent_server_times_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/f"
        with pytest.raises(UserError, match=r"timed out.*2 times in a row"):
            download(url, tmp_path / "f", attempts=2, timeout=0.1, backoff=0.0)


@pytest.mark.parametrize("url", ["no-scheme/f", "gopherr://x/f", "http://host:port/f"])
def test_not_an_address(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"address|no connection"):
        download(url, tmp_path / "f", backoff=0.0)


def test_full_disk_is_seen_beforehand(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(UserError, match=r"needs 0\.00 GB in .* 0\.00 GB free; make room"):
        fetch(server, tmp_path / "f")
    assert not list(tmp_path.iterdir())


def test_local_mirror(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(BODY)
    assert download((tmp_path / "source").as_uri(), tmp_path / "f", size=len(BODY), md5=MD5).read_bytes() == BODY
    with pytest.raises(UserError, match="no connection"):
        download((tmp_path / "nothing").as_uri(), tmp_path / "g")


class Part(NamedTuple):
    have: int
    ranges: bool


@pytest.mark.parametrize("part", [Part(1, True), Part(len(BODY) - 1, True), Part(len(BODY), True), Part(17, False)])
def test_any_part_is_completed(server: Server, tmp_path: Path, part: Part) -> None:
    server.ranges = part.ranges
    (tmp_path / "f.part").write_bytes(BODY[:part.have])
    assert fetch(server, tmp_path / "f").read_bytes() == BODY
    assert len(server.requests) == (part.have < len(BODY))
