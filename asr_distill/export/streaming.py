"""An acoustic model that hears a recording block by block, as the streaming runtimes call it.

A block of `block` frames and the look-ahead behind it come in; the block's log-likelihoods go out, equal to those that
the whole recording at once would give (but for its last frames, after which a stream has silence, not the last frame
repeated). The state between two blocks is the raw frames that were heard last and how many were heard in all.
"""

from __future__ import annotations

import torch
from torch import nn

from asr_distill.errors import UserError
from asr_distill.export.logits import logits_of
from asr_distill.export.onnx import ExportableModel, check_deployable


class StreamingEmission(nn.Module):
    """Raw log-mel frames in blocks -> acoustic_scale * (log posterior - log prior)."""

    mean: torch.Tensor
    scale: torch.Tensor
    log_priors: torch.Tensor
    place: torch.Tensor

    def __init__(self, model: ExportableModel, block: int, acoustic_scale: float = 1.0):
        """`block` is rounded up to a whole number of the network's strides. Raises UserError as export_onnx."""
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

    def forward(self, frames: torch.Tensor, past: torch.Tensor, heard: torch.Tensor,
                ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """frames (batch, self.frames, coefficients), past (batch, history, coefficients), heard int64 (batch,) ->
        log-likelihoods (batch, block, pdfs), and the next block's past and heard."""
        everything = torch.cat([past, frames], 1)  # (batch, history + frames, coefficients)
        first = (self.history - heard).clamp(min=0).unsqueeze(1)  # (batch, 1): where the recording begins in it
        real = (self.place >= first).unsqueeze(2)  # (batch, history + frames, 1)
        centred = torch.where(real, everything - self.mean, torch.zeros_like(everything))
        begin = self.history - self.logits.left
        used = centred[:, begin:]
        if self.window:
            used = used - self._online_mean(centred, first, begin)
        used = used * self.scale
        # before the recording's first frame, that frame is repeated
        edge = (used * (self.place[begin:] == first).unsqueeze(2).float()).sum(1, keepdim=True)
        used = torch.where(real[:, begin:], used, edge)
        posteriors = torch.log_softmax(self.logits.of_windows(used), -1)
        likelihoods = (posteriors - self.log_priors) * self.acoustic_scale
        return likelihoods, everything[:, self.block:self.block + self.history], heard + self.block

    def _online_mean(self, centred: torch.Tensor, first: torch.Tensor, begin: int) -> torch.Tensor:
        """Cmvn.online_mean less the training set's mean, for the frames from `begin` on."""
        sums = torch.cat([torch.zeros_like(centred[:, :1]), centred.cumsum(1)], 1)
        count = self.history + self.frames - begin
        total = sums[:, begin + 1:] - sums[:, begin + 1 - self.window:begin + 1 - self.window + count]
        number = (self.place[begin:] + 1 - first).clamp(min=0, max=self.window).float()  # (batch, count) frames heard
        prior = (self.window - number).clamp(max=float(self.prior_frames))
        return total / (number + prior).clamp(min=1.0).unsqueeze(2)
