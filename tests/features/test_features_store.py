"""The frame store against arrays held in memory, and what it says of damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from asr_distill.errors import UserError
from asr_distill.features.cmvn import Cmvn, CmvnStats
from asr_distill.features.store import AdaptedFrames, FrameStore, Utterance, pack_stats, write_store_index
from asr_distill.files import write_array

LENGTHS = [130, 0, 55, 700, 20_000, 1, 310]
SPEAKERS = ["b", "b", "a", "a", "c", "b", "b"]


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, np.ndarray, list[Utterance]]:
    frames = np.random.default_rng(0).normal(-5, 3, (sum(LENGTHS), 40)).astype(np.float16)
    utterances = [Utterance(f"{s}-{i}", s, ("НЕТ", "LINE\u2028SEP")[: i % 3], n / 100)
                  for i, (s, n) in enumerate(zip(SPEAKERS, LENGTHS, strict=True))]
    ends = np.cumsum(LENGTHS)
    stats = np.stack([pack_stats(CmvnStats.of(frames[end - n : end])) for end, n in zip(ends, LENGTHS, strict=True)])
    write_array(tmp_path / "frames.npy", frames)
    write_store_index(tmp_path, utterances, LENGTHS, stats, {"config": {"num_mel_bins": 40}})
    return tmp_path, frames, utterances


def test_contents(made: tuple[Path, np.ndarray, list[Utterance]]) -> None:
    directory, frames, utterances = made
    store = FrameStore(directory)
    assert isinstance(store.frames, np.memmap) and np.array_equal(store.frames, frames)
    assert (store.num_frames, store.num_coefficients) == frames.shape
    assert np.diff(store.offsets).tolist() == LENGTHS and store.offsets.dtype == np.int64
    assert store.utterances == utterances
    assert store.index_of("a-3") == 3
    np.testing.assert_allclose(store.total_stats.mean, frames.astype(np.float64).mean(0), rtol=1e-9)
    for name in "abc":
        rows = np.repeat([s == name for s in SPEAKERS], LENGTHS)
        np.testing.assert_allclose(store.speaker_stats[name].mean, frames[rows].astype(np.float64).mean(0), rtol=1e-9)
        np.testing.assert_allclose(store.speaker_stats[name].std, frames[rows].astype(np.float64).std(0), rtol=1e-9)
    features = store.features(2, "cpu")
    assert torch.equal(features.raw, torch.from_numpy(frames[130:185]).float()) and features.raw.dtype == torch.float32
    assert features.speaker is store.speaker_stats["a"]


def test_adapted_frames(made: tuple[Path, np.ndarray, list[Utterance]], tmp_path: Path) -> None:
    directory, frames, _ = made
    adapted = np.random.default_rng(5).normal(size=(len(frames), 7))
    AdaptedFrames.write(tmp_path, adapted)
    store = FrameStore(directory, tmp_path)
    features = store.features(2, "cpu")
    assert features.adapted is not None and features.speaker_id == "a"
    np.testing.assert_allclose(features.adapted, adapted[130:185], atol=2e-3)
    assert store.adapted is not None
    normalised = Cmvn("global", store.adapted.stats, stream="adapted").apply(features)
    expected = (adapted[130:185] - adapted.mean(0)) / adapted.std(0)
    np.testing.assert_allclose(normalised, expected, atol=5e-3)
    with pytest.raises(ValueError, match="speaker-adapted frames"):
        Cmvn("global", store.adapted.stats, stream="adapted").apply(FrameStore(directory).features(2, "cpu"))


def test_adapted_frames_of_another_store(made: tuple[Path, np.ndarray, list[Utterance]], tmp_path: Path) -> None:
    AdaptedFrames.write(tmp_path, np.zeros((3, 7)))
    with pytest.raises(UserError, match=r"adapted\.npy"):
        FrameStore(made[0], tmp_path)


def test_unknown_utterance(made: tuple[Path, np.ndarray, list[Utterance]]) -> None:
    with pytest.raises(UserError, match=r"no utterance 'a-33' \(did you mean 'a-3'\?\)"):
        FrameStore(made[0]).index_of("a-33")


@pytest.mark.parametrize("name", ["frames.npy", "offsets.npy", "utterances.jsonl", "speaker_stats.npy", "store.json"])
@pytest.mark.parametrize("keep", [None, 0.0, 0.5, 0.97], ids=["missing", "empty", "half", "tail lost"])
def test_missing_or_truncated(made: tuple[Path, np.ndarray, list[Utterance]], name: str, keep: float | None) -> None:
    path = made[0] / name
    content = path.read_bytes()
    path.unlink()
    if keep is not None:
        path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UserError, match=name):
        FrameStore(made[0])


def test_files_that_disagree(made: tuple[Path, np.ndarray, list[Utterance]]) -> None:
    directory = made[0]
    head = json.loads((directory / "store.json").read_text())
    for change, told in (({"frames": 5}, "frames.npy"), ({"utterances": 6}, "offsets.npy"), ({"format": 9}, "format 9"),
                         ({"speakers": ["a"]}, "speaker_stats.npy"), ({"speakers": ["b", "a", "x"]}, "speaker c")):
        (directory / "store.json").write_text(json.dumps({**head, **change}))
        with pytest.raises(UserError, match=told):
            FrameStore(directory)
    (directory / "store.json").write_text(json.dumps(head))
    write_array(directory / "offsets.npy", np.zeros(8, np.int64))
    with pytest.raises(UserError, match="does not fit"):
        FrameStore(directory)
    (directory / "offsets.npy").write_bytes(b"not an array")
    with pytest.raises(UserError, match=r"offsets\.npy"):
        FrameStore(directory)
