"""LibriSpeech (OpenSLR 12), Mini LibriSpeech (31) and their lexicon and language models (11): names, sizes, digests.

CC BY 4.0, Panayotov, Chen, Povey, Khudanpur, "LibriSpeech: an ASR corpus based on public domain audio books", 2015.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from asr_distill.corpus.archive import is_unpacked, unpack
from asr_distill.corpus.download import download, require_room
from asr_distill.errors import UserError, nearest

BASE_URL = "https://www.openslr.org/resources"
MIRRORS = {
    "us": "https://openslr.trmal.net/resources",
    "eu": "https://openslr.elda.org/resources",
    "cn": "https://openslr.magicdatatech.com/resources",
}


@dataclass(frozen=True)
class Resource:
    """One file of OpenSLR. `md5` None: none is published, only the size is checked."""

    openslr: int
    size: int | None
    md5: str | None = None


# Archives <subset>.tar.gz; digests from the md5sum.txt of OpenSLR 12 and 31.
SUBSETS = {
    "train-clean-5": Resource(31, 332_954_390, "5df7d4e78065366204ca6845bb08f490"),
    "dev-clean-2": Resource(31, 126_046_265, "6d7ab67ac6a1d2c993d050e16d61080d"),
    "dev-clean": Resource(12, 337_926_286, "42e2234ba48799c1f50f24a7926300a1"),
    "dev-other": Resource(12, 314_305_928, "c8d0bcc9cca99d4f8b62fcc847357931"),
    "test-clean": Resource(12, 346_663_984, "32fa31d27d2e1cad72775fee3f4849a9"),
    "test-other": Resource(12, 328_757_843, "fb5a50374b501bb3bac4815ee91d3135"),
    "train-clean-100": Resource(12, 6_387_309_499, "2a93770f6d5c6c964bc36631d331a522"),
    "train-clean-360": Resource(12, 23_049_477_885, "c0e676e450a7ff2f54aeade5171606fa"),
    "train-other-500": Resource(12, 30_593_501_606, "d1a0fd59409feb2c614ce4d30c387708"),
}
# OpenSLR 11 publishes no digests; the one here was found equal in two independent places.
LANGUAGE = {
    "librispeech-lexicon.txt": Resource(11, 5_627_653),
    "librispeech-vocab.txt": Resource(11, 1_737_588),
    "3-gram.arpa.gz": Resource(11, 759_636_181),
    "3-gram.pruned.1e-7.arpa.gz": Resource(11, 34_094_057),
    "3-gram.pruned.3e-7.arpa.gz": Resource(11, 13_654_242),
    "4-gram.arpa.gz": Resource(11, 1_355_172_078),
    "g2p-model-5": Resource(11, 20_098_243),
    "librispeech-lm-norm.txt.gz": Resource(11, None, "c83c64c726a1aedfe65f80aa311de402"),
}


def download_subsets(subsets: Iterable[str], dest: Path, base_url: str = BASE_URL, *, keep_archives: bool = False,
                     resources: Mapping[str, Resource] = SUBSETS) -> Path:
    """Make `dest`/LibriSpeech/<subset> of each subset; returns the corpus root `dest`/LibriSpeech.

    What is there stays as it is. `base_url` may be a name in MIRRORS. Archives are deleted once unpacked unless kept.
    Raises UserError for an unknown subset, a failed download or a full disk.
    """
    root = dest / "LibriSpeech"
    wanted = {name: _known(name, resources, "subset") for name in dict.fromkeys(subsets)}
    missing = {name: resource for name, resource in wanted.items()
               if not (root / name).is_dir() and not is_unpacked(f"{name}.tar.gz", dest)}
    if missing:  # said before the first of many hours; FLAC unpacks to about the archive's size
        dest.mkdir(parents=True, exist_ok=True)
        require_room(dest, 2 * sum(resource.size or 0 for resource in missing.values()), ", ".join(missing))
    for name, resource in missing.items():
        archive = _fetch(f"{name}.tar.gz", resource, dest, base_url)
        unpack(archive, dest)
        if not keep_archives:
            archive.unlink()
        if not (root / name).is_dir():
            raise UserError(f"{archive.name}: unpacked, but it holds no LibriSpeech/{name}; give another mirror")
    return root


def download_language(files: Iterable[str], dest: Path, base_url: str = BASE_URL, *,
                      resources: Mapping[str, Resource] = LANGUAGE) -> dict[str, Path]:
    """Fetch lexicon and language models into `dest`; file name -> path. Raises UserError as `download` does."""
    wanted = {name: _known(name, resources, "file") for name in files}
    return {name: _fetch(name, resource, dest, base_url) for name, resource in wanted.items()}


def _known(name: str, resources: Mapping[str, Resource], kind: str) -> Resource:
    if name not in resources:
        raise UserError(f"{name}: no such LibriSpeech {kind}{nearest(name, resources)}; known: {', '.join(resources)}")
    return resources[name]


def _fetch(name: str, resource: Resource, dest: Path, base_url: str) -> Path:
    base = MIRRORS.get(base_url, base_url).rstrip("/")
    return download(f"{base}/{resource.openslr}/{name}", dest / name, size=resource.size, md5=resource.md5)
