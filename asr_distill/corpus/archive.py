"""Tar archives: unpacked once, safely, and visible only when whole."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from asr_distill.corpus.download import BLOCK_BYTES, require_room
from asr_distill.errors import UserError
from asr_distill.files import write_json
from asr_distill.progress import Progress

DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, KeyError)


def is_unpacked(archive_name: str, dest: Path) -> bool:
    """Whether `unpack` has finished with an archive of this name; the archive itself may be gone."""
    return _sentinel(archive_name, dest).is_file()


def unpack(archive: Path, dest: Path) -> Path:
    """Unpack a tar (plain, gz, bz2, xz) into the folder `dest`, once; returns `dest`.

    All of it goes to a hidden folder in `dest` first and is then renamed into place: a killed run leaves nothing
    half there and is done afresh. Folders that exist are merged (LibriSpeech's archives share one top folder).

    Raises UserError for a missing or damaged archive, a full disk, and any member that could write outside `dest`: an
    absolute path, `..`, a device, a link upward or to an absolute path. Nothing is left of a refused archive.
    """
    if is_unpacked(archive.name, dest):
        return dest
    if not archive.is_file():
        raise UserError(f"{archive}: no such archive; download it first")
    dest.mkdir(parents=True, exist_ok=True)
    temporary = dest / f".{archive.name}.unpacking"
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir()
    try:
        members = _extract(archive, temporary)
        _merge(temporary, dest)
    finally:
        shutil.rmtree(temporary)
    write_json(_sentinel(archive.name, dest), {"archive": archive.name, "bytes": archive.stat().st_size,
                                               "members": members})
    return dest


def _sentinel(archive_name: str, dest: Path) -> Path:
    return dest / f".{archive_name}.unpacked.json"


def _extract(archive: Path, into: Path) -> int:
    """Returns how many members."""
    count = 0
    try:
        with open(archive, "rb") as raw, tarfile.open(fileobj=raw) as tar, \
                Progress(f"unpack {archive.name}", archive.stat().st_size / 1e6, "MB") as progress:
            for member in tar:
                if reason := unsafe(member):
                    raise UserError(f"{archive}: refused, member '{member.name}' {reason}; do not trust this archive")
                require_room(into, member.size, archive)
                # Without set_attrs no owner, mode or setuid bit of the archive reaches the disk.
                if hasattr(tarfile, "data_filter"):
                    tar.extract(member, into, set_attrs=False, filter="data")
                else:
                    tar.extract(member, into, set_attrs=False)
                count += 1
                progress.update(raw.tell() / 1e6 - progress.done)
            _check_end(tar)
    except DAMAGE as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{archive}: damaged archive ({reason}); delete it and download it again") from None
    if not count:
        raise UserError(f"{archive}: the archive is empty; delete it and download it again")
    return count


def _check_end(tar: tarfile.TarFile) -> None:
    """tarfile takes a broken header for the end and never reads up to gzip's checksum: both are made good here."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no valid member header at byte {tar.offset:,}")
    while tar.fileobj.read(BLOCK_BYTES):
        pass


def unsafe(member: tarfile.TarInfo) -> str | None:
    """Why a member must not be extracted, None where it may.

    Links may only point downward from where they stand: without `..` in any target no chain of links can lead out.
    """
    if reason := _leads_out(member.name):
        return reason
    if member.issym() or member.islnk():
        reason = _leads_out(member.linkname)
        return f"is a link whose target '{member.linkname}' {reason}" if reason else None
    return None if member.isfile() or member.isdir() else "is neither a file, a folder nor a link"


def _leads_out(name: str) -> str | None:
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root:
        return "is an absolute path"
    return "contains '..'" if ".." in windows.parts else None


def _merge(source: Path, dest: Path) -> None:
    """Rename everything in `source` into `dest`; a folder that is new there moves whole, in one step."""
    for entry in sorted(source.iterdir()):
        target = dest / entry.name
        if stat.S_ISDIR(entry.lstat().st_mode) and target.is_dir():
            _merge(entry, target)
        else:
            os.replace(entry, target)
