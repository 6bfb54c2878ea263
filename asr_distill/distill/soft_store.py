"""The teachers' averaged posteriors on disk: per frame the top k, and the mass of the rest.

DIR/ids.npy (frames, k) uint16 or int32; probabilities.npy (frames, k) float16, greatest first; remainder.npy (frames,)
float16; soft_targets.json, written last: a directory without it is incomplete. Rows are those of the frame store.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from asr_distill.acoustic.accuracy import PosteriorModel
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.precision import choose_precision
from asr_distill.distill.config import SoftTargetConfig
from asr_distill.distill.fingerprint import fingerprint_of
from asr_distill.errors import UserError
from asr_distill.files import read_array, read_json, write_array, write_json
from asr_distill.progress import Progress

if TYPE_CHECKING:
    from asr_distill.features.store import FrameStore

ARRAYS = ("ids", "probabilities", "remainder")


@dataclass(frozen=True)
class SoftStore:
    """Open soft targets (memory maps)."""

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
        try:
            shape = (facts["num_frames"], facts["top_k"])
            if arrays["ids"].shape != shape or arrays["probabilities"].shape != shape or \
                    arrays["remainder"].shape != shape[:1]:
                raise ValueError("arrays and soft_targets.json differ")
            return SoftStore(**arrays, temperature=float(facts["temperature"]), num_pdfs=int(facts["num_pdfs"]),
                             facts=facts)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{directory}: damaged soft targets ({error}); write them again") from None


def write_soft_targets(teachers: PosteriorModel, store: FrameStore, out: Path, config: SoftTargetConfig,
                       device: torch.device, *, label: str = "soft targets") -> dict[str, Any]:
    """One pass over the store: the teachers' posteriors at T (an Ensemble's, or any model's), cut to the top k.

    Killed at any moment, the same call goes on after the last complete shard. Returns figures: bytes per frame, frames
    per second, mean remainder mass, entropy, and `truncation_nats`: what the kept form (float16, the remainder spread
    evenly) costs in cross-entropy against the whole distribution, mean per frame.
    """
    dtype = choose_precision(config.precision, device).dtype
    identity = _identity(teachers, store, config)
    asked = teachers.cast(dtype) if dtype != torch.float32 and hasattr(teachers, "cast") else teachers
    pdfs = teachers.num_pdfs
    k = min(config.top_k or pdfs, pdfs)
    arrays, record = _open_for_writing(out, store.num_frames, k, pdfs, identity)
    started = time.perf_counter()
    resumed = record["frames"]
    with Progress(label, store.num_frames, "frames", done=resumed) as progress:
        for first, last in _shards(store.offsets, config.shard_frames, record["utterances"]):
            for index in range(first, last):
                rows = slice(int(store.offsets[index]), int(store.offsets[index + 1]))
                posteriors = asked.log_posteriors(store.features(index, device), config.temperature)
                _keep(posteriors, k, rows, arrays, record)
                progress.update(rows.stop - rows.start)
            for array in arrays.values():
                array.flush()
            record["utterances"], record["frames"] = last, int(store.offsets[last])
            write_json(out / "progress.json", record)
    seconds = time.perf_counter() - started
    frames = max(1, store.num_frames)
    figures = {
        "num_frames": store.num_frames, "num_pdfs": pdfs, "top_k": k, "temperature": config.temperature,
        **({"mean": teachers.mean, "teachers": len(teachers.models)} if isinstance(teachers, Ensemble) else {}),
        "bytes_per_frame": sum(array.dtype.itemsize * array[:1].size for array in arrays.values()),
        "frames_per_second": (store.num_frames - resumed) / seconds,
        "remainder_mass": record["remainder"] / frames, "entropy_nats": record["entropy"] / frames,
        "truncation_nats": record["excess"] / frames,
    }
    write_json(out / "soft_targets.json", figures)
    (out / "progress.json").unlink()
    return figures


def _keep(log_posteriors: torch.Tensor, k: int, rows: slice, arrays: Mapping[str, np.ndarray],
          record: dict[str, Any]) -> None:
    """Write one utterance's rows and add its sums to the record. log_posteriors (frames, pdfs)."""
    frames, pdfs = log_posteriors.shape
    top, ids = log_posteriors.topk(k, 1)  # (frames, k), greatest first
    full = log_posteriors.exp()
    kept = top.exp()
    rest = (full.sum(1) - kept.sum(1)).clamp_(min=0) if k < pdfs else torch.zeros(frames, device=top.device)
    stored, stored_rest = kept.half(), rest.half()
    arrays["ids"][rows] = ids.cpu().numpy()
    arrays["probabilities"][rows] = stored.cpu().numpy()
    arrays["remainder"][rows] = stored_rest.cpu().numpy()
    # extra nats of the stored form: sum over the top of q log(q / stored), over the rest of q log(q / (rest / others))
    tiny = 2.0**-24  # least positive float16
    entropy = -(full * log_posteriors).sum(1)
    coded = (kept * stored.float().clamp_(min=tiny).log()).sum(1)
    if k < pdfs:
        coded += rest * (stored_rest.float().clamp_(min=tiny) / (pdfs - k)).log()
    record["entropy"] += float(entropy.double().sum())
    record["excess"] += float((-coded - entropy).double().sum())
    record["remainder"] += float(rest.double().sum())


def _shards(offsets: np.ndarray, shard_frames: int, first: int) -> Iterator[tuple[int, int]]:
    """Ranges of utterances, each of about `shard_frames` frames."""
    utterances = len(offsets) - 1
    while first < utterances:
        last = int(np.searchsorted(offsets, offsets[first] + shard_frames, "right")) - 1
        last = min(max(last, first + 1), utterances)
        yield first, last
        first = last


def _open_for_writing(out: Path, frames: int, k: int, pdfs: int,
                      identity: str) -> tuple[dict[str, np.memmap], dict[str, Any]]:
    """The three arrays, and how far an interrupted call with the same teachers, store and settings came."""
    (out / "soft_targets.json").unlink(missing_ok=True)
    progress = out / "progress.json"
    record = read_json(progress) if progress.exists() else None
    if record is None or record.get("identity") != identity:
        record = {"identity": identity, "utterances": 0, "frames": 0, "entropy": 0.0, "excess": 0.0, "remainder": 0.0}
        progress.unlink(missing_ok=True)
        shapes = {"ids": ((frames, k), np.uint16 if pdfs <= 1 << 16 else np.int32),
                  "probabilities": ((frames, k), np.float16), "remainder": ((frames,), np.float16)}
        for name, (shape, dtype) in shapes.items():
            write_array(out / f"{name}.npy", np.broadcast_to(np.zeros((), dtype), shape))
        write_json(progress, record)
    return {name: np.lib.format.open_memmap(out / f"{name}.npy", mode="r+") for name in ARRAYS}, record


def _identity(teachers: PosteriorModel, store: FrameStore, config: SoftTargetConfig) -> str:
    """Digest of what decides the targets: the teachers, the store's frames, the settings."""
    settings = {key: value for key, value in asdict(config).items() if key != "shard_frames"}
    digest = hashlib.sha256(json.dumps([settings, [utterance.id for utterance in store.utterances]]).encode())
    digest.update(np.ascontiguousarray(store.offsets).data)
    digest.update(fingerprint_of(teachers).encode())
    return digest.hexdigest()
