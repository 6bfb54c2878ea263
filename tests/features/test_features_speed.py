"""Speed perturbation: against soxr, on tones, and as more utterances of a frame store."""

from __future__ import annotations

from pathlib import Path

import lhotse
import numpy as np
import pytest
import soundfile
import soxr
import torch

from asr_distill.errors import UserError
from asr_distill.features.compute import compute_store
from asr_distill.features.fbank import Fbank, FbankConfig
from asr_distill.features.speed import SpeedPerturbation, check_speeds, perturbed_name, perturbed_samples
from asr_distill.features.store import FrameStore

CPU = torch.device("cpu")
RATE = 16000
INSIDE = slice(500, -500)  # away from the edges, where resamplers differ


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def make_cut(path: Path, speaker: str) -> lhotse.MonoCut:
    recording = lhotse.Recording.from_file(path, recording_id=path.stem)
    supervision = lhotse.SupervisionSegment(path.stem, path.stem, 0.0, recording.duration, text="ONE", speaker=speaker)
    return lhotse.MonoCut(path.stem, 0.0, recording.duration, 0, supervisions=[supervision], recording=recording)


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory) -> lhotse.CutSet:
    folder = tmp_path_factory.mktemp("audio")
    made = []
    for i, samples in enumerate((9000, 20000, 16001, 70)):
        soundfile.write(folder / f"u{i}.flac", noise(samples, i).numpy(), RATE)
        made.append(make_cut(folder / f"u{i}.flac", f"s{i % 2}"))
    return lhotse.CutSet.from_cuts(made).to_eager()


@pytest.mark.parametrize("factor, step, phases", [
    (0.9, 9, 10), (1.1, 11, 10), (0.5, 1, 2), (2.0, 2, 1), (0.85, 17, 20)])
def test_agrees_with_soxr_below_the_transition(factor: float, step: int, phases: int) -> None:
    """Noise up to 80 % of the lower Nyquist frequency; above it the two resamplers roll off differently."""
    spectrum = torch.fft.rfft(noise(40_000))
    spectrum[int(len(spectrum) * 0.8 * min(1.0, 1 / factor)) :] = 0
    samples = torch.fft.irfft(spectrum)
    (found,) = SpeedPerturbation(factor, CPU)([samples])
    expected = soxr.resample(samples.double().numpy(), step, phases, quality="VHQ")
    assert len(found) == perturbed_samples(40_000, factor) == pytest.approx(len(expected), abs=1)
    difference = (found.double().numpy()[: len(expected)] - expected[: len(found)])[INSIDE]
    assert np.sqrt(np.square(difference).mean()) < 5e-5 * np.sqrt(np.square(expected).mean())


@pytest.mark.parametrize("factor", [0.9, 1.1, 1.25])
@pytest.mark.parametrize("hertz", [100.0, 1000.0, 5000.0])
def test_a_tone_moves_in_frequency_and_keeps_its_strength(factor: float, hertz: float) -> None:
    times = torch.arange(2 * RATE, dtype=torch.float64) / RATE
    (found,) = SpeedPerturbation(factor, CPU)([torch.sin(2 * np.pi * hertz * times).float()])
    expected = np.sin(2 * np.pi * hertz * factor * np.arange(len(found)) / RATE)
    np.testing.assert_allclose(found.numpy()[INSIDE], expected[INSIDE], atol=2e-5)
    assert len(found) == round(2 * RATE / factor)


def test_what_would_alias_is_gone() -> None:
    times = torch.arange(2 * RATE, dtype=torch.float64) / RATE
    (found,) = SpeedPerturbation(1.25, CPU)([torch.sin(2 * np.pi * 6800 * times).float()])  # 8500 Hz
    assert found[INSIDE].abs().max() < 1e-4


@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_gives_what_single_waveforms_give(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also packed into one array, the form for accelerators."""
    monkeypatch.setattr("asr_distill.features.speed._BLOCK_ROWS_ACCELERATOR", 1024)
    waveforms = [noise(samples, samples) for samples in (16_000, 1, 0, 777, 30_001, 9, 4_321)]
    for factor in (0.9, 1.1):
        alone = [SpeedPerturbation(factor, CPU)([waveform])[0] for waveform in waveforms]
        perturbation = SpeedPerturbation(factor, CPU)
        perturbation.packed = packed
        together = perturbation(waveforms)
        for waveform, a, b in zip(waveforms, alone, together, strict=True):
            assert len(a) == len(b) == perturbed_samples(len(waveform), factor)
            assert torch.equal(a, b) if not packed else torch.allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_gives_what_the_cpu_gives() -> None:
    waveforms = [noise(samples, samples) for samples in (16_000, 777, 30_001)]
    together = SpeedPerturbation(0.9, torch.device("cuda"))(waveforms)
    for expected, found in zip(SpeedPerturbation(0.9, CPU)(waveforms), together, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    (alone,) = SpeedPerturbation(0.9, torch.device("cuda"))(waveforms[1:2])
    assert torch.equal(alone, together[1])


def test_lengths_are_lhotses(cuts: lhotse.CutSet) -> None:
    for cut in cuts:
        for factor in (0.9, 1.1):
            expected = cut.recording.perturb_speed(factor).num_samples
            assert perturbed_samples(cut.recording.num_samples, factor) == expected


def test_store_holds_each_utterance_at_each_speed(cuts: lhotse.CutSet, tmp_path: Path) -> None:
    config = FbankConfig()
    figures = compute_store(cuts, tmp_path / "all", config, CPU, speeds=(0.9, 1.0, 1.1), label="test")
    compute_store(cuts, tmp_path / "plain", config, CPU, label="test")
    store, plain = FrameStore(tmp_path / "all"), FrameStore(tmp_path / "plain")
    assert [u.id for u in store.utterances] == [
        f"{prefix}u{i}" for prefix in ("", "sp0.9-", "sp1.1-") for i in range(4)]
    assert list(store.speaker_stats) == ["s0", "s1", "sp0.9-s0", "sp0.9-s1", "sp1.1-s0", "sp1.1-s1"]
    assert (figures["utterances"], figures["speakers"], figures["frames"]) == (12, 6, store.num_frames)
    assert all(u.words == ("ONE",) for u in store.utterances)
    assert np.array_equal(store.frames[: plain.num_frames], plain.frames)  # copies at 1.0 come first, unchanged
    assert store.utterances[:4] == plain.utterances
    for name in ("s0", "s1"):
        np.testing.assert_array_equal(store.speaker_stats[name].total, plain.speaker_stats[name].total)
    fbank = Fbank(config, CPU)
    for factor in (0.9, 1.1):
        for cut in cuts:
            samples = torch.from_numpy(soundfile.read(cut.recording.sources[0].source, dtype="float32")[0])
            (changed,) = SpeedPerturbation(factor, CPU)([samples])
            index = store.index_of(perturbed_name(cut.id, factor))
            assert store.utterances[index].seconds == len(changed) / RATE
            assert torch.equal(store.features(index, CPU).raw, fbank([changed])[0].half().float())


def test_store_without_the_plain_copies(cuts: lhotse.CutSet, tmp_path: Path) -> None:
    compute_store(cuts, tmp_path, FbankConfig(), CPU, speeds=(1.1,), label="test")
    assert [u.id for u in FrameStore(tmp_path).utterances] == [f"sp1.1-u{i}" for i in range(4)]
    assert compute_store(cuts, tmp_path, FbankConfig(), CPU, speeds=(0.9,), label="test")["kept_utterances"] == 0


@pytest.mark.parametrize("speeds, told", [
    ((), "no factor"), ((1.0, 0.49), "factor 0.49 does not lie between 0.5 and 2.0"), ((2.1,), "2.1"),
    ((float("nan"),), "nan"), ((0.9, 1.0, 0.9), "factor 0.9 is given twice"), ((0.91234567,), "three decimals")])
def test_wrong_factors(cuts: lhotse.CutSet, tmp_path: Path, speeds: tuple[float, ...], told: str) -> None:
    with pytest.raises(UserError, match=told):
        compute_store(cuts, tmp_path / "out", FbankConfig(), CPU, speeds=speeds, label="test")
    assert not (tmp_path / "out").exists()
    check_speeds((0.5, 0.9, 1, 1.1, 2))


def test_names() -> None:
    assert [perturbed_name("x", factor) for factor in (1, 1.0, 0.9, 2)] == ["x", "x", "sp0.9-x", "sp2.0-x"]
