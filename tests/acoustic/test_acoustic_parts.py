"""A batch in parts: pieces of one process, or parts of several, make the update of the whole batch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from acoustic_kinds import KINDS
from acoustic_stand_ins import synthetic
from torch import nn

from asr_distill.acoustic.augment import shift_images, spec_augment, warp_frequencies
from asr_distill.acoustic.config import AugmentConfig, DataConfig, NetworkConfig, TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.dropout import Dropout, SequenceDropout
from asr_distill.acoustic.global_norm import global_batch_norm
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.sampling import Part, Place, sampler_for
from asr_distill.acoustic.targets import HardTargets
from asr_distill.acoustic.trainer import train
from asr_distill.errors import UserError
from asr_distill.parallel.peers import Peers

CPU = torch.device("cpu")
CONFIG = TrainerConfig(batch=90, max_updates=30, evaluate_updates=10, warmup_updates=5, learning_rate=3e-3,
                       precision="float32", tensorboard=False)


class Together(Peers):
    """Peers that are threads of this process."""

    def __init__(self, rank: int, size: int, slots: list, barrier: threading.Barrier):
        self.rank, self.size, self.slots, self.barrier = rank, size, slots, barrier

    def sum_(self, *tensors: torch.Tensor) -> None:
        self.slots[self.rank] = [tensor.clone() for tensor in tensors]
        self.barrier.wait(60)
        for place, tensor in enumerate(tensors):
            tensor.copy_(sum(each[place] for each in self.slots))
        self.barrier.wait(60)


def in_threads(size: int, work: Callable[[Peers], object]) -> list:
    slots, barrier, results = [None] * size, threading.Barrier(size), [None] * size

    def one(rank: int) -> None:
        try:
            results[rank] = work(Together(rank, size, slots, barrier))  # type: ignore[call-overload]
        except BaseException:
            barrier.abort()
            raise

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def data_for(shape: NetworkConfig) -> TrainingData:
    store, alignment, cmvn = synthetic(unaligned=(3,))
    network = build_network(shape, 6, 8)
    return TrainingData.build(store, alignment, cmvn, DataConfig(heldout_fraction=0.2), CPU, left=network.left,
                              right=network.right)


@pytest.mark.parametrize("kind, chunk", [("feed_forward", 1), ("feed_forward", 7), ("tdnn_stride", 12)])
@pytest.mark.parametrize("count", [2, 3])
def test_parts_are_the_batch(kind: str, chunk: int, count: int) -> None:
    data, network = data_for(KINDS[kind]), build_network(KINDS[kind], 6, 8)
    sampler = sampler_for(network, data, 100, chunk, torch.float32, 0)
    for update in (0, sampler.epoch_updates):
        whole = sampler.batch(update)
        parts = [sampler.batch(update, Part(index, count)) for index in range(count)]
        assert torch.equal(torch.cat([part.windows for part in parts]), whole.windows)
        assert torch.equal(torch.cat([part.frames for part in parts]), whole.frames)
        assert len(whole.windows) == sampler.samples == whole.place.samples
        sample = row = 0
        for part in parts:
            assert part.place == Place(sample, len(whole.windows), row, len(whole.frames))
            sample, row = sample + len(part.windows), row + len(part.frames)
    held = [{int(frame) for batch in sampler.heldout(Part(index, count)) for frame in batch.frames}
            for index in range(count)]
    assert set().union(*held) == set(data.heldout.tolist()) and sum(map(len, held)) == len(data.heldout)


@pytest.mark.parametrize("layer", [Dropout(0.3), SequenceDropout(0.3)])
def test_masks_of_parts_are_those_of_the_batch(layer: Dropout) -> None:
    units = torch.ones(9, 20) if type(layer) is Dropout else torch.ones(4, 9, 20)
    axis = 0 if type(layer) is Dropout else 1
    torch.manual_seed(3)
    whole = layer(units)
    found = []
    for part in (slice(0, 2), slice(2, 9)):
        torch.manual_seed(3)
        layer.stand(Place(part.start, 9, part.start, 9))
        found.append(layer(units.narrow(axis, part.start, part.stop - part.start)))
    layer.stand(None)
    assert torch.equal(torch.cat(found, axis), whole)
    assert 0.1 < float((whole == 0).float().mean()) < 0.5


def test_augmentation_of_parts_is_that_of_the_batch() -> None:
    config = AugmentConfig(time_masks=2, time_width=4, mel_masks=1, mel_width=3)
    windows, images = torch.randn(9, 20, 8), torch.randn(9, 6, 5)
    centres = np.arange(100.0, 900.0, 100.0)
    for draw, batch in ((lambda x, place: spec_augment(x, config, np.random.default_rng(1), place), windows),
                        (lambda x, place: warp_frequencies(x, 0.2, centres, np.random.default_rng(1), place), windows),
                        (lambda x, place: shift_images(x, 2, np.random.default_rng(1), place), images)):
        whole = draw(batch, None)
        parts = [draw(batch[begin:end], Place(begin, 9, 0, 0)) for begin, end in ((0, 4), (4, 9))]
        assert torch.equal(torch.cat(parts), whole) and not torch.equal(whole, batch)


@pytest.mark.parametrize("shape, changes", [
    (replace(KINDS["feed_forward"], dropout=0.2, input_dropout=0.1, norm="layer"), {}),
    (replace(KINDS["tdnn_plain"], dropout=0.2), {"chunk": 9, "augment": AugmentConfig(time_masks=1, mel_masks=1)}),
], ids=["frames", "chunks"])
def test_accumulated_pieces_are_the_big_batch(shape: NetworkConfig, changes: dict, tmp_path: Path) -> None:
    def curve(accumulate: int) -> list[tuple[float, float]]:
        data, network = data_for(shape), build_network(shape, 6, 8, seed=2)
        result = train(network, data, HardTargets(data.pdf_ids), replace(CONFIG, accumulate=accumulate, **changes),
                       seed=1, work=tmp_path / str(accumulate), device=CPU)
        assert result.updates == CONFIG.max_updates
        return [(entry["train_loss"], entry["heldout_cross_entropy"]) for entry in result.history]

    whole, pieces = curve(1), curve(4)
    assert np.allclose(whole, pieces, rtol=0, atol=1e-5)
    assert whole[-1][0] < whole[0][0] - 0.01


def test_too_many_parts_are_refused(tmp_path: Path) -> None:
    data, network = data_for(KINDS["tdnn_plain"]), build_network(KINDS["tdnn_plain"], 6, 8)
    with pytest.raises(UserError, match=r"x: a batch of 3 samples .* 4 parts \(1 processes, trainer.accumulate=4\)"):
        train(network, data, HardTargets(data.pdf_ids), replace(CONFIG, batch=36, chunk=12, accumulate=4), seed=0,
              work=tmp_path, device=CPU, label="x")
    with pytest.raises(ValueError, match="accumulate must be > 0"):
        TrainerConfig(accumulate=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batch_norm_of_all_rows(dtype: torch.dtype) -> None:
    """Three processes, one without a row, against torch's own over all rows in float64."""
    torch.manual_seed(0)
    rows = (torch.randn(50, 5) * torch.tensor([0.1, 1, 2, 3, 4]) + torch.tensor([30.0, 0, -1, 2, 5])).to(dtype)
    slopes = torch.randn(50, 5).to(dtype)
    exact = nn.BatchNorm1d(5).double()
    with torch.no_grad():
        exact.weight.uniform_(0.5, 2)
        exact.bias.uniform_(-1, 1)
    expected_rows = rows.double().requires_grad_()
    expected = exact(expected_rows)
    expected.backward(slopes.double())

    def one(peers: Peers) -> tuple:
        part = (slice(0, 20), slice(20, 20), slice(20, 50))[peers.rank]
        norm = nn.BatchNorm1d(5)
        with torch.no_grad():
            norm.weight.copy_(exact.weight)
            norm.bias.copy_(exact.bias)
        own = rows[part].clone().requires_grad_()
        out = global_batch_norm(own, norm, peers)
        out.backward(slopes[part])
        return out.detach(), own.grad, norm

    found = in_threads(3, one)
    near = {"rtol": 0.0, "atol": 1e-4 if dtype == torch.float32 else 0.05}
    assert torch.allclose(torch.cat([out for out, _, _ in found]).double(), expected.detach(), **near)
    assert torch.allclose(torch.cat([grad for _, grad, _ in found]).double(), expected_rows.grad,
                          rtol=1e-3, atol=1e-4 if dtype == torch.float32 else 0.3)
    exact_grads = {name: value.grad for name, value in exact.named_parameters()}
    for name, gradient in exact_grads.items():
        total = sum(dict(norm.named_parameters())[name].grad.double() for _, _, norm in found)
        assert torch.allclose(total, gradient, rtol=0, atol=1e-4 if dtype == torch.float32 else 0.3), name
    for _, _, norm in found:
        assert torch.allclose(norm.running_mean.double(), exact.running_mean, atol=1e-5)
        assert torch.allclose(norm.running_var.double(), exact.running_var, rtol=1e-5)
        assert norm.num_batches_tracked == 1
