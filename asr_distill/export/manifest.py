"""manifest.json: size and sha256 of every file of an exported directory, and the checks before anything is used."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from asr_distill.errors import UserError
from asr_distill.export.versions import package_versions
from asr_distill.files import file_digest, read_json, write_json

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
AGAIN = "export again, or copy the whole directory again"


def check_replaceable(out: Path, kind: str, source: Path) -> None:
    """Raises UserError where `out` is something else than an empty folder or one with a manifest of ours (a `kind`),
    or the recogniser `source` that is read (or holds it)."""
    if out.resolve() in (source.resolve(), *source.resolve().parents):
        raise UserError(f"--out {out}: that is the recogniser itself, or holds the recogniser that is exported; give "
                        "another folder")
    if out.is_symlink():
        raise UserError(f"{out}: a link; give the folder that it leads to")
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or _is_ours(out / MANIFEST))):
        raise UserError(f"{out}: exists and is no {kind}; remove it or give another --out")


def _is_ours(path: Path) -> bool:
    """Others write files of this name too (web applications, extensions)."""
    try:
        manifest = read_json(path)
    except UserError:
        return False
    return isinstance(manifest, dict) and {"format_version", "files", "versions"} <= manifest.keys()


@contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """An empty folder beside `out` that takes its place when the block ends, and is gone when the block fails."""
    out = Path(os.path.abspath(out))  # . has no name
    work, old = (out.with_name(f".{out.name}.{state}") for state in ("partial", "old"))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            out.rename(old)
        work.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_manifest(directory: Path, names: Iterable[str], facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Write the manifest over `names` (paths below `directory`, with /), with `facts` (plain data: kind, settings,
    figures) in it; returns its list of files, {name: {"bytes", "sha256"}}.
    """
    files = {name: {"bytes": (directory / name).stat().st_size, "sha256": file_digest(directory / name)}
             for name in sorted(names)}
    write_json(directory / MANIFEST, {
        "format_version": FORMAT_VERSION,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": package_versions(), **facts, "files": files})
    return files


def read_manifest(directory: Path, *, required: Collection[str] = (),
                  digested: Callable[[str], bool] = lambda name: True) -> dict[str, Any]:
    """The manifest, after every file that it lists was checked for its size and, where `digested` says so, its sha256.

    Raises UserError for a missing, damaged or foreign file, a manifest that lacks one of `required`, or another
    format version.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; give one that the recipe's export stage wrote")
    path = directory / MANIFEST
    if not path.is_file():
        raise UserError(f"{directory}: no manifest.json in it: not an exported recogniser, or not all copied")
    manifest = read_json(path)
    check_version(path, manifest)
    try:
        expected = {str(name): (int(entry["bytes"]), str(entry["sha256"]))
                    for name, entry in manifest["files"].items()}
        manifest["figures"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not of this form ({error!r}); {AGAIN}") from None
    for name in required:
        if name not in expected and "kind" in manifest:
            raise UserError(f"{directory}: an export for {manifest['kind']}, not a recogniser: run its script, or "
                            "give the directory that the recipe's export stage wrote")
        if name not in expected:
            raise UserError(f"{path}: does not list {name}; {AGAIN}")
    for name, (size, digest) in expected.items():
        file = directory / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"{path}: lists '{name}', which is outside the directory")
        if not file.is_file():
            raise UserError(f"{file}: missing; {AGAIN}")
        if file.stat().st_size != size:
            raise UserError(f"{file}: {file.stat().st_size:,} bytes, not {size:,} as exported; {AGAIN}")
        if digested(name) and file_digest(file) != digest:
            raise UserError(f"{file}: changed or damaged since export (sha256 differs); {AGAIN}")
    return manifest


def check_version(path: Path, data: Any) -> None:
    """Raises UserError where `data` (of `path`) is not of this program's format version."""
    found = data.get("format_version") if isinstance(data, Mapping) else None
    if found != FORMAT_VERSION:
        mend = ("a newer asr-distill wrote it: upgrade this one" if isinstance(found, int) and found > FORMAT_VERSION
                else "export it again")
        raise UserError(f"{path}: format version {found!r}, this program reads {FORMAT_VERSION}; {mend}")
