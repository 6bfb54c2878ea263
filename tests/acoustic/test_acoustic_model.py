from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from acoustic_stand_ins import synthetic

from asr_distill.acoustic.accuracy import frame_accuracy
from asr_distill.acoustic.config import NetworkConfig
from asr_distill.acoustic.ensemble import Ensemble
from asr_distill.acoustic.model import AcousticModel, log_priors_of
from asr_distill.acoustic.network import build_network
from asr_distill.emission import EmissionModel
from asr_distill.errors import UserError
from asr_distill.features.cmvn import Cmvn
from asr_distill.features.store import FrameStore
from asr_distill.hmm.align import Alignment

CPU = torch.device("cpu")


def model_of(cmvn: Cmvn, seed: int = 0, norm: str = "none", pdfs: int = 8) -> AcousticModel:
    config = NetworkConfig(layers=1, width=16, left=3, right=1, norm=norm)  # type: ignore[arg-type]
    network = build_network(config, 6, pdfs, seed=seed).eval()
    with torch.no_grad():
        network.output.weight.mul_(30)  # posteriors that differ
    return AcousticModel(network, cmvn, log_priors_of(torch.arange(1, pdfs + 1)), config)


@pytest.fixture(scope="module")
def world() -> tuple[FrameStore, Alignment, Cmvn]:
    return synthetic(utterances=5, unaligned=(2,))


def probabilities(model: AcousticModel, store: FrameStore, index: int, temperature: float = 1.0) -> np.ndarray:
    """float64 reference from the network's logits."""
    logits = model.logits(store.features(index, CPU)).double().numpy() / temperature
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def test_posteriors_and_likelihoods(world: tuple[FrameStore, Alignment, Cmvn]) -> None:
    store, _, cmvn = world
    model = model_of(cmvn)
    assert isinstance(model, EmissionModel)
    utterance = store.features(0, CPU)
    for temperature in (1.0, 5.0):
        np.testing.assert_allclose(model.log_posteriors(utterance, temperature).exp().numpy(),
                                   probabilities(model, store, 0, temperature), atol=1e-6)
    expected = np.log(probabilities(model, store, 0)) - np.log(np.arange(1, 9) / 36)
    np.testing.assert_allclose(model.log_likelihoods(utterance).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["global", "speaker", "online"])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_save_and_load(tmp_path: Path, world: tuple[FrameStore, Alignment, Cmvn], kind: str, norm: str) -> None:
    store, _, cmvn = world
    model = model_of(Cmvn(kind, cmvn.train, 300, 100), norm=norm)  # type: ignore[arg-type]
    model.save(tmp_path)
    loaded = AcousticModel.load(tmp_path, CPU)
    utterance = store.features(1, CPU)
    assert torch.equal(loaded.log_likelihoods(utterance), model.log_likelihoods(utterance))
    assert (loaded.config, loaded.cmvn.kind, loaded.cmvn.window) == (model.config, kind, 300)
    half = model.cast(torch.bfloat16)
    assert float((half.logits(utterance) - model.logits(utterance)).abs().max()) < 0.2
    assert model.network.output.weight.dtype == torch.float32


def test_damaged_models_are_named(tmp_path: Path, world: tuple[FrameStore, Alignment, Cmvn]) -> None:
    model = model_of(world[2])
    with pytest.raises(UserError, match="no such file"):
        AcousticModel.load(tmp_path, CPU)
    model.save(tmp_path)
    other = model_of(world[2], pdfs=9)
    other.save(tmp_path / "other")
    (tmp_path / "weights.safetensors").write_bytes((tmp_path / "other" / "weights.safetensors").read_bytes())
    with pytest.raises(UserError, match="damaged model"):
        AcousticModel.load(tmp_path, CPU)


def test_priors_have_a_floor() -> None:
    priors = log_priors_of(torch.tensor([0, 50, 50]), floor=0.01).exp()
    assert float(priors.sum()) == pytest.approx(1)
    assert float(priors[0]) == pytest.approx(0.01 / 3, rel=0.01)


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_ensemble_is_the_mean(world: tuple[FrameStore, Alignment, Cmvn], mean: str, temperature: float) -> None:
    store, _, cmvn = world
    models = [model_of(cmvn, seed) for seed in range(3)]
    ensemble = Ensemble(models, mean)  # type: ignore[arg-type]
    assert isinstance(ensemble, EmissionModel)
    each = np.stack([probabilities(model, store, 0, temperature) for model in models])
    expected = each.mean(0)
    if mean == "geometric":
        expected = np.exp(np.log(each).mean(0))
        expected /= expected.sum(1, keepdims=True)
    posteriors = ensemble.log_posteriors(store.features(0, CPU), temperature)
    np.testing.assert_allclose(posteriors.exp().numpy(), expected, atol=1e-6)
    if temperature == 1:
        np.testing.assert_allclose(ensemble.log_likelihoods(store.features(0, CPU)).numpy(),
                                   np.log(expected) - np.log(np.arange(1, 9) / 36), atol=1e-4)


def test_ensembles_that_cannot_be(world: tuple[FrameStore, Alignment, Cmvn]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Ensemble([])
    with pytest.raises(ValueError, match="share their pdfs"):
        Ensemble([model_of(world[2]), model_of(world[2], pdfs=9)])


@pytest.mark.parametrize("utterances", [None, [3, 4, 2]])
def test_frame_accuracy(world: tuple[FrameStore, Alignment, Cmvn], utterances: list[int] | None) -> None:
    store, alignment, cmvn = world
    model = Ensemble([model_of(cmvn, seed) for seed in range(2)])
    score = frame_accuracy(model, store, alignment, utterances)
    correct, nats = [], []
    for index in utterances or range(5):
        mean = np.mean([probabilities(part, store, index) for part in model.models], 0)
        for row, pdf in zip(mean, alignment.pdf_ids[store.offsets[index]:store.offsets[index + 1]], strict=True):
            if pdf >= 0:
                correct.append(row.argmax() == pdf)
                nats.append(-np.log(row[pdf]))
    assert score.frames == len(correct)
    assert score.accuracy == pytest.approx(np.mean(correct))
    assert score.cross_entropy == pytest.approx(np.mean(nats), abs=1e-5)


def test_scoring_mistakes_are_named(world: tuple[FrameStore, Alignment, Cmvn]) -> None:
    store, alignment, cmvn = world
    with pytest.raises(UserError, match="align again"):
        frame_accuracy(model_of(cmvn, pdfs=9), store, alignment)
    with pytest.raises(UserError, match="no aligned frame"):
        frame_accuracy(model_of(cmvn), store, alignment, [2])
