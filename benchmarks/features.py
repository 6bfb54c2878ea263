"""Speed of log-mel features: torchaudio, kaldi-native-fbank, lhotse and ours; then of FLAC to stored features, clean
and in rooms and noise.

    python benchmarks/features.py --audio LibriSpeech/dev-clean-2 --threads 1
    python benchmarks/features.py --threads 2 --seconds 1200         # noise, made on the spot
    python benchmarks/features.py --audio DIR --device cuda

Figures are seconds of audio per second ("x real time"). The systems take turns, so that other load on the machine
falls on all of them; the table gives each one's best round and its median. With several threads each system runs
both ways, utterances divided over Python threads and torch's own threads, and the faster way counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import logging
import multiprocessing
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import kaldi_native_fbank as knf
import lhotse
import numpy as np
import soundfile
import torch
import torchaudio

from asr_distill.features.compute import compute_store
from asr_distill.features.degrade import DegradeConfig
from asr_distill.features.fbank import Fbank, FbankConfig

RATE = 16000
CONFIG = FbankConfig()
Extract = Callable[[list[torch.Tensor]], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, help="directory of 16 kHz FLAC files (default: noise)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="where ours and torchaudio run")
    parser.add_argument("--seconds", type=float, default=600.0, help="how much audio")
    parser.add_argument("--rounds", type=int, default=9, help="of the features; a third of it for FLAC to store")
    options = parser.parse_args()
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        files = choose_files(options.audio, options.seconds) or make_files(Path(scratch) / "audio", options.seconds)
        waveforms = [torch.from_numpy(soundfile.read(file, dtype="float32")[0]) for file in files]
        seconds = sum(map(len, waveforms)) / RATE
        print(f"{cpu_model()}, torch {torch.__version__}, {options.threads} thread(s), {device_name(options.device)}")
        what = f"speech in {options.audio}" if options.audio else "noise"
        print(f"{len(files)} utterances, {seconds:.0f} s of {what}")
        check_equal(waveforms[0], options.device)
        systems = {name: best_way(extract, waveforms, options.threads, options.device)
                   for name, extract in extractors(options.device).items()}
        table("features alone", race(systems, options.rounds), seconds)
        stores = store_systems(files, Path(scratch), options.threads, torch.device(options.device))
        table("FLAC to stored features", race(stores, max(1, options.rounds // 3)), seconds)
        heard = degraded_systems(files, Path(scratch), options.threads, torch.device(options.device))
        costs("FLAC to stored features of ours", race(heard, max(1, options.rounds // 3)), seconds)


def extractors(device: str) -> dict[str, Extract]:
    """Name -> function of a list of waveforms; the same settings for all."""
    ours, on = Fbank(CONFIG, torch.device(device)), torch.device(device)
    theirs = lhotse.Fbank(lhotse.FbankConfig(num_filters=40, high_freq=-400.0, dither=0.0, snip_edges=False))
    options = knf.FbankOptions()
    options.frame_opts.dither, options.frame_opts.snip_edges = 0.0, False
    options.mel_opts.num_bins, options.mel_opts.high_freq = 40, -400.0

    def native(waveform: torch.Tensor) -> np.ndarray:
        extractor = knf.OnlineFbank(options)
        extractor.accept_waveform(RATE, waveform.numpy())
        extractor.input_finished()
        return np.stack([extractor.get_frame(i) for i in range(extractor.num_frames_ready)])

    def compliance(waveform: torch.Tensor) -> torch.Tensor:
        return torchaudio.compliance.kaldi.fbank(waveform[None].to(on), num_mel_bins=40, high_freq=-400.0, dither=0.0,
                                                 snip_edges=False)

    return {
        "torchaudio.compliance.kaldi.fbank": lambda batch: [compliance(waveform) for waveform in batch],
        "kaldi-native-fbank": lambda batch: [native(waveform) for waveform in batch],
        "lhotse Fbank.extract": lambda batch: [theirs.extract(waveform, RATE) for waveform in batch],
        "lhotse Fbank.extract_batch": lambda batch: theirs.extract_batch(batch, RATE),
        "asr_distill": ours,
    }


def best_way(extract: Extract, waveforms: list[torch.Tensor], threads: int, device: str) -> Callable[[], object]:
    """The faster of torch's threads and Python threads over the utterances, by one trial of each."""
    def at_once() -> None:
        torch.set_num_threads(threads)
        extract(waveforms)
        synchronise(device)

    def divided() -> None:
        torch.set_num_threads(1)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(extract, [waveforms[i::threads] for i in range(threads)]))
        synchronise(device)

    at_once()  # warm
    if threads == 1:
        return at_once
    return min((at_once, divided), key=lambda way: min(clock(way) for _ in range(3)))


def store_systems(files: list[Path], scratch: Path, threads: int, device: torch.device,
                  ) -> dict[str, Callable[[], object]]:
    cuts = lhotse.CutSet.from_cuts(make_cut(file) for file in files).to_eager()
    theirs = lhotse.Fbank(lhotse.FbankConfig(num_filters=40, high_freq=-400.0, dither=0.0, snip_edges=False))
    fresh = (scratch / f"store{i}" for i in range(10_000))

    pool = None
    if threads > 1:  # a forked pool dead-locks on torch's threads; this one is started once, outside the clock
        pool = ProcessPoolExecutor(threads, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,))
        list(pool.map(make_cut, files[: 4 * threads]))

    def jobs(writer: type) -> Callable[[], object]:
        return lambda: cuts.compute_and_store_features(theirs, next(fresh), num_jobs=threads, executor=pool,
                                                       storage_type=writer, progress_bar=False)

    default = {"lhotse compute_and_store_features, lilcom": jobs(lhotse.LilcomChunkyWriter)}
    return {
        **(default if importlib.util.find_spec("lilcom") else {}),
        "lhotse compute_and_store_features, numpy": jobs(lhotse.NumpyFilesWriter),
        "lhotse compute_and_store_features_batch": lambda: cuts.compute_and_store_features_batch(
            theirs, next(fresh), num_workers=threads, storage_type=lhotse.NumpyFilesWriter),
        "asr_distill": lambda: compute_store(cuts, next(fresh), CONFIG, device, workers=threads, label="features"),
    }


def degraded_systems(files: list[Path], scratch: Path, threads: int, device: torch.device,
                     ) -> dict[str, Callable[[], object]]:
    """The clean store, its degraded copy with the default shares, and each kind of it on every utterance."""
    cuts = lhotse.CutSet.from_cuts(make_cut(file) for file in files).to_eager()
    fresh = (scratch / f"degraded{i}" for i in range(10_000))
    nothing = DegradeConfig(reverb=0, white=0, pink=0, brown=0, babble=0)
    kinds = {"clean": None, "degraded, the default mixture": DegradeConfig(),
             "a room for each": dataclasses.replace(nothing, reverb=1),
             "pink noise for each": dataclasses.replace(nothing, pink=1),
             "babble for each": dataclasses.replace(nothing, babble=1)}

    def job(degrade: DegradeConfig | None) -> Callable[[], object]:
        return lambda: compute_store(cuts, next(fresh), CONFIG, device, degrade=degrade, workers=threads, label="views")

    return {name: job(degrade) for name, degrade in kinds.items()}


def race(systems: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every round of every system, the systems taking turns."""
    times: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(rounds):
        for name, run in systems.items():
            times[name].append(clock(run))
    return times


def table(title: str, times: dict[str, list[float]], seconds: float) -> None:
    """The last system is ours: ratios are ours to the others, best to best and median to median."""
    ours = list(times.values())[-1]
    print(f"\n{title:44s}{'best':>8s}{'median':>9s}{'ours is faster by (best, median)':>36s}")
    for name, taken in times.items():
        middle = statistics.median(taken)
        ratios = f"{min(taken) / min(ours):.2f}, {middle / statistics.median(ours):.2f}"
        print(f"{name:44s}{seconds / min(taken):8,.0f}{seconds / middle:9,.0f}{ratios:>36s}")


def costs(title: str, times: dict[str, list[float]], seconds: float) -> None:
    """The first system is what the others are measured by."""
    first = next(iter(times.values()))
    print(f"\n{title:44s}{'best':>8s}{'median':>9s}{f'takes x {next(iter(times))} (best, median)':>36s}")
    for name, taken in times.items():
        middle = statistics.median(taken)
        ratios = f"{min(taken) / min(first):.2f}, {middle / statistics.median(first):.2f}"
        print(f"{name:44s}{seconds / min(taken):8,.0f}{seconds / middle:9,.0f}{ratios:>36s}")


def check_equal(waveform: torch.Tensor, device: str) -> None:
    """Different features would make the comparison void."""
    results = {name: extract([waveform]) for name, extract in extractors(device).items()}
    frames = {name: np.asarray(torch.as_tensor(result[0]).cpu()).reshape(-1, 40)  # type: ignore[index]
              for name, result in results.items()}
    for name, theirs in frames.items():
        if name != "asr_distill":
            print(f"largest difference to {name}: {np.abs(frames['asr_distill'] - theirs).max():.1e}")


def make_cut(file: Path) -> lhotse.MonoCut:
    recording = lhotse.Recording.from_file(file)
    supervision = lhotse.SupervisionSegment(recording.id, recording.id, 0.0, recording.duration, text="", speaker="one")
    return lhotse.MonoCut(recording.id, 0.0, recording.duration, 0, supervisions=[supervision], recording=recording)


def choose_files(folder: Path | None, seconds: float) -> list[Path]:
    chosen, total = [], 0.0
    for file in sorted(folder.rglob("*.flac")) if folder else ():
        if total < seconds:
            chosen.append(file)
            total += soundfile.info(file).duration
    if folder and not chosen:
        raise SystemExit(f"{folder}: no FLAC files")
    return chosen


def make_files(folder: Path, seconds: float) -> list[Path]:
    """Utterances of 4 to 16 s of noise with a falling spectrum."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    files: list[Path] = []
    while seconds > 0:
        length = generator.uniform(4, 16)
        noise = np.convolve(generator.standard_normal(int(length * RATE)), 0.9 ** np.arange(40), "same") * 0.02
        files.append(folder / f"noise{len(files):05d}.flac")
        soundfile.write(files[-1], noise, RATE)
        seconds -= length
    return files


def clock(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
