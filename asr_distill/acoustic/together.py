"""Several utterances in one pass of a network: on a GPU a short utterance alone costs as much as twenty together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from asr_distill.acoustic.accuracy import PosteriorModel
from asr_distill.features.cmvn import UtteranceFeatures

GROUP_FRAMES = 8192  # asked together on a GPU


@runtime_checkable
class AsksTogether(Protocol):
    """A model that takes several utterances at once."""

    def log_posteriors_of(self, utterances: Sequence[UtteranceFeatures], temperature: float = 1.0) -> torch.Tensor:
        """float32 (frames of all, pdfs): what `log_posteriors` gives of each, one after the other."""


def posteriors_together(model: PosteriorModel, utterances: Sequence[UtteranceFeatures],
                        temperature: float = 1.0) -> torch.Tensor:
    """Log posteriors of all frames of the utterances, float32 (frames, pdfs), in one pass where the model can."""
    if len(utterances) > 1 and isinstance(model, AsksTogether):
        return model.log_posteriors_of(utterances, temperature)
    return torch.cat([model.log_posteriors(utterance, temperature) for utterance in utterances])


def groups(lengths: Sequence[int], device: torch.device, most: int = GROUP_FRAMES) -> Iterable[range]:
    """Ranges of utterances (of so many frames) to ask together: of about `most` frames on a GPU, else single ones."""
    begin, frames = 0, 0
    for index, length in enumerate(lengths):
        if index > begin and (device.type != "cuda" or frames + length > most):
            yield range(begin, index)
            begin, frames = index, 0
        frames += length
    if begin < len(lengths):
        yield range(begin, len(lengths))


@dataclass(frozen=True)
class Windows:
    """Whole utterances as windows of one length, the edge frames of the shorter ones repeated."""

    windows: torch.Tensor  # (utterances, left + longest + right, coefficients)
    rows: torch.Tensor  # int64 (frames,): each frame's row of what a network makes of the windows

    @staticmethod
    def of(frames: Sequence[torch.Tensor], left: int, right: int) -> Windows:
        """frames: normalised, (T, coefficients) each, T >= 1."""
        device = frames[0].device
        lengths = torch.tensor([len(each) for each in frames])  # (utterances,), on the CPU
        longest = int(lengths.max())
        place = torch.arange(-left, longest + right).unsqueeze(0)  # (1, window)
        first = (lengths.cumsum(0) - lengths).unsqueeze(1)
        index = first + torch.minimum(place.clamp(min=0), lengths.unsqueeze(1) - 1)  # (utterances, window)
        inside = torch.arange(longest).unsqueeze(0) < lengths.unsqueeze(1)  # (utterances, longest)
        windows = torch.cat(list(frames))[index.flatten().to(device)].view(*index.shape, -1)
        return Windows(windows, inside.flatten().nonzero().squeeze(1).to(device))
