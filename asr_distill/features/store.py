"""The frame store: all raw log-mel frames of one split as one float16 memory map, with utterances and statistics.

    frames.npy         float16 (frames, coefficients), utterance after utterance
    offsets.npy        int64 (utterances + 1,): rows of utterance i are offsets[i]:offsets[i + 1]
    utterances.jsonl   one line an utterance: id, speaker, words, seconds
    speaker_stats.npy  float64 (speakers, 1 + 2 * coefficients): count, sums, sums of squares
    store.json         settings, counts, the speakers in the order of speaker_stats.npy; written last
"""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_distill.errors import UserError, nearest
from asr_distill.features.cmvn import CmvnStats, UtteranceFeatures
from asr_distill.files import read_array, read_json, read_text, write_array, write_json, write_text

FRAMES, OFFSETS, UTTERANCES, STATS, HEAD = (
    "frames.npy", "offsets.npy", "utterances.jsonl", "speaker_stats.npy", "store.json")
FORMAT = 1
_BLOCK = 1 << 18  # frames that are in float64 at once
_MEND = "run the features stage again"


@dataclass(frozen=True)
class Utterance:
    """One utterance of a split."""

    id: str
    speaker: str
    words: tuple[str, ...]
    seconds: float


class FrameStore:
    """Opens one split's directory read-only, where given with the speaker-adapted frames kept in another.

    Raises UserError where a file is missing, truncated, or disagrees with the others.
    """

    def __init__(self, directory: Path, adapted: Path | None = None):
        self.directory = directory
        head = read_json(directory / HEAD) if (directory / HEAD).exists() else None
        if head is None:
            raise UserError(f"{directory / HEAD}: no such file, so this is no finished frame store; {_MEND}")
        try:
            if head["format"] != FORMAT:
                raise UserError(f"{directory / HEAD}: format {head['format']}, expected {FORMAT}; {_MEND}")
            self.num_frames = int(head["frames"])
            self.num_coefficients = int(head["coefficients"])
            count, speakers = int(head["utterances"]), [str(name) for name in head["speakers"]]
            self.config: dict[str, Any] = head["config"]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{directory / HEAD}: not the head of a frame store ({error!r}); {_MEND}") from None
        self.frames = _array(directory / FRAMES, np.float16, (self.num_frames, self.num_coefficients), memory_map=True)
        self.offsets = _array(directory / OFFSETS, np.int64, (count + 1,))
        if self.offsets[0] != 0 or self.offsets[-1] != self.num_frames or (np.diff(self.offsets) < 0).any():
            raise UserError(f"{directory / OFFSETS}: does not fit {FRAMES} ({self.num_frames} frames); {_MEND}")
        self.utterances = _read_utterances(directory / UTTERANCES)
        if len(self.utterances) != count:
            raise UserError(f"{directory / UTTERANCES}: {len(self.utterances)} utterances, expected {count}; {_MEND}")
        rows = _array(directory / STATS, np.float64, (len(speakers), 1 + 2 * self.num_coefficients))
        self.speaker_stats = {name: unpack_stats(row) for name, row in zip(speakers, rows, strict=True)}
        self.total_stats = unpack_stats(rows.sum(0))
        self._index = {utterance.id: i for i, utterance in enumerate(self.utterances)}
        unknown = {utterance.speaker for utterance in self.utterances} - set(speakers)
        if unknown:
            raise UserError(f"{directory / HEAD}: no statistics of speaker {min(unknown)}; {_MEND}")
        self.adapted = AdaptedFrames(adapted, self.num_frames) if adapted else None

    def __reduce__(self) -> tuple[type[FrameStore], tuple[Path, Path | None]]:
        """By path, where it is sent to another process: frames are read there."""
        return FrameStore, (self.directory, self.adapted.directory if self.adapted else None)

    def index_of(self, utterance_id: str) -> int:
        """Position of an utterance. Raises UserError for an id that is not here."""
        try:
            return self._index[utterance_id]
        except KeyError:
            close = nearest(utterance_id, self._index) if len(self._index) < 10_000 else ""
            raise UserError(f"{self.directory}: no utterance '{utterance_id}'{close}") from None

    def features(self, index: int, device: torch.device | str) -> UtteranceFeatures:
        """Raw frames, float32 (frames, coefficients) on the device, with the speaker's statistics."""
        begin, end = self.offsets[index], self.offsets[index + 1]
        speaker = self.utterances[index].speaker
        adapted = _on_device(self.adapted.frames[begin:end], device) if self.adapted else None
        return UtteranceFeatures(self._raw(begin, end, device), self.speaker_stats[speaker], speaker, adapted)

    def _raw(self, begin: int, end: int, device: torch.device | str) -> torch.Tensor:
        return _on_device(self.frames[begin:end], device)


def _on_device(frames: np.ndarray, device: torch.device | str) -> torch.Tensor:
    # the copy leaves the read-only map; half the bytes cross to the device
    return torch.from_numpy(np.array(frames)).to(device).float()


class AdaptedFrames:
    """Speaker-adapted features of a store's frames, row for row: adapted.npy float16 (frames, dimension), adapted.json.

    Raises UserError where a file is missing or not of a store of `num_frames` frames.
    """

    def __init__(self, directory: Path, num_frames: int):
        self.directory = directory
        head = read_json(directory / "adapted.json")
        try:
            self.stats = CmvnStats.from_dict(head["stats"])  # of all frames
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{directory / 'adapted.json'}: not the head of adapted frames ({error!r})") from None
        self.frames = _array(directory / "adapted.npy", np.float16, (num_frames, len(self.stats.total)),
                             memory_map=True)

    @staticmethod
    def write(directory: Path, frames: np.ndarray) -> None:
        """frames (num_frames, dimension); stored as float16."""
        blocks = (CmvnStats.of(frames[at : at + _BLOCK]) for at in range(0, len(frames), _BLOCK))
        stats = functools.reduce(operator.add, blocks)
        write_array(directory / "adapted.npy", frames.astype(np.float16, copy=False))
        write_json(directory / "adapted.json", {"stats": stats.to_dict()})


def write_store_index(directory: Path, utterances: Sequence[Utterance], lengths: Sequence[int], stats: np.ndarray,
                      head: dict[str, Any]) -> None:
    """Write everything beside frames.npy; store.json, which makes the store valid, last.

    lengths: frames of each utterance; stats: float64 (utterances, 1 + 2 * coefficients) as `pack_stats` gives
    them; head: further entries of store.json.
    """
    speakers = list(dict.fromkeys(utterance.speaker for utterance in utterances))
    rows = {name: i for i, name in enumerate(speakers)}
    by_speaker = np.zeros((len(speakers), stats.shape[1]))
    np.add.at(by_speaker, [rows[utterance.speaker] for utterance in utterances], stats)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    write_array(directory / OFFSETS, offsets)
    write_array(directory / STATS, by_speaker)
    lines = (json.dumps({"id": u.id, "speaker": u.speaker, "words": u.words, "seconds": u.seconds},
                        ensure_ascii=False) for u in utterances)
    write_text(directory / UTTERANCES, "".join(line + "\n" for line in lines))
    coefficients = (stats.shape[1] - 1) // 2
    write_json(directory / HEAD, {"format": FORMAT, "frames": int(offsets[-1]), "coefficients": coefficients,
                                  "utterances": len(utterances), "speakers": speakers, **head})


def pack_stats(stats: CmvnStats) -> np.ndarray:
    """float64 (1 + 2 * coefficients,): count, sums, sums of squares."""
    return np.concatenate([[stats.count], stats.total, stats.squares])


def unpack_stats(row: np.ndarray) -> CmvnStats:
    half = (len(row) - 1) // 2
    return CmvnStats(float(row[0]), row[1 : 1 + half], row[1 + half :])


def _array(path: Path, dtype: type, shape: tuple[int, ...], *, memory_map: bool = False) -> np.ndarray:
    array = read_array(path, memory_map=memory_map)
    if array.dtype != dtype or array.shape != shape:
        raise UserError(f"{path}: {array.dtype} of shape {array.shape}, expected {np.dtype(dtype)} of shape {shape}; "
                        f"{_MEND}")
    return array


def _read_utterances(path: Path) -> list[Utterance]:
    utterances = []
    for number, line in enumerate(read_text(path).rstrip("\n").split("\n"), 1):
        try:
            entry = json.loads(line)
            utterances.append(Utterance(entry["id"], entry["speaker"], tuple(entry["words"]),
                                        float(entry["seconds"])))
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: line {number} is damaged ({error!r}); {_MEND}") from None
    return utterances
