"""mini_librispeech end to end on a slice of real LibriSpeech, with the reference lexicon and language model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from runner import ROOT, results, run

pytestmark = pytest.mark.slow


def test_real_speech_is_learned(librispeech: Path, shared: Path, tmp_path: Path) -> None:
    reference = shared / "reference"
    if not reference.is_dir():
        pytest.skip(f"needs {reference}")
    exp = tmp_path / "exp"
    log = run(exp, "--conf", str(ROOT / "tests/e2e/slice.yaml"), "--set", f"corpus.dir={librispeech}",
              "--set", f"lang.lexicon={reference / 'lexicon.txt.xz'}",
              "--set", f"lang.arpa={reference / 'lm_small.arpa.xz'}", threads="").stderr
    assert "its first 6 speakers (36 utterances) tune the decoder" in log
    found = results(exp)
    assert found["data"]["dev_clean_2"]["utterances"] == 120 and found["data"]["train"]["utterances"] == 336
    scores = {system["name"]: system["splits"]["dev_clean_2"] for system in found["systems"]}
    print({name: (round(score["wer"], 1), round(score["frame_accuracy"], 1)) for name, score in scores.items()})
    # 1.2 h of speech: a recogniser that learned nothing stays above 95 %, one misaligned frame in two above 80 %
    assert scores["ensemble"]["wer"] < 60 and scores["student"]["wer"] < 65
    assert scores["ensemble"]["frame_accuracy"] > scores["baseline"]["frame_accuracy"] > 35
    assert abs(scores["exported"]["wer"] - scores["student"]["wer"]) <= 0.2
