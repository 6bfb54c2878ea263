"""Cepstra and deltas against Kaldi's own (kaldi-native-fbank) and against the definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asr_distill.features.cmvn import Cmvn, CmvnStats, UtteranceFeatures
from asr_distill.hmm.frontend import AdaptedFrontend, Frontend, FrontendConfig, add_deltas, dct_matrix, frontend_from

RANDOM = np.random.default_rng(0)


def kaldi_deltas(frames: np.ndarray, window: int) -> np.ndarray:
    """The regression formula applied twice, with frame indices clamped at the outer edges (feature-functions.cc)."""
    length = len(frames)
    weights = np.arange(-window, window + 1) / sum(i * i for i in range(-window, window + 1))
    out = []
    for t in range(length):
        first, second = np.zeros(frames.shape[1]), np.zeros(frames.shape[1])
        for i, w in enumerate(weights):
            first += w * frames[np.clip(t + i - window, 0, length - 1)]
            for j, v in enumerate(weights):
                second += w * v * frames[np.clip(t + i + j - 2 * window, 0, length - 1)]
        out.append(np.concatenate([frames[t], first, second]))
    return np.array(out)


@pytest.mark.parametrize("length", [1, 2, 5, 30])
@pytest.mark.parametrize("window", [1, 2, 3])
def test_deltas_equal_the_definition(length: int, window: int) -> None:
    frames = RANDOM.normal(0, 3, (length, 4))
    found = add_deltas(torch.from_numpy(frames).float(), window)
    assert found.shape == (length, 12)
    assert np.abs(found.numpy() - kaldi_deltas(frames, window)).max() < 1e-5


def test_dct_equals_kaldi_native_fbank() -> None:
    knf = pytest.importorskip("kaldi_native_fbank")
    samples = RANDOM.normal(0, 0.1, 16000).tolist()
    mfcc, fbank = knf.MfccOptions(), knf.FbankOptions()
    for options in (mfcc, fbank):
        options.frame_opts.dither = 0
        options.frame_opts.samp_freq = 16000
        options.mel_opts.num_bins = 40
    mfcc.num_ceps, mfcc.use_energy, mfcc.cepstral_lifter = 13, False, 0.0
    found = []
    for kind, options in ((knf.OnlineMfcc, mfcc), (knf.OnlineFbank, fbank)):
        extractor = kind(options)
        extractor.accept_waveform(16000, samples)
        extractor.input_finished()
        found.append(np.array([extractor.get_frame(i) for i in range(extractor.num_frames_ready)]))
    assert np.abs(found[1] @ dct_matrix(40, 13).numpy() - found[0]).max() < 1e-3


def test_frontend_normalises_then_transforms() -> None:
    raw = torch.from_numpy(RANDOM.normal(5, 3, (50, 40))).float()
    stats = CmvnStats.of(raw.numpy())
    features = Frontend(FrontendConfig(), Cmvn("speaker", stats))(UtteranceFeatures(raw, stats))
    assert features.shape == (50, FrontendConfig().dimension) == (50, 39)
    normalised = (raw.numpy() - raw.numpy().mean(0)) / raw.numpy().std(0)
    expected = kaldi_deltas(normalised @ dct_matrix(40, 13).numpy().astype(np.float64), 2)
    assert np.abs(features.numpy() - expected).max() < 1e-4


def test_no_frames_give_no_frames() -> None:
    stats = CmvnStats.of(np.ones((3, 40)))
    empty = UtteranceFeatures(torch.zeros(0, 40), stats)
    assert Frontend(FrontendConfig(), Cmvn("speaker", stats))(empty).shape == (0, 39)


def test_adapted_frames_pass_as_they_are_and_must_be_there() -> None:
    raw, adapted = torch.zeros(4, 40), torch.from_numpy(RANDOM.normal(0, 3, (4, 30))).float()
    frontend = frontend_from(AdaptedFrontend(30).settings(), AdaptedFrontend(30).tensors())
    assert isinstance(frontend, AdaptedFrontend) and frontend.dimension == 30
    assert torch.equal(frontend(UtteranceFeatures(raw, adapted=adapted)), adapted)
    with pytest.raises(ValueError, match="speaker-adapted frames"):
        frontend(UtteranceFeatures(raw))
