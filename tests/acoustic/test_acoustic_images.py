"""Images through the trainer of frames: vectors as data, shifts, dropped inputs, limited incoming weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from acoustic_kinds import KINDS
from acoustic_stand_ins import synthetic

from asr_distill.acoustic.augment import shift_images
from asr_distill.acoustic.config import AugmentConfig, DataConfig, NetworkConfig, TrainerConfig
from asr_distill.acoustic.data import TrainingData
from asr_distill.acoustic.fit import fit
from asr_distill.acoustic.model import AcousticModel
from asr_distill.acoustic.network import build_network
from asr_distill.acoustic.optimizer import MasterOptimizer, limit_norms
from asr_distill.acoustic.targets import HardTargets
from asr_distill.acoustic.trainer import TrainResult, train
from asr_distill.errors import UserError
from asr_distill.features.cmvn import Cmvn, CmvnStats, UtteranceFeatures

CPU = torch.device("cpu")
HEIGHT, WIDTH = 5, 7
SHAPE = NetworkConfig(layers=2, width=24, left=0, right=0, dropout=0.2, input_dropout=0.1)
CONFIG = TrainerConfig(batch=32, epochs=4, warmup_updates=5, learning_rate=5e-3, precision="float32", max_norm=0.7,
                       augment=AugmentConfig(shift=1), tensorboard=False)


def bars(count: int = 400, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (count, 35) of one bright bar: class 0 lies, class 1 stands."""
    random = np.random.default_rng(seed)
    images = 0.3 * random.random((count, HEIGHT, WIDTH))
    classes = random.integers(0, 2, count)
    for image, lying in zip(images, classes == 0, strict=True):
        row, column = random.integers(1, HEIGHT - 1), random.integers(1, WIDTH - 1)
        image[(row, slice(None)) if lying else (slice(None), column)] = 1
    return torch.from_numpy(images).float().flatten(1), torch.from_numpy(classes)


def data_of(count: int = 400) -> TrainingData:
    vectors, classes = bars(count)
    held = count // 4
    return TrainingData.of_vectors(vectors, classes, torch.arange(count - held), torch.arange(count - held, count), 2,
                                   CPU, image=(HEIGHT, WIDTH))


def run(data: TrainingData, work: Path, config: TrainerConfig = CONFIG, shape: NetworkConfig = SHAPE,
        seed: int = 0) -> TrainResult:
    network = build_network(shape, data.num_coefficients, data.num_pdfs, seed=seed)
    return train(network, data, HardTargets(data.pdf_ids), config, seed=seed, work=work, device=CPU)


def weights(result: TrainResult) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in result.network.parameters()])


def test_vectors_are_frames_without_context() -> None:
    vectors, classes = bars(20)
    classes[3] = -1
    data = TrainingData.of_vectors(vectors, classes, torch.tensor([7, 2, 3]), torch.tensor([19, 0]), 2, CPU)
    assert data.train.tolist() == [2, 3, 7] and data.heldout.tolist() == [0, 19]
    assert torch.equal(data.windows(torch.tensor([5, 0, 19]), 0, 0)[:, 0], vectors[[5, 0, 19]])
    assert torch.equal(data.chunk_windows(torch.tensor([[4, 4, 5]]), 1, 1, 1)[0], vectors[[4, 4, 4]])
    expected = np.bincount([int(classes[index]) for index in (2, 7)], minlength=2)
    assert data.pdf_frequencies().tolist() == expected.tolist()
    with pytest.raises(ValueError, match="1 left"):
        data.windows(torch.tensor([0]), 1, 0)


def test_vectors_that_do_not_fit_are_refused() -> None:
    vectors, classes = bars(20)
    some, none = torch.arange(5), torch.empty(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="19 labels"):
        TrainingData.of_vectors(vectors, classes[1:], some, none, 2, CPU)
    with pytest.raises(ValueError, match=r"images of \(5, 6\)"):
        TrainingData.of_vectors(vectors, classes, some, none, 2, CPU, image=(5, 6))
    with pytest.raises(UserError, match="no vector to train on"):
        TrainingData.of_vectors(vectors, classes, none, some, 2, CPU)


@pytest.mark.parametrize("most", [1, 2])
def test_shifts_are_whole_uniform_and_filled_with_background(most: int) -> None:
    images = torch.rand(3000, HEIGHT, WIDTH) + 0.1
    moved = shift_images(images, most, np.random.default_rng(0))
    assert moved.shape == images.shape
    seen: dict[tuple[int, int], int] = {}
    for before, after in zip(images.numpy(), moved.numpy(), strict=True):  # brute force: which shift explains it
        found = []
        for down in range(-most, most + 1):
            for right in range(-most, most + 1):
                expected = np.zeros_like(before)
                expected[max(down, 0):HEIGHT + min(down, 0), max(right, 0):WIDTH + min(right, 0)] = (
                    before[max(-down, 0):HEIGHT + min(-down, 0), max(-right, 0):WIDTH + min(-right, 0)])
                if np.array_equal(expected, after):
                    found.append((down, right))
        assert len(found) == 1
        seen[found[0]] = seen.get(found[0], 0) + 1
    places = (2 * most + 1) ** 2
    assert len(seen) == places and min(seen.values()) > 0.5 * 3000 / places


def test_shifts_depend_on_the_generator() -> None:
    images = torch.rand(16, HEIGHT, WIDTH).bfloat16()
    first, second, other = (shift_images(images, 2, np.random.default_rng((0, 3, update))) for update in (0, 0, 1))
    assert first.dtype == torch.bfloat16
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_only_training_sees_shifted_images(tmp_path: Path) -> None:
    data, seen = data_of(40), []
    plain = {tuple(vector.tolist()) for vector in data.rows}
    network = build_network(replace(SHAPE, input_dropout=0.0), data.num_coefficients, 2)
    network.register_forward_pre_hook(lambda module, arguments: seen.append((module.training, arguments[0])))
    train(network, data, HardTargets(data.pdf_ids), replace(CONFIG, epochs=1, batch=10), seed=0, work=tmp_path,
          device=CPU)
    known = {training: [tuple(image.tolist()) in plain for was, images in seen if was is training
                        for image in images.flatten(1)] for training in (True, False)}
    assert len(known[True]) == 30 and 0 < sum(known[True]) < 15  # a ninth stays where it was
    assert len(known[False]) == 10 and all(known[False])


def test_frames_cannot_be_shifted(tmp_path: Path) -> None:
    store, alignment, cmvn = synthetic(utterances=4)
    data = TrainingData.build(store, alignment, cmvn, DataConfig(), CPU, left=0, right=0)
    with pytest.raises(UserError, match=r"augment\.shift is for images"):
        run(data, tmp_path)


def test_input_dropout_silences_inputs_in_training_alone() -> None:
    network = build_network(NetworkConfig(layers=0, left=0, right=0, input_dropout=0.25), 400, 400)
    with torch.no_grad():
        network.output.weight.copy_(torch.eye(400))
    inputs = torch.ones(50, 1, 400)
    torch.manual_seed(0)
    out = network.train()(inputs).detach()
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert out.max().item() == pytest.approx(4 / 3, rel=1e-5)
    assert torch.equal(network.eval()(inputs), inputs.squeeze(1))
    with pytest.raises(ValueError, match="input_dropout is no setting of a network of kind tdnn"):
        replace(KINDS["tdnn"], input_dropout=0.1)
    with pytest.raises(ValueError, match="input_dropout must be in"):
        NetworkConfig(input_dropout=1.0)


@pytest.mark.parametrize("shape, axis", [((6, 40), 0), ((3, 6, 10), 1), ((6, 4, 3, 3), 0)])
def test_limited_lengths(shape: tuple[int, ...], axis: int) -> None:
    random = np.random.default_rng(0)
    before = random.normal(size=shape) * np.linspace(0, 1, 6).reshape([-1 if dim == axis else 1
                                                                         for dim in range(len(shape))])
    after = torch.from_numpy(before.copy())
    limit_norms(after, 2.0, axis)
    for old, new in zip(np.moveaxis(before, axis, 0), np.moveaxis(after.numpy(), axis, 0), strict=True):
        length = np.sqrt(np.square(old).sum())  # of all that comes into the unit
        np.testing.assert_allclose(new, old if length <= 2 else old * 2 / length, atol=1e-12)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["feed_forward", "tdnn"])
def test_no_unit_is_longer_than_max_norm(tmp_path: Path, kind: str, precision: str) -> None:
    store, alignment, cmvn = synthetic(utterances=8)
    data = TrainingData.build(store, alignment, cmvn, DataConfig(), CPU, left=9, right=9)
    config = replace(CONFIG, augment=AugmentConfig(), precision=precision, max_norm=1.5)  # type: ignore[arg-type]
    result = run(data, tmp_path, config, KINDS[kind])
    lengths = []
    for parameter in result.network.parameters():
        if parameter.ndim > 1:
            units = parameter.transpose(0, 1) if parameter.ndim == 3 else parameter
            lengths += units.detach().flatten(1).norm(dim=1).tolist()
    assert max(lengths) == pytest.approx(1.5, rel=1e-4)
    assert min(lengths) < 1.4  # shortened, not set


def test_constrained_masters_are_what_the_network_computes_with() -> None:
    network = build_network(SHAPE, 10, 3)
    optimizer = MasterOptimizer(network, TrainerConfig(), torch.bfloat16)
    weight = network.output.weight
    optimizer.constrain([weight], lambda master: limit_norms(master, 0.05))
    assert weight.float().norm(dim=1).max().item() == pytest.approx(0.05, rel=0.01)
    kept = optimizer.master_weights()[-2].norm(dim=1)
    assert kept.max().item() == pytest.approx(0.05, rel=1e-5)


def test_reproducible_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    data = data_of()
    whole, again, other = (run(data, tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert torch.equal(weights(whole), weights(again)) and not torch.equal(weights(whole), weights(other))

    class Killed(HardTargets):
        calls = 0

        def loss(self, logits: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
            Killed.calls += 1
            if Killed.calls == 14:  # in the second epoch
                raise KeyboardInterrupt
            return super().loss(logits, frames)

        def to(self, device: torch.device) -> HardTargets:
            return self

    Killed.__name__ = "HardTargets"
    config = replace(CONFIG, checkpoint_updates=5)
    network = build_network(SHAPE, data.num_coefficients, 2, seed=0)
    with pytest.raises(KeyboardInterrupt):
        train(network, data, Killed(data.pdf_ids), config, seed=0, work=tmp_path / "d", device=CPU)
    assert (tmp_path / "d" / "checkpoint.safetensors").is_file()
    assert torch.equal(weights(run(data, tmp_path / "d", config)), weights(whole))


def test_an_image_model_is_an_emission_model(tmp_path: Path) -> None:
    """Learns bars, and what is saved classifies images given as the frames of one utterance."""
    vectors, classes = bars(600, seed=1)
    scaling = Cmvn("global", CmvnStats(1.0, np.zeros(35), np.full(35, 255.0**2)))  # pixels of 0 to 255 to 0 to 1
    frames = scaling.apply(UtteranceFeatures(255 * vectors))
    torch.testing.assert_close(frames, vectors)
    chosen = torch.arange(500)
    data = TrainingData.of_vectors(frames, classes, chosen, torch.empty(0, dtype=torch.int64), 2, CPU,
                                   image=(HEIGHT, WIDTH))
    figures = fit(data, HardTargets(data.pdf_ids), scaling, SHAPE, replace(CONFIG, epochs=20), seed=0, out=tmp_path,
                  label="bars")
    assert figures["accuracy"] is None  # nothing is held out
    model = AcousticModel.load(tmp_path, CPU)
    guessed = model.log_posteriors(UtteranceFeatures(255 * vectors[500:])).argmax(1)
    assert (guessed == classes[500:]).float().mean() > 0.95


@pytest.mark.parametrize("settings", [{"max_norm": -1}])
def test_wrong_settings(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        TrainerConfig(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shift"):
        AugmentConfig(shift=-1)
