"""An acoustic model that hears a recording block by block, as the streaming runtimes call it.

A block of `block` frames and the look-ahead behind it come in; the block's log-likelihoods go out, equal to those that
the whole recording at once would give. The state between two blocks is the raw frames that were heard last and how many
were heard in all.

Digital silence (samples of exactly 0: a muted microphone, or what programs put behind a recording to get its end out)
is no sound that a network was trained on. Such a frame counts as silence whatever the network says, and around it the
network hears the last real frame repeated, as it does at a recording's end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from asr_distill.errors import UserError
from asr_distill.export.logits import logits_of
from asr_distill.export.onnx import ExportableModel, check_deployable
from asr_distill.features.fbank import EPSILON

NO_SOUND = math.log(EPSILON) + 1e-3  # every band of a frame of zeros is at its floor
OTHER_THAN_SILENCE = -5.0  # log-likelihood there of all but the silence's pdfs


class StreamingEmission(nn.Module):
    """Raw log-mel frames in blocks -> acoustic_scale * (log posterior - log prior)."""

    mean: torch.Tensor
    scale: torch.Tensor
    log_priors: torch.Tensor
    place: torch.Tensor
    silence: torch.Tensor

    def __init__(self, model: ExportableModel, block: int, acoustic_scale: float = 1.0, *,
                 silence: Sequence[int] = ()):
        """`block` is rounded up to a whole number of the network's strides; `silence`: the pdfs of the silence phone
        (none: digital silence is treated as any sound). Raises UserError as export_onnx."""
        super().__init__()
        check_deployable(model)
        logits = logits_of(model.network)
        if logits is None:
            raise UserError(f"a network of this kind ({type(model.network).__name__}) cannot be exported: train the "
                            "student with network kind feed_forward, tdnn or conv_tdnn")
        cmvn = model.cmvn
        self.logits, self.acoustic_scale = logits, acoustic_scale
        self.block = -(-max(1, block) // logits.stride) * logits.stride
        self.window = cmvn.window if cmvn.kind == "online" else 0  # frames of the sliding mean
        self.prior_frames = cmvn.prior_frames
        self.history = max(1, logits.left + max(0, self.window - 1))  # raw frames kept between two blocks
        self.frames = self.block + logits.ahead  # that a block's log-likelihoods wait for
        self.num_coefficients, self.num_pdfs = cmvn.dimension, len(model.log_priors)
        self.register_buffer("mean", torch.as_tensor(cmvn.train.mean).float())
        self.register_buffer("scale", torch.as_tensor(1 / cmvn.train.std).float())
        self.register_buffer("log_priors", torch.as_tensor(model.log_priors).detach().cpu().float().clone())
        self.register_buffer("place", torch.arange(self.history + self.frames))
        scores = torch.full((self.num_pdfs,), OTHER_THAN_SILENCE)
        scores[list(silence)] = 0.0
        self.register_buffer("silence", scores)
        self.hears_nothing = len(silence) > 0

    def forward(self, frames: torch.Tensor, past: torch.Tensor, heard: torch.Tensor,
                ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """frames (batch, self.frames, coefficients), past (batch, history, coefficients), heard int64 (batch,) ->
        log-likelihoods (batch, block, pdfs), and the next block's past and heard."""
        everything = torch.cat([past, frames], 1)  # (batch, history + frames, coefficients)
        first = (self.history - heard).clamp(min=0).unsqueeze(1)  # (batch, 1): where the recording begins in it
        real = self.place >= first  # (batch, history + frames)
        begin = self.history - self.logits.left
        sound = real & (everything > NO_SOUND).any(2) if self.hears_nothing else real
        centred = torch.where(sound.unsqueeze(2), everything - self.mean, torch.zeros_like(everything))
        used = centred[:, begin:]
        if self.window:
            used = used - self._online_mean(centred, sound, begin)
        used = used * self.scale
        # before the recording's first frame, that frame is repeated
        edge = (used * (self.place[begin:] == first).unsqueeze(2).float()).sum(1, keepdim=True)
        used = torch.where(real[:, begin:].unsqueeze(2), used, edge)
        if self.hears_nothing:
            used = _last_repeated(used, (sound | ~real)[:, begin:], self.logits.left + self.frames)
        posteriors = torch.log_softmax(self.logits.of_windows(used), -1)
        likelihoods = posteriors - self.log_priors
        if self.hears_nothing:
            now = sound[:, self.history:self.history + self.block].unsqueeze(2)
            likelihoods = torch.where(now, likelihoods, self.silence)
        next_past = everything[:, self.block:self.block + self.history]
        return likelihoods * self.acoustic_scale, next_past, heard + self.block

    def _online_mean(self, centred: torch.Tensor, sound: torch.Tensor, begin: int) -> torch.Tensor:
        """Cmvn.online_mean less the training set's mean, for the frames from `begin` on; of frames with sound."""
        prior_frames = float(self.prior_frames)
        total = self._window_sums(centred, begin)
        number = self._window_sums(sound.float().unsqueeze(2), begin)  # (batch, frames, 1) that were heard
        prior = (self.window - number).clamp(max=prior_frames)
        return total / (number + prior).clamp(min=1.0)

    def _window_sums(self, values: torch.Tensor, begin: int) -> torch.Tensor:
        """values (batch, history + frames, n) summed over the window that ends at each frame from `begin` on."""
        sums = torch.cat([torch.zeros_like(values[:, :1]), values.cumsum(1)], 1)
        count = self.history + self.frames - begin
        return sums[:, begin + 1:] - sums[:, begin + 1 - self.window:begin + 1 - self.window + count]


def _last_repeated(frames: torch.Tensor, known: torch.Tensor, time: int) -> torch.Tensor:
    """frames (batch, time, n): those not `known` (batch, time) become the last known one before them, or zeros."""
    known = known.unsqueeze(2)
    frames = torch.where(known, frames, torch.zeros_like(frames))
    step = 1
    while step < time:
        earlier = torch.cat([torch.zeros_like(frames[:, :step]), frames[:, :-step]], 1)
        earlier_known = torch.cat([torch.zeros_like(known[:, :step]), known[:, :-step]], 1)
        frames = torch.where(known, frames, earlier)
        known = known | earlier_known
        step *= 2
    return frames
