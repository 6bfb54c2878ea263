"""Accuracy on the frames trained on, against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from acoustic_kinds import KINDS
from acoustic_stand_ins import synthetic

from asr_distill.acoustic.config import DataConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.fit import train_accuracy
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.network import build_network

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["feed_forward", "tdnn"])
def test_it_is_the_share_of_right_frames_of_evenly_spread_utterances(kind: str) -> None:
    store, alignment, cmvn = synthetic(unaligned=(4,))
    network = build_network(KINDS[kind], store.num_coefficients, alignment.num_pdfs, seed=3).eval()
    data = TrainingData.build(store, alignment, cmvn, DataConfig(heldout_fraction=0.25), CPU, left=network.left,
                              right=network.right)
    model = AcousticModel(network, cmvn, torch.zeros(alignment.num_pdfs), KINDS[kind])
    best = np.concatenate([model.logits(store.features(index, CPU)).argmax(1).numpy()
                           for index in range(len(store.offsets) - 1)])
    right = best == alignment.pdf_ids
    chunk = 1 if kind == "feed_forward" else 3 * network.stride
    assert train_accuracy(network, data, chunk) == pytest.approx(right[data.train.numpy()].mean())
    owners = np.searchsorted(store.offsets, data.train.numpy(), "right") - 1
    some = data.train.numpy()[np.isin(owners, np.unique(owners)[::2])]  # every second utterance
    assert train_accuracy(network, data, chunk, most=-(-len(data.train) // 2)) == pytest.approx(right[some].mean())
