"""Sound files of every kind become the same samples; long ones are cut where it is quiet."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from asr_distill.errors import UserError
from asr_distill.export.audio import quietest, read_pieces
from asr_distill.export.recordings import Recording

RATE = 16000


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    """A sweep inside the band that every tested rate holds."""
    time = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (300 * time + 200 * time**2))).astype(np.float32)


def whole(path: Path) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *(piece.samples for piece in read_pieces(path, RATE))])


def test_samples_without_a_header_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "talk.raw").write_bytes(bytes(32000))
    assert Recording(tmp_path / "talk.raw", "talk").seconds() == 0
    with pytest.raises(UserError, match=r"talk\.raw: samples without a header; send them to asr-distill transcribe"):
        whole(tmp_path / "talk.raw")


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_16_khz_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, tone(2), RATE)
    np.testing.assert_array_equal(whole(tmp_path / name), soundfile.read(tmp_path / name, dtype="float32")[0])


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates_equal_another_resampler(tmp_path: Path, rate: int) -> None:
    signal = tone(2.3, rate)
    soundfile.write(tmp_path / "a.wav", signal, rate, subtype="FLOAT")
    got = whole(tmp_path / "a.wav")
    wanted = torchaudio.functional.resample(torch.from_numpy(signal), rate, RATE, lowpass_filter_width=64).numpy()
    assert abs(len(got) - len(wanted)) <= 1
    inner = slice(800, min(len(got), len(wanted)) - 800)
    assert np.abs(got[inner] - wanted[inner]).max() < 2e-3


def test_resampling_in_blocks_leaves_no_seam(tmp_path: Path) -> None:
    """25 s at 44.1 kHz is read in three blocks: the tone has no jump anywhere."""
    time = np.arange(25 * 44100) / 44100
    signal = (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", signal, 44100, subtype="FLOAT")
    got = whole(tmp_path / "a.wav")
    wanted = 0.3 * np.sin(2 * np.pi * 440 * np.arange(len(got)) / RATE)
    assert np.abs(got - wanted)[800:-800].max() < 1e-3


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(1), np.zeros(RATE, np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right, right], 1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(whole(tmp_path / "a.wav"), left / 3, atol=1e-6)


def test_long_file_is_cut_in_its_pauses(tmp_path: Path) -> None:
    signal = np.tile(np.concatenate([tone(8.5), np.zeros(RATE // 2, np.float32)]), 9)  # 81 s
    soundfile.write(tmp_path / "a.wav", signal, RATE)
    pieces = list(read_pieces(tmp_path / "a.wav", RATE))
    assert [len(piece.samples) / RATE <= 30 for piece in pieces] == [True] * len(pieces) and len(pieces) == 3
    assert np.concatenate([piece.samples for piece in pieces]).shape == signal.shape  # nothing lost or doubled
    for piece in pieces[1:]:
        assert 8.5 <= piece.start % 9 <= 9  # in a pause
    assert pieces[1].start == pytest.approx(len(pieces[0].samples) / RATE)


def test_a_file_of_the_limit_is_one_piece(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(30), RATE)
    assert len(list(read_pieces(tmp_path / "a.wav", RATE))) == 1


def test_quietest_by_enumeration() -> None:
    samples = np.random.default_rng(0).normal(size=300)
    energies = {start: (samples[start:start + 20] ** 2).sum() for start in range(100, 281)}
    assert quietest(samples, 100, 20) == min(energies, key=lambda start: energies[start]) + 10


def test_unreadable_files_name_file_and_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.wav: no such sound file"):
        whole(tmp_path / "none.wav")
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty.wav: the file is empty"):
        whole(tmp_path / "empty.wav")
    (tmp_path / "text.flac").write_text("these are words, not sound")
    with pytest.raises(UserError, match=r"text.flac: not a readable sound file"):
        whole(tmp_path / "text.flac")
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).normal(size=RATE * 3) * 0.1, RATE)
    data = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "half.flac").write_bytes(data[:len(data) // 2])
    with pytest.raises(UserError, match=r"half.flac: not a readable sound file .*truncated"):
        whole(tmp_path / "half.flac")


def test_truncated_wav_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soundfile.write(tmp_path / "a.wav", tone(2), RATE)
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(data[:44 + RATE * 2])
    with caplog.at_level(logging.WARNING, "asr_distill"):
        assert len(whole(tmp_path / "a.wav")) == RATE
    assert "shorter than its header says" in caplog.text


def test_no_samples_no_pieces(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0, np.float32), RATE)
    assert list(read_pieces(tmp_path / "a.wav", RATE)) == []
