"""Priors of the pdfs: how often they were aligned, or what the network itself gives them in the mean."""

from __future__ import annotations

import torch

from asr_distill.acoustic.base import Network
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.sampling import sampler_for


@torch.inference_mode()
def mean_posteriors(network: Network, data: TrainingData, chunk: int, *, batch: int = 4096, batches: int = 25,
                    seed: int = 0) -> torch.Tensor:
    """Mean of softmax(logits) over a random sample of the frames trained on, float64 (pdfs,).

    The network must be in evaluation mode, on the data's device. Over-confident networks, whose posteriors are not
    those of the alignment, are matched better by their own priors (Kaldi's nnet3-am-adjust-priors).
    """
    sampler = sampler_for(network, data, batch, chunk, network.dtype, seed)
    total = torch.zeros(data.num_pdfs, dtype=torch.float64, device=data.device)
    frames = 0
    for update in range(min(batches, sampler.epoch_updates)):
        sample = sampler.batch(update)
        posteriors = network(sample.windows, sample.rows).float().softmax(1)  # (frames, pdfs)
        total += posteriors.sum(0, dtype=torch.float64)
        frames += len(posteriors)
    return total / frames
