"""Held-out frames scored in the middle of a training, shared out over its processes."""

from __future__ import annotations

import torch
from torch import nn

from asr_distill.acoustic.base import Network
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.precision import synchronise
from asr_distill.acoustic.sampling import Part, Sampler
from asr_distill.parallel.peers import Peers


@torch.inference_mode()
def heldout_scores(network: Network, data: TrainingData, sampler: Sampler,
                   peers: Peers) -> tuple[float | None, float | None]:
    """Frame accuracy and cross-entropy in nats on the held-out frames' pdf-ids; None where there are none.

    The network, in training mode before and after, is scored in evaluation mode.
    """
    if not len(data.heldout):
        return None, None
    network.eval()
    totals = torch.zeros(2, dtype=torch.float64, device=data.device)  # frames that are right, nats
    for batch in sampler.heldout(Part(peers.rank, peers.size)):
        logits = network(batch.windows, batch.rows).float()
        pdf_ids = data.pdf_ids[batch.frames]
        totals[0] += (logits.argmax(1) == pdf_ids).sum()
        totals[1] += nn.functional.cross_entropy(logits, pdf_ids, reduction="sum")
    network.train()
    peers.sum_(totals)
    synchronise(data.device)
    correct, nats = totals.tolist()
    return correct / len(data.heldout), nats / len(data.heldout)
