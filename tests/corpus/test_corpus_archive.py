"""Archives: whole or not at all, and never outside their folder."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from asr_distill.corpus import archive as archive_module
from asr_distill.corpus.archive import is_unpacked, unpack
from asr_distill.errors import UserError


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info


def make(path: Path, *members: tarfile.TarInfo, content: bytes = b"text", mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for info in members:
            info.size = len(content) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return path


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_unpacks_once(tmp_path: Path) -> None:
    tar = make(tmp_path / "a.tar.gz", member("Libri/a/x.txt"), member("Libri/README"))
    dest = tmp_path / "dest"
    assert not is_unpacked("a.tar.gz", dest)
    assert unpack(tar, dest) == dest
    assert tree(dest) == {"Libri", "Libri/a", "Libri/a/x.txt", "Libri/README", ".a.tar.gz.unpacked.json"}
    assert is_unpacked("a.tar.gz", dest)
    (dest / "Libri/README").unlink()
    tar.unlink()
    unpack(tar, dest)  # done before: the archive is not even needed
    assert not (dest / "Libri/README").exists()


def test_archives_share_a_top_folder(tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    unpack(make(tmp_path / "a.tar", member("Libri/a/x"), member("Libri/README"), mode="w"), dest)
    unpack(make(tmp_path / "b.tar.gz", member("Libri/b/y"), member("Libri/README")), dest)
    assert {"Libri/a/x", "Libri/b/y", "Libri/README"} < tree(dest)
    assert not [name for name in tree(dest) if "unpacking" in name]


@pytest.mark.parametrize("evil", [
    member("/tmp/evil"),
    member("../evil"),
    member("a/../../evil"),
    member("a\\..\\..\\evil"),
    member("C:/evil"),
    member("link", tarfile.SYMTYPE, "/etc"),
    member("link", tarfile.SYMTYPE, ".."),
    member("a/link", tarfile.SYMTYPE, "b/../../.."),
    member("hard", tarfile.LNKTYPE, "../secret"),
    member("hard", tarfile.LNKTYPE, "/etc/hostname"),
    member("device", tarfile.CHRTYPE),
    member("pipe", tarfile.FIFOTYPE),
], ids=lambda info: f"{info.name} {info.linkname}")
def test_evil_members_are_refused_and_leave_nothing(tmp_path: Path, evil: tarfile.TarInfo) -> None:
    (tmp_path / "secret").write_text("secret")
    tar = make(tmp_path / "evil.tar.gz", member("good"), evil)
    with pytest.raises(UserError, match=r"evil\.tar\.gz: refused, member .* do not trust this archive"):
        unpack(tar, tmp_path / "dest")
    assert tree(tmp_path) == {"secret", "evil.tar.gz", "dest"}


def test_chain_of_links_cannot_lead_out(tmp_path: Path) -> None:
    # Each looks harmless alone: p/q/s is the top, so p/q/t would be its parent.
    tar = make(tmp_path / "evil.tar", member("p/q/s", tarfile.SYMTYPE, "../.."),
               member("p/q/t", tarfile.SYMTYPE, "s/.."), member("p/q/t/evil"), mode="w")
    with pytest.raises(UserError, match="refused"):
        unpack(tar, tmp_path / "dest")
    assert tree(tmp_path) == {"evil.tar", "dest"}


def test_links_inside_work_and_modes_are_not_taken_over(tmp_path: Path) -> None:
    tar = make(tmp_path / "a.tar", member("d/file", mode=0o6777), member("d/soft", tarfile.SYMTYPE, "file"),
               member("hard", tarfile.LNKTYPE, "d/file"), mode="w")
    dest = unpack(tar, tmp_path / "dest")
    assert (dest / "d/soft").read_text() == (dest / "hard").read_text() == "text"
    assert not (dest / "d/file").stat().st_mode & 0o6111


@pytest.mark.parametrize("damage", [
    lambda data: data[:len(data) // 2],
    lambda data: data[:-6],
    lambda data: b"",
    lambda data: b"<html>not found</html>" * 99,
    lambda data: data[:len(data) // 2] + bytes(64) + data[len(data) // 2 + 64:],
])
def test_damaged_gz(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    tar = make(tmp_path / "a.tar.gz", *(member(f"f{n}") for n in range(9)), content=os.urandom(5000))
    tar.write_bytes(damage(tar.read_bytes()))
    with pytest.raises(UserError, match=r"a\.tar\.gz: damaged archive .* download it again"):
        unpack(tar, tmp_path / "dest")
    assert tree(tmp_path / "dest") == set()


def test_damaged_plain_tar(tmp_path: Path) -> None:
    tar = make(tmp_path / "a.tar", *(member(f"f{n}") for n in range(9)), content=bytes(512), mode="w")
    data = tar.read_bytes()
    for broken in (data[:4 * 1024], data[:4 * 1024] + b"\x07" * 512 + data[4 * 1024 + 512:]):
        tar.write_bytes(broken)
        with pytest.raises(UserError, match=r"damaged archive .no valid member header at byte 4,096"):
            unpack(tar, tmp_path / "dest")


def test_missing_and_empty_archive(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such archive"):
        unpack(tmp_path / "a.tar", tmp_path / "dest")
    with pytest.raises(UserError, match="the archive is empty"):
        unpack(make(tmp_path / "a.tar", mode="w"), tmp_path / "dest")


def slow_unpack(tar: Path, dest: Path) -> None:
    """Stands still after the third member."""
    plain, count = archive_module.unsafe, 0

    def pausing(info: tarfile.TarInfo) -> str | None:
        nonlocal count
        count += 1
        if count > 3:
            time.sleep(60)
        return plain(info)

    archive_module.unsafe = pausing
    unpack(tar, dest)


def test_killed_unpack_is_invisible_and_done_afresh(tmp_path: Path) -> None:
    tar, dest = make(tmp_path / "a.tar.gz", *(member(f"Libri/f{n}") for n in range(9))), tmp_path / "dest"
    process = multiprocessing.get_context("fork").Process(target=slow_unpack, args=(tar, dest))
    process.start()
    deadline = time.monotonic() + 20
    while len(list(dest.rglob("f?"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (dest / "Libri").exists() and not is_unpacked("a.tar.gz", dest)
    assert len(list((dest / ".a.tar.gz.unpacking/Libri").iterdir())) == 3
    unpack(tar, dest)
    assert {f"Libri/f{n}" for n in range(9)} < tree(dest) and ".a.tar.gz.unpacking" not in tree(dest)


def test_killed_between_renaming_and_sentinel(tmp_path: Path) -> None:
    tar, dest = make(tmp_path / "a.tar.gz", member("Libri/a/x"), member("Libri/README")), tmp_path / "dest"
    unpack(tar, dest)
    (dest / ".a.tar.gz.unpacked.json").unlink()
    (dest / "Libri/README").unlink()
    unpack(tar, dest)
    assert {"Libri/a/x", "Libri/README", ".a.tar.gz.unpacked.json"} < tree(dest)
