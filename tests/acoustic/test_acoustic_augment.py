"""SpecAugment, averaged weights, and priors from the network's own posteriors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from acoustic_kinds import KINDS
from acoustic_stand_ins import synthetic

from asr_distill.acoustic.augment import spec_augment, warp_frequencies
from asr_distill.acoustic.average import AVERAGE_UPDATES, WeightAverage
from asr_distill.acoustic.config import AugmentConfig, DataConfig, TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.fit import fit
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.optimizer import MasterOptimizer
from asr_distill.acoustic.priors import mean_posteriors
from asr_distill.acoustic.targets import HardTargets
from asr_distill.acoustic.trainer import train
from asr_distill.errors import UserError
from asr_distill.features.cmvn import Cmvn
from asr_distill.features.fbank import FbankConfig, mel_centres, mel_filters
from asr_distill.features.store import AdaptedFrames, FrameStore

CPU = torch.device("cpu")


@pytest.mark.parametrize("config, axis, width", [(AugmentConfig(time_masks=1, time_width=9), 2, 9),
                                                 (AugmentConfig(mel_masks=1, mel_width=5), 1, 5)])
def test_one_mask_is_one_run_of_every_width(config: AugmentConfig, axis: int, width: int) -> None:
    windows = torch.ones(4000, 30, 12)
    masked = spec_augment(windows, config, np.random.default_rng(0)) == 0
    assert torch.equal(masked, masked.any(axis, keepdim=True).expand_as(masked))  # whole frames, or whole mels
    line = masked.any(axis)  # (samples, places)
    widths = line.sum(1)
    assert np.bincount(widths.numpy(), minlength=width + 1).min() > 4000 / (width + 1) * 0.8  # 0 .. width, uniform
    rises = (line[:, 1:] & ~line[:, :-1]).sum(1) + line[:, 0]
    assert int(rises.max()) == 1
    assert line.any(0).all()  # every place


def test_masks_depend_on_the_generator_and_differ_by_sample() -> None:
    config = AugmentConfig(time_masks=2, mel_masks=1)
    windows = torch.randn(8, 40, 12)
    first, second, other = (spec_augment(windows, config, np.random.default_rng((0, 2, n))) for n in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)
    patterns = {tuple((sample == 0).flatten().tolist()) for sample in first}
    assert len(patterns) == 8
    assert torch.equal(first[first != 0], windows[first != 0])


def test_a_warped_spectrum_is_that_of_the_warped_filters() -> None:
    """A smooth spectrum S(f) through the filters, heard at S(f / factor): other bands than the first and last agree."""
    config = FbankConfig()
    centres = mel_centres(config)
    assert np.all(np.diff(centres) > 0) and config.low_freq < centres[0] and centres[-1] < config.top_freq
    bins = np.arange(config.fft_size // 2 + 1) * config.sample_rate / config.fft_size
    filters = mel_filters(config) / mel_filters(config).sum(0)

    def heard(factor: float) -> np.ndarray:
        return (2 * np.cos(bins / factor / 900) + np.cos(bins / factor / 400)) @ filters

    class Factor(np.random.Generator):
        def uniform(self, low: float, high: float, size: int) -> np.ndarray:  # type: ignore[override]
            assert (low, high) == (-0.2, 0.2)
            return np.array([0.1, -0.15, 0.0])[:size]

    windows = torch.from_numpy(np.tile(heard(1.0), (3, 5, 1)))
    warped = warp_frequencies(windows, 0.2, centres, Factor(np.random.PCG64(0)))
    assert warped.shape == (3, 5, 40) and torch.equal(warped[2], windows[2])
    for sample, factor in ((0, 1.1), (1, 0.85)):
        inside = (centres / factor > centres[0]) & (centres / factor < centres[-1])
        change = np.abs(heard(factor) - heard(1.0))[inside].max()
        error = np.abs(warped[sample, 3].numpy() - heard(factor))[inside].max()
        assert error < 0.12 * change and change > 1
        torch.testing.assert_close(warped[sample], warped[sample, :1].expand(5, -1))  # every frame alike


def test_frequencies_are_warped_in_training(tmp_path: Path) -> None:
    data, _, _ = data_of()
    config = replace(CONFIG, augment=AugmentConfig(mel_warp=0.1))
    with pytest.raises(UserError, match="mel_warp needs log-mel"):  # the store does not say what its bands are
        train(build_network(KINDS["tdnn"], 6, 8), data, HardTargets(data.pdf_ids), config, seed=0, work=tmp_path,
              device=CPU)
    bands = replace(data, fbank=vars(FbankConfig(num_mel_bins=6)))
    curves = [[entry["train_loss"] for entry in train(
        build_network(KINDS["tdnn"], 6, 8), bands, HardTargets(data.pdf_ids), replace(CONFIG, augment=augment), seed=0,
        work=tmp_path / str(index), device=CPU).history]
        for index, augment in enumerate((config.augment, config.augment, AugmentConfig()))]
    assert curves[0] == curves[1] != curves[2]


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match="time_masks"):
        AugmentConfig(time_masks=-1)
    with pytest.raises(ValueError, match="mel_warp"):
        AugmentConfig(mel_warp=0.6)


def test_average_is_that_of_the_weights() -> None:
    network = build_network(KINDS["tdnn"], 6, 8)
    optimizer = MasterOptimizer(network, TrainerConfig(), torch.bfloat16)
    average = WeightAverage(network, optimizer, 4 * AVERAGE_UPDATES)
    expected, weights = 0.0, []
    for step in range(1, 8):
        for flat in optimizer.groups:
            flat.master.data += step
            flat.publish()
        average.step(step * AVERAGE_UPDATES)
        average.step(step * AVERAGE_UPDATES + 1)  # not due
        weights.append(optimizer.groups[0].master[0].item())
        rate = 1 / min(step, 4)
        expected = (1 - rate) * expected + rate * weights[-1]
    before = [p.detach().clone() for p in network.parameters()]
    with average.applied():
        assert optimizer.groups[0].master[0].item() == pytest.approx(expected)
        assert next(network.parameters()).flatten()[0].item() == pytest.approx(expected, rel=0.01)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert optimizer.groups[0].master[0].item() == weights[-1]


def data_of(tmp_path: Path | None = None) -> tuple[TrainingData, FrameStore, Cmvn]:
    store, alignment, cmvn = synthetic(utterances=12)
    if tmp_path:
        adapted = np.concatenate([store.frames, store.frames[:, :3]], 1).astype(np.float32)
        AdaptedFrames.write(tmp_path, adapted)
        store.adapted = AdaptedFrames(tmp_path, store.num_frames)
        cmvn = Cmvn("global", store.adapted.stats, stream="adapted")
    data = TrainingData.build(store, alignment, cmvn, DataConfig(heldout_fraction=0.2), CPU, left=2, right=1)
    return data, store, cmvn


CONFIG = TrainerConfig(batch=96, chunk=12, epochs=8, warmup_updates=5, learning_rate=1e-2, tensorboard=False,
                       precision="float32")


def test_averaged_weights_are_evaluated_and_kept(tmp_path: Path) -> None:
    data, _, _ = data_of()
    result = train(build_network(KINDS["tdnn"], 6, 8), data, HardTargets(data.pdf_ids), replace(CONFIG, average=32),
                   seed=0, work=tmp_path, device=CPU)
    windows = data.chunk_windows(torch.tensor([[int(data.heldout[0]), int(data.heldout[0]), 10**6]]), 40, 0, 0)
    assert windows.shape == (1, 40, 6)
    correct = 0
    for begin, end in zip(data.offsets[:-1], data.offsets[1:], strict=True):
        if int(begin) in set(data.heldout.tolist()):
            frames = data.rows[data.begins[begin:end] + data.left]
            correct += int((result.network.forward_utterance(frames).argmax(1) == data.pdf_ids[begin:end]).sum())
    assert correct / len(data.heldout) == pytest.approx(result.accuracy)


def test_priors_from_posteriors(tmp_path: Path) -> None:
    data, _, _ = data_of()
    network = build_network(KINDS["tdnn"], 6, 8)
    with torch.no_grad():
        network.output.bias.copy_(torch.arange(8.0))
    network.eval()
    chosen = set(data.train.tolist())
    rows = []
    for begin, end in zip(data.offsets[:-1], data.offsets[1:], strict=True):
        if int(begin) in chosen:
            frames = data.rows[data.begins[begin:end] + data.left]
            rows.append(torch.softmax(network.forward_utterance(frames).double(), 1))
    expected = torch.cat(rows).mean(0)
    torch.testing.assert_close(mean_posteriors(network, data, 12, batch=10**6), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("priors", ["alignment", "posterior"])
def test_a_model_on_adapted_frames(tmp_path: Path, priors: str) -> None:
    data, store, cmvn = data_of(tmp_path)
    assert data.num_coefficients == 9 and data.stream == "adapted"
    figures = fit(data, HardTargets(data.pdf_ids), cmvn, KINDS["tdnn"], CONFIG, seed=0, out=tmp_path / "out", label="x",
                  priors=priors)  # type: ignore[arg-type]
    assert figures["accuracy"] > 0.7
    model = AcousticModel.load(tmp_path / "out", CPU)
    likelihoods = model.log_likelihoods(store.features(1, CPU))
    assert likelihoods.shape == (store.offsets[2] - store.offsets[1], 8)
    assert float(model.log_priors.exp().sum()) == pytest.approx(1)


def test_mel_masks_need_mels(tmp_path: Path) -> None:
    data, _, _ = data_of(tmp_path)
    config = replace(CONFIG, augment=AugmentConfig(mel_masks=1))
    with pytest.raises(UserError, match="mel_masks needs log-mel"):
        train(build_network(KINDS["tdnn"], 9, 8), data, HardTargets(data.pdf_ids), config, seed=0, work=tmp_path,
              device=CPU)
