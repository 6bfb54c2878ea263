"""Audio without transcripts: names, speakers, pieces of long recordings, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr_distill.corpus.manifest import load_split
from asr_distill.corpus.untranscribed import prepare_untranscribed
from asr_distill.errors import UserError
from asr_distill.features.compute import compute_store
from asr_distill.features.fbank import FbankConfig
from asr_distill.features.store import FrameStore
from asr_distill.features.waveform import clip_of, read_samples

RATE = 16000


def write(path: Path, samples: int, *, rate: int = RATE) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(samples).integers(-3000, 3000, samples).astype(np.int16)
    soundfile.write(path, noise, rate)
    return noise


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "audio"
    write(root / "anna/one.flac", 9000)
    write(root / "anna/two.wav", 12000)
    write(root / "talks/ben/long.flac", 50001)
    write(root / "alone.wav", 8000)
    (root / "anna/notes.txt").write_text("no audio")
    (root / ".hidden.flac").write_bytes(b"")
    return root


def test_every_file_is_an_utterance_and_long_ones_are_cut(folder: Path, tmp_path: Path) -> None:
    figures = prepare_untranscribed(folder, tmp_path / "out", "more", max_seconds=1.5)
    cuts = {cut.id: cut for cut in load_split(tmp_path / "out", "more", folder)}
    assert sorted(cuts) == ["alone", "anna/one", "anna/two", *(f"talks/ben/long@{part}" for part in (1, 2, 3))]
    assert figures == {"hours": round((9000 + 12000 + 50001 + 8000) / RATE / 3600, 4), "utterances": 6, "speakers": 3}
    assert {cut.supervisions[0].speaker for cut in cuts.values()} == {"alone", "anna", "talks/ben"}
    whole = soundfile.read(folder / "talks/ben/long.flac", dtype="float32")[0]
    parts = [read_samples(clip_of(cuts[f"talks/ben/long@{part}"], RATE)) for part in (1, 2, 3)]
    assert {len(part) for part in parts} == {16667}
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    found = compute_store(load_split(tmp_path / "out", "more", folder), tmp_path / "store", FbankConfig(),
                          torch.device("cpu"), label="more", workers=1)
    assert found["utterances"] == 6
    assert {utterance.words for utterance in FrameStore(tmp_path / "store").utterances} == {()}
    again = (tmp_path / "out/more/cuts.jsonl.gz").read_bytes()
    prepare_untranscribed(folder, tmp_path / "again", "more", max_seconds=1.5)
    assert (tmp_path / "again/more/cuts.jsonl.gz").read_bytes() == again


def test_what_cannot_be_used_is_named(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="no such folder"):
        prepare_untranscribed(tmp_path / "nowhere", out, "more")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.flac or \.wav files"):
        prepare_untranscribed(tmp_path / "empty", out, "more")
    write(folder / "anna/telephone.wav", 4000, rate=8000)
    (folder / "anna/one.flac").write_bytes((folder / "anna/one.flac").read_bytes()[:-500])
    with pytest.raises(UserError, match="2 problems in the untranscribed audio") as caught:
        prepare_untranscribed(folder, out, "more")
    assert "telephone.wav: sample rate 8000" in str(caught.value) and "one.flac: truncated" in str(caught.value)
    assert not out.exists()
    assert prepare_untranscribed(folder, out, "more", on_error="skip")["utterances"] == 3
