"""local/librispeech.py: subsets and language resources from a folder that stands in for OpenSLR."""

from __future__ import annotations

import hashlib
import re
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from asr_distill.corpus.librispeech import prepare
from asr_distill.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    import local.librispeech
    return local.librispeech


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """31/train-clean-5.tar.gz with one utterance, and 11/librispeech-lexicon.txt."""
    chapter = tmp_path / "LibriSpeech/train-clean-5/1/2"
    chapter.mkdir(parents=True)
    soundfile.write(chapter / "1-2-0000.flac", np.arange(1600, dtype=np.int16), 16000)
    (chapter / "1-2.trans.txt").write_text("1-2-0000 HELLO\n")
    (tmp_path / "mirror/31").mkdir(parents=True)
    with tarfile.open(tmp_path / "mirror/31/train-clean-5.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "LibriSpeech", "LibriSpeech")
    (tmp_path / "mirror/11").mkdir()
    (tmp_path / "mirror/11/librispeech-lexicon.txt").write_text("HELLO HH AH0 L OW1\n")
    return tmp_path / "mirror"


def resource(local: ModuleType, path: Path) -> object:
    data = path.read_bytes()
    return local.Resource(int(path.parent.name), len(data), hashlib.md5(data).hexdigest())


def test_download_unpack_prepare(local: ModuleType, mirror: Path, tmp_path: Path) -> None:
    dest = tmp_path / "data"
    known = {"train-clean-5": resource(local, mirror / "31/train-clean-5.tar.gz")}
    root = local.download_subsets(["train-clean-5"], dest, mirror.as_uri(), resources=known)
    assert root == dest / "LibriSpeech" and not list(dest.glob("[!.]*.tar.gz*"))
    assert prepare(root, {"train": "train-clean-5"}, tmp_path / "out")["train"]["utterances"] == 1
    # Again, without a mirror to ask: all is there.
    local.download_subsets(["train-clean-5"], dest, "file:///nowhere", resources=known)


def test_language_files(local: ModuleType, mirror: Path, tmp_path: Path) -> None:
    known = {"librispeech-lexicon.txt": resource(local, mirror / "11/librispeech-lexicon.txt")}
    paths = local.download_language(["librispeech-lexicon.txt"], tmp_path / "lm", mirror.as_uri(), resources=known)
    assert paths["librispeech-lexicon.txt"].read_text().startswith("HELLO")


def test_unknown_names(local: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such LibriSpeech subset \(did you mean 'train-clean-100'\?\)"):
        local.download_subsets(["train-clean-10"], tmp_path)
    with pytest.raises(UserError, match="no such LibriSpeech file"):
        local.download_language(["lexicon.txt"], tmp_path)


def test_digests_are_digests(local: ModuleType) -> None:
    for known in (*local.SUBSETS.values(), *local.LANGUAGE.values()):
        assert known.md5 is None or re.fullmatch("[0-9a-f]{32}", known.md5)
        assert known.openslr in (11, 12, 31) and (known.size or known.md5)


def test_mirrors_by_name(local: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    urls: list[str] = []
    monkeypatch.setattr(local, "download", lambda url, dest, **_: urls.append(url) or dest)
    local.download_language(["g2p-model-5"], tmp_path, "eu")
    local.download_language(["g2p-model-5"], tmp_path)
    assert urls == [f"{local.MIRRORS['eu']}/11/g2p-model-5", f"{local.BASE_URL}/11/g2p-model-5"]
