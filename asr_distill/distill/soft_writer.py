"""Writes soft targets: one pass of the teachers over a frame store, shard by shard (soft_store.py has the forms)."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from asr_distill.acoustic.accuracy import PosteriorModel
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.precision import choose_precision
from asr_distill.acoustic.together import groups, posteriors_together
from asr_distill.distill.compact.form import Compact
from asr_distill.distill.config import SoftTargetConfig
from asr_distill.distill.fingerprint import fingerprint_of
from asr_distill.distill.forms import Dense, Form, TopK
from asr_distill.executor import Context, Executor
from asr_distill.files import read_json, write_array, write_json
from asr_distill.progress import Progress

if TYPE_CHECKING:
    from asr_distill.features.store import FrameStore

Shard = tuple[int, int]  # first utterance, and the one after the last


def write_soft_targets(teachers: PosteriorModel, store: FrameStore, out: Path, config: SoftTargetConfig,
                       device: torch.device, *, label: str = "soft targets",
                       executor: Executor | None = None) -> dict[str, Any]:
    """One pass over the store: the teachers' posteriors at T (an Ensemble's, or any model's), in the form of `config`.

    The compact form asks the teachers about a small pilot first. Killed at any moment, the same call goes on with the
    shards that are not there yet. `executor`: its workers ask and encode, a shard a job; this process writes (on a CPU
    the same bytes with any executor). Returns figures: bytes per frame, frames per second, entropy, and
    `truncation_nats`: the Kullback-Leibler divergence of the stored distribution from the teachers', mean over all
    frames, which is what the form costs in cross-entropy (of the top k with the remainder spread evenly).
    """
    dtype = choose_precision(config.precision, device).dtype
    record = _record(out, _identity(teachers, store, config), config.shard_frames)
    asking = _Asking(teachers, store, out, config, dtype, device)
    form = asking.form  # a compact one's pilot is done here, once
    arrays = _open_for_writing(out, store.num_frames, form, fresh=not record["done"])
    done: dict[str, dict[str, float]] = record["done"]  # of every finished shard, by its first utterance: its sums
    started, resumed = time.perf_counter(), int(sum(sums["frames"] for sums in done.values()))
    shards = [shard for shard in _shards(store.offsets, record["shard_frames"]) if str(shard[0]) not in done]
    # in this process group by group, so that little is in memory and progress is seen; a worker answers a whole shard
    with Progress(label, store.num_frames, "frames", done=resumed) as progress:
        for shard, parts in asking.shards(shards, executor):
            sums: dict[str, float] = {}
            for rows, encoded, added in parts:
                for name, values in encoded.items():
                    arrays[name][rows] = values
                for name, value in added.items():
                    sums[name] = sums.get(name, 0.0) + value
                progress.update(rows.stop - rows.start)
            for array in arrays.values():
                array.flush()
            done[str(shard[0])] = sums
            write_json(out / "progress.json", record)
    seconds = time.perf_counter() - started
    frames = max(1, store.num_frames)
    ordered = [done[first] for first in sorted(done, key=int)]  # sums do not depend on who was ready first
    total = {name: sum(sums[name] for sums in ordered) for name in (ordered[0] if ordered else {})}
    figures = {
        "num_frames": store.num_frames, "num_pdfs": teachers.num_pdfs, "temperature": config.temperature,
        **form.facts(),
        **({"mean": teachers.mean, "teachers": len(teachers.models)} if isinstance(teachers, Ensemble) else {}),
        "bytes_per_frame": sum(array.dtype.itemsize * array[:1].size for array in arrays.values()),
        "frames_per_second": (store.num_frames - resumed) / seconds,
        "entropy_nats": total.get("entropy", 0.0) / frames, "truncation_nats": total.get("excess", 0.0) / frames,
        **({"remainder_mass": total["remainder"] / frames} if "remainder" in total else {}),
    }
    write_json(out / "soft_targets.json", figures)
    (out / "progress.json").unlink()
    return figures


_Part = tuple[slice, dict[str, np.ndarray], dict[str, float]]  # rows of the store, what is written there, sums


class _Asking:
    """Teachers, store and form: in this process, or as the context of a worker."""

    def __init__(self, teachers: PosteriorModel, store: FrameStore, out: Path, config: SoftTargetConfig,
                 dtype: torch.dtype, device: torch.device):
        self._arguments = (teachers, store, out, config, dtype, device)
        self._teachers: Any = teachers.cast(dtype) if dtype != torch.float32 and hasattr(teachers, "cast") else teachers
        self._store, self._out, self._config, self._device = store, out, config, device

    @functools.cached_property
    def form(self) -> Form:
        """A compact one is fitted on its pilot, or read where that was done."""
        config, pdfs = self._config, self._teachers.num_pdfs
        if config.form == "dense":
            return Dense(pdfs)
        if config.form == "top_k":
            return TopK(pdfs, min(config.top_k or pdfs, pdfs))
        return Compact.prepare(self._ask, self._store, self._out, self._device, max_error=config.max_error,
                               max_bytes=config.max_bytes, pilot_frames=config.pilot_frames)

    def shards(self, shards: list[Shard], executor: Executor | None) -> Iterator[tuple[Shard, Iterator[_Part]]]:
        """With an executor in any order."""
        if executor is None:
            yield from ((shard, self.parts(shard)) for shard in shards)
            return
        for shard, parts in executor.run(_ask_shard, shards, context=Context(_Asking, self._arguments),
                                         name=lambda shard: f"soft targets of utterances {shard[0]} to {shard[1] - 1}"):
            yield shard, iter(parts)

    def parts(self, shard: Shard) -> Iterator[_Part]:
        first, last = shard
        offsets = self._store.offsets
        for group in groups(np.diff(offsets[first:last + 1]).tolist(), self._device):
            begin, end = first + group.start, first + group.stop
            log_posteriors = posteriors_together(
                self._teachers, [self._store.features(index, self._device) for index in range(begin, end)],
                self._config.temperature)
            encoded, added = self.form.encode(log_posteriors)
            added["entropy"] = -float((log_posteriors.exp() * log_posteriors).sum(1).double().sum())
            added["frames"] = float(len(log_posteriors))
            layout = self.form.layout()
            yield (slice(int(offsets[begin]), int(offsets[end])),
                   {name: values.cpu().numpy().astype(layout[name][1], copy=False)
                    for name, values in encoded.items()}, added)

    def _ask(self, index: int) -> torch.Tensor:
        return self._teachers.log_posteriors(self._store.features(index, self._device), self._config.temperature)


def _ask_shard(asking: _Asking, shard: Shard) -> list[_Part]:
    return list(asking.parts(shard))


def _shards(offsets: np.ndarray, shard_frames: int) -> Iterator[Shard]:
    """Ranges of utterances, each of about `shard_frames` frames."""
    utterances, first = len(offsets) - 1, 0
    while first < utterances:
        last = int(np.searchsorted(offsets, offsets[first] + shard_frames, "right")) - 1
        last = min(max(last, first + 1), utterances)
        yield first, last
        first = last


def _record(out: Path, identity: str, shard_frames: int) -> dict[str, Any]:
    """How far an interrupted call with the same teachers, store and settings came; else `out` is cleared."""
    (out / "soft_targets.json").unlink(missing_ok=True)
    progress = out / "progress.json"
    record = read_json(progress) if progress.exists() else None
    if record is None or record.get("identity") != identity or "done" not in record:
        record = {"identity": identity, "shard_frames": shard_frames, "done": {}}
        (out / "pilot.json").unlink(missing_ok=True)
        for stale in out.glob("*.npy"):
            stale.unlink()
        write_json(progress, record)
    return record


def _open_for_writing(out: Path, frames: int, form: Form, *, fresh: bool) -> dict[str, np.memmap]:
    """The form's arrays, made where nothing is in them yet."""
    for name, (shape, dtype) in form.layout().items():
        if fresh:
            write_array(out / f"{name}.npy", np.broadcast_to(np.zeros((), dtype), (frames, *shape)))
    return {name: np.lib.format.open_memmap(out / f"{name}.npy", mode="r+") for name in form.layout()}


def _identity(teachers: PosteriorModel, store: FrameStore, config: SoftTargetConfig) -> str:
    """Digest of what decides the targets: the teachers, the store's frames, the settings."""
    settings = {key: value for key, value in asdict(config).items() if key != "shard_frames"}
    digest = hashlib.sha256(json.dumps([settings, [utterance.id for utterance in store.utterances]]).encode())
    digest.update(np.ascontiguousarray(store.offsets).data)
    digest.update(fingerprint_of(teachers).encode())
    return digest.hexdigest()
