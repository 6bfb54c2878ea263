"""CMVN against float64 numpy and a slow loop over Kaldi's definition of online-cmvn."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from asr_distill.features.cmvn import Cmvn, CmvnStats, UtteranceFeatures

RNG = np.random.default_rng(0)
TRAIN = CmvnStats.of(RNG.normal(-4, 3, (5000, 40)))


def raw(frames: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(-5, 2.5, (frames, 40)).astype(np.float32)


def online_by_hand(frames: np.ndarray, window: int, prior: int) -> np.ndarray:
    """online-cmvn: the last `window` frames, topped up by `prior` frames of the global mean while fewer were heard."""
    out = np.empty(frames.shape)
    for t in range(len(frames)):
        heard = frames[max(0, t + 1 - window) : t + 1].astype(np.float64)
        weight = max(0, min(prior, window - len(heard)))
        mean = (heard.sum(0) + weight * TRAIN.mean) / (len(heard) + weight)
        out[t] = (frames[t] - mean) / TRAIN.std
    return out


def test_statistics() -> None:
    frames = raw(500)
    stats = CmvnStats.of(frames[:200]) + CmvnStats.of(frames[200:])
    assert stats.count == 500
    np.testing.assert_allclose(stats.mean, frames.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(stats.std, frames.astype(np.float64).std(0), rtol=1e-9)


def test_speaker_and_global() -> None:
    frames = raw(300)
    speaker = CmvnStats.of(raw(900, seed=2))
    features = UtteranceFeatures(torch.from_numpy(frames), speaker)
    np.testing.assert_allclose(Cmvn("speaker_mean", TRAIN).apply(features), frames - speaker.mean, atol=1e-5)
    for kind, stats in (("speaker", speaker), ("global", TRAIN)):
        result = Cmvn(kind, TRAIN).apply(UtteranceFeatures(torch.from_numpy(frames), speaker))
        mean, squares = stats.total / stats.count, stats.squares / stats.count
        expected = (frames.astype(np.float64) - mean) / np.sqrt(squares - mean**2)
        assert result.dtype == torch.float32
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("frames, window, prior", [
    (1500, 600, 200), (100, 600, 200), (450, 600, 200), (601, 600, 200), (300, 50, 200), (300, 50, 0), (1, 600, 200),
    (0, 600, 200), (20, 1, 0)])
def test_online(frames: int, window: int, prior: int) -> None:
    features = raw(frames)
    result = Cmvn("online", TRAIN, window, prior).apply(UtteranceFeatures(torch.from_numpy(features)))
    np.testing.assert_allclose(result.numpy(), online_by_hand(features, window, prior), atol=1e-5)


def test_online_is_causal_and_exact_after_an_hour() -> None:
    features = np.random.default_rng(3).normal(-5, 2.5, (360_000, 2)).astype(np.float32)
    train = CmvnStats(TRAIN.count, TRAIN.total[:2], TRAIN.squares[:2])
    cmvn = Cmvn("online", train)
    whole = cmvn.apply(UtteranceFeatures(torch.from_numpy(features)))
    first = cmvn.apply(UtteranceFeatures(torch.from_numpy(features[:5000])))
    assert torch.equal(whole[:5000], first)
    last = (features[-1] - features[-600:].astype(np.float64).mean(0)) / train.std
    np.testing.assert_allclose(whole[-1].numpy(), last, atol=1e-5)


def test_constant_coefficient_stays_finite() -> None:
    frames = torch.full((50, 40), -15.9)
    stats = CmvnStats.of(frames.numpy())
    assert torch.isfinite(Cmvn("global", stats).apply(UtteranceFeatures(frames))).all()


def test_json_round_trip() -> None:
    cmvn = Cmvn("online", TRAIN, 300, 100)
    again = Cmvn.from_dict(json.loads(json.dumps(cmvn.to_dict())))
    assert (again.kind, again.window, again.prior_frames, again.train.count) == ("online", 300, 100, 5000.0)
    assert np.array_equal(again.train.total, TRAIN.total) and np.array_equal(again.train.squares, TRAIN.squares)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="needs the speaker"):
        Cmvn("speaker", TRAIN).apply(UtteranceFeatures(torch.zeros(5, 40)))
    with pytest.raises(ValueError, match="one of speaker, speaker_mean, global, online"):
        Cmvn("utterance", TRAIN)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="window"):
        Cmvn("online", TRAIN, window=0)
    data = Cmvn("global", TRAIN).to_dict()
    for broken in ({**data, "train": {}}, {k: v for k, v in data.items() if k != "kind"},
                   {**data, "train": {"count": 1, "total": [1.0], "squares": [1.0, 2.0]}}):
        with pytest.raises(ValueError, match="CMVN"):
            Cmvn.from_dict(broken)
