"""Rooms and noise: measured on the waveforms as acoustics measures them, and as rows of a frame store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lhotse
import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

from asr_distill.config import build, to_dict
from asr_distill.errors import UserError
from asr_distill.features.compute import compute_store
from asr_distill.features.degrade import DegradeConfig, Degrader, treatment_of
from asr_distill.features.fbank import FbankConfig
from asr_distill.features.noise import EXPONENTS, choose_voices, coloured_noise, mix
from asr_distill.features.rooms import impulse_response, reverberate
from asr_distill.features.store import FrameStore
from asr_distill.features.waveform import Clip, clip_of, read_samples
from asr_distill.files import read_json

CPU = torch.device("cpu")
RATE = 16000
NOTHING = DegradeConfig(reverb=0, white=0, pink=0, brown=0, babble=0)
ROOM = replace(NOTHING, reverb=1)


def speech(samples: int, seed: int = 0) -> np.ndarray:
    """Noise that comes and goes, as speech does."""
    random = np.random.default_rng(seed)
    loud = np.abs(np.sin(np.arange(samples) / RATE * 9 + seed)) ** 3
    return ((0.01 + 0.1 * loud) * random.standard_normal(samples)).astype(np.float32)


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory) -> lhotse.CutSet:
    folder = tmp_path_factory.mktemp("audio")
    made = []
    for i, samples in enumerate((9000, 20000, 16001, 70, 24000, 12345)):
        path = folder / f"u{i}.flac"
        soundfile.write(path, speech(samples, i), RATE)
        recording = lhotse.Recording.from_file(path, recording_id=path.stem)
        supervision = lhotse.SupervisionSegment(path.stem, path.stem, 0.0, recording.duration, text=f"ONE T{i}",
                                                speaker=f"s{i % 3}")
        made.append(lhotse.MonoCut(path.stem, 0.0, recording.duration, 0, supervisions=[supervision],
                                   recording=recording))
    return lhotse.CutSet.from_cuts(made).to_eager()


def clips_of(cuts: lhotse.CutSet) -> list[Clip]:
    return [clip_of(cut, RATE) for cut in cuts]


def decay(response: np.ndarray) -> float:
    """RT60 in seconds of the reflections: Schroeder's backward integral, a line from -5 to -35 dB (ISO 3382, T30)."""
    energy = np.cumsum(np.square(response[1:].astype(np.float64))[::-1])[::-1]
    level = 10 * np.log10(energy / energy[0])
    chosen = (level < -5) & (level > -35)
    slope, _ = np.polyfit(np.flatnonzero(chosen) / RATE, level[chosen], 1)
    return -60 / slope


@pytest.mark.parametrize("rt60", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("direct", [-3.0, 10.0])
def test_rooms_reverberate_as_long_and_as_loud_as_asked(rt60: float, direct: float) -> None:
    responses = [impulse_response(rt60, direct, RATE, np.random.default_rng(seed)) for seed in range(20)]
    for response in responses:
        assert response[0] == 1 and len(response) == 1 + round(rt60 * RATE)
        energy = np.square(response[1:].astype(np.float64)).sum()
        assert 10 * np.log10(1 / energy) == pytest.approx(direct, abs=1e-3)
        assert np.abs(response[1:9]).max() < 1  # nothing hides the direct sound
    measured = [decay(response) for response in responses]
    assert np.mean(measured) == pytest.approx(rt60, rel=0.03)
    assert np.std(measured) < 0.1 * rt60
    sparse = [np.count_nonzero(response[1:81]) for response in responses]  # 5 ms after the direct sound
    assert np.mean(sparse) < 40 and np.count_nonzero(responses[0][-80:]) == 80  # single echoes, then a tail


@pytest.mark.parametrize("samples", [1, 100, 9000, 47_000, 120_001])
def test_convolution_equals_float64(samples: int) -> None:
    waveform, response = speech(samples), impulse_response(0.3, 5.0, RATE, np.random.default_rng(1))
    expected = scipy.signal.fftconvolve(waveform.astype(np.float64), response.astype(np.float64))[:samples]
    expected *= np.linalg.norm(waveform.astype(np.float64)) / np.linalg.norm(expected)
    found = reverberate(torch.from_numpy(waveform), torch.from_numpy(response))
    assert found.dtype == torch.float32 and found.shape == (samples,)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6 * np.abs(expected).max())


def test_the_direct_sound_stays_in_its_place() -> None:
    """The cross-correlation with the clean peaks at 0, also where reflections carry more energy."""
    waveform = speech(40_000).astype(np.float64)
    for seed in range(10):
        response = impulse_response(0.6, -2.0, RATE, np.random.default_rng(seed))
        heard = reverberate(torch.from_numpy(waveform).float(), torch.from_numpy(response)).double().numpy()
        correlation = scipy.signal.correlate(heard, waveform)
        lags = scipy.signal.correlation_lags(len(heard), len(waveform))
        assert lags[np.abs(correlation).argmax()] == 0


@pytest.mark.parametrize("colour", EXPONENTS)
def test_colours_fall_as_they_should(colour: str) -> None:
    noise = coloured_noise(20 * RATE, EXPONENTS[colour], RATE, np.random.default_rng(0), CPU).double().numpy()
    frequencies, power = scipy.signal.welch(noise, RATE, nperseg=4096)
    inside = (frequencies > 150) & (frequencies < 7000)
    slope, _ = np.polyfit(np.log2(frequencies[inside]), 10 * np.log10(power[inside]), 1)
    assert slope == pytest.approx(-10 * np.log10(2) * EXPONENTS[colour], abs=0.15)  # dB an octave
    assert abs(noise.mean()) < 0.02 * noise.std()


@pytest.mark.parametrize("kind", [*EXPONENTS, "babble"])
def test_noise_is_as_loud_as_asked(kind: str, cuts: lhotse.CutSet) -> None:
    config = replace(NOTHING, **{kind: 1.0})  # type: ignore[arg-type]
    clips = clips_of(cuts)
    waveforms = [torch.from_numpy(read_samples(clip)) for clip in clips]
    for waveform, heard, clip in zip(waveforms, Degrader(config, RATE, CPU, clips)(waveforms, clips), clips,
                                     strict=True):
        clean, noise = waveform.double().numpy(), (heard.double() - waveform.double()).numpy()
        snr = 10 * np.log10(np.square(clean).sum() / np.square(noise).sum())
        treatment = treatment_of(clip.id, config)
        low, high = config.babble_snr if kind == "babble" else config.snr
        assert treatment.noise == kind and low <= treatment.snr <= high
        assert snr == pytest.approx(treatment.snr, abs=0.01)


def test_babble_is_made_of_other_speakers(cuts: lhotse.CutSet) -> None:
    clips = clips_of(cuts)
    for seed in range(20):
        random = np.random.default_rng(seed)
        assert {clip.speaker for clip in choose_voices(clips[0], clips, 2, random)} == {"s1", "s2"}
        faster = choose_voices(clips[1].at_speed(1.1), clips, 2, random)
        assert {clip.speaker for clip in faster} == {"s0", "s2"}
        many = choose_voices(clips[4], clips, 9, random)  # as many as there are, itself never
        assert {clip.id for clip in many} == {"u0", "u1", "u2", "u3", "u5"}


def test_silence_stays_silence() -> None:
    silence, noise = torch.zeros(1000), torch.randn(1000)
    assert torch.equal(reverberate(silence, torch.from_numpy(impulse_response(0.2, 0, RATE, np.random.default_rng(0)))),
                       silence)
    assert torch.equal(mix(silence, noise, 10.0), silence)
    assert torch.equal(mix(noise, silence, 10.0), noise)


def test_shares_and_ranges_are_kept() -> None:
    config = DegradeConfig(reverb=0.3, white=0.1, pink=0.2, brown=0.0, babble=0.5, voices=(2, 4))
    drawn = [treatment_of(f"utt{i}", config) for i in range(4000)]
    rooms = [treatment.rt60 for treatment in drawn if treatment.rt60 is not None]
    assert len(rooms) / 4000 == pytest.approx(0.3, abs=0.03)
    assert min(rooms) < 0.22 and max(rooms) > 0.78 and np.mean(rooms) == pytest.approx(0.5, abs=0.02)
    for kind, share in (("white", 0.1), ("pink", 0.2), ("brown", 0.0), ("babble", 0.5), (None, 0.2)):
        assert sum(treatment.noise == kind for treatment in drawn) / 4000 == pytest.approx(share, abs=0.03)
    assert {treatment.voices for treatment in drawn} == {2, 3, 4}
    quieter = replace(config, pink=0.0, babble=0.1, snr=(30.0, 40.0))
    assert [treatment_of(f"utt{i}", quieter).rt60 for i in range(50)] == [item.rt60 for item in drawn[:50]]
    assert [treatment_of(f"utt{i}", replace(config, seed=1)) for i in range(50)] != drawn[:50]


def store(cuts: lhotse.CutSet, out: Path, degrade: DegradeConfig | None, **options: Any) -> FrameStore:
    compute_store(cuts, out, FbankConfig(), CPU, degrade=degrade, label="test", **options)
    return FrameStore(out)


def test_rows_are_those_of_the_clean_store(cuts: lhotse.CutSet, tmp_path: Path) -> None:
    speeds = (0.9, 1.0, 1.1)
    clean = store(cuts, tmp_path / "clean", None, speeds=speeds)
    noisy = store(cuts, tmp_path / "noisy", replace(DegradeConfig(), reverb=1, babble=0.6), speeds=speeds)
    assert noisy.utterances == clean.utterances
    assert np.array_equal(noisy.offsets, clean.offsets)
    for index, utterance in enumerate(clean.utterances):
        begin, end = clean.offsets[index:index + 2]
        if end > begin:
            assert not np.array_equal(noisy.frames[begin:end], clean.frames[begin:end]), utterance.id
    assert read_json(tmp_path / "noisy/store.json")["degrade"]["reverb"] == 1
    off = store(cuts, tmp_path / "off", replace(NOTHING, seed=5), speeds=speeds)
    assert np.array_equal(off.frames, clean.frames)
    assert (tmp_path / "off/store.json").read_bytes() == (tmp_path / "clean/store.json").read_bytes()


def test_the_same_bytes_whatever_the_batches_and_workers(cuts: lhotse.CutSet, tmp_path: Path) -> None:
    config = DegradeConfig(reverb=0.7)
    one = store(cuts, tmp_path / "one", config, speeds=(1.0, 0.9))
    other = store(cuts, tmp_path / "other", config, speeds=(1.0, 0.9), batch_seconds=0.1, workers=3)
    assert np.array_equal(one.frames, other.frames)
    alone = store(cuts, tmp_path / "alone", config)
    assert np.array_equal(one.frames[:alone.num_frames], alone.frames)  # other speeds beside it change nothing
    again = compute_store(cuts, tmp_path / "alone", FbankConfig(), CPU, degrade=config, label="test")
    assert again["kept_utterances"] == 6
    reseeded = compute_store(cuts, tmp_path / "alone", FbankConfig(), CPU, degrade=replace(config, seed=1),
                             label="test")
    assert reseeded["kept_utterances"] == 0
    assert not np.array_equal(FrameStore(tmp_path / "alone").frames, one.frames[:alone.num_frames])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_gives_what_the_cpu_gives(cuts: lhotse.CutSet) -> None:
    clips = clips_of(cuts)
    waveforms = [torch.from_numpy(read_samples(clip)) for clip in clips]
    for kind in (*EXPONENTS, "babble"):
        config = replace(ROOM, **{kind: 1.0})  # type: ignore[arg-type]
        expected = Degrader(config, RATE, CPU, clips)(waveforms, clips)
        for found, wanted in zip(Degrader(config, RATE, torch.device("cuda"), clips)(waveforms, clips), expected,
                                 strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_babble_needs_others(cuts: lhotse.CutSet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="babble is made of other"):
        store(cuts.subset(first=1), tmp_path / "out", DegradeConfig())
    assert not (tmp_path / "out").exists()
    assert store(cuts.subset(first=1), tmp_path / "out", ROOM).num_frames


@pytest.mark.parametrize("settings, told", [
    ({"reverb": 1.5}, "reverb"), ({"white": 0.5, "pink": 0.6}, "1 or less together"), ({"snr": (10.0,)}, "snr"),
    ({"rt60": (0.5, 0.2)}, "rt60"), ({"rt60": (0.0, 0.2)}, "0.05"), ({"voices": (0, 2)}, "voices"),
    ({"seed": -1}, "seed"), ({"snr": (float("nan"), 2.0)}, "snr")])
def test_wrong_settings_are_named(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DegradeConfig(**settings)


def test_settings_survive_json() -> None:
    assert build(DegradeConfig, to_dict(ROOM)) == ROOM
