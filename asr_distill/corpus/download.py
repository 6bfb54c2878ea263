"""Files over HTTP: resumed where they broke off, checked, never half there under their own name."""

from __future__ import annotations

import errno
import http.client
import logging
import shutil
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO

from asr_distill.errors import UserError
from asr_distill.files import file_digest
from asr_distill.progress import Progress

log = logging.getLogger("asr_distill")
BLOCK_BYTES = 1 << 20
RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)
SPARE_BYTES = 64 << 20  # left free on the disk for everything else


class _Broken(Exception):
    """A transfer that may well succeed when tried again."""


def download(url: str, dest: Path, *, size: int | None = None, md5: str | None = None, progress: bool = True,
             attempts: int = 5, timeout: float = 30.0, backoff: float = 1.0) -> Path:
    """Fetch `url` to the file `dest`, which appears only when whole; returns `dest`.

    Bytes arrive in `dest`.part and a later call goes on from there. `size` in bytes and `md5` in hex are checked where
    given, also on a `dest` that is there already. Broken transfers are tried again after `backoff`, 2 x `backoff`, ...
    seconds; `attempts` in a row that bring no further byte end it. `timeout`: seconds without any data.

    Raises UserError for a wrong size or digest (the part is removed), a refusal of the server (404, ...), no
    connection, a full disk, and when the attempts are used up (the part is kept).
    """
    if dest.exists():
        _verify(dest, size, md5, f"delete it to download {url} again")
        return dest
    dest.parent.mkdir(parents=True, exist_ok=True)
    part = dest.with_name(f"{dest.name}.part")
    failures, begin = 0, _size(part)
    furthest = begin
    while size is None or _size(part) != size:
        try:
            _transfer(url, part, size, timeout, dest.name if progress else None, patient=furthest > begin)
            break
        except _Broken as error:
            failures = 1 if _size(part) > furthest else failures + 1
            furthest = max(furthest, _size(part))
            if failures >= attempts:
                raise UserError(f"{url}: {error}, {attempts} times in a row without progress; run the same command "
                                f"again to go on from the {_size(part):,} bytes in {part}") from None
            seconds = backoff * 2 ** (failures - 1)
            log.warning("%s: %s; trying again in %g s", url, error, seconds)
            time.sleep(seconds)
    try:
        _verify(part, size, md5, f"it was removed; run the same command again, or give another mirror than {url}")
    except UserError:
        part.unlink()
        raise
    part.replace(dest)
    return dest


def _verify(path: Path, size: int | None, md5: str | None, mend: str) -> None:
    if size is not None and _size(path) != size:
        raise UserError(f"{path}: {_size(path):,} bytes, expected {size:,}; {mend}")
    if md5 is not None and (found := file_digest(path, "md5")) != md5.lower():
        raise UserError(f"{path}: MD5 {found}, expected {md5}; {mend}")


def _transfer(url: str, part: Path, size: int | None, timeout: float, label: str | None, patient: bool) -> None:
    """One connection. Raises _Broken where another may do better, UserError where not.

    `patient`: the server has served this call before, so that even a refused connection is worth a second try.
    """
    have = _size(part)
    headers = {"User-Agent": "asr-distill", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as response:
            if have and response.status != 206:  # the server knows no ranges and sends all of it
                have = 0
            elif have and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise _Broken("the server answers with another range than the one asked for")
            length = response.headers.get("Content-Length")
            total = have + int(length) if length is not None else size
            if size is not None and total != size:
                raise UserError(f"{url}: the server offers {total:,} bytes, expected {size:,}; another release of the "
                                f"file? give another mirror")
            require_room(part.parent, (total or have) - have, url)
            _receive(response, part, have, total, label)
    except urllib.error.HTTPError as error:
        _refused(url, error, part)
    except urllib.error.URLError as error:
        if patient or isinstance(error.reason, (TimeoutError, ConnectionResetError, ssl.SSLEOFError)):
            raise _Broken(f"{error.reason}") from None
        raise UserError(f"{url}: no connection ({error.reason}); check the network and the address, or give another "
                        f"mirror; what has arrived is kept") from None
    except (ValueError, http.client.InvalidURL) as error:
        raise UserError(f"{url}: not an address that can be downloaded ({error}); give one with https://") from None
    except (TimeoutError, ConnectionError, http.client.HTTPException, ssl.SSLError) as error:
        raise _Broken(f"the connection broke ({error})") from None


def _receive(response: BinaryIO, part: Path, have: int, total: int | None, label: str | None) -> None:
    with open(part, "ab" if have else "wb") as file, \
            Progress(f"download {label}", (total or 0) / 1e6, "MB", done=have / 1e6) as progress:
        while block := response.read(BLOCK_BYTES):
            try:
                file.write(block)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise UserError(f"{part}: the disk is full; make room and run the same command again") from None
                raise
            have += len(block)
            if label is not None:
                progress.update(len(block) / 1e6)
    if total is not None and have < total:
        raise _Broken(f"the connection closed at {have:,} of {total:,} bytes")


def _refused(url: str, error: urllib.error.HTTPError, part: Path) -> None:
    error.close()
    if error.code == 416:  # the part is longer than the file: it is of another file
        part.unlink()
        raise _Broken("the server has no bytes after those that had arrived, starting afresh") from None
    if error.code in RETRIED_STATUS:
        raise _Broken(f"the server answers {error.code} {error.reason}") from None
    hint = "check the address or give another mirror" if error.code in (404, 410) else "give another mirror"
    raise UserError(f"{url}: the server answers {error.code} {error.reason}; {hint}") from None


def require_room(directory: Path, size: int, what: object) -> None:
    """Raises UserError where `directory`'s disk lacks room for `size` more bytes."""
    free = shutil.disk_usage(directory).free
    if size + SPARE_BYTES > free:
        raise UserError(f"{what}: needs {size / 1e9:.2f} GB in {directory}, whose disk has {free / 1e9:.2f} GB free; "
                        f"make room or choose another folder")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
