"""The teachers' averaged posteriors on disk, in one of three forms (SoftTargetConfig.form).

top_k:   DIR/ids.npy (frames, k) uint16 or int32; probabilities.npy (frames, k) float16, greatest first; remainder.npy
         (frames,) float16: the mass of the rest.
compact: compact/store.py. A few dozen bytes a frame for all pdfs, to a stated error.
dense:   log_posteriors.npy (frames, pdfs) float16.
soft_targets.json is written last: a directory without it is incomplete. Rows are those of the frame store.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from asr_distill.acoustic.accuracy import PosteriorModel
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.precision import choose_precision
from asr_distill.acoustic.together import groups, posteriors_together
from asr_distill.distill.compact.form import Ask, Compact
from asr_distill.distill.compact.store import CompactStore
from asr_distill.distill.config import SoftTargetConfig
from asr_distill.distill.fingerprint import fingerprint_of
from asr_distill.distill.forms import Dense, Form, TopK, sound
from asr_distill.errors import UserError
from asr_distill.files import read_array, read_json, write_array, write_json
from asr_distill.progress import Progress

if TYPE_CHECKING:
    from asr_distill.features.store import FrameStore

ARRAYS = ("ids", "probabilities", "remainder")


@dataclass(frozen=True)
class SoftStore:
    """Open soft targets of form top_k (memory maps)."""

    ids: np.ndarray  # uint16 or int32 (num_frames, k)
    probabilities: np.ndarray  # float16 (num_frames, k)
    remainder: np.ndarray  # float16 (num_frames,)
    temperature: float
    num_pdfs: int
    facts: dict[str, Any]

    @staticmethod
    def open(directory: Path) -> SoftStore:
        """Raises UserError where the directory is incomplete or its files do not belong together."""
        facts = read_json(directory / "soft_targets.json")
        arrays = {name: read_array(directory / f"{name}.npy", memory_map=True) for name in ARRAYS}
        with sound(directory):
            shape = (facts["num_frames"], facts["top_k"])
            if arrays["ids"].shape != shape or arrays["probabilities"].shape != shape or \
                    arrays["remainder"].shape != shape[:1]:
                raise ValueError("arrays and soft_targets.json differ")
            return SoftStore(**arrays, temperature=float(facts["temperature"]), num_pdfs=int(facts["num_pdfs"]),
                             facts=facts)


@dataclass(frozen=True)
class DenseStore:
    """Open soft targets of form dense (a memory map)."""

    log_posteriors: np.ndarray  # float16 (num_frames, pdfs)
    temperature: float
    facts: dict[str, Any]

    @staticmethod
    def open(directory: Path) -> DenseStore:
        """Raises UserError where the directory is incomplete or its files do not belong together."""
        facts = read_json(directory / "soft_targets.json")
        array = read_array(directory / "log_posteriors.npy", memory_map=True)
        with sound(directory):
            if array.shape != (facts["num_frames"], facts["num_pdfs"]):
                raise ValueError("log_posteriors.npy and soft_targets.json differ")
            return DenseStore(array, float(facts["temperature"]), facts)


def open_soft_targets(directory: Path) -> SoftStore | CompactStore | DenseStore:
    """Soft targets in the form that they were written in; those of before there were forms are top_k.

    Raises UserError where the directory is incomplete, its files do not belong together, or the form is not known.
    """
    form = read_json(directory / "soft_targets.json").get("form", "top_k")
    kinds: dict[str, type[SoftStore] | type[CompactStore] | type[DenseStore]] = {
        "top_k": SoftStore, "compact": CompactStore, "dense": DenseStore}
    if form not in kinds:
        raise UserError(f"{directory}: soft targets of a form '{form}', which this version does not know; "
                        "write them again")
    return kinds[form].open(directory)


def write_soft_targets(teachers: PosteriorModel, store: FrameStore, out: Path, config: SoftTargetConfig,
                       device: torch.device, *, label: str = "soft targets") -> dict[str, Any]:
    """One pass over the store: the teachers' posteriors at T (an Ensemble's, or any model's), in the form of `config`.

    The compact form asks the teachers about a small pilot first. Killed at any moment, the same call goes on after the
    last complete shard. Returns figures: bytes per frame, frames per second, entropy, and `truncation_nats`: the
    Kullback-Leibler divergence of the stored distribution from the teachers', mean over all frames, which is what the
    form costs in cross-entropy (of the top k with the remainder spread evenly).
    """
    dtype = choose_precision(config.precision, device).dtype
    identity = _identity(teachers, store, config)
    asked = teachers.cast(dtype) if dtype != torch.float32 and hasattr(teachers, "cast") else teachers

    def ask(index: int) -> torch.Tensor:
        return asked.log_posteriors(store.features(index, device), config.temperature)

    record = _record(out, identity)
    form = _form(config, teachers.num_pdfs, ask, store, out, device)
    arrays = _open_for_writing(out, store.num_frames, form, record)
    started, resumed = time.perf_counter(), record["frames"]
    sums = record["sums"]
    with Progress(label, store.num_frames, "frames", done=resumed) as progress:
        for first, last in _shards(store.offsets, config.shard_frames, record["utterances"]):
            for group in groups(np.diff(store.offsets[first:last + 1]).tolist(), device):
                begin, end = first + group.start, first + group.stop
                rows = slice(int(store.offsets[begin]), int(store.offsets[end]))
                log_posteriors = posteriors_together(
                    asked, [store.features(index, device) for index in range(begin, end)], config.temperature)
                encoded, added = form.encode(log_posteriors)
                added["entropy"] = -float((log_posteriors.exp() * log_posteriors).sum(1).double().sum())
                for name, values in encoded.items():
                    arrays[name][rows] = values.cpu().numpy()
                for name, value in added.items():
                    sums[name] = sums.get(name, 0.0) + value
                progress.update(rows.stop - rows.start)
            for array in arrays.values():
                array.flush()
            record["utterances"], record["frames"] = last, int(store.offsets[last])
            write_json(out / "progress.json", record)
    seconds = time.perf_counter() - started
    frames = max(1, store.num_frames)
    figures = {
        "num_frames": store.num_frames, "num_pdfs": teachers.num_pdfs, "temperature": config.temperature,
        **form.facts(),
        **({"mean": teachers.mean, "teachers": len(teachers.models)} if isinstance(teachers, Ensemble) else {}),
        "bytes_per_frame": sum(array.dtype.itemsize * array[:1].size for array in arrays.values()),
        "frames_per_second": (store.num_frames - resumed) / seconds,
        "entropy_nats": sums.get("entropy", 0.0) / frames, "truncation_nats": sums.get("excess", 0.0) / frames,
        **({"remainder_mass": sums["remainder"] / frames} if "remainder" in sums else {}),
    }
    write_json(out / "soft_targets.json", figures)
    (out / "progress.json").unlink()
    return figures


def _form(config: SoftTargetConfig, pdfs: int, ask: Ask, store: FrameStore, out: Path, device: torch.device) -> Form:
    if config.form == "dense":
        return Dense(pdfs)
    if config.form == "top_k":
        return TopK(pdfs, min(config.top_k or pdfs, pdfs))
    return Compact.prepare(ask, store, out, device, max_error=config.max_error, max_bytes=config.max_bytes,
                           pilot_frames=config.pilot_frames)


def _shards(offsets: np.ndarray, shard_frames: int, first: int) -> Iterator[tuple[int, int]]:
    """Ranges of utterances, each of about `shard_frames` frames."""
    utterances = len(offsets) - 1
    while first < utterances:
        last = int(np.searchsorted(offsets, offsets[first] + shard_frames, "right")) - 1
        last = min(max(last, first + 1), utterances)
        yield first, last
        first = last


def _record(out: Path, identity: str) -> dict[str, Any]:
    """How far an interrupted call with the same teachers, store and settings came; else `out` is cleared."""
    (out / "soft_targets.json").unlink(missing_ok=True)
    progress = out / "progress.json"
    record = read_json(progress) if progress.exists() else None
    if record is None or record.get("identity") != identity:
        record = {"identity": identity, "utterances": 0, "frames": 0, "sums": {}}
        (out / "pilot.json").unlink(missing_ok=True)
        for stale in out.glob("*.npy"):
            stale.unlink()
        write_json(progress, record)
    return record


def _open_for_writing(out: Path, frames: int, form: Form, record: dict[str, Any]) -> dict[str, np.memmap]:
    """The form's arrays, made where nothing is in them yet."""
    for name, (shape, dtype) in form.layout().items():
        if not record["frames"]:
            write_array(out / f"{name}.npy", np.broadcast_to(np.zeros((), dtype), (frames, *shape)))
    return {name: np.lib.format.open_memmap(out / f"{name}.npy", mode="r+") for name in form.layout()}


def _identity(teachers: PosteriorModel, store: FrameStore, config: SoftTargetConfig) -> str:
    """Digest of what decides the targets: the teachers, the store's frames, the settings."""
    settings = {key: value for key, value in asdict(config).items() if key != "shard_frames"}
    digest = hashlib.sha256(json.dumps([settings, [utterance.id for utterance in store.utterances]]).encode())
    digest.update(np.ascontiguousarray(store.offsets).data)
    digest.update(fingerprint_of(teachers).encode())
    return digest.hexdigest()
