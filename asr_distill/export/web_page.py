"""A web page beside a Vosk export that recognises speech in the browser, with npm's vosk-browser."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

from asr_distill.export.script import SCRIPTS
from asr_distill.files import atomic_path, read_text, write_text

FOLDER, MODEL = "page", "model.tar.gz"
PACKAGE = "vosk-browser@0.0.8"  # the version that the page was run with
STAMP = 1_577_836_800  # 2020-01-01: every file's time in the archive
RATE = 'data-rate="16000"'  # in the page as it lies here


def write_page(export: Path, sample_rate: int) -> None:
    """Fill EXPORT/page: the page, its script, and the model packed as vosk-browser reads it (folder `model`, gzip).

    vosk.js itself comes from npm; the page says so where it is missing. The same export gives the same bytes.
    """
    folder, source = export / FOLDER, SCRIPTS / "vosk-page"
    folder.mkdir()
    page = read_text(source / "index.html")
    assert RATE in page
    write_text(folder / "index.html", page.replace(RATE, f'data-rate="{sample_rate}"'))
    write_text(folder / "page.js", read_text(source / "page.js"))
    files = sorted(path for part in ("am", "conf", "graph") for path in (export / part).rglob("*") if path.is_file())
    folders = sorted({path.parent.relative_to(export).as_posix() for path in files} | {"graph"})
    with atomic_path(folder / MODEL) as temporary:
        with open(temporary, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed, \
                tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name in ("model", *(f"model/{folder}" for folder in folders)):  # before what lies in them
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, STAMP
                archive.addfile(entry)
            for path in files:
                entry = tarfile.TarInfo(f"model/{path.relative_to(export).as_posix()}")
                entry.size, entry.mode, entry.mtime = path.stat().st_size, 0o644, STAMP
                with open(path, "rb") as content:
                    archive.addfile(entry, content)
