"""Audio to frame store: parallel readers, features on the device, parts that survive being killed."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lhotse
import numpy as np
import torch

from asr_distill.config import to_dict
from asr_distill.errors import UserError
from asr_distill.executor import Context, Executor, Threads
from asr_distill.features.cmvn import CmvnStats
from asr_distill.features.degrade import DegradeConfig, Degrader
from asr_distill.features.fbank import Fbank, FbankConfig
from asr_distill.features.parts import Part, begin, divide, header_bytes, mark, read_mark
from asr_distill.features.speed import SpeedPerturbation, check_speeds
from asr_distill.features.store import FRAMES, HEAD, FrameStore, Utterance, pack_stats, write_store_index
from asr_distill.features.waveform import Clip, clip_of, read_samples
from asr_distill.files import read_array, read_json, write_array
from asr_distill.progress import Progress

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclasses.dataclass(frozen=True)
class _Extractor:
    """Frames of clips at their speeds, in the rooms and noises that they are given."""

    fbank: Fbank
    perturbations: dict[float, SpeedPerturbation]
    degrader: Degrader | None
    batch_seconds: float

    @classmethod
    def build(cls, config: FbankConfig, device: torch.device, speeds: Sequence[float], degrade: DegradeConfig | None,
              plain: Sequence[Clip], batch_seconds: float) -> _Extractor:
        perturbations = {factor: SpeedPerturbation(factor, device) for factor in sorted(speeds) if factor != 1}
        degrader = Degrader(degrade, config.sample_rate, device, plain) if degrade else None
        return cls(Fbank(config, device), perturbations, degrader, batch_seconds)

    def __call__(self, batch: Sequence[Clip]) -> list[torch.Tensor]:
        waveforms = [torch.from_numpy(read_samples(clip)) for clip in batch]
        for factor, perturbation in self.perturbations.items():
            mine = [i for i, clip in enumerate(batch) if clip.speed == factor]
            for i, changed in zip(mine, perturbation([waveforms[i] for i in mine]) if mine else [], strict=True):
                waveforms[i] = changed
        return self.fbank(self.degrader(waveforms, batch) if self.degrader else waveforms)


def compute_store(cuts: lhotse.CutSet, out: Path, config: FbankConfig, device: torch.device, *,
                  speeds: tuple[float, ...] = (1.0,), degrade: DegradeConfig | None = None,
                  batch_seconds: float = 600.0, workers: int = 0, label: str,
                  executor: Executor | None = None) -> dict[str, Any]:
    """Write the frame store of `cuts` to the directory `out`; returns its figures.

    speeds: factors of speed perturbation. All cuts once for each, first as they are where 1.0 is among them; those
    at another speed are utterances sp0.9-ID of speakers sp0.9-SPEAKER. Figures count all of them.
    degrade: rooms and noise; utterances, their order and their frames are those of the clean store, row for row.
    batch_seconds: audio in one call of the features; workers: threads that read and compute (0: one a core), in whose
    place an `executor` may do it. None of these changes a byte of the result. If the same cuts were begun before and
    the process was killed, finished parts are kept. Raises UserError where an audio file is unusable, a speed out of
    range, the disk full, or babble is asked for in a split of one utterance.
    """
    start = time.monotonic()
    check_speeds(speeds)
    plain = [clip_of(cut, config.sample_rate) for cut in cuts]
    clips = [clip.at_speed(factor) for factor in sorted(speeds, key=lambda factor: factor != 1) for clip in plain]
    if not clips:
        raise UserError(f"{label}: no utterances to compute features of; prepare the corpus again")
    _check_ids(clips)
    degrade = degrade if degrade and degrade.active else None
    if degrade:
        Degrader(degrade, config.sample_rate, device, plain)  # refuses before anything is written
    digest = _digest(clips, config, degrade, device)
    counts = [config.num_frames(clip.played_samples) for clip in clips]
    if not sum(counts):
        raise UserError(f"{label}: every utterance is shorter than one frame; check the corpus's segments")
    kept = len(clips)
    if not _is_complete(out, digest):
        making = Context(_Extractor.build, (config, device, speeds, degrade, plain, batch_seconds))
        head = {"config": to_dict(config), "digest": digest} | ({"degrade": to_dict(degrade)} if degrade else {})
        with _disk_full_is_users_error(out):
            kept = _build(clips, counts, out, head, config.num_mel_bins, making, label,
                          executor or Threads(workers))
    seconds = time.monotonic() - start
    audio = sum(clip.seconds for clip in clips)
    return {"utterances": len(clips), "frames": sum(counts), "speakers": len({clip.speaker for clip in clips}),
            "hours": audio / 3600, "kept_utterances": kept, "seconds": seconds, "times_real_time": audio / seconds}


def _build(clips: Sequence[Clip], counts: Sequence[int], out: Path, head: dict[str, Any], coefficients: int,
           making: Context, label: str, executor: Executor) -> int:
    """Compute what is missing and write the store; returns how many utterances were kept from before."""
    parts = divide(clips, counts)
    marks = begin(out, head["digest"], (sum(counts), coefficients))
    todo = [part for part in parts if read_mark(marks, part, coefficients) is None]
    _check_space(out, sum(sum(part.counts) for part in todo) * coefficients * 2)
    seconds = sum(clip.seconds for clip in clips)
    with Progress(label, seconds, "s of audio", done=seconds - sum(part.seconds for part in todo)) as progress:
        for part, (rows, stats) in executor.run(_compute_part, todo, context=making, name=_name):
            _write_part(out, marks, part, rows, stats)
            progress.update(part.seconds)
    statistics = np.concatenate([read_array(mark(marks, part)) for part in parts])
    utterances = [Utterance(clip.id, clip.speaker, tuple(clip.text.split()), clip.seconds) for clip in clips]
    write_store_index(out, utterances, counts, statistics, head)
    shutil.rmtree(marks)
    return len(clips) - sum(len(part.clips) for part in todo)


def _name(part: Part) -> str:
    return f"features of {part.clips[0].id} to {part.clips[-1].id}"


def _compute_part(extractor: _Extractor, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """The part's rows, float16 (frames, coefficients), and the utterances' statistics, float64 (utterances, 1 + 2 *
    coefficients)."""
    blocks, stats = [], []
    for batch in _batches(part.clips, extractor.batch_seconds):
        for clip, utterance in zip(batch, extractor(batch), strict=True):
            rows = utterance.to(torch.float16).cpu()  # (frames, coefficients)
            exact = rows.double()
            squares = exact.square().sum(0)
            if not torch.isfinite(squares).all():
                raise UserError(f"{clip.path}: gives features that are not finite; are its samples in [-1, 1]?")
            blocks.append(rows.numpy())
            stats.append(pack_stats(CmvnStats(float(len(rows)), exact.sum(0).numpy(), squares.numpy())))
    return np.concatenate(blocks), np.stack(stats)


def _write_part(out: Path, marks: Path, part: Part, rows: np.ndarray, stats: np.ndarray) -> None:
    """The part's rows in their place, then its mark."""
    with open(out / FRAMES, "r+b") as file:
        file.seek(header_bytes(file) + part.first_row * rows.shape[1] * 2)
        file.write(rows.data)
    write_array(mark(marks, part), stats)


def _batches(clips: Sequence[Clip], batch_seconds: float) -> Iterator[list[Clip]]:
    batch: list[Clip] = []
    for clip in clips:
        if batch and sum(member.seconds for member in batch) + clip.seconds > batch_seconds:
            yield batch
            batch = []
        batch.append(clip)
    yield batch


def _is_complete(out: Path, digest: str) -> bool:
    if not (out / HEAD).exists() or read_json(out / HEAD).get("digest") != digest:
        return False
    FrameStore(out)  # raises where the finished store was damaged since
    return True


def _digest(clips: Sequence[Clip], config: FbankConfig, degrade: DegradeConfig | None, device: torch.device) -> str:
    """Of everything that decides the bytes of the result."""
    digest = hashlib.sha256(json.dumps([to_dict(config), device.type]).encode())
    if degrade:
        digest.update(json.dumps(to_dict(degrade)).encode())
    for clip in clips:
        digest.update(repr(dataclasses.replace(clip, cut=None)).encode())
        if clip.speed != 1:
            digest.update(repr(float(clip.speed)).encode())
        if clip.cut is not None:
            digest.update(json.dumps(clip.cut.to_dict(), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _check_ids(clips: Sequence[Clip]) -> None:
    seen: set[str] = set()
    for clip in clips:
        if clip.id in seen:
            raise UserError(f"{clip.path}: utterance id {clip.id} appears twice; ids must be unique")
        seen.add(clip.id)


def _check_space(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if free < needed:
        raise UserError(f"{out}: {needed / 1e6:,.0f} MB of features to write, {free / 1e6:,.0f} MB free; free "
                        "some space and run the same command again (finished parts are kept)")


@contextmanager
def _disk_full_is_users_error(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise UserError(f"{out}: the disk is full; free some space and run the same command again (finished parts "
                        "are kept)") from None
