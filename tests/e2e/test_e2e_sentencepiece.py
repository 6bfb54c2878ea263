"""The whole chain on sentencepiece units: no lexicon, a table of word errors, an export that times words."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from runner import ROOT, TINY, results, run
from tone_corpus import write_corpus

from asr_distill.lang.lang import Lang
from asr_distill.lang.pieces import letters_of

pytestmark = pytest.mark.slow

PIECES = ROOT / "conf" / "mini_librispeech_sentencepiece.yaml"


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_corpus(tmp_path_factory.mktemp("spelled"), spelled=True)
    (root / "lexicon.txt").unlink()
    return root


def _settings(tones: Path) -> list[str]:
    changes = ["lang.pieces.vocab_size=36", "decode.systems=[mono, tri3b, baseline, ensemble, student]",
               *(f"{rung}.tree.leaves=150" for rung in ("tri1", "tri2b", "tri3b")),  # more than there are roots
               f"corpus.dir={tones / 'LibriSpeech'}", f"lang.text={tones / 'lm.txt'}"]
    return ["--conf", str(PIECES), "--conf", str(TINY), *(part for change in changes for part in ("--set", change))]


@pytest.fixture(scope="module")
def finished(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    exp = tmp_path_factory.mktemp("finished") / "exp"
    run(exp, *_settings(tones))
    return exp


def _command(*words: str) -> str:
    return subprocess.run([sys.executable, "-m", "asr_distill.cli", *words], capture_output=True, text=True, check=True,
                          cwd=ROOT, stdin=subprocess.DEVNULL, timeout=600).stdout


def test_pieces_are_learned_to_a_table_of_word_errors(finished: Path) -> None:
    systems = {system["name"]: system["splits"]["dev_clean_2"] for system in results(finished)["systems"]}
    assert {"mono", "tri3b", "baseline", "ensemble", "student", "exported"} <= set(systems)
    assert systems["ensemble"]["wer"] < 15 and systems["student"]["wer"] < 20  # nothing learned: above 80
    assert abs(systems["exported"]["wer"] - systems["student"]["wer"]) <= 0.2
    (directory,) = finished.glob("*_lang")
    lang = Lang(directory)
    letters = letters_of(lang.phones)
    assert letters is not None and 20 < len(letters) <= 38 and max(map(len, letters.values())) > 1
    (mono,) = finished.glob("*_mono")
    states = dict(zip(lang.phones, json.loads((mono / "hmm.json").read_text())["states"], strict=True))
    assert all(states[phone] == 3 + max(0, len(piece) - 1) for phone, piece in letters.items())


def test_the_exported_student_times_its_words(finished: Path, tones: Path) -> None:
    audio = sorted((tones / "LibriSpeech/dev-clean-2").rglob("*.flac"))[-1]
    said = audio.with_name(f"{audio.parent.parent.name}-1.trans.txt").read_text().splitlines()[-1].split()[1:]
    (bundle,) = finished.glob("*_export/recogniser")
    heard = json.loads(_command("transcribe", str(bundle), str(audio), "--json"))
    words = [word["word"] for word in heard["words"]]
    assert sum(word in words for word in said) >= len(said) - 2
    times = [time for word in heard["words"] for time in (word["start"], word["end"])]
    assert times == sorted(times) and 0 <= times[0] < times[-1] <= heard["seconds"]


def test_the_tree_names_letters_of_pieces(finished: Path) -> None:
    (tri1,) = finished.glob("*_tri1")
    shown = _command("tree", str(tri1))
    assert "▁" in shown and ("begins with" in shown or "ends with" in shown)


@pytest.mark.parametrize("target", ["sherpa-onnx", "vosk"])
def test_stock_runtimes_decode_pieces(finished: Path, tones: Path, tmp_path: Path, target: str) -> None:
    if importlib.util.find_spec(target.replace("-", "_")) is None:  # not imported: Vosk waits for ever beside Kaldi
        pytest.skip(f"needs {target}")
    _command("export", str(finished), "--to", target, "--out", str(tmp_path / "out"), "--utterances", "8",
             "--dev", str(tones / "LibriSpeech/dev-clean-2"))  # refused where the words are other ones
    score = json.loads((tmp_path / "out" / "manifest.json").read_text())["figures"]["score"]
    assert score["words"] > 20 and score["wer"] < 20
