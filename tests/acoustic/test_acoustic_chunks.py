"""Chunks: every frame trained on counts once an epoch, nothing else ever does, and each row is its own frame."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from acoustic_kinds import KINDS
from acoustic_stand_ins import synthetic

from asr_distill.acoustic.base import Network
from asr_distill.acoustic.config import DataConfig, TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.sampling import Chunks, sampler_for
from asr_distill.acoustic.targets import HardTargets
from asr_distill.acoustic.trainer import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> TrainingData:
    """Utterances that are not aligned, and single frames that are not."""
    store, alignment, cmvn = synthetic(utterances=14, frames=50, unaligned=(2, 9))
    pdf_ids = alignment.pdf_ids.copy()
    pdf_ids[::11] = -1
    return TrainingData.build(store, dataclasses.replace(alignment, pdf_ids=pdf_ids), cmvn,
                              DataConfig(heldout_fraction=0.25), CPU, left=1, right=0)


@pytest.fixture(scope="module")
def network() -> Network:
    return build_network(KINDS["tdnn_stride"], 6, 8)


@pytest.mark.parametrize("chunk", [3, 12, 300])
def test_an_epoch_is_every_frame_once(data: TrainingData, network: Network, chunk: int) -> None:
    sampler = sampler_for(network, data, chunk, chunk, torch.float32, 0)  # one chunk a batch: none is left over
    for epoch in range(3):
        updates = range(epoch * sampler.epoch_updates, (epoch + 1) * sampler.epoch_updates)
        frames = torch.cat([sampler.batch(update).frames for update in updates])
        assert torch.equal(frames.sort().values, data.train)
    heldout = torch.cat([batch.frames for batch in sampler.heldout()])
    assert torch.equal(heldout, data.heldout)


@pytest.mark.parametrize("chunk", [3, 12, 300])
def test_rows_are_their_frames(data: TrainingData, network: Network, chunk: int) -> None:
    """Brute force: a window holds the frames around, and beyond the utterance its edge frame."""
    sampler = sampler_for(network, data, 40, chunk, torch.float32, 0)
    plain = data.rows[data.begins + data.left]  # (num_frames, coefficients)
    for batch in [sampler.batch(0), *sampler.heldout()]:
        rows = batch.rows if batch.rows is not None else torch.arange(len(batch.frames))
        for row, frame in zip(rows.tolist(), batch.frames.tolist(), strict=True):
            owner = int(np.searchsorted(data.offsets, frame, "right")) - 1
            around = torch.arange(frame - network.left, frame + network.right + 1).clamp(
                int(data.offsets[owner]), int(data.offsets[owner + 1]) - 1)
            place = row % chunk
            window = batch.windows[row // chunk, place:place + network.left + 1 + network.right]
            assert torch.equal(window, plain[around])


def test_order_depends_on_seed_and_epoch_alone(data: TrainingData, network: Network) -> None:
    def frames(seed: int, update: int) -> list[int]:
        return sampler_for(network, data, 60, 12, torch.float32, seed).batch(update).frames.tolist()

    sampler = sampler_for(network, data, 60, 12, torch.float32, 0)
    later = 2 * sampler.epoch_updates + 1
    assert [sampler.batch(update).frames.tolist() for update in (0, later)] == [frames(0, 0), frames(0, later)]
    assert frames(0, 0) != frames(0, sampler.epoch_updates) and frames(0, 0) != frames(1, 0)


def test_phases_change(data: TrainingData, network: Network) -> None:
    sampler = Chunks(network, data, 10_000, 12, torch.float32, 0)
    places: set[int] = set()
    for epoch in range(12):
        batch = sampler.batch(epoch)  # the whole epoch
        assert batch.rows is not None
        first = batch.frames == data.train[0]
        places.add(int(batch.rows[first]) % 12)
    assert len({place % network.stride for place in places}) == network.stride


def test_stride_must_divide_the_chunk(data: TrainingData, network: Network) -> None:
    with pytest.raises(ValueError, match="multiple of the network's stride"):
        sampler_for(network, data, 100, 10, torch.float32, 0)


def test_loss_sees_trained_frames_and_their_pdfs_only(data: TrainingData, network: Network, tmp_path) -> None:  # type: ignore[no-untyped-def]
    seen: list[torch.Tensor] = []

    class Recording(HardTargets):
        def loss(self, logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
            assert len(logits) == len(frames)
            seen.append(frames)
            return super().loss(logits, frames)

        def to(self, device: torch.device) -> HardTargets:
            return self

    config = TrainerConfig(batch=60, chunk=12, epochs=2, tensorboard=False, precision="float32")
    train(network, data, Recording(data.pdf_ids), config, seed=0, work=tmp_path, device=CPU)
    frames = torch.cat(seen)
    assert set(frames.tolist()) <= set(data.train.tolist())
    assert (data.pdf_ids[frames] >= 0).all()
