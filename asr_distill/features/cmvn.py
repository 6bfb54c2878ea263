"""Cepstral (here: log-mel) mean and variance normalisation, in the forms that training and deployment need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

CmvnKind = Literal["speaker", "speaker_mean", "global", "online"]
Stream = Literal["raw", "adapted"]


@dataclass(frozen=True)
class CmvnStats:
    """Frame count, sum and sum of squares per coefficient, float64 (Kaldi's compute-cmvn-stats)."""

    count: float
    total: np.ndarray  # (coefficients,)
    squares: np.ndarray  # (coefficients,)

    @staticmethod
    def of(frames: np.ndarray) -> CmvnStats:
        """Statistics of frames (frames, coefficients)."""
        frames = np.asarray(frames, np.float64)
        return CmvnStats(float(len(frames)), frames.sum(0), np.square(frames).sum(0))

    def __add__(self, other: CmvnStats) -> CmvnStats:
        return CmvnStats(self.count + other.count, self.total + other.total, self.squares + other.squares)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, exact to the last bit."""
        return {"count": self.count, "total": self.total.tolist(), "squares": self.squares.tolist()}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> CmvnStats:
        """What `to_dict` gave. Raises ValueError where an entry is missing or of the wrong form."""
        try:
            total, squares = (np.array(data[name], np.float64) for name in ("total", "squares"))
            count = float(data["count"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not CMVN statistics: {error!r}") from None
        if total.ndim != 1 or total.shape != squares.shape:
            raise ValueError(f"CMVN sums of shapes {total.shape} and {squares.shape}, expected two equal rows")
        return CmvnStats(count, total, squares)

    @property
    def mean(self) -> np.ndarray:
        return self.total / self.count

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(np.maximum(self.squares / self.count - self.mean**2, 1e-10))


@dataclass(frozen=True)
class UtteranceFeatures:
    """One utterance's frames: raw log-mel, float32 (frames, coefficients), and what is known of its speaker."""

    raw: torch.Tensor
    speaker: CmvnStats | None = None
    speaker_id: str = ""
    adapted: torch.Tensor | None = None  # float32 (frames, dimension): speaker-adapted (fMLLR) features

    def to(self, device: torch.device) -> UtteranceFeatures:
        adapted = None if self.adapted is None else self.adapted.to(device)
        return UtteranceFeatures(self.raw.to(device), self.speaker, self.speaker_id, adapted)


@dataclass(frozen=True)
class Cmvn:
    """One form of normalisation; a model carries the one that it was trained with.

    speaker: mean and variance of all the speaker's frames (Kaldi's apply-cmvn --norm-vars=true); needs `speaker`
             statistics;
    speaker_mean: mean alone (apply-cmvn's default);
    global:  mean and variance of the training set: folds into the first affine layer;
    online:  a causal sliding mean over the last `window` frames, topped up by up to `prior_frames` of the
             training set's mean while fewer were heard (Kaldi's online-cmvn), and the training set's variance.

    `stream` says which frames of an utterance: raw, or the speaker-adapted ones (of kind global: they are normalised
    by speaker already; `train` then holds their statistics).
    """

    kind: CmvnKind
    train: CmvnStats  # statistics of the whole training set
    window: int = 600
    prior_frames: int = 200
    stream: Stream = "raw"

    def __post_init__(self) -> None:
        if self.stream not in get_args(Stream) or (self.stream == "adapted" and self.kind != "global"):
            raise ValueError(f"cmvn stream must be one of {', '.join(get_args(Stream))} (adapted: of kind global), "
                             f"not {self.stream!r} of kind {self.kind}")
        if self.kind not in get_args(CmvnKind):
            raise ValueError(f"cmvn kind must be one of {', '.join(get_args(CmvnKind))}, not {self.kind!r}")
        if self.window < 1 or self.prior_frames < 0:
            raise ValueError(f"cmvn window must be positive and prior_frames not negative, not {self.window} "
                             f"and {self.prior_frames}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, as a model stores its own normalisation."""
        return {"kind": self.kind, "window": self.window, "prior_frames": self.prior_frames,
                "stream": self.stream, "train": self.train.to_dict()}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Cmvn:
        """What `to_dict` gave. Raises ValueError where an entry is missing or of the wrong form."""
        try:
            return Cmvn(data["kind"], CmvnStats.from_dict(data["train"]), int(data["window"]),
                        int(data["prior_frames"]), data["stream"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a CMVN description: {error!r}") from None

    def apply(self, utterance: UtteranceFeatures) -> torch.Tensor:
        """Normalised frames, float32 (frames, coefficients), on the device of `utterance.raw`.

        Raises ValueError where the utterance lacks the speaker's statistics or the adapted frames that are needed.
        """
        raw = self._frames(utterance).float()
        if self.kind in ("speaker", "speaker_mean"):
            if utterance.speaker is None:
                raise ValueError(f"CMVN of kind '{self.kind}' needs the speaker's statistics")
            centred = raw - _row(utterance.speaker.mean, raw)
            return centred / _row(utterance.speaker.std, raw) if self.kind == "speaker" else centred
        std = _row(self.train.std, raw)
        if self.kind == "global":
            return (raw - _row(self.train.mean, raw)) / std
        return (raw - self.online_mean(raw)) / std

    @property
    def dimension(self) -> int:
        """Coefficients of a frame."""
        return len(self.train.total)

    def _frames(self, utterance: UtteranceFeatures) -> torch.Tensor:
        if self.stream == "raw":
            return utterance.raw
        if utterance.adapted is None:
            raise ValueError("this model hears speaker-adapted frames, which these features do not hold")
        return utterance.adapted

    def online_mean(self, raw: torch.Tensor) -> torch.Tensor:
        """Causal mean at every frame (frames, coefficients)."""
        length = len(raw)
        # float64: a float32 running sum drifts over an hour of audio
        sums = torch.cat([raw.new_zeros(1, raw.shape[1], dtype=torch.float64), raw.double().cumsum(0)])
        end = torch.arange(1, length + 1, device=raw.device)
        begin = (end - self.window).clamp(min=0)
        heard = (end - begin).double().unsqueeze(1)  # (frames, 1)
        prior = (self.window - heard).clamp(max=float(self.prior_frames))
        mean = (sums[end] - sums[begin] + prior * _row(self.train.mean, raw).double()) / (heard + prior)
        return mean.float()


def _row(values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float32, device=like.device).unsqueeze(0)
