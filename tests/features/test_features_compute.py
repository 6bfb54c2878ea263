"""Audio to frame store: the same bytes whatever the workers, batches and interruptions; clear words for bad audio."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lhotse
import numpy as np
import pytest
import soundfile
import torch

from asr_distill.errors import UserError
from asr_distill.features import compute, parts
from asr_distill.features.compute import compute_store
from asr_distill.features.fbank import Fbank, FbankConfig
from asr_distill.features.store import FrameStore
from asr_distill.features.waveform import clip_of, read_samples

CPU = torch.device("cpu")
CONFIG = FbankConfig()
KILLED = """
import os, signal, sys
import lhotse, torch
from pathlib import Path
from asr_distill.features import compute, parts
from asr_distill.features.fbank import FbankConfig
parts._SHORTEST_PART = 3.0
read, count = compute.read_samples, 0
def read_then_die(clip):
    global count
    count += 1
    if count == 14 * len(speeds):
        os.kill(os.getpid(), signal.SIGKILL)
    return read(clip)
compute.read_samples = read_then_die
cuts = lhotse.load_manifest(sys.argv[1])
speeds = tuple(map(float, sys.argv[3:]))
compute.compute_store(cuts, Path(sys.argv[2]), FbankConfig(), torch.device("cpu"), speeds=speeds, workers=1, label="x")
"""


def make_cut(path: Path, speaker: str = "s") -> lhotse.MonoCut:
    info = soundfile.info(path)
    name, seconds = path.stem, info.frames / info.samplerate
    recording = lhotse.Recording(
        id=name, sources=[lhotse.AudioSource("file", list(range(info.channels)), str(path))],
        sampling_rate=info.samplerate, num_samples=info.frames, duration=seconds)
    supervision = lhotse.SupervisionSegment(name, name, 0.0, seconds, text="ONE TWO", speaker=speaker)
    return lhotse.MonoCut(name, 0.0, seconds, 0, supervisions=[supervision], recording=recording)


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_SHORTEST_PART", 3.0)


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 FLAC files of 0.02 to 2.3 s, one of them too short for a frame."""
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    for i in range(24):
        samples = 0.1 * rng.standard_normal(70 if i == 7 else int(rng.integers(8000, 37000)))
        soundfile.write(folder / f"u{i:02d}.flac", samples, 16000)
    return folder


@pytest.fixture
def cuts(audio: Path) -> lhotse.CutSet:
    files = sorted(audio.glob("*.flac"))
    return lhotse.CutSet.from_cuts(make_cut(file, f"s{i % 3}") for i, file in enumerate(files)).to_eager()


def build(cuts: lhotse.CutSet, out: Path, config: FbankConfig = CONFIG, **options: Any) -> dict[str, Any]:
    return compute_store(cuts, out, config, CPU, label="test", **options)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_store_holds_the_frames_of_every_file(cuts: lhotse.CutSet, audio: Path, tmp_path: Path) -> None:
    figures = build(cuts, tmp_path)
    store = FrameStore(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "frames.npy", "offsets.npy", "speaker_stats.npy", "store.json", "utterances.jsonl"]
    assert (figures["utterances"], figures["frames"], figures["speakers"]) == (24, store.num_frames, 3)
    fbank = Fbank(CONFIG, CPU)
    for i, file in enumerate(sorted(audio.glob("*.flac"))):
        samples = soundfile.read(file, dtype="float32")[0]
        assert (store.utterances[i].id, store.utterances[i].words) == (file.stem, ("ONE", "TWO"))
        assert store.utterances[i].seconds == len(samples) / 16000
        (frames,) = fbank([torch.from_numpy(samples)])
        assert torch.equal(store.features(i, CPU).raw, frames.half().float())
    assert np.diff(store.offsets)[7] == 0
    np.testing.assert_allclose(store.total_stats.mean, store.frames.astype(np.float64).mean(0), rtol=1e-9)


@pytest.mark.parametrize("speeds", [(1.0,), (1.0, 0.9)])
def test_same_bytes_whatever_workers_and_batches(cuts: lhotse.CutSet, tmp_path: Path,
                                                 speeds: tuple[float, ...]) -> None:
    build(cuts, tmp_path / "a", speeds=speeds, workers=1)
    build(cuts, tmp_path / "b", speeds=speeds, workers=3, batch_seconds=2.0)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("speeds", [(1.0,), (0.9, 1.0, 1.1)])
def test_killed_then_resumed(cuts: lhotse.CutSet, tmp_path: Path, speeds: tuple[float, ...]) -> None:
    cuts.to_file(tmp_path / "cuts.jsonl.gz")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "cuts.jsonl.gz"), str(tmp_path / "b"), *map(str, speeds)]
    root = Path(compute.__file__).resolve().parents[2]
    assert subprocess.run(command, env={**os.environ, "PYTHONPATH": str(root)}).returncode == -9
    with pytest.raises(UserError, match="no finished frame store"):
        FrameStore(tmp_path / "b")
    build(cuts, tmp_path / "a", speeds=speeds)
    figures = build(cuts, tmp_path / "b", speeds=speeds)
    assert 5 * len(speeds) < figures["kept_utterances"] < 14 * len(speeds)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert build(cuts, tmp_path / "b", speeds=speeds)["kept_utterances"] == 24 * len(speeds)  # finished: nothing to do


@pytest.mark.parametrize("what", ["utterances", "settings"])
def test_parts_of_other_work_are_not_reused(cuts: lhotse.CutSet, tmp_path: Path, what: str,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(compute, "write_store_index", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(cuts, tmp_path / "b")
    cuts, config = (cuts.subset(last=23), CONFIG) if what == "utterances" else (cuts, FbankConfig(num_mel_bins=23))
    assert build(cuts, tmp_path / "b", config)["kept_utterances"] == 0
    build(cuts, tmp_path / "a", config)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert not list((tmp_path / "b").glob(".parts*"))


def test_full_disk_keeps_finished_parts(cuts: lhotse.CutSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = compute.write_array, []

    def full(path: Path, array: np.ndarray) -> None:
        calls.append(path)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, array)

    with monkeypatch.context() as patch:
        patch.setattr(compute, "write_array", full)
        with pytest.raises(UserError, match="disk is full"):
            build(cuts, tmp_path / "b", workers=1)
    assert build(cuts, tmp_path / "b")["kept_utterances"] > 0
    build(cuts, tmp_path / "a")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_too_little_space_is_said_before_the_work(cuts: lhotse.CutSet, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(compute.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(UserError, match="MB free"):
        build(cuts, tmp_path)


@pytest.mark.parametrize("damage, told", [
    ("half", "truncated"), ("empty", "truncated|damaged"), ("missing", "no such audio file"),
    ("longer", "manifest says"), ("text", "damaged"), ("rate", "8000 Hz"), ("not finite", "not finite")])
def test_bad_audio_names_the_file(audio: Path, tmp_path: Path, damage: str, told: str) -> None:
    suffix = ".wav" if damage == "not finite" else ".flac"
    file = tmp_path / f"bad{suffix}"
    samples = soundfile.read(audio / "u03.flac")[0]
    soundfile.write(file, samples, 16000, subtype="FLOAT" if suffix == ".wav" else "PCM_16")
    cut = make_cut(file)
    content = file.read_bytes()
    if damage in ("half", "empty"):
        file.write_bytes(content[: len(content) // 2 if damage == "half" else 0])
    elif damage == "missing":
        file.unlink()
    elif damage == "longer":
        soundfile.write(file, np.r_[samples, samples], 16000)
    elif damage == "text":
        file.write_text("this is no audio\n" * 100)
    elif damage == "rate":
        soundfile.write(file, samples, 8000)
    else:
        samples[500] = np.nan
        soundfile.write(file, samples, 16000, subtype="FLOAT")
    with pytest.raises(UserError, match=told) as caught:
        build(lhotse.CutSet.from_cuts([cut]), tmp_path / "out")
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_clips_within_recordings(audio: Path, tmp_path: Path) -> None:
    """A stretch of a file, a channel of a stereo file, and a cut that lhotse must alter (other speed)."""
    samples = soundfile.read(audio / "u03.flac", dtype="float32")[0]
    soundfile.write(tmp_path / "stereo.flac", np.stack([samples, -0.5 * samples], 1), 16000)
    part = make_cut(audio / "u03.flac").truncate(offset=0.1, duration=0.25)
    assert np.array_equal(read_samples(clip_of(part, 16000)), samples[1600:5600])
    stereo = make_cut(tmp_path / "stereo.flac")
    stereo.channel = 1
    np.testing.assert_allclose(read_samples(clip_of(stereo, 16000)), -0.5 * samples, atol=1e-4)
    faster = make_cut(audio / "u03.flac").perturb_speed(1.1)
    np.testing.assert_array_equal(read_samples(clip_of(faster, 16000)), faster.load_audio()[0])


def test_unfit_cuts(cuts: lhotse.CutSet, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="16000 Hz, but the features are set to 8000 Hz"):
        build(cuts, tmp_path, FbankConfig(sample_rate=8000))
    with pytest.raises(UserError, match="no utterances"):
        build(lhotse.CutSet.from_cuts([]), tmp_path)
    with pytest.raises(UserError, match="appears twice"):
        build(lhotse.CutSet([cuts[0], cuts[0]]), tmp_path)
    with pytest.raises(UserError, match="shorter than one frame"):
        build(cuts.filter(lambda cut: cut.id == "u07").to_eager(), tmp_path)
    silent = make_cut(Path(cuts[0].recording.sources[0].source))
    silent.supervisions = []
    with pytest.raises(UserError, match="0 supervisions"):
        build(lhotse.CutSet.from_cuts([silent]), tmp_path)
